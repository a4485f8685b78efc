/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's HTTP server (libmicrohttpd): GET and HEAD of a table of paths, nothing else.
 *
 * It faces whoever reaches METRICS_ADDRESS, so connections are limited in number, in number per
 * client address, in time and in memory, and nothing of a request but its method and path is looked
 * at.
 *
 * Threads: handlers run on the server's one thread, one at a time. httpd_start() and httpd_stop()
 * belong to the main thread.
 */
#ifndef POPLIN_AGENT_HTTPD_H
#define POPLIN_AGENT_HTTPD_H

#include <stdint.h>

#include "poplin/base/buf.h"
#include "poplin/base/err.h"
#include "poplin/model/prefix.h"

#define HTTPD_ADDRESS_MAX (ADDR_TEXT_MAX + 8) /* "[address]:port" */

struct httpd_reply {
	unsigned status;  /* 200 unless the handler says otherwise */
	const char *type; /* Content-Type, static; text/plain unless the handler says otherwise */
	struct buf body;  /* empty */
};

/* Fills the reply. A negative return (-ENOMEM, ...) is answered by 500. */
typedef int httpd_handler_fn(struct httpd_reply *reply, void *arg);

struct httpd_path {
	const char *path; /* exact, "/metrics"; NULL ends the table */
	httpd_handler_fn *handle;
	const char *text; /* what is there, for the list of paths at "/" */
};

struct httpd;

/* "127.0.0.1:9476", "[::1]:9476", "localhost:9476" (127.0.0.1). Other names are -EINVAL. */
int httpd_address_parse(const char *text, struct addr *ret, uint16_t *ret_port, struct err *err);

/* Listens and serves from when this returns; [::] takes IPv4, too. The table and arg are borrowed
 * until httpd_stop(). */
int httpd_start(struct httpd **ret, const char *address, const struct httpd_path *paths, void *arg,
		struct err *err);
/* Waits for a running handler, then ends the thread. NULL is fine. */
void httpd_stop(struct httpd *h);
/* Where it listens, with the real port where 0 was asked for: "127.0.0.1:40123". */
const char *httpd_address(const struct httpd *h);
uint16_t httpd_port(const struct httpd *h);

#endif

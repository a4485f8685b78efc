/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One libcurl handle: POST and GET over HTTP/1.1 with deadlines, cancellation and streaming.
 *
 * Threads: a struct http belongs to one thread; only http_cancel() may be called from others.
 * curl_global_init() must have run before (http_global_init, once, before the first thread).
 */
#ifndef POPLIN_HTTP_HTTP_H
#define POPLIN_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/buf.h"
#include "poplin/base/err.h"
#include "poplin/base/mem.h"

struct http;

int http_global_init(struct err *err);

int http_new(struct http **ret, struct err *err);
void http_free(struct http *h);
DEFINE_AUTO(struct http *, http_free)

/* Makes the running request, and all later ones until http_rearm(), fail with -ECANCELED. Any
 * thread. */
void http_cancel(struct http *h);
void http_rearm(struct http *h);

/* Files in PEM format; "": none. Never NULL. */
struct http_tls {
	const char *ca_file;   /* whom to trust instead of the system's CAs */
	const char *cert_file; /* ours, with its chain; */
	const char *key_file;  /* both or neither */
};

/*
 * Checks that the files can be read and fit together. -EINVAL, or what reading them met. Needs no
 * network but the loopback interface.
 */
int http_tls_check(const struct http_tls *tls, struct err *err);
/*
 * The files are read anew for each connection, so those that were replaced are used without a word:
 * no certificate and no session is kept. Connections that stand are as they were. -ENOMEM.
 */
int http_set_tls(struct http *h, const struct http_tls *tls);
/* The next request makes a connection of its own, whatever stands. */
void http_reconnect(struct http *h);

struct http_request {
	const char *url;
	const char *body;	    /* POST as application/json; NULL: GET */
	const char *const *headers; /* "Name: value", NULL-terminated; may be NULL */
	int64_t timeout_ms;	    /* for the whole exchange; 0: none (streams) */
	int64_t until_ns;	    /* -ETIME when clock_ns() gets there; 0: never */
	/*
	 * Called each time that nothing came for idle_ms, on the same thread; a negative return
	 * ends the request and is returned. It may use other handles. NULL: nothing is called.
	 */
	int64_t idle_ms;
	int (*on_idle)(void *arg, struct err *err);
	size_t body_max; /* -EFBIG when the answer is longer; 0: 64 MiB */
	/*
	 * Streaming: called with each piece of a 2xx answer as it comes; a negative return ends the
	 * request and is returned. NULL: the answer is collected.
	 */
	int (*on_data)(const char *data, size_t len, void *arg, struct err *err);
	void *arg;
};

struct http_response {
	long status;	 /* 0 while none came */
	struct buf body; /* collected answer; when streaming: the body of a non-2xx answer */
};

/*
 * Runs the request to its end. Returns 0 when an HTTP answer came, whatever its status; or
 * -ECANCELED, -ETIME, -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET (cut off), -EHOSTUNREACH (no such host or no
 * way), -EPROTO (TLS, not HTTP), -EFBIG, -ENOMEM. ret->body is reset first and owned by the caller.
 */
int http_perform(struct http *h, const struct http_request *req, struct http_response *ret,
		 struct err *err);

/*
 * Sends a request now whose answer the next http_perform() of the same URL and body collects, so
 * that the server works while the caller does. Any other request gives it up. It is only a help:
 * whatever fails here is done anew, and told, by http_perform(). ret must be the same in both
 * calls. Not for streams.
 */
void http_prefetch(struct http *h, const struct http_request *req, struct http_response *ret);

#endif

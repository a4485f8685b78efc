/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small HTTP client for tests of the agent's server, down to the byte. */
#ifndef POPLIN_TESTS_CLIENT_H
#define POPLIN_TESTS_CLIENT_H

#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "poplin/base/buf.h"

static inline int client_dial(uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_port = htons(port),
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = { .tv_sec = 20 };

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static inline void client_say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Reads until the server closes. */
static inline void client_hear(int fd, struct buf *ret)
{
	char piece[4096];
	ssize_t n;

	buf_reset(ret);
	while ((n = recv(fd, piece, sizeof(piece), 0)) > 0)
		assert_int_equal(buf_add(ret, piece, (size_t)n), 0);
	close(fd);
}

/* rest: what follows the first headers; NULL: their end. */
static inline void client_ask(uint16_t port, const char *method, const char *path, const char *rest,
			      struct buf *ret)
{
	char request[512];
	int fd = client_dial(port);

	snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s",
		 method, path, rest ? rest : "\r\n");
	client_say(fd, request);
	client_hear(fd, ret);
	assert_int_equal(buf_add(ret, "", 0), 0); /* a text, even if nothing came */
}

static inline void client_assert_status(const struct buf *answer, unsigned status)
{
	char start[32];

	snprintf(start, sizeof(start), "HTTP/1.1 %u ", status);
	if (strncmp(answer->data, start, strlen(start)) != 0)
		fail_msg("not %u: %.200s", status, answer->data);
}

static inline const char *client_body(const struct buf *answer)
{
	const char *end = strstr(answer->data, "\r\n\r\n");

	assert_non_null(end);
	return end + 4;
}

#endif

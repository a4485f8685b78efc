/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. libmicrohttpd runs one thread with epoll: requests are read and answers
 * written without blocking, handlers run between them. An answer is built whole in memory before
 * the first byte goes out, so that no lock of the agent is ever held for a slow reader; in exchange
 * the bytes of answers under way are counted, and beyond REPLY_BYTES_MAX a request is turned away
 * with 503. A single answer may be larger than that: the first one always passes.
 *
 * The listening socket is made here and not by the library, which would not say why it could not.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "poplin/base/log.h"
#include "poplin/base/mem.h"

#include "httpd.h"

#define CONNECTIONS_MAX	       64
#define CONNECTIONS_CLIENT_MAX 48 /* of one client address: probes and scrapers may share one */
#define CONNECTION_TIMEOUT_S   15 /* without a byte either way */
#define CONNECTION_MEMORY      ((size_t)16 * 1024)
#define REPLY_BYTES_MAX	       ((size_t)4 * 1024 * 1024)

struct httpd {
	struct MHD_Daemon *daemon;
	const struct httpd_path *paths;
	void *arg;
	uint16_t port;
	char address[HTTPD_ADDRESS_MAX];
	size_t reply_bytes; /* of all answers under way; HTTP thread only */
};

/* One request and its answer. */
struct exchange {
	size_t bytes;
};

/* -- addresses ------------------------------------------------------------- */

static int parse_port(const char *text, uint16_t *ret)
{
	unsigned value = 0;

	if (*text == '\0')
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		value = value * 10 + (unsigned)(*text - '0');
		if (value > UINT16_MAX)
			return -EINVAL;
	}
	*ret = (uint16_t)value;
	return 0;
}

int httpd_address_parse(const char *text, struct addr *ret, uint16_t *ret_port, struct err *err)
{
	const char *colon = strrchr(text, ':'), *start = text, *end = colon;
	char host[ADDR_TEXT_MAX];
	struct addr addr;
	uint16_t port;

	if (!colon)
		return err_set(err, -EINVAL, "a port is missing");
	if (parse_port(colon + 1, &port) < 0)
		return err_set(err, -EINVAL, "the port is not a number from 0 to 65535");
	if (*start == '[') {
		start++;
		end--;
		if (end < start || *end != ']')
			return err_set(err, -EINVAL, "the bracket is not closed before the port");
	}
	if ((size_t)(end - start) >= sizeof(host))
		return err_set(err, -EINVAL, "the address is too long");
	memcpy(host, start, (size_t)(end - start));
	host[end - start] = '\0';
	if (strcmp(host, "localhost") == 0 && *text != '[')
		addr = addr_from_ipv4(INADDR_LOOPBACK);
	else if (addr_parse(host, &addr, NULL) < 0)
		return err_set(err, -EINVAL, "not an IP address before the port");
	if ((addr.family == AF_INET6) != (*text == '['))
		return err_set(err, -EINVAL, "brackets are for IPv6 addresses, which need them");
	*ret = addr;
	*ret_port = port;
	return 0;
}

static socklen_t address_fill(const struct addr *addr, uint16_t port, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (addr->family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)ret;

		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, addr->bytes, 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, addr->bytes, 16);
	return sizeof(*in6);
}

/* Returns a listening socket and the port that it really has, or a negative errno. */
static int listen_on(const struct addr *addr, uint16_t port, uint16_t *ret_port, struct err *err)
{
	struct sockaddr_storage address;
	socklen_t len = address_fill(addr, port, &address);
	const int on = 1, off = 0;
	auto_close int fd = socket(addr->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return err_errno(err, -errno, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return err_errno(err, -errno, "SO_REUSEADDR");
	if (addr->family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return err_errno(err, -errno, "IPV6_V6ONLY");
	if (bind(fd, (struct sockaddr *)&address, len) < 0 || listen(fd, CONNECTIONS_MAX) < 0)
		return err_errno(err, -errno, "cannot listen");
	if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
		return err_errno(err, -errno, "getsockname");
	*ret_port = ntohs(addr->family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
						  : ((struct sockaddr_in6 *)&address)->sin6_port);
	return TAKE_FD(fd);
}

/* -- answers --------------------------------------------------------------- */

/* Takes the body. */
static enum MHD_Result answer(struct httpd *h, struct MHD_Connection *connection,
			      struct exchange *exchange, unsigned status, const char *type,
			      struct buf *body_take)
{
	size_t len = body_take->len;
	struct MHD_Response *response;
	enum MHD_Result result = MHD_NO;

	response = MHD_create_response_from_buffer(len, body_take->data, MHD_RESPMEM_MUST_FREE);
	if (!response) {
		buf_done(body_take);
		return MHD_NO;
	}
	*body_take = BUF_INIT;
	if (MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
	    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES &&
	    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") ==
		    MHD_YES &&
	    (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
	     MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES))
		result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	if (result == MHD_YES) {
		exchange->bytes = len;
		h->reply_bytes += len;
	}
	return result;
}

static enum MHD_Result answer_text(struct httpd *h, struct MHD_Connection *connection,
				   struct exchange *exchange, unsigned status, const char *text)
{
	auto_buf struct buf body = BUF_INIT;

	if (buf_printf(&body, "%s\n", text) < 0)
		return MHD_NO;
	return answer(h, connection, exchange, status, "text/plain; charset=utf-8", &body);
}

static enum MHD_Result answer_index(struct httpd *h, struct MHD_Connection *connection,
				    struct exchange *exchange)
{
	auto_buf struct buf body = BUF_INIT;

	if (buf_adds(&body, "poplind " PACKAGE_VERSION "\n") < 0)
		return MHD_NO;
	for (const struct httpd_path *p = h->paths; p->path; p++)
		if (buf_printf(&body, "%-16s %s\n", p->path, p->text) < 0)
			return MHD_NO;
	return answer(h, connection, exchange, MHD_HTTP_OK, "text/plain; charset=utf-8", &body);
}

static enum MHD_Result answer_path(struct httpd *h, struct MHD_Connection *connection,
				   struct exchange *exchange, const struct httpd_path *path)
{
	struct httpd_reply reply = {
		.status = MHD_HTTP_OK,
		.type = "text/plain; charset=utf-8",
		.body = BUF_INIT,
	};
	enum MHD_Result result;
	int r;

	if (h->reply_bytes >= REPLY_BYTES_MAX)
		return answer_text(h, connection, exchange, MHD_HTTP_SERVICE_UNAVAILABLE,
				   "too many large answers under way, try again");
	r = path->handle(&reply, h->arg);
	if (r < 0) {
		log_limited(LOG_WARN,
			    "cannot answer an HTTP request" KV("path", "%s") KV("error", "%s"),
			    path->path, strerror(-r));
		result = answer_text(h, connection, exchange, MHD_HTTP_INTERNAL_SERVER_ERROR,
				     "internal error");
	} else {
		result = answer(h, connection, exchange, reply.status, reply.type, &reply.body);
	}
	buf_done(&reply.body);
	return result;
}

/*
 * Called once with the headers (state is NULL), then for each piece of a body, then once more at
 * the request's end: a good request is only answered there, so that its connection can be kept.
 * Nobody needs to send us a body, so the connection of one who does is closed.
 */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_len, void **state)
{
	struct httpd *h = arg;
	struct exchange *exchange = *state;

	(void)version;
	(void)data;
	if (!exchange) {
		exchange = *state = calloc(1, sizeof(*exchange));
		if (!exchange)
			return MHD_NO;
		if (strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
		    strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
			return MHD_YES;
		return answer_text(h, connection, exchange, MHD_HTTP_METHOD_NOT_ALLOWED,
				   "only GET and HEAD");
	}
	if (*data_len > 0)
		return MHD_NO;
	if (strcmp(url, "/") == 0)
		return answer_index(h, connection, exchange);
	for (const struct httpd_path *p = h->paths; p->path; p++)
		if (strcmp(url, p->path) == 0)
			return answer_path(h, connection, exchange, p);
	return answer_text(h, connection, exchange, MHD_HTTP_NOT_FOUND, "no such path, see /");
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
			 enum MHD_RequestTerminationCode code)
{
	struct httpd *h = arg;
	struct exchange *exchange = *state;

	(void)connection;
	(void)code;
	if (!exchange)
		return;
	assert(h->reply_bytes >= exchange->bytes);
	h->reply_bytes -= exchange->bytes;
	free(exchange);
	*state = NULL;
}

static void on_library_log(void *arg, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));

static void on_library_log(void *arg, const char *fmt, va_list ap)
{
	char text[256];

	(void)arg;
	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("http server" KV("text", "%s"), text);
}

/* -- public ---------------------------------------------------------------- */

int httpd_start(struct httpd **ret, const char *address, const struct httpd_path *paths, void *arg,
		struct err *err)
{
	auto_free struct httpd *h = calloc(1, sizeof(*h));
	char text[ADDR_TEXT_MAX];
	unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_USE_ERROR_LOG;
	struct addr addr;
	uint16_t port;
	int r, fd;

	if (!h)
		return err_errno(err, -ENOMEM, "http server");
	r = httpd_address_parse(address, &addr, &port, err);
	if (r < 0)
		return err_wrap(err, r, "%s", address);
	fd = listen_on(&addr, port, &h->port, err);
	if (fd < 0)
		return err_wrap(err, fd, "%s", address);
	h->paths = paths;
	h->arg = arg;
	snprintf(h->address, sizeof(h->address), addr.family == AF_INET6 ? "[%s]:%u" : "%s:%u",
		 addr_format(&addr, text), h->port);
	if (addr.family == AF_INET6)
		flags |= MHD_USE_IPv6;
	h->daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_library_log,
		NULL, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)CONNECTIONS_CLIENT_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_TIMEOUT_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY, MHD_OPTION_END);
	/* The library may or may not have closed fd; the program ends now, so it is left alone. */
	if (!h->daemon)
		return err_set(err, -EIO, "%s: the HTTP server could not be started", address);
	*ret = TAKE(h);
	return 0;
}

void httpd_stop(struct httpd *h)
{
	if (!h)
		return;
	MHD_stop_daemon(h->daemon);
	free(h);
}

const char *httpd_address(const struct httpd *h)
{
	return h->address;
}

uint16_t httpd_port(const struct httpd *h)
{
	return h->port;
}

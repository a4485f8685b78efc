/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One easy handle driven by one multi handle: curl_easy_perform() cannot be interrupted, whereas
 * curl_multi_poll() can, by curl_multi_wakeup() from any thread. The connection stays open between
 * requests.
 */
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "http_private.h"
#include "poplin/base/clock.h"

#define BODY_MAX_DEFAULT   ((size_t)64 * 1024 * 1024)
#define ERROR_BODY_MAX	   65536 /* of an answer that is not 2xx, when streaming */
#define CONNECT_TIMEOUT_MS 3000L
#define RECEIVE_BYTES	   131072L /* a page of a list in few reads */
#define POLL_MS		   INT64_C(10000)
#define KEEPALIVE_IDLE_S   10L
#define KEEPALIVE_PROBE_S  5L
#define SILENCE_MS	   20000 /* without an acknowledgement: the connection is given up */

struct http {
	CURL *easy;
	CURLM *multi;
	atomic_bool cancelled;
	bool reconnect; /* before the next request */
	char error[CURL_ERROR_SIZE];

	/* Of the request that runs. */
	const struct http_request *request;
	struct http_response *response;
	struct err *err;
	int failed; /* what the write callback ended the request with */
	int64_t last_data_ns;
	struct curl_slist *headers;

	/* A request sent ahead, with copies of its strings; url is NULL when there is none. */
	struct http_request ahead;
	char *ahead_url, *ahead_body;
};

int http_global_init(struct err *err)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return err_set(err, -ENOMEM, "cannot initialize libcurl");
	return 0;
}

/* -- answers ------------------------------------------------------------------ */

static bool is_streaming(const struct http *h)
{
	return h->request->on_data && h->response->status / 100 == 2;
}

static int take_data(struct http *h, const char *data, size_t len)
{
	size_t max = h->request->body_max ? h->request->body_max : BODY_MAX_DEFAULT;
	struct buf *body = &h->response->body;

	(void)curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &h->response->status);
	if (is_streaming(h))
		return h->request->on_data(data, len, h->request->arg, h->err);
	if (h->request->on_data)
		max = ERROR_BODY_MAX;
	if (len > max - body->len)
		return err_set(h->err, -EFBIG, "%s: the answer is longer than %zu bytes",
			       h->request->url, max);
	if (buf_add(body, data, len) < 0)
		return err_errno(h->err, -ENOMEM, "%s", h->request->url);
	return 0;
}

static size_t on_write(char *data, size_t size, size_t count, void *arg)
{
	struct http *h = arg;
	size_t len = size * count;

	h->last_data_ns = clock_ns();
	h->failed = take_data(h, data, len);
	return h->failed < 0 ? CURL_WRITEFUNC_ERROR : len;
}

static void end_transfer(struct http *h);

/* -- life --------------------------------------------------------------------- */

/*
 * A peer that vanished without a word (power, a firewall, our own address gone) would otherwise be
 * noticed after two minutes: curl has no option for the number of probes. See tcp(7).
 */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
	const unsigned silence_ms = SILENCE_MS;

	(void)arg;
	if (purpose == CURLSOCKTYPE_IPCXN)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms,
				 sizeof(silence_ms));
	return CURL_SOCKOPT_OK;
}

static void set_options(struct http *h)
{
	curl_easy_setopt(h->easy, CURLOPT_ERRORBUFFER, h->error);
	curl_easy_setopt(h->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(h->easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	curl_easy_setopt(h->easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(h->easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
	curl_easy_setopt(h->easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_PROBE_S);
	curl_easy_setopt(h->easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
	curl_easy_setopt(h->easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
	/* One that is idle, whatever number of servers was spoken to. */
	(void)curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, 1L);
	/* Node and datastore are neighbours: a proxy of the environment is not meant for them. */
	curl_easy_setopt(h->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(h->easy, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(h->easy, CURLOPT_WRITEDATA, h);
	curl_easy_setopt(h->easy, CURLOPT_PRIVATE, h);
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(h->easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(h->easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A name that is being resolved must not hold up a stop. */
	curl_easy_setopt(h->easy, CURLOPT_QUICK_EXIT, 1L);
#endif
}

int http_use_tls(CURL *easy, const struct http_tls *tls)
{
	const char *ca = tls->ca_file[0] ? tls->ca_file : NULL;
	const char *cert = tls->cert_file[0] ? tls->cert_file : NULL;
	const char *key = tls->key_file[0] ? tls->key_file : NULL;

	/* libcurl keeps what it read of a CA file for a day, and sessions of old certificates. */
#if LIBCURL_VERSION_NUM >= 0x075700
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
#endif
	curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	if (ca) {
		/* Otherwise the system's folder would be trusted beside it. */
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
		if (curl_easy_setopt(easy, CURLOPT_CAINFO, ca) != CURLE_OK)
			return -ENOMEM;
	}
	if (curl_easy_setopt(easy, CURLOPT_SSLCERT, cert) != CURLE_OK ||
	    curl_easy_setopt(easy, CURLOPT_SSLKEY, key) != CURLE_OK)
		return -ENOMEM;
	return 0;
}

int http_set_tls(struct http *h, const struct http_tls *tls)
{
	/* There is no way back to libcurl's own default for the CAs but a reset. */
	curl_easy_reset(h->easy);
	set_options(h);
	http_reconnect(h);
	return http_use_tls(h->easy, tls);
}

void http_reconnect(struct http *h)
{
	h->reconnect = true;
}

int http_new(struct http **ret, struct err *err)
{
	struct http *h = calloc(1, sizeof(*h));

	if (!h)
		return err_errno(err, -ENOMEM, "HTTP client");
	h->easy = curl_easy_init();
	h->multi = curl_multi_init();
	if (!h->easy || !h->multi) {
		http_free(h);
		return err_errno(err, -ENOMEM, "HTTP client");
	}
	set_options(h);
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	end_transfer(h);
	if (h->easy)
		curl_easy_cleanup(h->easy);
	if (h->multi)
		(void)curl_multi_cleanup(h->multi);
	free(h);
}

void http_cancel(struct http *h)
{
	h->cancelled = true;
	(void)curl_multi_wakeup(h->multi);
}

void http_rearm(struct http *h)
{
	h->cancelled = false;
}

/* -- a request ------------------------------------------------------------------ */

static int code_to_errno(CURLcode code)
{
	switch ((int)code) {
	case CURLE_OK:
		return 0;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_INTERFACE_FAILED:
		return -EHOSTUNREACH;
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return -ECONNRESET;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default: /* TLS and whatever is not HTTP */
		return -EPROTO;
	}
}

/* The result of the transfer once it is over; false while it runs. */
static bool is_over(struct http *h, CURLcode *ret)
{
	const CURLMsg *msg;
	int left;

	while ((msg = curl_multi_info_read(h->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		*ret = msg->data.result;
		return true;
	}
	return false;
}

/* What is due beside the transfer itself. */
static int keep_time(struct http *h, struct err *err)
{
	const struct http_request *req = h->request;
	int64_t now = clock_ns();
	int r;

	if (req->until_ns && now >= req->until_ns)
		return err_set(err, -ETIME, "%s: the time for it is over", req->url);
	if (!req->on_idle || now - h->last_data_ns < req->idle_ms * NS_PER_MS)
		return 0;
	r = req->on_idle(req->arg, err);
	h->last_data_ns = clock_ns();
	return r;
}

/* Until something is due. */
static int wait_ms(const struct http *h)
{
	const struct http_request *req = h->request;
	int64_t now = clock_ns(), ms = POLL_MS, until;

	if (req->until_ns) {
		until = (req->until_ns - now) / NS_PER_MS + 1;
		ms = until < ms ? until : ms;
	}
	if (req->on_idle) {
		until = req->idle_ms - (now - h->last_data_ns) / NS_PER_MS + 1;
		ms = until < ms ? until : ms;
	}
	return ms > 0 ? (int)ms : 0;
}

/* The commonest of mistakes, which neither side can tell for sure. */
static const char *hint(const char *url, CURLcode code)
{
	bool tls = strncmp(url, "https:", 6) == 0;

	if (code == CURLE_GOT_NOTHING && !tls)
		return " (is TLS spoken there? then write https://)";
	if (code == CURLE_SSL_CONNECT_ERROR && tls)
		return " (is TLS spoken there?)";
	return "";
}

static int transfer(struct http *h, struct err *err)
{
	CURLcode code;
	int running, r;

	for (;;) {
		if (h->cancelled)
			return err_set(err, -ECANCELED, "%s: cancelled", h->request->url);
		if (curl_multi_perform(h->multi, &running) != CURLM_OK)
			return err_errno(err, -ENOMEM, "%s", h->request->url);
		if (is_over(h, &code))
			break;
		r = keep_time(h, err);
		if (r < 0)
			return r;
		if (curl_multi_poll(h->multi, NULL, 0, wait_ms(h), NULL) != CURLM_OK)
			return err_errno(err, -ENOMEM, "%s", h->request->url);
	}
	if (h->failed < 0)
		return h->failed;
	if (code == CURLE_OK)
		return 0;
	return err_set(err, code_to_errno(code), "%s: %s%s", h->request->url,
		       h->error[0] ? h->error : curl_easy_strerror(code),
		       hint(h->request->url, code));
}

static int set_headers(struct http *h, struct curl_slist **ret)
{
	const char *const *header = h->request->headers;
	struct curl_slist *list = NULL, *longer;

	/* curl would wait for a "100 Continue" before it sends a large body. */
	list = curl_slist_append(NULL, "Expect:");
	if (list && h->request->body) {
		longer = curl_slist_append(list, "Content-Type: application/json");
		if (!longer)
			goto fail;
		list = longer;
	}
	for (; list && header && *header; header++) {
		longer = curl_slist_append(list, *header);
		if (!longer)
			goto fail;
		list = longer;
	}
	if (!list)
		return -ENOMEM;
	*ret = list;
	return 0;
fail:
	curl_slist_free_all(list);
	return -ENOMEM;
}

static void set_request(struct http *h, struct curl_slist *headers)
{
	const struct http_request *req = h->request;

	if (req->body) {
		curl_easy_setopt(h->easy, CURLOPT_POST, 1L);
		curl_easy_setopt(h->easy, CURLOPT_POSTFIELDS, req->body);
		curl_easy_setopt(h->easy, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)strlen(req->body));
	} else {
		curl_easy_setopt(h->easy, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(h->easy, CURLOPT_TIMEOUT_MS, (long)req->timeout_ms);
	curl_easy_setopt(h->easy, CURLOPT_FRESH_CONNECT, h->reconnect ? 1L : 0L);
	h->reconnect = false;
}

/* Sets up everything but the waiting. */
static int begin(struct http *h, const struct http_request *req, struct http_response *ret,
		 struct err *err)
{
	int r;

	buf_reset(&ret->body);
	ret->status = 0;
	h->request = req;
	h->response = ret;
	h->err = err;
	h->failed = 0;
	h->error[0] = '\0';
	h->last_data_ns = clock_ns();
	r = set_headers(h, &h->headers);
	if (r < 0)
		return err_errno(err, r, "%s", req->url);
	if (curl_easy_setopt(h->easy, CURLOPT_URL, req->url) != CURLE_OK)
		return err_errno(err, -ENOMEM, "%s", req->url);
	set_request(h, h->headers);
	if (curl_multi_add_handle(h->multi, h->easy) != CURLM_OK)
		return err_errno(err, -ENOMEM, "%s", req->url);
	return 0;
}

/* Of a request that is over, given up, or was never begun. */
static void end_transfer(struct http *h)
{
	if (h->easy && h->multi)
		(void)curl_multi_remove_handle(h->multi, h->easy); /* nothing if it is not in */
	if (h->easy)
		curl_easy_setopt(h->easy, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(h->headers);
	h->headers = NULL;
	free(h->ahead_url);
	free(h->ahead_body);
	h->ahead_url = h->ahead_body = NULL;
}

void http_prefetch(struct http *h, const struct http_request *req, struct http_response *ret)
{
	int running;

	end_transfer(h);
	h->ahead_url = strdup(req->url);
	h->ahead_body = strdup(req->body);
	if (!h->ahead_url || !h->ahead_body) {
		end_transfer(h);
		return;
	}
	h->ahead = *req;
	h->ahead.url = h->ahead_url;
	h->ahead.body = h->ahead_body;
	if (begin(h, &h->ahead, ret, NULL) < 0)
		end_transfer(h);
	else
		(void)curl_multi_perform(h->multi, &running);
}

/* Whether the request was sent ahead and is on its way. */
static bool is_ahead(const struct http *h, const struct http_request *req,
		     const struct http_response *ret)
{
	return h->ahead_url && req->body && !req->on_data && ret == h->response &&
	       strcmp(req->url, h->ahead_url) == 0 && strcmp(req->body, h->ahead_body) == 0;
}

int http_perform(struct http *h, const struct http_request *req, struct http_response *ret,
		 struct err *err)
{
	int r = 0;

	if (is_ahead(h, req, ret)) {
		h->err = err;
	} else {
		end_transfer(h);
		r = begin(h, req, ret, err);
	}
	if (r == 0) {
		r = transfer(h, err);
		(void)curl_easy_getinfo(h->easy, CURLINFO_RESPONSE_CODE, &ret->status);
	}
	end_transfer(h);
	return r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "etcd.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"

#define CALL_TIMEOUT_MS	    5000
#define CALL_TIMEOUT_MIN_MS 300
#define ANSWER_MAX	    ((size_t)4 * 1024 * 1024) /* etcd's largest value (1.5 MiB) fits */
/* etcd tells of progress every 10 minutes (--experimental-watch-progress-notify-interval). */
#define IDLE_TIMEOUT_MS ((int64_t)15 * 60 * 1000)
#define PREFIX_SHOWN	80 /* of an answer that makes no sense */

/* gRPC's status codes (https://grpc.io/docs/guides/status-codes/) that mean something to us. */
enum grpc_code {
	GRPC_CANCELLED = 1,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};

static int code_to_errno(int64_t code)
{
	switch (code) {
	case GRPC_CANCELLED:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_RESOURCE_EXHAUSTED:
	case GRPC_UNAVAILABLE:
		return -EAGAIN;
	case GRPC_NOT_FOUND:
		return -ENOENT;
	case GRPC_PERMISSION_DENIED:
	case GRPC_UNAUTHENTICATED:
		return -EACCES;
	case GRPC_OUT_OF_RANGE: /* the revision was compacted, or is not there yet */
		return -ESTALE;
	default:
		return -EPROTO;
	}
}

int etcd_error(const char *what, const json_t *answer, struct err *err)
{
	const json_t *error = json_object_get(answer, "error");
	/* In streams the fields are one level further down. */
	const json_t *fields = json_is_object(error) ? error : answer;
	const char *text = json_string_value(json_object_get(fields, "message"));
	int64_t code = etcd_int(fields, "code");

	if (!code)
		code = etcd_int(fields, "grpc_code");
	if (!text)
		text = json_is_string(error) ? json_string_value(error) : "an error without a text";
	return err_set(err, code_to_errno(code), "%s: etcd: %.200s", what, text);
}

static int parse_answer(const char *url, const struct http_response *response, json_t **ret,
			struct err *err)
{
	auto_(json_decref) json_t *answer = NULL;
	json_error_t why;

	answer = json_loadb(response->body.data ? response->body.data : "", response->body.len, 0,
			    &why);
	if (response->status == 200 && json_is_object(answer) &&
	    !json_object_get(answer, "error")) {
		*ret = TAKE(answer);
		return 0;
	}
	/* From 3.6 on there is no "error" beside "code" and "message". */
	if (json_object_get(answer, "error") || json_object_get(answer, "code"))
		return etcd_error(url, answer, err);
	/* A proxy or another program may answer there; 5xx is said to pass. */
	return err_set(err, response->status / 100 == 5 ? -EAGAIN : -EPROTO,
		       "%s: HTTP status %ld and no answer of etcd: %.*s", url, response->status,
		       PREFIX_SHOWN, response->body.data ? response->body.data : "");
}

/* Whether another endpoint could do better. */
static bool worth_another(int r)
{
	switch (r) {
	case -ECANCELED:
	case -ENOENT:
	case -ESTALE:
	case -EACCES:
	case -EFBIG:
	case -ENOMEM:
		return false;
	default:
		return true;
	}
}

static unsigned count_endpoints(struct store *s)
{
	mutex_hold(&s->lock);
	return s->endpoints.count;
}

static void get_url(struct store *s, unsigned turn, const char *path, char *ret, size_t size)
{
	mutex_hold(&s->lock);
	(void)snprintf(ret, size, "%s%s",
		       s->endpoints.urls[(s->current + turn) % s->endpoints.count], path);
}

static void note_answer(struct store *s, unsigned turn)
{
	mutex_hold(&s->lock);
	s->current = (s->current + turn) % s->endpoints.count;
	strlcpy(s->answered, s->endpoints.urls[s->current], sizeof(s->answered));
}

static void observe(struct store *s, enum store_op op, int result, int64_t start_ns)
{
	if (s->observe && result != -ECANCELED)
		s->observe(op, result, clock_ns() - start_ns, s->observe_arg);
}

static int64_t call_timeout_ms(const struct store *s)
{
	if (!s->timeout_ms || s->timeout_ms > CALL_TIMEOUT_MS)
		return CALL_TIMEOUT_MS;
	return s->timeout_ms < CALL_TIMEOUT_MIN_MS ? CALL_TIMEOUT_MIN_MS : s->timeout_ms;
}

static struct http_request call_request(const struct store *s, const char *url, const char *text)
{
	return (struct http_request){
		.url = url,
		.body = text,
		.timeout_ms = call_timeout_ms(s),
		.body_max = ANSWER_MAX,
	};
}

void etcd_call_ahead(struct store *s, const char *path, const json_t *body)
{
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	char url[ETCD_URL_MAX + 64];
	struct http_request request = call_request(s, url, text);

	get_url(s, 0, path, url, sizeof(url));
	if (text)
		http_prefetch(s->http, &request, &s->response);
}

int etcd_call(struct store *s, enum store_op op, const char *path, const json_t *body, json_t **ret,
	      struct err *err)
{
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	unsigned count = count_endpoints(s);
	int r = -ENOMEM;

	if (!text)
		return err_errno(err, -ENOMEM, "etcd request");
	for (unsigned turn = 0; turn < count; turn++) {
		char url[ETCD_URL_MAX + 64];
		const struct http_request request = call_request(s, url, text);
		int64_t start = clock_ns();

		get_url(s, turn, path, url, sizeof(url));
		r = http_perform(s->http, &request, &s->response, err);
		if (r == 0)
			r = parse_answer(url, &s->response, ret, err);
		observe(s, op, r == -ENOENT ? 0 : r, start);
		if (r == 0 || !worth_another(r)) {
			note_answer(s, turn);
			break;
		}
		log_debug("endpoint failed" KV("url", "%s") KV("error", "%s"), url,
			  err ? err->text : "");
	}
	return r;
}

int etcd_stream(struct store *s, enum store_op op, const char *path, const json_t *body,
		int (*on_data)(const char *data, size_t len, void *arg, struct err *err), void *arg,
		struct err *err)
{
	/* A member that lost the others ends the stream then, instead of keeping silent. */
	static const char *const headers[] = { "Grpc-Metadata-Hasleader: true", NULL };
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	char url[ETCD_URL_MAX + 64];
	const struct http_request request = {
		.url = url,
		.body = text,
		.headers = headers,
		.idle_timeout_ms = IDLE_TIMEOUT_MS,
		.on_data = on_data,
		.arg = arg,
	};
	int64_t start = clock_ns();
	json_t *answer;
	int r;

	if (!text)
		return err_errno(err, -ENOMEM, "etcd request");
	get_url(s, 0, path, url, sizeof(url));
	r = http_perform(s->http, &request, &s->response, err);
	if (r == 0 && s->response.status / 100 == 2) {
		r = err_set(err, -ECONNRESET, "%s: the stream ended", url);
	} else if (r == 0) {
		r = parse_answer(url, &s->response, &answer, err);
		if (r == 0) {
			json_decref(answer);
			r = err_set(err, -EPROTO, "%s: an answer instead of a stream", url);
		}
	}
	observe(s, op, r, start);
	/* The next try goes to the next endpoint, unless this one was all right. */
	if (worth_another(r)) {
		mutex_hold(&s->lock);
		s->current = (s->current + 1) % s->endpoints.count;
	}
	return r;
}

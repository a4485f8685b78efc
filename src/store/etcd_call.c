/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests go to the endpoint that answered last. When it does not answer, the others follow at
 * once, each once. The list is in an order of chance of this handle's own, so the nodes of a member
 * that died spread over all others. Now and then the endpoint is chosen anew among those that have
 * not just failed, by a connection of its own: a member that comes back gets its share again within
 * minutes, nobody sticks to a slow one for ever, and TLS files that were replaced come into use.
 * There is no preferred endpoint: members are alike, and the node that is the nearest to one of
 * them can name it alone.
 */
#include <errno.h>
#include <string.h>

#include "etcd.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"

#define CALL_TIMEOUT_MS	    5000
#define CALL_TIMEOUT_MIN_MS 300
#define ANSWER_MAX	    ((size_t)4 * 1024 * 1024) /* etcd's largest value (1.5 MiB) fits */
#define SPREAD_NS	    (5 * 60 * NS_PER_S)
#define FAILED_NS	    (60 * NS_PER_S) /* after a failure an endpoint is not chosen */
/*
 * A member that was stopped, or hangs, still acknowledges what TCP sends, so the kernel cannot tell
 * silence from peace. Progress notifications of etcd's come every ten minutes, and cannot be asked
 * for over HTTP/1.1. So when a stream was silent for this long, the member's version is asked for
 * on a second connection: the cheapest request that etcd has (no login, no quorum, no key). Silence
 * is noticed within PROBE_MS + 20 % + PROBE_TIMEOUT_MS = 25 s. 10,000 idle agents make 800 such
 * requests a second, together, over all members; at 28 to 42 microseconds of etcd's CPU time each
 * (3.4.23, 3.5.30) that is 3 % of a core.
 */
#define PROBE_MS	 12500
#define PROBE_TIMEOUT_MS 10000

/* Whether another endpoint could do better. */
bool etcd_worth_another(int r)
{
	switch (r) {
	case -ECANCELED:
	case -ETIME:
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

/* -- which endpoint ----------------------------------------------------------- */

int etcd_adopt(struct store *s, struct err *err)
{
	struct http_tls tls;

	mutex_lock(&s->lock);
	if (!s->next) {
		mutex_unlock(&s->lock);
		return 0;
	}
	if (s->access)
		access_free(s->access);
	s->access = TAKE(s->next);
	mutex_unlock(&s->lock);
	etcd_forget_token(s);
	s->current = 0;
	memset(s->failed_ns, 0, sizeof(s->failed_ns));
	s->spread_ns = clock_ns() + jitter_ns(SPREAD_NS, 50);
	tls = (struct http_tls){ s->access->ca_file, s->access->cert_file, s->access->key_file };
	if (http_set_tls(s->http, &tls) < 0 || http_set_tls(s->probe, &tls) < 0)
		return err_errno(err, -ENOMEM, "store");
	return 0;
}

static const char *endpoint(const struct store *s, unsigned turn)
{
	return s->access->endpoints.urls[(s->current + turn) % s->access->endpoints.count];
}

static void note_failure(struct store *s, unsigned turn)
{
	s->failed_ns[(s->current + turn) % s->access->endpoints.count] = clock_ns();
}

static void note_answer(struct store *s, unsigned turn)
{
	s->current = (s->current + turn) % s->access->endpoints.count;
	s->failed_ns[s->current] = 0;
	strlcpy(s->answered, s->access->endpoints.urls[s->current], sizeof(s->answered));
}

void etcd_spread(struct store *s)
{
	unsigned good[ETCD_ENDPOINTS_MAX], count = 0;
	int64_t now = clock_ns();

	if (!s->access || now < s->spread_ns)
		return;
	s->spread_ns = now + jitter_ns(SPREAD_NS, 50);
	for (unsigned i = 0; i < s->access->endpoints.count; i++)
		if (!s->failed_ns[i] || now - s->failed_ns[i] > FAILED_NS)
			good[count++] = i;
	if (count)
		s->current = good[arc4random_uniform(count)];
	http_reconnect(s->http);
	http_reconnect(s->probe);
}

/* -- one request -------------------------------------------------------------- */

static void observe(struct store *s, enum store_op op, int result, int64_t start_ns)
{
	if (s->observe && result != -ECANCELED && result != -ETIME)
		s->observe(op, result, clock_ns() - start_ns, s->observe_arg);
}

int64_t etcd_timeout_ms(const struct store *s)
{
	if (!s->timeout_ms || s->timeout_ms > CALL_TIMEOUT_MS)
		return CALL_TIMEOUT_MS;
	return s->timeout_ms < CALL_TIMEOUT_MIN_MS ? CALL_TIMEOUT_MIN_MS : s->timeout_ms;
}

static int perform(struct store *s, const char *url, const char *text, struct err *err)
{
	const char *const headers[] = { s->token, NULL };
	const struct http_request request = {
		.url = url,
		.body = text,
		.headers = headers,
		.timeout_ms = etcd_timeout_ms(s),
		.body_max = ANSWER_MAX,
	};

	return http_perform(s->http, &request, &s->response, err);
}

/* What stands when a login did not help, or there is none to try. */
static int no_access(const struct store *s, struct err *err)
{
	if (s->access->user[0])
		return err_wrap(err, -EACCES, "as user '%s'", s->access->user);
	return err_wrap(err, -EACCES,
			"etcd asks for a login: set ETCD_USER and "
			"ETCD_PASSWORD_FILE");
}

/* At one endpoint. A token that is refused is replaced once. */
static int ask(struct store *s, const char *host, const char *path, const char *text, json_t **ret,
	       struct err *err)
{
	char url[ETCD_URL_MAX + 64];
	bool again = s->access->user[0];
	int r;

	(void)snprintf(url, sizeof(url), "%s%s", host, path);
	for (;;) {
		r = etcd_login(s, host, err);
		if (r == 0)
			r = perform(s, url, text, err);
		if (r == 0)
			r = etcd_answer(url, &s->response, ret, err);
		if (r != ETCD_NO_TOKEN)
			return r;
		etcd_forget_token(s);
		if (!again)
			return no_access(s, err);
		again = false;
	}
}

/* Why there is nothing at the gateway's place: etcd's version is told even without it. */
static int explain_missing(struct store *s, const char *host, struct err *err)
{
	char url[ETCD_URL_MAX + 64];
	const struct http_request request = {
		.url = url,
		.timeout_ms = etcd_timeout_ms(s),
		.body_max = 65536,
	};
	auto_(json_decref) json_t *answer = NULL;
	const char *version;

	(void)snprintf(url, sizeof(url), "%s/version", host);
	if (http_perform(s->http, &request, &s->response, NULL) == 0)
		(void)etcd_answer(url, &s->response, &answer, NULL);
	version = json_string_value(json_object_get(answer, "etcdserver"));
	if (!version)
		return err_set(err, -EPROTO,
			       "%s: no etcd is there, but something else that speaks "
			       "HTTP",
			       host);
	return err_set(
		err, -EPROTO,
		"%s: etcd %.20s is there, but not its JSON gateway below /v3: it needs version "
		"3.4 or newer and --enable-grpc-gateway=true",
		host, version);
}

void etcd_call_ahead(struct store *s, const char *path, const json_t *body)
{
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	const char *const headers[] = { s->token, NULL };
	char url[ETCD_URL_MAX + 64];
	const struct http_request request = {
		.url = url,
		.body = text,
		.headers = headers,
		.timeout_ms = etcd_timeout_ms(s),
		.body_max = ANSWER_MAX,
	};

	(void)snprintf(url, sizeof(url), "%s%s", endpoint(s, 0), path);
	if (text)
		http_prefetch(s->http, &request, &s->response);
}

int etcd_call(struct store *s, enum store_op op, const char *path, const json_t *body, json_t **ret,
	      struct err *err)
{
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	int r;

	if (!text)
		return err_errno(err, -ENOMEM, "etcd request");
	r = etcd_adopt(s, err);
	if (r < 0)
		return r;
	if (op != STORE_RANGE) /* the pages of a list belong together */
		etcd_spread(s);
	for (unsigned turn = 0; turn < s->access->endpoints.count; turn++) {
		const char *host = endpoint(s, turn);
		int64_t start = clock_ns();

		r = ask(s, host, path, text, ret, err);
		if (r == -EPROTO && s->response.status == 404)
			r = explain_missing(s, host, err);
		observe(s, op, r == -ENOENT ? 0 : r, start);
		if (r == 0 || !etcd_worth_another(r)) {
			note_answer(s, turn);
			break;
		}
		note_failure(s, turn);
		log_debug("endpoint failed" KV("url", "%s") KV("error", "%s"), host,
			  err ? err->text : "");
	}
	return r;
}

/* -- streams ------------------------------------------------------------------ */

struct streaming {
	struct store *store;
	const struct etcd_stream *stream;
	const char *host;
};

static int on_data(const char *data, size_t len, void *arg, struct err *err)
{
	const struct streaming *st = arg;

	return st->stream->on_data(data, len, st->stream->arg, err);
}

static int on_idle(void *arg, struct err *err)
{
	const struct streaming *st = arg;
	struct store *s = st->store;
	char url[ETCD_URL_MAX + 64];
	const struct http_request request = {
		.url = url,
		.timeout_ms = PROBE_TIMEOUT_MS,
		.body_max = 65536,
	};
	struct err why = ERR_INIT;
	int r;

	(void)snprintf(url, sizeof(url), "%s/version", st->host);
	r = http_perform(s->probe, &request, &s->probed, &why);
	if (r < 0)
		return err_set(err, r == -ECANCELED ? r : -ETIMEDOUT,
			       "nothing comes any more, and the member does not answer: %s",
			       why.text);
	return st->stream->on_idle ? st->stream->on_idle(st->stream->arg, err) : 0;
}

static int stream_once(struct streaming *st, const char *path, const char *text, struct err *err)
{
	struct store *s = st->store;
	/* A member that lost the others ends the stream then, instead of keeping silent. */
	const char *const headers[] = { "Grpc-Metadata-Hasleader: true", s->token, NULL };
	char url[ETCD_URL_MAX + 64];
	const struct http_request request = {
		.url = url,
		.body = text,
		.headers = headers,
		.until_ns = st->stream->until_ns,
		.idle_ms = jitter_ns(PROBE_MS, 20),
		.on_idle = on_idle,
		.on_data = on_data,
		.arg = st,
	};
	json_t *answer;
	int r;

	(void)snprintf(url, sizeof(url), "%s%s", st->host, path);
	r = http_perform(s->http, &request, &s->response, err);
	if (r < 0)
		return r;
	if (s->response.status / 100 == 2)
		return err_set(err, -ECONNRESET, "%s: the stream ended", url);
	r = etcd_answer(url, &s->response, &answer, err);
	if (r < 0)
		return r;
	json_decref(answer);
	return err_set(err, -EPROTO, "%s: an answer instead of a stream", url);
}

int etcd_stream(struct store *s, enum store_op op, const char *path, const json_t *body,
		const struct etcd_stream *stream, struct err *err)
{
	auto_free char *text = json_dumps(body, JSON_COMPACT);
	struct streaming st = { .store = s, .stream = stream };
	int64_t start = clock_ns();
	int r;

	if (!text)
		return err_errno(err, -ENOMEM, "etcd request");
	r = etcd_adopt(s, err);
	if (r < 0)
		return r;
	st.host = endpoint(s, 0);
	r = etcd_login(s, st.host, err);
	if (r == 0) {
		bool again = s->access->user[0];

		r = stream_once(&st, path, text, err);
		if (r == ETCD_NO_TOKEN) {
			etcd_forget_token(s);
			/* The next one logs in again, and is told if that does not help. */
			r = again ? err_wrap(err, -EAGAIN, "the token is refused")
				  : no_access(s, err);
		}
	}
	observe(s, op, r, start);
	/* The next try goes to the next endpoint, unless this one was all right. */
	if (etcd_worth_another(r)) {
		note_failure(s, 0);
		s->current = (s->current + 1) % s->access->endpoints.count;
	}
	return r;
}

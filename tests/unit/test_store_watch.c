/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists and watches of a real etcd, what a lost position leads to, cancellation, endpoints. */
#include <stdatomic.h>

#include "etcd_server.h"
#include "poplin/base/clock.h"
#include "poplin/base/thread.h"

/* What a handler was told: "+node=value " and "-node ". */
struct seen {
	struct store *store;
	struct buf text;
	size_t changes;
	unsigned batches, connects, proofs, setbacks;
	size_t enough; /* changes after which the watch is cancelled; 0: never */
	uint64_t order;
	atomic_bool connected;
};

static int on_change(const struct store_change *change, void *arg, struct err *err)
{
	struct seen *seen = arg;

	(void)err;
	seen->changes++;
	seen->order = change->order;
	if (change->len > 64)
		return 0;
	return change->value ? buf_printf(&seen->text, "+%s=%.*s ", change->node, (int)change->len,
					  change->value)
			     : buf_printf(&seen->text, "-%s ", change->node);
}

static void on_batch(void *arg)
{
	struct seen *seen = arg;

	seen->batches++;
	if (seen->enough && seen->changes >= seen->enough)
		store_cancel(seen->store);
}

static void on_connected(void *arg)
{
	struct seen *seen = arg;

	seen->connects++;
	seen->connected = true;
}

static void on_proven(void *arg)
{
	((struct seen *)arg)->proofs++;
}

static void on_set_back(void *arg)
{
	((struct seen *)arg)->setbacks++;
}

static void seen_done(struct seen *seen)
{
	buf_done(&seen->text);
}

#define auto_seen __attribute__((cleanup(seen_done))) struct seen

static struct store_handler handler(struct seen *seen)
{
	buf_reset(&seen->text);
	seen->changes = seen->enough = 0;
	seen->batches = seen->connects = seen->proofs = seen->setbacks = 0;
	seen->connected = false;
	return (struct store_handler){
		.on_change = on_change,
		.on_connected = on_connected,
		.on_batch = on_batch,
		.on_proven = on_proven,
		.on_set_back = on_set_back,
		.arg = seen,
	};
}

static int set_endpoints(struct store *s, const char *endpoints, struct err *err)
{
	const struct store_access access = { .endpoints = endpoints };

	return store_set_access(s, &access, err);
}

static void list(struct store *s, struct seen *seen)
{
	const struct store_handler h = handler(seen);
	struct err err = ERR_INIT;

	SHOULD_WORK(store_list(s, &h, &err), &err);
}

/* Watches until `enough` changes came; returns how it ended. */
static int watch(struct store *s, struct seen *seen, size_t enough, struct err *err)
{
	const struct store_handler h = handler(seen);
	int r;

	seen->store = s;
	seen->enough = enough;
	r = store_watch(s, &h, 0, err);
	store_rearm(s);
	return r;
}

static void compact(struct store *s)
{
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	auto_seen seen = { .changes = 0 };
	int64_t position = s->position.revision;
	struct err err = ERR_INIT;

	list(s, &seen); /* to learn the revision */
	body = json_pack("{so}", "revision", etcd_number(s->position.revision));
	SHOULD_WORK(etcd_call(s, STORE_TXN, "/v3/kv/compaction", body, &answer, &err), &err);
	s->position.revision = position;
}

/* -- lists -------------------------------------------------------------------- */

static void a_list_tells_all_records_and_no_others(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	char key[ETCD_KEY_MAX];
	uint64_t older;

	list(s, &seen);
	assert_int_equal(seen.changes, 0);
	set_record(s, "b", "2");
	list(s, &seen);
	older = seen.order;
	set_record(s, "a", "1");
	list(s, &seen);
	assert_string_equal(seen.text.data, "+a=1 +b=2 ");
	assert_int_equal(seen.order, older);
	set_record(s, "b", NULL);
	set_record(s, "b", "3");
	set_record(s, "sub/key", "4");
	set_record(s, "", "5");
	(void)snprintf(key, sizeof(key), "%s-subnets/x", s->prefix);
	set_key(s, key, "6");
	set_key(s, s->prefix, "7");
	(void)snprintf(key, sizeof(key), "%s0", s->prefix);
	set_key(s, key, "8");
	list(s, &seen);
	assert_string_equal(seen.text.data, "+=5 +a=1 +b=3 +sub/key=4 ");
	set_record(s, "c", "");
	list(s, &seen);
	assert_non_null(strstr(seen.text.data, "+c= "));
}

static void a_list_of_many_comes_page_by_page(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	char node[16];

	for (unsigned i = 0; i < 1001; i++) {
		(void)snprintf(node, sizeof(node), "n%04u", i);
		set_record(s, node, "x");
	}
	list(s, &seen);
	assert_int_equal(seen.changes, 1001);
	assert_int_equal(seen.batches, 3);
	assert_memory_equal(seen.text.data, "+n0000=x +n0001=x ", 18);
	assert_non_null(strstr(seen.text.data, "+n0499=x +n0500=x +n0501=x "));
	assert_string_equal(seen.text.data + seen.text.len - 9, "+n1000=x ");
}

/* Each is as large as etcd takes: together they are more than an answer may hold. */
static void huge_values_do_not_hide_the_others(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	size_t size = 1400 * 1024;
	auto_free char *huge = malloc(size);

	assert_non_null(huge);
	memset(huge, 'x', size - 1);
	huge[size - 1] = '\0';
	set_record(s, "a", "first");
	for (char name[] = "b"; name[0] < 'h'; name[0]++)
		set_record(s, name, huge);
	set_record(s, "z", "last");
	list(s, &seen);
	assert_int_equal(seen.changes, 8);
	assert_string_equal(seen.text.data, "+a=first +z=last ");
	/* A watch that is behind gets them in fragments. */
	s->position.revision -= 8;
	s->position.newest = 0;
	assert_int_equal(watch(s, &seen, 8, NULL), -ECANCELED);
	assert_int_equal(seen.changes, 8);
	assert_int_equal(seen.batches, 1);
	assert_string_equal(seen.text.data, "+a=first +z=last ");
}

/* -- watches ------------------------------------------------------------------- */

static void a_watch_resumes_where_it_stood(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_(store_close) struct store *other = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };

	set_record(other, "a", "1");
	list(s, &seen);
	set_record(other, "b", "2");
	set_record(other, "a", NULL);
	assert_int_equal(watch(s, &seen, 2, NULL), -ECANCELED);
	assert_string_equal(seen.text.data, "+b=2 -a ");
	assert_int_equal(seen.connects, 1);
	set_record(other, "c", "3");
	set_record(other, "b", NULL);
	set_record(other, "b", "4");
	assert_int_equal(watch(s, &seen, 3, NULL), -ECANCELED);
	assert_string_equal(seen.text.data, "+c=3 -b +b=4 ");
	/* A handle of its own starts from its own list. */
	list(other, &seen);
	assert_string_equal(seen.text.data, "+b=4 +c=3 ");
}

static void changes_lost_to_a_compaction_are_told(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_(store_close) struct store *other = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;

	list(s, &seen);
	set_record(other, "a", "1");
	set_record(other, "a", NULL);
	set_record(other, "b", "2");
	compact(other);
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_non_null(strstr(err.text, "compacted"));
	assert_int_equal(seen.changes, 0);
	list(s, &seen);
	assert_string_equal(seen.text.data, "+b=2 ");
	set_record(other, "c", "3");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+c=3 ");
}

static void another_or_a_restored_store_is_noticed(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;

	list(s, &seen);
	s->position.revision += 1000;
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_non_null(strstr(err.text, "restored"));
	list(s, &seen);
	s->position.cluster_id++;
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_non_null(strstr(err.text, "another etcd cluster"));
	assert_int_equal(seen.connects, 0);
}

/* The same cluster id, and a revision past ours: only what was told already can tell. */
static void a_store_with_another_history_is_noticed(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;

	set_record(s, "gone", "0");
	set_record(s, "a", "1");
	set_record(s, "gone", NULL);
	list(s, &seen);
	set_record(s, "b", "2");
	/* What went before the list is no sign of anything. */
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+b=2 ");
	set_record(s, "c", "3");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+c=3 ");
	assert_int_equal(seen.changes, 1);
	/* The change at that revision was another one. */
	s->position.newest_created--;
	set_record(s, "d", "4");
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_non_null(strstr(err.text, "another history"));
	assert_int_equal(seen.changes, 0);
	/* There was none at that revision, but one after it. */
	list(s, &seen);
	set_record(s, "b", NULL);
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	s->position.newest--;
	set_record(s, "e", "5");
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	/* One that we never saw, up to where we were told that there was none. */
	list(s, &seen);
	set_record(s, "f", "6");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	set_record(s, "g", "7");
	s->position.revision++;
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_int_equal(seen.changes, 0);
}

/* Nodes keep the routes of lost records for ROUTE_GRACE: all of them have to notice well before. */
static void another_history_is_noticed_at_once(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;
	int64_t start;

	list(s, &seen);
	set_record(s, "a", "1");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	/* And then nothing happens any more. */
	s->position.newest_created--;
	start = clock_ns();
	assert_int_equal(watch(s, &seen, 1, &err), -ESTALE);
	assert_true(clock_ns() - start < NS_PER_S);
	assert_int_equal(seen.proofs, 0);
	assert_int_equal(seen.connects, 0);
}

/* A watch may have died without a sign, so a comparison believes nothing. */
static void a_list_tells_whether_the_store_was_set_back(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_(store_close) struct store *other = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;

	set_record(s, "a", "1");
	list(s, &seen);
	assert_int_equal(seen.proofs + seen.setbacks, 0); /* nothing to compare with */
	list(s, &seen);
	assert_int_equal(seen.proofs, 1);
	/* Changed since: as it was then. */
	set_record(s, "a", "2");
	list(s, &seen);
	assert_int_equal(seen.proofs, 1);
	/* The newest change was an end. */
	set_record(s, "b", "3");
	set_record(s, "b", NULL);
	assert_int_equal(watch(s, &seen, 2, &err), -ECANCELED);
	assert_true(s->position.newest_deleted);
	set_record(s, "b", "4");
	list(s, &seen);
	assert_int_equal(seen.proofs, 1);
	assert_int_equal(seen.setbacks, 0);
	/* It grew past our revision, with another change in the place of what we saw. */
	s->position.newest_created--;
	list(s, &seen);
	assert_int_equal(seen.proofs, 0);
	assert_int_equal(seen.setbacks, 1);
	assert_string_equal(seen.text.data, "+a=2 +b=4 ");
	/* Or it stands before it, or is another one. */
	s->position.revision += 1000;
	list(s, &seen);
	assert_int_equal(seen.setbacks, 1);
	s->position.cluster_id++;
	list(s, &seen);
	assert_int_equal(seen.setbacks, 1);
	list(s, &seen);
	assert_int_equal(seen.proofs, 1);
	/* What was compacted away tells nothing; what stands unchanged does. */
	compact(other);
	list(s, &seen);
	assert_int_equal(seen.proofs, 1);
	set_record(s, "b", "5");
	compact(other);
	list(s, &seen);
	assert_int_equal(seen.proofs + seen.setbacks, 0);
}

/* Its position is good, as progress told it; only the newest change is compacted away. */
static void a_watch_goes_on_though_its_newest_change_is_compacted(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;
	int64_t newest, progress;

	set_record(s, "a", "1");
	list(s, &seen);
	newest = s->position.newest;
	assert_true(newest > 0);
	for (int i = 0; i < 5; i++)
		set_key(s, "/elsewhere", "x");
	progress = newest + 5;
	s->position.revision = progress;
	compact(s);
	s->position.newest = newest;
	s->position.listed = newest;
	s->position.revision = progress;
	set_record(s, "b", "2");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+b=2 ");
	assert_int_equal(seen.connects, 1);
}

/* A transaction is one message of several events. */
static void several_changes_of_one_moment_are_one_batch(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_(json_decref) json_t *puts = json_array();
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;
	char key[ETCD_KEY_MAX];

	list(s, &seen);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(key, sizeof(key), "%s/n%02d", s->prefix, i);
		json_array_append_new(puts, json_pack("{s{so so}}", "request_put", "key",
						      etcd_string(key), "value", etcd_string("x")));
	}
	body = json_pack("{sO}", "success", puts);
	SHOULD_WORK(etcd_call(s, STORE_TXN, "/v3/kv/txn", body, &answer, &err), &err);
	assert_int_equal(watch(s, &seen, 100, &err), -ECANCELED);
	assert_int_equal(seen.changes, 100);
	assert_int_equal(seen.batches, 1);
	set_record(s, "n00", NULL);
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "-n00 ");
}

static void a_watch_ends_when_its_time_is_over(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct store_handler h;
	struct err err = ERR_INIT;
	int64_t start;

	list(s, &seen);
	h = handler(&seen);
	start = clock_ns();
	assert_int_equal(store_watch(s, &h, start + NS_PER_S / 2, &err), -ETIME);
	assert_true(clock_ns() - start >= NS_PER_S / 2);
	assert_true(clock_ns() - start < NS_PER_S);
	assert_int_equal(seen.connects, 1);
	set_record(s, "a", "1");
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+a=1 ");
}

struct watcher {
	struct thread thread;
	struct store *store;
	struct seen seen;
	struct err err;
	int result;
	int64_t end_ns;
};

static void *run_watch(void *arg)
{
	struct watcher *w = arg;
	const struct store_handler h = handler(&w->seen);

	w->result = store_watch(w->store, &h, 0, &w->err);
	w->end_ns = clock_ns();
	return NULL;
}

static void start_watcher(struct watcher *w, const char *prefix)
{
	w->store = open_store(prefix, NULL);
	w->seen.store = w->store;
	list(w->store, &w->seen);
	w->seen.connected = false;
	assert_int_equal(thread_start(&w->thread, "watch", run_watch, w), 0);
	for (int i = 0; i < 200 && !w->seen.connected; i++)
		sleep_ms(10);
	assert_true(w->seen.connected);
}

static void stop_watcher(struct watcher *w)
{
	seen_done(&w->seen);
	store_close(w->store);
}

static void a_watch_is_cancelled_within_100_ms(void **state)
{
	struct watcher w = { .result = 1 };
	int64_t start;

	start_watcher(&w, *state);
	sleep_ms(200);
	start = clock_ns();
	store_cancel(w.store);
	thread_join(&w.thread);
	assert_int_equal(w.result, -ECANCELED);
	assert_true(w.end_ns - start < 100 * NS_PER_MS);
	/* And stays so until it is rearmed. */
	assert_int_equal(store_watch(w.store, &(struct store_handler){ .arg = NULL }, 0, NULL),
			 -ECANCELED);
	store_rearm(w.store);
	list(w.store, &w.seen);
	stop_watcher(&w);
}

static void an_etcd_that_restarts_ends_the_watch_and_it_resumes(void **state)
{
	auto_(store_close) struct store *other = open_store(*state, NULL);
	struct watcher w = { .result = 1 };
	struct err err = ERR_INIT;

	start_watcher(&w, *state);
	etcd_stop();
	thread_join(&w.thread);
	assert_true(w.result < 0 && w.result != -ESTALE && w.result != -ECANCELED);
	assert_int_equal(watch(w.store, &w.seen, 1, &err), -ECONNREFUSED);
	assert_int_equal(store_list(w.store, &(struct store_handler){ .arg = NULL }, &err),
			 -ECONNREFUSED);
	assert_true(etcd_start());
	set_record(other, "a", "1");
	assert_int_equal(watch(w.store, &w.seen, 1, &err), -ECANCELED);
	assert_string_equal(w.seen.text.data, "+a=1 ");
	stop_watcher(&w);
}

static int refuse(const struct store_change *change, void *arg, struct err *err)
{
	(void)change, (void)arg;
	return err_set(err, -EUCLEAN, "refused");
}

static void a_handler_that_fails_ends_the_call_with_its_error(void **state)
{
	const struct store_handler h = { .on_change = refuse };
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;

	list(s, &seen);
	set_record(s, "a", "1");
	assert_int_equal(store_watch(s, &h, 0, &err), -EUCLEAN);
	assert_string_equal(err.text, "refused");
	assert_int_equal(store_list(s, &h, &err), -EUCLEAN);
	/* What was refused was not told: it comes again. */
	assert_int_equal(watch(s, &seen, 1, &err), -ECANCELED);
	assert_string_equal(seen.text.data, "+a=1 ");
}

/* -- endpoints -------------------------------------------------------------------- */

static void the_endpoint_that_answers_is_found(void **state)
{
	char endpoints[160], url[80];
	auto_seen seen = { .changes = 0 };
	struct err err = ERR_INIT;
	uint16_t dead;
	int fd = bind_any(&dead); /* bound, but nobody listens */

	(void)snprintf(endpoints, sizeof(endpoints), "127.0.0.1:%u,%s,http://127.0.0.1:%u", dead,
		       server.endpoint, dead);
	(void)snprintf(url, sizeof(url), "http://%s", server.endpoint);
	for (int i = 0; i < 6; i++) {
		auto_(store_close) struct store *s = open_store(*state, endpoints);

		list(s, &seen);
		assert_string_equal(store_endpoint(s), url);
		(void)snprintf(endpoints, sizeof(endpoints), "127.0.0.1:%u", dead);
		SHOULD_WORK(set_endpoints(s, endpoints, &err), &err);
		assert_int_equal(store_list(s, &(struct store_handler){ .arg = NULL }, &err),
				 -ECONNREFUSED);
		assert_int_equal(set_endpoints(s, "a b", &err), -EINVAL);
		(void)snprintf(endpoints, sizeof(endpoints), "127.0.0.1:%u,%s", dead,
			       server.endpoint);
		SHOULD_WORK(set_endpoints(s, endpoints, &err), &err);
		list(s, &seen);
	}
	close(fd);
}

static void *cancel_soon(void *arg)
{
	sleep_ms(200);
	store_cancel(arg);
	return NULL;
}

/* The kernel takes the connection, and nobody ever reads from it. */
static void a_call_to_a_silent_server_is_cancelled(void **state)
{
	struct err err = ERR_INIT;
	struct thread canceller;
	char endpoint[64];
	uint16_t port;
	int fd = bind_any(&port);
	int64_t start, took;
	struct store *s;

	assert_int_equal(listen(fd, 1), 0);
	(void)snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", port);
	s = open_store(*state, endpoint);
	start = clock_ns();
	assert_int_equal(thread_start(&canceller, "cancel", cancel_soon, s), 0);
	assert_int_equal(store_list(s, &(struct store_handler){ .arg = NULL }, &err), -ECANCELED);
	took = clock_ns() - start;
	assert_true(took >= 190 * NS_PER_MS && took < 300 * NS_PER_MS);
	thread_join(&canceller);
	store_close(s);
	close(fd);
}

/* -- what others may answer ----------------------------------------------------------- */

struct canned {
	struct thread thread;
	int fd;
	uint16_t port;
	const char *answer;
	unsigned count; /* connections to serve */
};

static void *answer(void *arg)
{
	struct canned *c = arg;
	char data[4096];

	for (unsigned i = 0; i < c->count; i++) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			return NULL;
		/* The requests are short: header and body come in one piece or two. */
		while (read(fd, data, sizeof(data)) > 0 && !memmem(data, sizeof(data), "}", 1))
			;
		(void)!write(fd, c->answer, strlen(c->answer));
		close(fd);
		memset(data, 0, sizeof(data));
	}
	return NULL;
}

static int renew_at(const char *prefix, const char *text, struct err *err)
{
	struct canned c = { .answer = text, .count = 1 };
	struct store_claim claim = { .lease = 1, .ttl_s = 60 };
	char endpoint[64];
	struct store *s;
	int r;

	c.fd = bind_any(&c.port);
	assert_int_equal(listen(c.fd, 4), 0);
	(void)snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", c.port);
	s = open_store(prefix, endpoint);
	assert_int_equal(thread_start(&c.thread, "canned", answer, &c), 0);
	r = store_renew(s, &claim, err);
	store_close(s);
	(void)shutdown(c.fd, SHUT_RDWR);
	thread_join(&c.thread);
	close(c.fd);
	return r;
}

#define OK "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"

static void answers_that_are_not_etcds_are_told_apart(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{ OK "{\"result\":{\"ID\":\"1\",\"TTL\":\"60\"}}", 0 },
		{ OK "{\"result\":{\"ID\":\"1\",\"TTL\":60}}\n", 0 },
		{ OK "{\"result\":{\"ID\":\"1\"}}", -ENOENT },
		{ OK "{\"result\":{\"ID\":\"1\",\"TTL\":\"-1\"}}", -ENOENT },
		{ OK "{\"error\":{\"grpc_code\":14,\"message\":\"no leader\"}}", -EAGAIN },
		{ OK "{}", -EPROTO },
		{ OK "[]", -EPROTO },
		{ OK "", -EPROTO },
		{ OK "<html>", -EPROTO },
		{ OK "{\"result\":{\"TTL\":\"60\"", -EPROTO },
		/* etcd 3.4 and 3.5; 3.6. */
		{ "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
		  "{\"error\":\"gone\",\"message\":\"gone\",\"code\":5}",
		  -ENOENT },
		{ "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"
		  "{\"code\":5,\"message\":\"gone\",\"details\":[]}",
		  -ENOENT },
		{ "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"
		  "{\"code\":7,\"message\":\"permission denied\"}",
		  -EACCES },
		{ "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n404 page not found",
		  -EPROTO },
		{ "HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\nbusy", -EAGAIN },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"result\"", -ECONNRESET },
		{ "", -ECONNRESET },
		{ "SSH-2.0-dropbear\r\n", -EPROTO },
	};

	for (size_t i = 0; i < countof(cases); i++) {
		struct err err = ERR_INIT;
		int r = renew_at(*state, cases[i].text, &err);

		if (r != cases[i].result)
			fail_msg("'%s' gave %d: %s", cases[i].text, r, err.text);
		assert_true(r == 0 || err.text[0]);
	}
}

static void *hold_watches_back(void *arg)
{
	static const char version[] = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
				      "{\"etcdserver\":\"3.4.23\",\"etcdcluster\":\"3.4.0\"}";
	struct canned *c = arg;
	char data[4096];
	int held = -1;

	for (unsigned i = 0; i < c->count; i++) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC);
		ssize_t n;

		if (fd < 0)
			break;
		n = read(fd, data, sizeof(data));
		if (n > 0 && memmem(data, (size_t)n, "/version", 8)) {
			(void)!write(fd, version, strlen(version));
			close(fd);
		} else {
			held = fd;
		}
	}
	if (held >= 0) {
		(void)!read(held, data, sizeof(data)); /* until the other side leaves */
		close(held);
	}
	return NULL;
}

/* Whatever stands in between answers for etcd, or passes everything on but streams. */
static void a_watch_that_is_never_confirmed_is_noticed(void **state)
{
	const struct store_handler handler = { .on_change = ignore_change };
	struct canned c = { .count = 2 };
	struct err err = ERR_INIT;
	int64_t start = clock_ns();
	char endpoint[64];
	struct store *s;

	c.fd = bind_any(&c.port);
	assert_int_equal(listen(c.fd, 4), 0);
	(void)snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", c.port);
	s = open_store(*state, endpoint);
	assert_int_equal(thread_start(&c.thread, "held", hold_watches_back, &c), 0);
	assert_int_equal(store_watch(s, &handler, start + 40 * NS_PER_S, &err), -ETIMEDOUT);
	assert_true(clock_ns() - start < 30 * NS_PER_S);
	assert_non_null(strstr(err.text, "does not begin the watch"));
	store_close(s);
	(void)shutdown(c.fd, SHUT_RDWR);
	thread_join(&c.thread);
	close(c.fd);
}

#define WATCH_TEST(f) cmocka_unit_test_setup(f, prefix_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WATCH_TEST(a_list_tells_all_records_and_no_others),
		WATCH_TEST(a_list_of_many_comes_page_by_page),
		WATCH_TEST(a_watch_resumes_where_it_stood),
		WATCH_TEST(changes_lost_to_a_compaction_are_told),
		WATCH_TEST(another_or_a_restored_store_is_noticed),
		WATCH_TEST(a_store_with_another_history_is_noticed),
		WATCH_TEST(another_history_is_noticed_at_once),
		WATCH_TEST(a_list_tells_whether_the_store_was_set_back),
		WATCH_TEST(a_watch_goes_on_though_its_newest_change_is_compacted),
		WATCH_TEST(several_changes_of_one_moment_are_one_batch),
		WATCH_TEST(a_watch_ends_when_its_time_is_over),
		WATCH_TEST(a_watch_is_cancelled_within_100_ms),
		WATCH_TEST(a_handler_that_fails_ends_the_call_with_its_error),
		WATCH_TEST(the_endpoint_that_answers_is_found),
		WATCH_TEST(a_call_to_a_silent_server_is_cancelled),
		WATCH_TEST(a_watch_that_is_never_confirmed_is_noticed),
		WATCH_TEST(answers_that_are_not_etcds_are_told_apart),
		WATCH_TEST(huge_values_do_not_hide_the_others),
		WATCH_TEST(an_etcd_that_restarts_ends_the_watch_and_it_resumes),
	};

	return cmocka_run_group_tests(tests, etcd_setup, etcd_teardown);
}

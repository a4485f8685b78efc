/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lease thread over a real etcd: what it promises the plugin while others do things to its keys. */
#include <stdatomic.h>
#include <sys/stat.h>

#include "agent/lease.h"
#include "agent/metrics.h"
#include "etcd_server.h"
#include "poplin/base/clock.h"
#include "poplin/base/file.h"
#include "poplin/base/log.h"
#include "poplin/model/nodestate.h"

#define TTL_S	30
#define auto_kv __attribute__((cleanup(etcd_kv_done))) struct etcd_kv

static struct {
	const char *prefix;
	char dir[96], counter[128];
	struct network network;
	struct lease_config config;
	struct store *store; /* of the test */
	struct lease *lease;
	atomic_bool may_release;
	/* Of the lease thread's requests, see at_request(). */
	atomic_bool granted;
	_Atomic int64_t put_ns, promised_ns;
	/* Of those whose puts fail, see refuse_puts(). */
	struct store *other; /* of the lease thread's observer */
	atomic_bool refuse, alarmed;
	atomic_uint tries;
	_Atomic int64_t first_try_ns, last_try_ns;
} t;

static void on_change(void *arg)
{
	(void)arg;
}

static int may_release(void *arg, struct err *err)
{
	(void)arg;
	return t.may_release ? 0 : err_set(err, -EBUSY, "a pod is here");
}

static int setup(void **state)
{
	struct prefix pods;

	(void)prefix_setup(state);
	memset(&t, 0, sizeof(t));
	t.prefix = *state;
	t.store = open_store(t.prefix, NULL);
	(void)snprintf(t.dir, sizeof(t.dir), "%s/state-XXXXXX", server.dir);
	assert_non_null(mkdtemp(t.dir));
	(void)snprintf(t.counter, sizeof(t.counter), "%s-counter", t.prefix);
	assert_int_equal(prefix_parse("10.2.0.0/16", &pods, NULL), 0);
	assert_int_equal(network_init(&t.network, &pods, 8, NULL), 0);
	t.config = (struct lease_config){
		.store = { .access.endpoints = server.endpoint,
			   .prefix = t.prefix,
			   .counter_key = t.counter },
		.node = "n1",
		.state_dir = t.dir,
		.network = t.network,
		.record = { .address = addr_from_ipv4(0xc0a8000b), .machine = "mine" },
		.ttl_s = TTL_S,
		.fence = true,
		.on_change = on_change,
		.may_release = may_release,
	};
	return 0;
}

/* When it returns nothing is answered any more: the signal alone takes its time. */
static void pause_etcd(bool pause)
{
	int status;

	assert_int_equal(kill(server.pid, pause ? SIGSTOP : SIGCONT), 0);
	if (pause)
		assert_int_equal(waitpid(server.pid, &status, WUNTRACED), server.pid);
}

/* An alarm lets etcd refuse whatever writes: leases are renewed, and keys read. */
static void set_alarm(bool on)
{
	auto_(json_decref) json_t *body =
		json_pack("{ss ss}", "action", on ? "ACTIVATE" : "DEACTIVATE", "alarm", "NOSPACE");
	auto_(json_decref) json_t *answer = NULL;
	struct err err = ERR_INIT;

	SHOULD_WORK(etcd_call(t.other, STORE_PUT, "/v3/maintenance/alarm", body, &answer, &err),
		    &err);
	t.alarmed = on;
}

static int teardown(void **state)
{
	(void)state;
	if (server.pid > 0)
		pause_etcd(false); /* whatever failed before */
	if (t.lease)
		lease_stop(t.lease);
	if (t.alarmed)
		set_alarm(false);
	if (t.other)
		store_close(t.other);
	if (t.store)
		store_close(t.store);
	return 0;
}

static void start(void)
{
	struct err err = ERR_INIT;

	SHOULD_WORK(lease_start(&t.lease, &t.config, &err), &err);
}

static void stop(void)
{
	lease_stop(t.lease);
	t.lease = NULL;
}

static const struct nodestate *promised(void)
{
	static struct nodestate ret;

	if (nodestate_read(t.dir, &ret, NULL) < 0)
		ret = (struct nodestate){ .lease_deadline_ns = -1 };
	return &ret;
}

static const struct lease_status *status(void)
{
	static struct lease_status ret;

	lease_get(t.lease, &ret);
	return &ret;
}

#define WAIT_FOR(condition, seconds)                                                               \
	do {                                                                                       \
		int64_t until_ = clock_ns() + NS_PER_S * (seconds);                                \
		while (!(condition)) {                                                             \
			if (clock_ns() > until_)                                                   \
				fail_msg("never: %s", #condition);                                 \
			sleep_ms(5);                                                               \
		}                                                                                  \
	} while (0)

static void start_and_wait(void)
{
	start();
	WAIT_FOR(status()->confirmed && status()->held, 20);
}

/* Which lease the record hangs on; 0: there is no record. */
static int64_t lease_of_record(void)
{
	auto_kv kv = { .lease = 0 };

	return get_key(t.store, &kv, "%s/n1", t.prefix) ? kv.lease : 0;
}

static void delete_record(void)
{
	char key[128];

	(void)snprintf(key, sizeof(key), "%s/n1", t.prefix);
	set_key(t.store, key, NULL);
}

/* As the watcher tells it. */
static void tell_gone(void)
{
	const struct store_change gone = { .node = "n1" };

	lease_check(t.lease, &gone);
}

/* -- promises ------------------------------------------------------------------------ */

static void a_claim_is_promised_until_its_lease_ends_at_the_latest(void **state)
{
	int64_t before = clock_boot_ns(), after;
	struct nodestate said;

	(void)state;
	start_and_wait();
	after = clock_boot_ns();
	said = *promised();
	assert_int_equal(prefix_cmp(&said.subnet, &status()->subnet), 0);
	assert_true(said.lease_deadline_ns > before);
	assert_true(said.lease_deadline_ns < after + TTL_S * NS_PER_S);
	assert_int_equal(said.lease_deadline_ns, status()->deadline_boot_ns);
	assert_int_equal(nodestate_check(&said, NULL), 0);
}

static void a_restart_keeps_lease_and_promise(void **state)
{
	struct nodestate before;
	int64_t lease;

	(void)state;
	start_and_wait();
	lease = lease_of_record();
	before = *promised();
	stop();
	assert_int_equal(promised()->lease_deadline_ns, before.lease_deadline_ns);
	start();
	assert_true(status()->held); /* before etcd was asked */
	WAIT_FOR(status()->confirmed, 20);
	assert_int_equal(lease_of_record(), lease);
	assert_true(promised()->lease_deadline_ns > before.lease_deadline_ns);
}

static void a_promise_of_another_boot_is_not_recalled(void **state)
{
	struct nodestate before;

	(void)state;
	start_and_wait();
	stop();
	before = *promised();
	strlcpy(before.boot, "another", sizeof(before.boot));
	assert_int_equal(nodestate_write(t.dir, &before, NULL), 0);
	t.config.store.access.endpoints = "127.0.0.1:1";
	start();
	WAIT_FOR(status()->tried, 20);
	assert_false(status()->held);
}

/*
 * What stands there must be kept by the lease that the keys hang on, whenever this process dies:
 * where it can be neither shortened nor removed, the keys do not move.
 */
static void a_promise_is_shortened_before_the_keys_move(void **state)
{
	char path[112], away[112];
	int64_t lease;

	(void)state;
	start_and_wait();
	lease = lease_of_record();
	(void)snprintf(path, sizeof(path), "%s/" NODESTATE_FILE, t.dir);
	(void)snprintf(away, sizeof(away), "%s/away", t.dir);
	assert_int_equal(rename(path, away), 0);
	assert_int_equal(mkdir(path, 0700), 0); /* which no file takes the place of */
	lease_set_ttl(t.lease, 10);
	WAIT_FOR(strstr(status()->problem, NODESTATE_FILE), 20);
	assert_int_equal(lease_of_record(), lease);
	assert_true(status()->held);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(rename(away, path), 0);
	WAIT_FOR(lease_of_record() != lease, 30);
	assert_true(promised()->lease_deadline_ns < clock_boot_ns() + 10 * NS_PER_S);
	WAIT_FOR(status()->ttl_s == 10 && status()->held, 20);
}

/* The lease is renewed, but the plugin does not know: whoever asks is told why it will stop. */
static void a_renewal_that_cannot_be_published_is_told(void **state)
{
	char path[112];

	(void)state;
	t.config.ttl_s = 10;
	start_and_wait();
	(void)snprintf(path, sizeof(path), "%s/" NODESTATE_FILE, t.dir);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	WAIT_FOR(strstr(status()->problem, NODESTATE_FILE), 20);
	WAIT_FOR(!status()->held, 20);
	assert_non_null(strstr(status()->problem, NODESTATE_FILE));
	assert_int_equal(rmdir(path), 0);
	WAIT_FOR(status()->held && !status()->problem[0], 20);
}

/*
 * The process could die when the keys have just moved to a lease that was granted, and what the file
 * says then stays said.
 */
static void at_request(enum store_op op, int result, int64_t duration_ns, void *arg)
{
	struct nodestate said;

	(void)result, (void)duration_ns, (void)arg;
	t.granted = t.granted || op == STORE_GRANT;
	if (!t.granted || op != STORE_TXN || t.put_ns)
		return;
	t.put_ns = clock_boot_ns();
	t.promised_ns = nodestate_read(t.dir, &said, NULL) < 0 ? -1 : said.lease_deadline_ns;
}

static void what_is_promised_when_the_keys_move_is_kept_by_their_new_lease(void **state)
{
	int64_t before;

	(void)state;
	t.config.store.observe = at_request;
	start_and_wait();
	before = promised()->lease_deadline_ns;
	t.granted = false;
	t.put_ns = 0;
	lease_set_ttl(t.lease, 10);
	WAIT_FOR(status()->ttl_s == 10 && status()->held, 20);
	assert_true(t.put_ns > 0);
	assert_true(before > t.put_ns + 10 * NS_PER_S);
	assert_true(t.promised_ns > 0 && t.promised_ns < t.put_ns + 10 * NS_PER_S);
	/* To a longer lease: nothing has to be said before it stands. */
	t.granted = false;
	t.put_ns = 0;
	lease_set_ttl(t.lease, 60);
	WAIT_FOR(status()->ttl_s == 60 && status()->held, 20);
	assert_true(t.promised_ns > 0 && t.promised_ns < t.put_ns + 10 * NS_PER_S);
	WAIT_FOR(promised()->lease_deadline_ns > t.put_ns + 10 * NS_PER_S, 20);
}

/* From the grant to the end of the put that follows. To the agent its outcome is unknown. */
static void refuse_puts(enum store_op op, int result, int64_t duration_ns, void *arg)
{
	struct nodestate said;

	(void)result, (void)duration_ns, (void)arg;
	if (op == STORE_GRANT && t.refuse) {
		t.promised_ns =
			nodestate_read(t.dir, &said, NULL) < 0 ? -1 : said.lease_deadline_ns;
		t.last_try_ns = clock_boot_ns();
		if (!t.tries++)
			t.first_try_ns = t.last_try_ns;
		set_alarm(true);
	} else if (op == STORE_TXN && t.alarmed) {
		set_alarm(false);
	}
}

static void of_several_leases_that_were_tried_the_first_bounds_the_promise(void **state)
{
	const int64_t ttl_ns = 10 * NS_PER_S;
	struct addr before = t.config.record.address, after = addr_from_ipv4(0xc0a8000c);
	int64_t lease;

	t.other = open_store(*state, NULL);
	t.config.ttl_s = 10;
	t.config.store.observe = refuse_puts;
	start_and_wait();
	lease = lease_of_record();
	t.refuse = true;
	lease_set_address(t.lease, &after);
	/* Said after the second failed, though the old lease was renewed twice by then. */
	WAIT_FOR(t.tries >= 3, 20);
	assert_true(t.promised_ns > 0 && t.promised_ns < t.first_try_ns + ttl_ns);
	/* What was wanted is there without another put: those that were sent may be made yet. */
	lease_set_address(t.lease, &before);
	WAIT_FOR(!status()->problem[0], 20);
	assert_int_equal(lease_of_record(), lease);
	assert_true(promised()->lease_deadline_ns < t.first_try_ns + ttl_ns);
	WAIT_FOR(promised()->lease_deadline_ns > t.last_try_ns + ttl_ns, 20);
	assert_true(clock_boot_ns() > t.last_try_ns + ttl_ns / 100 * 99);
	/* A put that is made puts an end to all before it. */
	t.tries = 0;
	lease_set_address(t.lease, &after);
	WAIT_FOR(t.tries >= 2, 20);
	t.refuse = false;
	WAIT_FOR(promised()->lease_deadline_ns > t.last_try_ns + ttl_ns, 20);
	assert_true(clock_boot_ns() < t.last_try_ns + ttl_ns / 2);
	assert_int_not_equal(lease_of_record(), lease);
}

/* -- what is seen of our keys ------------------------------------------------------------ */

static void a_deleted_record_comes_back_under_a_new_promise(void **state)
{
	struct prefix subnet;

	(void)state;
	start_and_wait();
	subnet = status()->subnet;
	delete_record();
	tell_gone();
	WAIT_FOR(lease_of_record() != 0, 20);
	WAIT_FOR(status()->held, 20);
	assert_int_equal(prefix_cmp(&status()->subnet, &subnet), 0);
	WAIT_FOR(nodestate_check(promised(), NULL) == 0, 20);
}

/* What was seen tells against the claim, and nothing can tell for it. */
static void a_suspicion_that_cannot_be_cleared_ends_the_promise(void **state)
{
	struct prefix subnet;

	(void)state;
	start_and_wait();
	subnet = status()->subnet;
	pause_etcd(true);
	tell_gone();
	/* A sixth of the TTL for the one endpoint, and not the whole of it. */
	WAIT_FOR(promised()->lease_deadline_ns == 0, TTL_S / 4);
	pause_etcd(false);
	WAIT_FOR(status()->held, 30);
	WAIT_FOR(promised()->lease_deadline_ns > 0, 20);
	assert_int_equal(prefix_cmp(&status()->subnet, &subnet), 0);
}

/* Another write to our record tells nothing of whose the subnet is. */
static void what_is_no_suspicion_ends_no_promise(void **state)
{
	const struct store_change written = { .node = "n1", .value = "x", .len = 1, .version = 1 };
	int64_t before;

	(void)state;
	start_and_wait();
	before = promised()->lease_deadline_ns;
	pause_etcd(true);
	lease_check(t.lease, &written);
	WAIT_FOR(status()->problem[0], TTL_S / 4);
	assert_int_equal(promised()->lease_deadline_ns, before);
	assert_true(status()->held);
	pause_etcd(false);
	WAIT_FOR(!status()->problem[0], 30);
}

static void without_the_fence_doubt_ends_no_promise(void **state)
{
	(void)state;
	t.config.fence = false;
	start_and_wait();
	pause_etcd(true);
	tell_gone();
	WAIT_FOR(status()->problem[0], TTL_S / 4);
	pause_etcd(false);
	assert_true(promised()->lease_deadline_ns > 0);
	assert_false(promised()->fence);
	/* A reload turns it on again, and the deadline counts. */
	lease_set_fence(t.lease, true);
	WAIT_FOR(promised()->fence, 20);
	WAIT_FOR(status()->held && status()->confirmed, 30);
}

/* Somebody deletes it again and again: the store is not asked to write without end. */
static void claims_that_are_undone_are_made_ever_more_slowly(void **state)
{
	int64_t took[8];

	(void)state;
	start_and_wait();
	for (size_t i = 0; i < countof(took); i++) {
		int64_t begin = clock_ns();

		delete_record();
		tell_gone();
		/* While it waits, the promise is withdrawn. */
		WAIT_FOR(lease_of_record() != 0, 30);
		took[i] = clock_ns() - begin;
		WAIT_FOR(status()->held, 20);
	}
	/* At once to begin with; the last two after one and two seconds at least. */
	assert_true(took[6] > NS_PER_S / 2);
	assert_true(took[7] > NS_PER_S);
	assert_true(took[0] < took[7]);
}

/* -- draining ------------------------------------------------------------------------------ */

static void a_drained_node_has_nothing_and_comes_back(void **state)
{
	struct prefix subnet;

	(void)state;
	start_and_wait();
	subnet = status()->subnet;
	/* Refused: it serves on. */
	lease_drain(t.lease, true);
	WAIT_FOR(status()->drain == LEASE_KEPT, 20);
	assert_string_equal(status()->drain_problem, "a pod is here");
	assert_true(lease_of_record() != 0);
	assert_false(promised()->drained);
	assert_true(promised()->lease_deadline_ns > 0);
	t.may_release = true;
	lease_drain(t.lease, true);
	WAIT_FOR(status()->drain == LEASE_DRAINED, 20);
	assert_int_equal(lease_of_record(), 0);
	assert_true(promised()->drained);
	assert_int_equal(promised()->lease_deadline_ns, 0);
	lease_drain(t.lease, false);
	WAIT_FOR(status()->held && status()->drain == LEASE_SERVES, 20);
	assert_int_equal(prefix_cmp(&status()->subnet, &subnet), 0);
	assert_false(promised()->drained);
}

static void a_start_that_is_to_be_drained_claims_nothing(void **state)
{
	(void)state;
	t.may_release = true;
	t.config.drain = true;
	start();
	WAIT_FOR(status()->drain == LEASE_DRAINED, 20);
	assert_int_equal(lease_of_record(), 0);
}

#define LEASE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LEASE_TEST(a_claim_is_promised_until_its_lease_ends_at_the_latest),
		LEASE_TEST(a_restart_keeps_lease_and_promise),
		LEASE_TEST(a_promise_of_another_boot_is_not_recalled),
		LEASE_TEST(a_promise_is_shortened_before_the_keys_move),
		LEASE_TEST(a_renewal_that_cannot_be_published_is_told),
		LEASE_TEST(what_is_promised_when_the_keys_move_is_kept_by_their_new_lease),
		LEASE_TEST(of_several_leases_that_were_tried_the_first_bounds_the_promise),
		LEASE_TEST(a_deleted_record_comes_back_under_a_new_promise),
		LEASE_TEST(a_suspicion_that_cannot_be_cleared_ends_the_promise),
		LEASE_TEST(what_is_no_suspicion_ends_no_promise),
		LEASE_TEST(without_the_fence_doubt_ends_no_promise),
		LEASE_TEST(claims_that_are_undone_are_made_ever_more_slowly),
		LEASE_TEST(a_drained_node_has_nothing_and_comes_back),
		LEASE_TEST(a_start_that_is_to_be_drained_claims_nothing),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, etcd_setup, etcd_teardown);
}

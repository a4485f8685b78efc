/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /metrics, /healthz, /readyz and /status asked over HTTP, with the real modules behind them. */
#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/fib.h"
#include "agent/metrics.h"
#include "agent/peers.h"
#include "agent/queue.h"
#include "agent/status.h"
#include "client.h"
#include "poplin/base/clock.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"

static struct {
	char dir[64];
	struct status_source source;
	struct status_view view; /* view_lock */
	struct httpd *server;
	struct buf answer;
} t;

static pthread_mutex_t view_lock = PTHREAD_MUTEX_INITIALIZER;

static struct prefix prefix(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static struct addr addr(const char *text)
{
	struct addr a;

	assert_int_equal(addr_parse(text, &a, NULL), 0);
	return a;
}

static void on_view(struct status_view *ret, void *arg)
{
	assert_int_equal(ret->nreasons, 0);
	pthread_mutex_lock(&view_lock);
	*ret = *(struct status_view *)arg;
	pthread_mutex_unlock(&view_lock);
}

static void set_view(const struct status_view *view)
{
	pthread_mutex_lock(&view_lock);
	t.view = *view;
	pthread_mutex_unlock(&view_lock);
}

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
}

static int setup(void **state)
{
	struct prefix pods = prefix("10.2.0.0/16");
	struct peers_config peers = { .node = "n1", .address = addr("192.168.0.11") };
	struct queue_config queue = { .now = clock_ns };
	struct err err = ERR_INIT;

	memset(&t, 0, sizeof(t));
	strcpy(t.dir, "/tmp/poplin-status-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	metrics_reset();
	peers.on_key = on_key;
	assert_int_equal(network_init(&peers.network, &pods, 8, &err), 0);
	assert_int_equal(peers_new(&t.source.peers, &peers, &err), 0);
	assert_int_equal(fib_new(&t.source.fib, &err), 0);
	assert_int_equal(queue_new(&t.source.queue, &queue, &err), 0);
	t.source.ipam_dir = t.dir;
	t.source.view = on_view;
	t.source.arg = &t.view;
	assert_int_equal(httpd_start(&t.server, "127.0.0.1:0", status_paths, &t.source, &err), 0);
	return 0;
}

static int teardown(void **state)
{
	httpd_stop(t.server);
	queue_free(t.source.queue);
	fib_free(t.source.fib);
	peers_free(t.source.peers);
	buf_done(&t.answer);
	return file_remove_tree(t.dir, NULL);
}

static const char *get(const char *path, unsigned status)
{
	client_ask(httpd_port(t.server), "GET", path, NULL, &t.answer);
	client_assert_status(&t.answer, status);
	return client_body(&t.answer);
}

static json_t *get_json(const char *path)
{
	json_error_t why;
	json_t *root = json_loads(get(path, 200), JSON_REJECT_DUPLICATES, &why);

	assert_non_null(strstr(t.answer.data, "Content-Type: application/json\r\n"));
	if (!root)
		fail_msg("%s: %s", path, why.text);
	return root;
}

/* The row of the list whose member has the value; borrowed. */
static json_t *row(const json_t *root, const char *list, const char *member, const char *value)
{
	const json_t *rows = json_object_get(root, list);

	assert_true(json_is_array(rows));
	for (size_t i = 0; i < json_array_size(rows); i++) {
		json_t *one = json_array_get(rows, i);
		const char *text = json_string_value(json_object_get(one, member));

		if (text && strcmp(text, value) == 0)
			return one;
	}
	fail_msg("no %s '%s' in %s", member, value, list);
	return NULL;
}

static void assert_text(const json_t *object, const char *member, const char *expected)
{
	const json_t *value = json_object_get(object, member);

	assert_non_null(value);
	if (!expected)
		assert_true(json_is_null(value));
	else
		assert_string_equal(json_string_value(value), expected);
}

static void apply(const char *node, const char *value, uint64_t order)
{
	struct store_change change = {
		.node = node, .value = value, .len = strlen(value), .order = order
	};

	assert_int_equal(peers_apply(t.source.peers, &change, NULL), 0);
}

static void apply_record(unsigned n, uint64_t order)
{
	char node[32], value[128];

	snprintf(node, sizeof(node), "n%u", n);
	snprintf(value, sizeof(value),
		 "{\"version\":1,\"subnets\":[\"10.2.%u.0/24\"],\"address\":\"192.168.0.%u\","
		 "\"backend\":{\"type\":\"host-gw\"}}",
		 n, n);
	apply(node, value, order);
}

/* -- health ----------------------------------------------------------------- */

static void test_health(void **state)
{
	struct status_view view = { .healthy = false };

	status_view_reason(&view, "no subnet is held");
	status_view_reason(&view, "the bridge does not stand");
	set_view(&view);
	assert_string_equal(get("/healthz", 503), "no subnet is held\nthe bridge does not stand\n");
	view.healthy = true;
	set_view(&view);
	assert_string_equal(get("/healthz", 200), "ok\n");
	assert_string_equal(get("/readyz", 503), "no subnet is held\nthe bridge does not stand\n");
	view.ready = true;
	view.nreasons = 0;
	set_view(&view);
	assert_string_equal(get("/readyz", 200), "ok\n");
	view.healthy = false;
	set_view(&view);
	assert_string_equal(get("/readyz", 503), "no reason is known\n");
}

/* -- lists ------------------------------------------------------------------ */

static void test_empty(void **state)
{
	static const char *const lists[] = { "peers", "routes", "pods" };
	char path[32];

	for (size_t i = 0; i < countof(lists); i++) {
		json_t *root;

		snprintf(path, sizeof(path), "/status/%s", lists[i]);
		root = get_json(path);
		assert_int_equal(json_array_size(json_object_get(root, lists[i])), 0);
		json_decref(root);
	}
	json_decref(get_json("/status"));
	get("/metrics", 200);
}

static void test_peers(void **state)
{
	json_t *root, *one;

	apply_record(7, 1);
	apply("n8",
	      "{\"version\":1,\"subnets\":[\"10.2.7.0/24\"],\"address\":\"192.168.0.8\","
	      "\"backend\":{\"type\":\"host-gw\"}}",
	      2);
	apply("evil\x1b[2J\xff", "not JSON", 3);
	root = get_json("/status/peers");
	assert_int_equal(json_array_size(json_object_get(root, "peers")), 3);
	one = row(root, "peers", "node", "n7");
	assert_text(one, "subnet", "10.2.7.0/24");
	assert_text(one, "address", "192.168.0.7");
	assert_text(one, "backend", "host-gw");
	assert_text(one, "state", "ok");
	assert_text(one, "reason", NULL);
	one = row(root, "peers", "node", "n8");
	assert_text(one, "state", "conflict");
	one = row(root, "peers", "state", "rejected");
	assert_text(one, "node", "evil\x1b[2J?");
	assert_text(one, "subnet", NULL);
	assert_text(one, "address", NULL);
	assert_text(one, "backend", NULL);
	assert_true(json_is_string(json_object_get(one, "reason")));
	json_decref(root);
}

static void fail_key(const struct prefix *p, int code)
{
	struct key key = key_route(p);
	struct queue_item item;
	const atomic_bool quit = false;

	queue_put(t.source.queue, &key, QUEUE_CHANGE, 0);
	assert_int_equal(queue_take(t.source.queue, &item, 1, &quit), 1);
	queue_done(t.source.queue, &item, code);
}

static void test_routes(void **state)
{
	struct prefix ours = prefix("10.2.3.0/24"), other = prefix("10.2.4.0/24");
	struct prefix foreign = prefix("10.2.5.0/24"), failing = prefix("10.2.6.0/24");
	struct prefix stale = prefix("10.2.7.0/24"), stuck = prefix("10.2.8.0/24");
	struct addr right = addr("192.168.0.3"), wrong = addr("192.168.0.99");
	struct key hop = key_nexthop(&wrong);
	struct queue_item item;
	const atomic_bool quit = false;
	json_t *root, *one;

	for (unsigned n = 2; n <= 6; n++)
		apply_record(n, n);
	assert_int_equal(fib_note(t.source.fib, &ours, FIB_OURS, &right), 0);
	assert_int_equal(fib_note(t.source.fib, &other, FIB_OURS, &wrong), 0);
	assert_int_equal(fib_note(t.source.fib, &foreign, FIB_FOREIGN, NULL), 0);
	fail_key(&foreign, -EEXIST);
	fail_key(&failing, -ENETUNREACH);
	assert_int_equal(fib_note(t.source.fib, &stale, FIB_OURS, &wrong), 0);
	fail_key(&stuck, -EBUSY);
	queue_put(t.source.queue, &hop, QUEUE_CHANGE, 0);
	assert_int_equal(queue_take(t.source.queue, &item, 1, &quit), 1);
	queue_done(t.source.queue, &item, -ENETDOWN);
	root = get_json("/status/routes");
	assert_int_equal(json_array_size(json_object_get(root, "routes")), 8);

	one = row(root, "routes", "destination", "10.2.2.0/24");
	assert_text(one, "state", "pending");
	assert_text(one, "node", "n2");
	assert_text(one, "via", "192.168.0.2");
	one = row(root, "routes", "destination", "10.2.3.0/24");
	assert_text(one, "state", "installed");
	assert_text(one, "reason", NULL);
	assert_true(json_is_null(json_object_get(one, "next_try_s")));
	one = row(root, "routes", "destination", "10.2.4.0/24");
	assert_text(one, "state", "pending");
	one = row(root, "routes", "destination", "10.2.5.0/24");
	assert_text(one, "state", "clash");
	assert_true(json_is_string(json_object_get(one, "reason")));
	one = row(root, "routes", "destination", "10.2.6.0/24");
	assert_text(one, "state", "failing");
	assert_text(one, "reason", "the next hop is not on a network of this node");
	assert_int_equal(json_integer_value(json_object_get(one, "tries")), 1);
	assert_true(json_is_integer(json_object_get(one, "next_try_s")));

	one = row(root, "routes", "destination", "10.2.7.0/24");
	assert_text(one, "state", "stale");
	assert_text(one, "via", "192.168.0.99");
	assert_text(one, "node", NULL);
	one = row(root, "routes", "destination", "10.2.8.0/24");
	assert_text(one, "state", "failing");
	assert_true(json_is_integer(json_object_get(one, "next_try_s")));
	one = row(root, "routes", "reason", "the link to the other nodes is down");
	assert_text(one, "destination", NULL);
	assert_text(one, "via", "192.168.0.99");
	json_decref(root);
}

/* A pod of the node's subnet, which takes the next address. */
static void take_address(const char *container)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	const struct prefix subnet = prefix("10.2.1.0/24");
	struct ipam_address given[IPAM_SETS_MAX];
	struct ipam_pool pool = { .nsets = 0 };

	strlcpy(pool.dir, t.dir, sizeof(pool.dir));
	assert_int_equal(ipam_pool_add_subnet(&pool, &subnet, NULL), 0);
	assert_int_equal(ipam_allocate(&pool, NULL, 0, &owner, given, NULL), 0);
}

static void test_pods(void **state)
{
	json_t *root, *one;

	for (unsigned i = 0; i < 12; i++) {
		char container[32];

		snprintf(container, sizeof(container), "container%u", i);
		take_address(container);
	}
	root = get_json("/status/pods");
	assert_int_equal(json_array_size(json_object_get(root, "pods")), 12);
	/* in order of addresses as numbers, not as texts */
	one = json_array_get(json_object_get(root, "pods"), 0);
	assert_text(one, "address", "10.2.1.2");
	one = json_array_get(json_object_get(root, "pods"), 8);
	assert_text(one, "address", "10.2.1.10");
	assert_text(one, "interface", "eth0");
	assert_int_equal(strncmp(json_string_value(json_object_get(one, "link")), "pop", 3), 0);
	json_decref(root);
}

/* -- numbers ---------------------------------------------------------------- */

static void assert_metric(const char *text, const char *line)
{
	char wanted[256];

	snprintf(wanted, sizeof(wanted), "\n%s\n", line);
	if (!strstr(text, wanted))
		fail_msg("no line '%s' in: %s", line, text);
}

static void test_numbers(void **state)
{
	struct prefix subnet = prefix("10.2.1.0/24"), ours = prefix("10.2.3.0/24");
	struct prefix failing = prefix("10.2.6.0/24");
	struct addr right = addr("192.168.0.3");
	struct key waiting = key_route(&ours);
	struct status_view view = { .healthy = true };
	json_int_t known, desired, installed, failed, depth, held, capacity, ttl;
	const char *text;
	json_t *root;

	for (unsigned n = 2; n <= 6; n++)
		apply_record(n, n);
	apply("bad", "not JSON", 9);
	assert_int_equal(fib_note(t.source.fib, &ours, FIB_OURS, &right), 0);
	fail_key(&failing, -ENETUNREACH);
	queue_put(t.source.queue, &waiting, QUEUE_CHANGE, 0);
	take_address("c");
	view.subnet = subnet;
	view.lease_held = true;
	view.lease_ttl_s = 120;
	view.lease_deadline_ns = clock_boot_ns() + 100 * NS_PER_S;
	set_view(&view);
	root = get_json("/status");
	assert_int_equal(json_unpack(root,
				     "{s:{s:I}, s:{s:I, s:I, s:I}, s:{s:I}, s:{s:I, s:I},"
				     " s:{s:I}}",
				     "peers", "known", &known, "routes", "desired", &desired,
				     "installed", &installed, "failing", &failed, "queue", "depth",
				     &depth, "pods", "held", &held, "capacity", &capacity, "lease",
				     "ttl_s", &ttl),
			 0);
	assert_int_equal(known, 5);
	assert_int_equal(desired, 5);
	assert_int_equal(installed, 1);
	assert_int_equal(failed, 1);
	assert_int_equal(depth, 1);
	assert_int_equal(held, 1);
	assert_int_equal(capacity, 253);
	assert_int_equal(ttl, 120);
	json_decref(root);

	text = get("/metrics", 200);
	assert_non_null(strstr(t.answer.data, "Content-Type: text/plain; version=0.0.4"));
	assert_metric(text, "poplin_peers 5");
	assert_metric(text, "poplin_peers_rejected 1");
	assert_metric(text, "poplin_routes_desired{family=\"ipv4\"} 5");
	assert_metric(text, "poplin_routes_installed{family=\"ipv4\"} 1");
	assert_metric(text, "poplin_workqueue_depth 1");
	assert_metric(text, "poplin_lease_ttl_seconds 120");
	assert_metric(text, "poplin_ipam_addresses 1");
	assert_metric(text, "poplin_ipam_capacity 253");
	assert_null(strstr(text, "poplin_lease_expiry_timestamp_seconds 0.0"));
}

/* -- size ------------------------------------------------------------------- */

static void test_many(void **state)
{
	enum { MANY = 250 };
	json_t *root;

	for (unsigned n = 0; n < MANY; n++)
		apply_record(n == 11 ? 251 : n, n + 1);
	root = get_json("/status/peers");
	assert_int_equal(json_array_size(json_object_get(root, "peers")), MANY);
	json_decref(root);
	root = get_json("/status/routes");
	assert_true(json_array_size(json_object_get(root, "routes")) >= MANY - 2);
	json_decref(root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_health, setup, teardown),
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_routes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pods, setup, teardown),
		cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Claims against a real etcd: races, restarts, other machines, lost answers. */
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>

#include "etcd_server.h"
#include "poplin/base/clock.h"
#include "poplin/base/thread.h"

#define TTL_S 60

/* Networks of 256 and of 16 subnets. */
static struct network large, small;
static struct record mine;

static void make_network(const char *text, unsigned margin, struct network *ret)
{
	struct prefix pods;

	assert_int_equal(prefix_parse(text, &pods, NULL), 0);
	assert_int_equal(network_init(ret, &pods, margin, NULL), 0);
}

static int setup(void **state)
{
	make_network("10.2.0.0/16", 8, &large);
	make_network("10.3.0.0/26", 4, &small);
	mine = (struct record){ .address = addr_from_ipv4(0xc0a8000b), .machine = "mine" };
	return etcd_setup(state);
}

static struct store_claim_request request(const char *node)
{
	return (struct store_claim_request){
		.node = node,
		.network = &large,
		.record = &mine,
		.ttl_s = TTL_S,
	};
}

static struct store_claim claim(struct store *s, const char *node)
{
	const struct store_claim_request req = request(node);
	struct err err = ERR_INIT;
	struct store_claim ret;

	SHOULD_WORK(store_claim(s, &req, false, &ret, &err), &err);
	return ret;
}

static const char *text_of(const struct prefix *p)
{
	static char text[PREFIX_TEXT_MAX];

	return prefix_format(p, text);
}

static struct prefix prefix_of(const char *text)
{
	struct prefix ret;

	assert_int_equal(prefix_parse(text, &ret, NULL), 0);
	return ret;
}

#define auto_kv __attribute__((cleanup(etcd_kv_done))) struct etcd_kv

/* Both keys stand as one claim should leave them. */
static void check_keys(struct store *s, const char *node, const struct store_claim *c)
{
	char address[ADDR_TEXT_MAX];
	auto_kv record = { .lease = 0 };
	auto_kv holder = { .lease = 0 };
	struct record parsed;

	assert_true(get_key(s, &record, "%s/%s", s->prefix, node));
	assert_int_equal(record_parse(record.value.data, record.value.len, &parsed, NULL), 0);
	assert_int_equal(prefix_cmp(&parsed.subnets[0], &c->subnet), 0);
	assert_true(get_key(s, &holder, "%s-subnets/%s-%u", s->prefix,
			    addr_format(&c->subnet.addr, address), c->subnet.len));
	assert_string_equal(holder.value.data, node);
	assert_int_equal((uint64_t)record.lease, c->lease);
	assert_int_equal((uint64_t)holder.lease, c->lease);
}

/* -- races ------------------------------------------------------------------ */

struct racer {
	struct thread thread;
	const char *prefix;
	const struct network *network;
	pthread_barrier_t *start;
	char node[16];
	struct store_claim claim;
	struct err err;
	int result;
};

static void *race(void *arg)
{
	struct racer *racer = arg;
	struct store_claim_request req = request(racer->node);
	auto_(store_close) struct store *s = open_store(racer->prefix, NULL);

	req.network = racer->network;
	pthread_barrier_wait(racer->start);
	racer->result = store_claim(s, &req, false, &racer->claim, &racer->err);
	return NULL;
}

/* Returns how many got a subnet; no two got the same. */
static unsigned run_race(struct store *s, struct racer *racers, unsigned count,
			 const struct network *network)
{
	bool taken[256] = { false };
	pthread_barrier_t start;
	unsigned winners = 0;
	uint32_t index;

	pthread_barrier_init(&start, NULL, count);
	for (unsigned i = 0; i < count; i++) {
		racers[i] =
			(struct racer){ .prefix = s->prefix, .network = network, .start = &start };
		(void)snprintf(racers[i].node, sizeof(racers[i].node), "n%u", i);
		assert_int_equal(thread_start(&racers[i].thread, "racer", race, &racers[i]), 0);
	}
	for (unsigned i = 0; i < count; i++)
		thread_join(&racers[i].thread);
	pthread_barrier_destroy(&start);
	for (unsigned i = 0; i < count; i++) {
		if (racers[i].result < 0)
			continue;
		assert_true(network_index(network, &racers[i].claim.subnet, &index));
		assert_false(taken[index]);
		taken[index] = true;
		check_keys(s, racers[i].node, &racers[i].claim);
		winners++;
	}
	return winners;
}

static void fifty_at_once_get_fifty_subnets(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	static struct racer racers[50];

	assert_int_equal(run_race(s, racers, 50, &large), 50);
}

static void twenty_at_once_share_sixteen_subnets(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	static struct racer racers[20];

	assert_int_equal(run_race(s, racers, 20, &small), 16);
	for (unsigned i = 0; i < 20; i++) {
		if (racers[i].result == 0)
			continue;
		assert_int_equal(racers[i].result, -ENOSPC);
		assert_non_null(strstr(racers[i].err.text, "10.3.0.0/26 is full: all of its 16"));
	}
}

/* -- one node ------------------------------------------------------------------ */

static void a_restart_changes_nothing_in_the_store(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim first = claim(s, "n1"), again;
	auto_kv before = { .lease = 0 };
	auto_kv after = { .lease = 0 };

	check_keys(s, "n1", &first);
	assert_int_equal(first.ttl_s, TTL_S);
	assert_true(first.sent_boot_ns > 0 && first.sent_boot_ns < clock_boot_ns());
	assert_true(get_key(s, &before, "%s/n1", s->prefix));
	store_close(TAKE(s));
	s = open_store(*state, NULL);
	again = claim(s, "n1");
	assert_int_equal(again.lease, first.lease);
	assert_true(again.sent_boot_ns > first.sent_boot_ns);
	assert_int_equal(prefix_cmp(&again.subnet, &first.subnet), 0);
	assert_true(get_key(s, &after, "%s/n1", s->prefix));
	assert_int_equal(after.mod_revision, before.mod_revision);
}

/* The keys are never away: they are as old as before, and the old lease is gone. */
static void another_ttl_or_address_moves_to_a_new_lease(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim first = claim(s, "n1"), second, third;
	struct store_claim_request req = request("n1");
	struct record record = mine;
	auto_kv before = { .lease = 0 };
	auto_kv after = { .lease = 0 };
	struct err err = ERR_INIT;

	assert_true(get_key(s, &before, "%s/n1", s->prefix));
	req.ttl_s = 30;
	SHOULD_WORK(store_claim(s, &req, false, &second, &err), &err);
	assert_int_equal(second.ttl_s, 30);
	assert_int_equal(prefix_cmp(&second.subnet, &first.subnet), 0);
	check_keys(s, "n1", &second);
	assert_int_equal(store_renew(s, &first, NULL), -ENOENT);
	record.address = addr_from_ipv4(0xc0a8000c);
	req.record = &record;
	SHOULD_WORK(store_claim(s, &req, false, &third, &err), &err);
	check_keys(s, "n1", &third);
	assert_int_equal(store_renew(s, &second, NULL), -ENOENT);
	SHOULD_WORK(store_renew(s, &third, &err), &err);
	assert_true(get_key(s, &after, "%s/n1", s->prefix));
	assert_int_equal(after.create_revision, before.create_revision);
	assert_true(after.mod_revision > before.mod_revision);
}

static void a_subnets_key_of_another_lease_is_put_right(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim c = claim(s, "n1");
	char key[ETCD_KEY_MAX], address[ADDR_TEXT_MAX];

	(void)snprintf(key, sizeof(key), "%s-subnets/%s-%u", s->prefix,
		       addr_format(&c.subnet.addr, address), c.subnet.len);
	set_key(s, key, "n1");
	c = claim(s, "n1");
	check_keys(s, "n1", &c);
	set_key(s, key, NULL);
	c = claim(s, "n1");
	check_keys(s, "n1", &c);
}

static void a_restart_keeps_a_lease_that_is_as_short_as_etcd_grants_it(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct store_claim first, again;
	struct err err = ERR_INIT;

	/* With its usual election timeout etcd grants two seconds at least. */
	req.ttl_s = 1;
	SHOULD_WORK(store_claim(s, &req, false, &first, &err), &err);
	assert_int_equal(first.ttl_s, 2);
	SHOULD_WORK(store_claim(s, &req, false, &again, &err), &err);
	assert_int_equal(again.lease, first.lease);
	assert_int_equal(again.record_version, first.record_version);
	SHOULD_WORK(store_verify(s, "n1", &first, &err), &err);
}

static void a_lost_lease_is_noticed_and_the_subnet_claimed_again(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim first = claim(s, "n1"), again;
	struct store_claim_request req = request("n1");
	struct err err = ERR_INIT;

	SHOULD_WORK(store_renew(s, &first, &err), &err);
	SHOULD_WORK(etcd_revoke(s, first.lease, &err), &err);
	SHOULD_WORK(etcd_revoke(s, first.lease, &err), &err);
	assert_int_equal(store_renew(s, &first, &err), -ENOENT);
	req.preferred = &first.subnet;
	SHOULD_WORK(store_claim(s, &req, true, &again, &err), &err);
	assert_int_equal(prefix_cmp(&again.subnet, &first.subnet), 0);
	check_keys(s, "n1", &again);
}

static void a_lease_of_2_s_runs_out(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	auto_kv kv = { .lease = 0 };
	struct err err = ERR_INIT;
	struct store_claim c;
	int tries = 0;

	req.ttl_s = 2;
	SHOULD_WORK(store_claim(s, &req, false, &c, &err), &err);
	while (get_key(s, &kv, "%s/n1", s->prefix) && tries++ < 100)
		sleep_ms(100);
	/* Never before the deadline that the agent counts with. */
	assert_true(clock_boot_ns() >= c.sent_boot_ns + c.ttl_s * NS_PER_S);
	assert_int_equal(store_renew(s, &c, &err), -ENOENT);
}

/* -- others ------------------------------------------------------------------------ */

static void a_name_of_another_machine_is_refused(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct store_claim c = claim(s, "n1"), untouched = { .lease = 7 };
	struct record record = mine;
	struct err err = ERR_INIT;
	struct prefix subnet;

	strlcpy(record.machine, "other", sizeof(record.machine));
	req.record = &record;
	assert_int_equal(store_claim(s, &req, false, &untouched, &err), -EEXIST);
	assert_int_equal(untouched.lease, 7);
	assert_non_null(strstr(err.text, "'n1' is held by another machine, at 192.168.0.11"));
	assert_int_equal(store_release(s, "n1", "other", &subnet, &err), -EEXIST);
	check_keys(s, "n1", &c);
}

static void a_name_of_another_machine_without_a_lease_says_which_key_to_delete(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct err err = ERR_INIT;
	struct store_claim c;
	char key[ETCD_KEY_MAX];

	set_record(s, "n1",
		   "{\"version\":1,\"subnets\":[\"10.2.222.0/24\"],\"address\":\"192.168.0.99\","
		   "\"backend\":{\"type\":\"host-gw\"},\"machine\":\"another\"}");
	assert_int_equal(store_claim(s, &req, false, &c, &err), -EEXIST);
	assert_non_null(strstr(err.text, "192.168.0.99"));
	assert_non_null(strstr(err.text, "no lease"));
	(void)snprintf(key, sizeof(key), "delete the key %s/n1", s->prefix);
	assert_non_null(strstr(err.text, key));
}

static void a_preferred_subnet_of_another_node_is_not_taken(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim first = claim(s, "n1"), second;
	struct store_claim_request req = request("n2");
	struct err err = ERR_INIT;

	req.preferred = &first.subnet;
	assert_int_equal(store_claim(s, &req, true, &second, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "held by node 'n1'"));
	SHOULD_WORK(store_claim(s, &req, false, &second, &err), &err);
	assert_int_not_equal(prefix_cmp(&first.subnet, &second.subnet), 0);
}

static void a_released_subnet_is_free_and_the_last_to_be_used(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim first = claim(s, "n1"), second;
	auto_kv kv = { .lease = 0 };
	struct err err = ERR_INIT;
	struct prefix subnet;

	SHOULD_WORK(store_release(s, "n1", "mine", &subnet, &err), &err);
	assert_int_equal(prefix_cmp(&subnet, &first.subnet), 0);
	assert_false(get_key(s, &kv, "%s/n1", s->prefix));
	assert_int_equal(store_release(s, "n1", "mine", &subnet, &err), -ENOENT);
	second = claim(s, "n1");
	assert_int_not_equal(prefix_cmp(&first.subnet, &second.subnet), 0);
}

static void bare_records_count_as_taken(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct prefix preferred = prefix_of("10.3.0.4/30");
	struct err err = ERR_INIT;
	struct store_claim c;
	char key[ETCD_KEY_MAX], name[16], subnet[24];

	/* All but 10.3.0.60/30; and keys of subnets that make the counts agree. */
	for (unsigned i = 0; i < 15; i++) {
		(void)snprintf(name, sizeof(name), "p%u", i);
		(void)snprintf(subnet, sizeof(subnet), "10.3.0.%u/30", 4 * i);
		set_record(s, name, subnet);
		(void)snprintf(key, sizeof(key), "%s-subnets/stray%u", s->prefix, i);
		set_key(s, key, "nobody");
	}
	req.network = &small;
	req.preferred = &preferred;
	assert_int_equal(store_claim(s, &req, true, &c, &err), -EADDRINUSE);
	SHOULD_WORK(store_claim(s, &req, false, &c, &err), &err);
	assert_string_equal(text_of(&c.subnet), "10.3.0.60/30");
	req.node = "n2";
	assert_int_equal(store_claim(s, &req, false, &c, &err), -ENOSPC);
}

static void a_bare_record_of_the_node_is_taken_over(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim c;

	set_record(s, "n1", "10.2.77.0/24");
	c = claim(s, "n1");
	assert_string_equal(text_of(&c.subnet), "10.2.77.0/24");
	check_keys(s, "n1", &c);
	/* One whose subnet another node holds is not: the node gets another subnet. */
	set_record(s, "n2", "10.2.77.0/24");
	assert_string_not_equal((c = claim(s, "n2"), text_of(&c.subnet)), "10.2.77.0/24");
	check_keys(s, "n2", &c);
}

static void garbage_in_the_nodes_own_record_is_overwritten(void **state)
{
	static const char *const garbage[] = { "", "{", "{\"version\":1}", "10.9.0.0/24", "\xff" };
	auto_(store_close) struct store *s = open_store(*state, NULL);

	for (size_t i = 0; i < countof(garbage); i++) {
		struct store_claim c;

		set_record(s, "n1", garbage[i]);
		c = claim(s, "n1");
		check_keys(s, "n1", &c);
	}
}

/* What was written by hand over our subnet is no reason to delete another node's key. */
static void a_release_leaves_the_keys_of_others(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim c = claim(s, "n1");
	auto_kv kv = { .lease = 0 };
	struct err err = ERR_INIT;

	set_record(s, "n2", text_of(&c.subnet));
	SHOULD_WORK(store_release(s, "n2", "mine", NULL, &err), &err);
	assert_false(get_key(s, &kv, "%s/n2", s->prefix));
	check_keys(s, "n1", &c);
	SHOULD_WORK(etcd_revoke(s, c.lease, &err), &err);
	set_record(s, "n1", text_of(&c.subnet));
	SHOULD_WORK(store_release(s, "n1", "mine", NULL, &err), &err);
	assert_int_equal(store_release(s, "n1", "mine", NULL, &err), -ENOENT);
}

/* -- reading back, promises, the cluster's settings -------------------------------------- */

static void a_claim_is_read_back(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim c = claim(s, "n1"), again;
	char key[ETCD_KEY_MAX], address[ADDR_TEXT_MAX];
	auto_kv kv = { .lease = 0 };
	struct err err = ERR_INIT;

	SHOULD_WORK(store_verify(s, "n1", &c, &err), &err);
	again = claim(s, "n1"); /* attached: the same handles */
	SHOULD_WORK(store_verify(s, "n1", &again, &err), &err);
	assert_int_equal(again.record_version, c.record_version);
	/* The same content, but on no lease: it would stay for ever. */
	assert_true(get_key(s, &kv, "%s/n1", s->prefix));
	set_record(s, "n1", kv.value.data);
	assert_int_equal(store_verify(s, "n1", &c, &err), -ENOENT);
	assert_non_null(strstr(err.text, "'n1'"));
	c = claim(s, "n1");
	check_keys(s, "n1", &c);
	SHOULD_WORK(store_verify(s, "n1", &c, &err), &err);
	/* The lease lives, and is renewed, though the keys are gone. */
	(void)snprintf(key, sizeof(key), "%s-subnets/%s-%u", s->prefix,
		       addr_format(&c.subnet.addr, address), c.subnet.len);
	set_key(s, key, NULL);
	SHOULD_WORK(store_renew(s, &c, &err), &err);
	assert_int_equal(store_verify(s, "n1", &c, &err), -ENOENT);
	set_record(s, "n1", NULL);
	SHOULD_WORK(store_renew(s, &c, &err), &err);
	assert_int_equal(store_verify(s, "n1", &c, &err), -ENOENT);
}

struct promise_test {
	struct store *other;
	struct store_claim told;
	int64_t lease_then; /* that the record hung on when we were asked */
	int calls, answer;
};

static int on_lease(const struct store_claim *claim, void *arg, struct err *err)
{
	struct promise_test *t = arg;
	auto_kv kv = { .lease = 0 };

	t->calls++;
	t->told = *claim;
	t->lease_then = get_key(t->other, &kv, "%s/n1", t->other->prefix) ? kv.lease : 0;
	return t->answer ? err_set(err, t->answer, "disk full") : 0;
}

static void a_new_lease_is_told_before_the_keys_move(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	auto_(store_close) struct store *other = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct promise_test t = { .other = other };
	struct store_claim first, second;
	struct err err = ERR_INIT;

	req.on_lease = on_lease;
	req.arg = &t;
	SHOULD_WORK(store_claim(s, &req, false, &first, &err), &err);
	assert_int_equal(t.calls, 1);
	assert_int_equal(t.lease_then, 0);
	assert_int_equal(t.told.sent_boot_ns, first.sent_boot_ns);
	SHOULD_WORK(store_claim(s, &req, false, &first, &err), &err);
	assert_int_equal(t.calls, 1);
	req.ttl_s = 30;
	SHOULD_WORK(store_claim(s, &req, false, &second, &err), &err);
	assert_int_equal(t.calls, 2);
	assert_int_equal((uint64_t)t.lease_then, first.lease);
	assert_int_equal(t.told.ttl_s, 30);
	/* A promise that cannot be shortened keeps the claim where it is. */
	req.ttl_s = 20;
	t.answer = -ENOSPC;
	assert_int_equal(store_claim(s, &req, false, &first, &err), -ENOSPC);
	assert_string_equal(err.text, "disk full");
	check_keys(s, "n1", &second);
	SHOULD_WORK(store_renew(s, &second, &err), &err);
}

static void nodes_agree_on_the_network(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n2");
	auto_kv kv = { .lease = 0 };
	auto_kv later = { .lease = 0 };
	struct err err = ERR_INIT;
	struct store_claim c;
	char key[ETCD_KEY_MAX];

	(void)claim(s, "n1");
	assert_true(get_key(s, &kv, "%s-network", s->prefix));
	assert_string_equal(kv.value.data,
			    "{\"version\":1,\"subnet\":\"10.2.0.0/16\",\"margin\":8}");
	assert_int_equal(kv.lease, 0);
	req.network = &small;
	assert_int_equal(store_claim(s, &req, false, &c, &err), -EDOM);
	assert_non_null(strstr(err.text, "IP_SUBNET=10.3.0.0/26 and IP_SUBNET_MARGIN=4"));
	assert_non_null(strstr(err.text, "the cluster 10.2.0.0/16 and 8"));
	assert_false(get_key(s, &later, "%s/n2", s->prefix));
	(void)claim(s, "n2");
	assert_true(get_key(s, &later, "%s-network", s->prefix));
	assert_int_equal(later.mod_revision, kv.mod_revision);
	(void)snprintf(key, sizeof(key), "%s-network", s->prefix);
	static const char *const garbage[] = {
		"",
		"{",
		"[]",
		"{\"version\":1}",
		"{\"version\":2,\"subnet\":\"10.2.0.0/16\",\"margin\":8}",
		"{\"version\":1,\"subnet\":\"10.2.0.1/16\",\"margin\":8}",
		"{\"version\":1,\"subnet\":\"10.2.0.0/16\",\"margin\":-8}",
		"{\"version\":1,\"subnet\":\"10.2.0.0/16\",\"margin\":80}",
	};
	req = request("n3");
	for (size_t i = 0; i < countof(garbage); i++) {
		set_key(s, key, garbage[i]);
		assert_int_equal(store_claim(s, &req, false, &c, &err), -EPROTO);
		assert_non_null(strstr(err.text, key));
	}
	assert_false(get_key(s, &later, "%s/n3", s->prefix));
	set_key(s, key, NULL);
	(void)claim(s, "n3");
}

static void a_bare_record_over_ours_does_not_move_us(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct store_claim first = claim(s, "n1"), again;
	struct err err = ERR_INIT;

	set_record(s, "n1", "10.2.200.0/24");
	req.preferred = &first.subnet;
	SHOULD_WORK(store_claim(s, &req, true, &again, &err), &err);
	assert_int_equal(prefix_cmp(&again.subnet, &first.subnet), 0);
	check_keys(s, "n1", &again);
}

static void a_record_that_names_another_subnet_does_not_move_us(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct store_claim first = claim(s, "n1"), other, again;
	struct err err = ERR_INIT;
	auto_kv kv = { .lease = 0 };

	/* As a restored backup has it: an older claim of ours, with a lease that lives. */
	assert_int_equal(store_release(s, "n1", "mine", NULL, &err), 0);
	other = claim(s, "n1");
	assert_int_not_equal(prefix_cmp(&first.subnet, &other.subnet), 0);
	req.preferred = &first.subnet;
	SHOULD_WORK(store_claim(s, &req, true, &again, &err), &err);
	assert_int_equal(prefix_cmp(&again.subnet, &first.subnet), 0);
	check_keys(s, "n1", &again);
	/* Nothing is left of the other one. */
	assert_int_equal(store_renew(s, &other, &err), -ENOENT);
	/* As by hand, without a lease. */
	set_record(s, "n1",
		   "{\"version\":1,\"subnets\":[\"10.2.222.0/24\"],\"address\":\"192.168.0.11\","
		   "\"backend\":{\"type\":\"host-gw\"},\"machine\":\"mine\"}");
	SHOULD_WORK(store_claim(s, &req, true, &again, &err), &err);
	assert_int_equal(prefix_cmp(&again.subnet, &first.subnet), 0);
	check_keys(s, "n1", &again);
	assert_false(get_key(s, &kv, "%s-subnets/10.2.222.0-24", s->prefix));
}

static void a_record_counts_when_another_node_holds_the_subnet_that_was_ours(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim_request req = request("n1");
	struct store_claim theirs = claim(s, "n2"), mine_now = claim(s, "n1"), again;
	struct err err = ERR_INIT;

	req.preferred = &theirs.subnet;
	assert_int_equal(store_claim(s, &req, true, &again, &err), -EADDRINUSE);
	SHOULD_WORK(store_claim(s, &req, false, &again, &err), &err);
	assert_int_equal(again.lease, mine_now.lease);
	check_keys(s, "n1", &again);
	check_keys(s, "n2", &theirs);
}

/* -- deadlines ----------------------------------------------------------------------- */

/* With a short lease an endpoint that keeps silent must leave time for the others. */
static void a_silent_endpoint_takes_a_sixth_of_the_ttl_at_most(void **state)
{
	auto_(store_close) struct store *s = open_store(*state, NULL);
	struct store_claim c = claim(s, "n1");
	char silent[64], password[96];
	struct store_config config = { .prefix = *state, .counter_key = "/counter" };
	struct err err = ERR_INIT;
	uint16_t port;
	int fd = bind_any(&port), file;

	assert_int_equal(listen(fd, 8), 0);
	(void)snprintf(silent, sizeof(silent), "127.0.0.1:%u", port);
	(void)snprintf(password, sizeof(password), "%s/password", server.dir);
	file = open(password, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(file, "secret", 6), 6);
	close(file);
	config.access.endpoints = silent;
	c.ttl_s = 3;
	for (int login = 0; login < 2; login++) {
		auto_(store_close) struct store *to_silent = NULL;
		int64_t start;

		config.access.user = login ? "root" : NULL;
		config.access.password_file = login ? password : NULL;
		SHOULD_WORK(store_open(&to_silent, &config, &err), &err);
		start = clock_ns();
		assert_int_equal(store_verify(to_silent, "n1", &c, &err), -ETIMEDOUT);
		assert_true(clock_ns() - start < 3 * NS_PER_S);
	}
	close(fd);
}

/* -- lost answers ---------------------------------------------------------------------- */

/* Stands between store and etcd and swallows the answer of the first transaction that compares. */
struct proxy {
	struct thread thread;
	int fd;
	uint16_t port;
	atomic_bool armed;
};

static int dial(uint16_t port)
{
	const struct sockaddr_in at = { .sin_family = AF_INET,
					.sin_port = htons(port),
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static bool pump(struct proxy *p, int from, int to, bool *swallow)
{
	char data[65536];
	ssize_t n = read(from, data, sizeof(data));

	if (n <= 0 || *swallow)
		return false;
	if (memmem(data, (size_t)n, "\"compare\"", 9) && atomic_exchange(&p->armed, false))
		*swallow = true;
	return write(to, data, (size_t)n) == n;
}

static void serve(struct proxy *p, int client)
{
	int etcd = dial(server.client_port);
	struct pollfd fds[] = { { .fd = client, .events = POLLIN },
				{ .fd = etcd, .events = POLLIN } };
	bool swallow = false, open = true;

	while (open && poll(fds, 2, -1) > 0) {
		if (fds[0].revents)
			open = pump(p, client, etcd, &swallow);
		else if (fds[1].revents)
			open = pump(p, etcd, client, &swallow);
	}
	close(etcd);
	close(client);
}

static void *run_proxy(void *arg)
{
	struct proxy *p = arg;
	int client;

	while ((client = accept4(p->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		serve(p, client);
	return NULL;
}

static void a_claim_whose_answer_was_lost_stands(void **state)
{
	struct proxy proxy = { .armed = true };
	struct err err = ERR_INIT;
	struct store_claim first, second;
	struct store_claim_request req = request("n1");
	char endpoints[80];
	auto_kv before = { .lease = 0 };
	auto_kv after = { .lease = 0 };
	struct store *s;

	proxy.fd = bind_any(&proxy.port);
	assert_int_equal(listen(proxy.fd, 8), 0);
	(void)snprintf(endpoints, sizeof(endpoints), "127.0.0.1:%u,127.0.0.1:%u", proxy.port,
		       proxy.port);
	s = open_store(*state, endpoints);
	assert_int_equal(thread_start(&proxy.thread, "proxy", run_proxy, &proxy), 0);
	first = claim(s, "n1");
	assert_false(proxy.armed);
	check_keys(s, "n1", &first);
	/* On the way to a new lease too: the keys are never away. */
	assert_true(get_key(s, &before, "%s/n1", s->prefix));
	proxy.armed = true;
	req.ttl_s = 30;
	SHOULD_WORK(store_claim(s, &req, false, &second, &err), &err);
	assert_false(proxy.armed);
	check_keys(s, "n1", &second);
	assert_true(get_key(s, &after, "%s/n1", s->prefix));
	assert_int_equal(after.create_revision, before.create_revision);
	store_close(s);
	(void)shutdown(proxy.fd, SHUT_RDWR);
	thread_join(&proxy.thread);
	close(proxy.fd);
}

#define CLAIM_TEST(f) cmocka_unit_test_setup(f, prefix_setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CLAIM_TEST(fifty_at_once_get_fifty_subnets),
		CLAIM_TEST(twenty_at_once_share_sixteen_subnets),
		CLAIM_TEST(a_restart_changes_nothing_in_the_store),
		CLAIM_TEST(another_ttl_or_address_moves_to_a_new_lease),
		CLAIM_TEST(a_subnets_key_of_another_lease_is_put_right),
		CLAIM_TEST(a_restart_keeps_a_lease_that_is_as_short_as_etcd_grants_it),
		CLAIM_TEST(a_lost_lease_is_noticed_and_the_subnet_claimed_again),
		CLAIM_TEST(a_lease_of_2_s_runs_out),
		CLAIM_TEST(a_name_of_another_machine_is_refused),
		CLAIM_TEST(a_name_of_another_machine_without_a_lease_says_which_key_to_delete),
		CLAIM_TEST(a_preferred_subnet_of_another_node_is_not_taken),
		CLAIM_TEST(a_released_subnet_is_free_and_the_last_to_be_used),
		CLAIM_TEST(bare_records_count_as_taken),
		CLAIM_TEST(a_bare_record_of_the_node_is_taken_over),
		CLAIM_TEST(garbage_in_the_nodes_own_record_is_overwritten),
		CLAIM_TEST(a_release_leaves_the_keys_of_others),
		CLAIM_TEST(a_claim_whose_answer_was_lost_stands),
		CLAIM_TEST(a_claim_is_read_back),
		CLAIM_TEST(a_new_lease_is_told_before_the_keys_move),
		CLAIM_TEST(nodes_agree_on_the_network),
		CLAIM_TEST(a_bare_record_over_ours_does_not_move_us),
		CLAIM_TEST(a_record_that_names_another_subnet_does_not_move_us),
		CLAIM_TEST(a_record_counts_when_another_node_holds_the_subnet_that_was_ours),
		CLAIM_TEST(a_silent_endpoint_takes_a_sixth_of_the_ttl_at_most),
	};

	return cmocka_run_group_tests(tests, setup, etcd_teardown);
}

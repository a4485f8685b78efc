/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Peers beside a model that is too simple to be wrong: a table of nodes, and the winner of a subnet
 * found by looking at all of them.
 *
 * Several threads do random things, each to both under one lock; after each, every subnet's route,
 * every gateway and every count must agree, and what changed must have been told. Readers run
 * beside them without that lock.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "agent/peers.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "schedule.h"
#include "unit.h"

#define NODES	  6
#define SUBNETS	  5
#define ADDRESSES 5
#define THREADS	  3
#define STEPS	  40
#define NONE	  (-1)

/* -- names of things ------------------------------------------------------------ */

static struct prefix subnet_of(int i)
{
	return (struct prefix){ .addr = addr_from_ipv4(0x0a020000 + ((uint32_t)i << 8)),
				.len = 24 };
}

static struct addr address_of(int i)
{
	return i == NONE ? (struct addr){ .family = AF_UNSPEC }
			 : addr_from_ipv4(0xc0a80001 + (uint32_t)i);
}

static void name_of(int i, char ret[static 8])
{
	(void)snprintf(ret, 8, "n%d", i);
}

/* -- the model ------------------------------------------------------------------ */

struct node {
	bool there, parsed, bare;
	unsigned subnets; /* bits */
	int address;	  /* NONE: not known */
	unsigned order;
	bool listed; /* by the list that is being applied */
};

static struct model {
	struct node nodes[NODES];
	int own_subnet, own_address;
} model;

static bool accepted(const struct node *n)
{
	return n->there && n->parsed &&
	       !(model.own_subnet != NONE && (n->subnets >> model.own_subnet & 1)) &&
	       (n->address == NONE || n->address != model.own_address);
}

/* The address that a subnet is reached by, or NONE: the oldest claim counts, whatever it says. */
static int winner(int subnet)
{
	const struct node *first = NULL;

	for (int i = 0; i < NODES; i++) {
		const struct node *n = &model.nodes[i];

		if (accepted(n) && (n->subnets >> subnet & 1) &&
		    (!first || n->order < first->order))
			first = n;
	}
	return first ? first->address : NONE;
}

/* -- both ----------------------------------------------------------------------- */

static struct peers *peers;
static struct mutex lock;
static bool told_subnet[SUBNETS], told_gateway[ADDRESSES];
static char wrong[128];
static atomic_bool over;

static void differs(const char *what, int i)
{
	if (!wrong[0])
		(void)snprintf(wrong, sizeof(wrong), "%s %d", what, i);
}

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	uint32_t number = addr_to_ipv4(&key->prefix.addr);

	if (key->kind == KEY_ROUTE)
		told_subnet[number >> 8 & 0xff] = true;
	else
		told_gateway[number - 0xc0a80001] = true;
}

static void write_record(const struct node *n, char ret[static 512])
{
	char *end = ret;

	if (!n->parsed) {
		strcpy(ret, "{");
		return;
	}
	if (n->bare) { /* it has one subnet */
		for (int i = 0; i < SUBNETS; i++)
			if (n->subnets >> i & 1)
				(void)prefix_format(&(struct prefix){ subnet_of(i).addr, 24 }, ret);
		return;
	}
	end += sprintf(end, "{\"version\":1,\"subnets\":[");
	for (int i = 0, any = 0; i < SUBNETS; i++)
		if (n->subnets >> i & 1)
			end += sprintf(end, "%s\"10.2.%d.0/24\"", any++ ? "," : "", i);
	sprintf(end,
		"],\"address\":\"192.168.0.%d\",\"backend\":{\"type\":\"host-gw\"},"
		"\"machine\":\"m\"}",
		n->address + 1);
}

static struct node random_record(struct dice *d, const struct node *before)
{
	struct node n = { .there = true, .parsed = roll(d, 8) > 0, .bare = roll(d, 4) == 0 };

	n.order = roll(d, 6);
	n.subnets = 1U << roll(d, SUBNETS);
	n.address = (int)roll(d, ADDRESSES);
	if (!n.bare)
		n.subnets |= roll(d, 3) ? 0 : 1U << roll(d, SUBNETS);
	if (!n.parsed)
		n.bare = false;
	if (n.bare) /* what was found out about it stays */
		n.address = before->there && before->bare ? before->address : NONE;
	return n;
}

static void apply(int i, const struct node *n)
{
	char name[8], text[512];
	struct store_change change = { .node = name };

	name_of(i, name);
	if (n->there) {
		write_record(n, text);
		change.value = text;
		change.len = strlen(text);
		change.order = n->order;
	}
	model.nodes[i] = *n;
	if (peers_apply(peers, &change, NULL) < 0)
		differs("apply", i);
}

static void apply_random(struct dice *d)
{
	int i = (int)roll(d, NODES);
	struct node n = random_record(d, &model.nodes[i]);

	if (roll(d, 3) == 0)
		n = (struct node){ .there = false };
	apply(i, &n);
}

/* Some as they were, some changed, the others are gone. */
static void list_random(struct dice *d)
{
	peers_begin_sync(peers);
	for (int i = 0; i < NODES; i++) {
		struct node n = roll(d, 3) ? model.nodes[i] : random_record(d, &model.nodes[i]);

		n.listed = n.there && roll(d, 4) > 0;
		if (n.listed)
			apply(i, &n);
		else
			model.nodes[i].listed = false;
	}
	if (roll(d, 4) == 0)
		return; /* it broke off: nothing is gone */
	for (int i = 0; i < NODES; i++)
		if (!model.nodes[i].listed)
			model.nodes[i] = (struct node){ .there = false };
	peers_end_sync(peers);
}

static void resolve_random(struct dice *d)
{
	int i = (int)roll(d, NODES), address = (int)roll(d, ADDRESSES + 1) - 1;
	struct addr a = address_of(address);
	char name[8];

	name_of(i, name);
	peers_resolved(peers, name, &a);
	if (model.nodes[i].there && model.nodes[i].bare)
		model.nodes[i].address = address;
}

static void move_random(struct dice *d)
{
	struct prefix none = { .len = 0 }, subnet;
	struct addr address;

	model.own_subnet = (int)roll(d, SUBNETS + 1) - 1;
	model.own_address = (int)roll(d, ADDRESSES + 1) - 1;
	subnet = model.own_subnet == NONE ? none : subnet_of(model.own_subnet);
	address = address_of(model.own_address);
	peers_set_own_subnet(peers, &subnet);
	peers_set_own_address(peers, &address);
}

/* -- comparing ------------------------------------------------------------------ */

struct routes {
	int by[SUBNETS];
};

static struct routes wanted(void)
{
	struct routes r;

	for (int i = 0; i < SUBNETS; i++)
		r.by[i] = winner(i);
	return r;
}

static bool used(const struct routes *r, int address)
{
	for (int i = 0; i < SUBNETS; i++)
		if (r->by[i] == address)
			return true;
	return false;
}

static void compare(const struct routes *before)
{
	struct routes now = wanted();
	struct peers_stats stats;
	size_t routes = 0;

	for (int i = 0; i < SUBNETS; i++) {
		struct addr got, expected = address_of(now.by[i]);
		struct prefix p = subnet_of(i);
		bool found = peers_lookup(peers, &p, &got);

		if (found != (now.by[i] != NONE) || (found && addr_cmp(&got, &expected) != 0))
			differs("route", i);
		if (now.by[i] != before->by[i] && !told_subnet[i])
			differs("untold route", i);
		routes += found;
	}
	for (int i = 0; i < ADDRESSES; i++) {
		struct addr a = address_of(i);

		if (peers_gateway_used(peers, &a) != used(&now, i))
			differs("gateway", i);
		if (used(before, i) && !used(&now, i) && !told_gateway[i])
			differs("untold gateway", i);
	}
	peers_stats(peers, &stats);
	if (stats.routes[0] != routes)
		differs("count", (int)routes);
}

static void *walk(void *arg)
{
	struct dice *d = arg;

	for (int i = 0; i < STEPS; i++) {
		struct routes before;

		mutex_lock(&lock);
		before = wanted();
		memset(told_subnet, 0, sizeof(told_subnet));
		memset(told_gateway, 0, sizeof(told_gateway));
		switch (roll(d, 8)) {
		case 0:
			list_random(d);
			break;
		case 1:
			move_random(d);
			break;
		case 2:
			resolve_random(d);
			break;
		default:
			apply_random(d);
		}
		compare(&before);
		mutex_unlock(&lock);
	}
	return NULL;
}

static void count_route(const struct prefix *prefix, const struct addr *gateway, const char *node,
			void *arg)
{
	unsigned *count = arg;

	*count += gateway->family == AF_INET && node[0] == 'n';
}

static int count_peer(const struct peer_view *peer, void *arg)
{
	unsigned *count = arg;

	(*count)++;
	return peer->state == PEER_REJECTED && !peer->reason[0] ? -1 : 0;
}

/* Sees any moment, and each is whole: no route twice, no more peers than there are. */
static void *read_beside(void *arg)
{
	for (; !over; (void)sched_yield()) {
		unsigned routes = 0, nodes = 0;
		struct peers_stats stats;

		peers_foreach_route(peers, count_route, &routes);
		if (peers_foreach(peers, count_peer, &nodes) < 0 || routes > SUBNETS ||
		    nodes > NODES)
			abort();
		peers_stats(peers, &stats);
		if (stats.routes[0] > SUBNETS || stats.known + stats.rejected > NODES)
			abort();
	}
	return NULL;
}

static void run_schedule(unsigned s, const struct peers_config *config)
{
	struct thread threads[THREADS] = { 0 }, reader = { 0 };
	struct dice dice[THREADS];

	memset(&model, 0, sizeof(model));
	model.own_subnet = model.own_address = NONE;
	over = false;
	assert_int_equal(peers_new(&peers, config, NULL), 0);
	assert_int_equal(thread_start(&reader, "read", read_beside, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		dice[i] = dice_of(s, i);
		assert_int_equal(thread_start(&threads[i], "walk", walk, &dice[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		thread_join(&threads[i]);
	over = true;
	thread_join(&reader);
	peers_free(peers);
	if (wrong[0])
		fail_msg("schedule %u: %s", s, wrong);
}

static void peers_and_the_model_agree(void **state)
{
	struct peers_config config = { .node = "me", .on_key = on_key };
	struct prefix pods = { addr_from_ipv4(0x0a020000), 16 };
	unsigned count = schedules(2000);

	log_set_level(LOG_ERROR);
	assert_int_equal(network_init(&config.network, &pods, 8, NULL), 0);
	mutex_init(&lock, LOCK_AGENT); /* above that of peers */
	for (unsigned s = 0; s < count; s++)
		run_schedule(s, &config);
	mutex_done(&lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(peers_and_the_model_agree) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}

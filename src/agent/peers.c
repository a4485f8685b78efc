/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. A peer is what one record says. Each subnet of a good record is a claim; all
 * claims stand in one tree in the order of prefix, then age: the first one of a prefix wins it.
 * Gateways are counted by the claims that won and use them, since several subnets may lie behind
 * one.
 *
 * Any change takes a peer's claims out, changes the peer, puts its claims back in, and then
 * settles every prefix that was touched: it finds the winner, corrects the counts, and tells the
 * queue. So there is one path for new, changed, vanished, resolved and judged-again records.
 */
#include "peers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "peers_private.h"

/* What one change of a peer may have changed in the kernel. */
struct touched {
	struct prefix prefixes[2 * RECORD_SUBNETS_MAX];
	unsigned count;
	struct addr gateways[3 * RECORD_SUBNETS_MAX]; /* that lost a route */
	unsigned ngateways;
	bool gone; /* as in struct peers_config */
};

static void touch(struct touched *t, const struct prefix *prefix)
{
	for (unsigned i = 0; i < t->count; i++)
		if (prefix_cmp(&t->prefixes[i], prefix) == 0)
			return;
	t->prefixes[t->count++] = *prefix;
}

static size_t family_index(const struct addr *a)
{
	return a->family == AF_INET6;
}

/* -- winners ------------------------------------------------------------------ */

/* The oldest claim to the prefix, or NULL. */
struct claim *peers_first_claim_locked(struct peers *p, const struct prefix *prefix)
{
	/* Nothing of this prefix comes before order 0 and the empty name. */
	static const size_t size = sizeof(struct peer) + 1;
	union {
		struct peer peer;
		char bytes[sizeof(struct peer) + 1];
	} none;
	struct claim wanted = { .peer = &none.peer, .prefix = *prefix };
	struct claim *found;

	memset(&none, 0, size);
	found = RB_NFIND(claim_tree, &p->claims, &wanted);
	return found && prefix_cmp(&found->prefix, prefix) == 0 ? found : NULL;
}

static struct gateway *find_gateway_locked(struct peers *p, const struct addr *address)
{
	struct gateway wanted = { .address = *address };

	return RB_FIND(gateway_tree, &p->gateways, &wanted);
}

static void tell_locked(struct peers *p, struct key key, int64_t event_ns, bool gone)
{
	p->config.on_key(&key, event_ns, gone, p->config.arg);
}

/* False: out of memory, and the claim does not win for now. */
static bool make_winner_locked(struct peers *p, struct claim *claim)
{
	const struct addr *address = &claim->peer->address;
	struct gateway *gateway;

	if (address->family == AF_UNSPEC)
		return false;
	gateway = find_gateway_locked(p, address);
	if (!gateway) {
		gateway = calloc(1, sizeof(*gateway));
		if (!gateway) {
			log_limited(LOG_ERROR, "out of memory, a route waits for the next list");
			return false;
		}
		gateway->address = *address;
		RB_INSERT(gateway_tree, &p->gateways, gateway);
	}
	gateway->used++;
	p->routes[family_index(&claim->prefix.addr)]++;
	claim->winner = true;
	return true;
}

static void end_winner_locked(struct peers *p, struct claim *claim, struct touched *t)
{
	struct gateway *gateway = find_gateway_locked(p, &claim->peer->address);

	claim->winner = false;
	p->routes[family_index(&claim->prefix.addr)]--;
	t->gateways[t->ngateways++] = gateway->address;
	if (--gateway->used > 0)
		return;
	RB_REMOVE(gateway_tree, &p->gateways, gateway);
	free(gateway);
}

/* Finds the winner of a prefix after its claims changed. */
static void settle_locked(struct peers *p, const struct prefix *prefix, struct touched *t)
{
	struct claim *first = peers_first_claim_locked(p, prefix);

	if (!first || first->winner)
		return;
	/* There is at most one other, and it is one of the few that clash. */
	for (struct claim *c = first; c && prefix_cmp(&c->prefix, prefix) == 0;
	     c = RB_NEXT(claim_tree, &p->claims, c))
		if (c->winner)
			end_winner_locked(p, c, t);
	(void)make_winner_locked(p, first);
}

/* -- a peer's claims ---------------------------------------------------------- */

static void take_out_locked(struct peers *p, struct peer *peer, struct touched *t)
{
	for (unsigned i = 0; peer->accepted && i < peer->nclaims; i++) {
		struct claim *claim = &peer->claims[i];

		RB_REMOVE(claim_tree, &p->claims, claim);
		if (claim->winner)
			end_winner_locked(p, claim, t);
		touch(t, &claim->prefix);
	}
	peer->accepted = false;
	free(peer->reason);
	peer->reason = NULL;
}

static void put_in_locked(struct peers *p, struct peer *peer, struct touched *t)
{
	peer->accepted = true;
	for (unsigned i = 0; i < peer->nclaims; i++) {
		RB_INSERT(claim_tree, &p->claims, &peer->claims[i]);
		touch(t, &peer->claims[i].prefix);
	}
}

/* The routes first: a nexthop can only go after those that go by it. */
static void settle_touched_locked(struct peers *p, struct touched *t, int64_t event_ns)
{
	for (unsigned i = 0; i < t->count; i++)
		settle_locked(p, &t->prefixes[i], t);
	for (unsigned i = 0; i < t->count; i++)
		tell_locked(p, key_route(&t->prefixes[i]), event_ns,
			    t->gone && !peers_first_claim_locked(p, &t->prefixes[i]));
	for (unsigned i = 0; i < t->ngateways; i++)
		if (!find_gateway_locked(p, &t->gateways[i]))
			tell_locked(p, key_nexthop(&t->gateways[i]), event_ns, t->gone);
}

/* Whether a record that could be read may have an effect. */
static int judge_locked(struct peers *p, struct peer *peer, struct err *err)
{
	const struct prefix *own = p->own_subnet.addr.family == AF_UNSPEC ? NULL : &p->own_subnet;
	struct record record = { .nsubnets = peer->nclaims, .address = peer->address };

	for (unsigned i = 0; i < peer->nclaims; i++)
		record.subnets[i] = peer->claims[i].prefix;
	if (!node_name_valid(peer->name))
		return err_set(err, -EINVAL, "the key is not a node name");
	return record_validate(&record, &p->config.network, own, &p->own_address, err);
}

static void reject_locked(struct peer *peer, const struct err *why)
{
	free(peer->reason);
	peer->reason = strndup(why->text, REASON_MAX - 1);
}

/* Judges the peer and puts its claims in, or notes why not. */
static void admit_locked(struct peers *p, struct peer *peer, struct touched *t, struct err *why)
{
	int r;

	if (peers_is_own(p, peer) || !peer->parsed)
		return;
	r = judge_locked(p, peer, why);
	if (r < 0) {
		reject_locked(peer, why);
		if (r == -EADDRINUSE && p->config.on_rival)
			p->config.on_rival(p->config.arg);
		return;
	}
	if (peer->address.family == AF_UNSPEC && p->config.on_unresolved)
		p->config.on_unresolved(peer->name, p->config.arg);
	put_in_locked(p, peer, t);
}

static void judge_again_locked(struct peers *p, struct peer *peer)
{
	struct touched t = { .count = 0 };
	struct err why = ERR_INIT;

	if (!peer->parsed)
		return; /* its reason stays */
	take_out_locked(p, peer, &t);
	admit_locked(p, peer, &t, &why);
	settle_touched_locked(p, &t, 0);
}

/* -- the writer --------------------------------------------------------------- */

static struct peer *find_locked(struct peers *p, const char *name)
{
	struct peer *peer = RB_ROOT(&p->by_name);

	/* RB_FIND() would need a whole peer with this name. */
	while (peer) {
		int r = strcmp(name, peer->name);

		if (r == 0)
			break;
		peer = r < 0 ? RB_LEFT(peer, by_name) : RB_RIGHT(peer, by_name);
	}
	return peer;
}

static struct peer *add_locked(struct peers *p, const char *name)
{
	size_t len = strlen(name) + 1;
	struct peer *peer = calloc(1, sizeof(*peer) + len);

	if (!peer)
		return NULL;
	memcpy(peer->name, name, len);
	RB_INSERT(peer_tree, &p->by_name, peer);
	return peer;
}

static void remove_locked(struct peers *p, struct peer *peer, int64_t event_ns)
{
	struct touched t = { .gone = true };

	take_out_locked(p, peer, &t);
	RB_REMOVE(peer_tree, &p->by_name, peer);
	free(peer->claims);
	free(peer);
	settle_touched_locked(p, &t, event_ns);
}

/* Whether the record says what is known; of the machine's hash nothing depends here. */
static bool says_nothing_new(const struct peer *peer, const struct record *record)
{
	if (!peer->accepted || peer->nclaims != record->nsubnets ||
	    addr_cmp(&peer->address, &record->address) != 0)
		return false;
	for (unsigned i = 0; i < peer->nclaims; i++)
		if (prefix_cmp(&peer->claims[i].prefix, &record->subnets[i]) != 0)
			return false;
	return true;
}

static struct claim *new_claims(struct peer *peer, const struct record *record)
{
	struct claim *claims = calloc(record->nsubnets, sizeof(*claims));

	for (unsigned i = 0; claims && i < record->nsubnets; i++) {
		claims[i].peer = peer;
		claims[i].prefix = record->subnets[i];
	}
	return claims;
}

/* *why is set when the record is refused, and was not for this reason before. */
static int change_locked(struct peers *p, const struct store_change *change, int64_t event_ns,
			 struct err *why)
{
	struct peer *peer = find_locked(p, change->node);
	struct touched t = { .count = 0 };
	auto_free char *reason = NULL;
	struct record record = { .nsubnets = 0 };
	struct claim *claims = NULL;
	bool parsed, bare;

	if (!change->value) {
		if (peer)
			remove_locked(p, peer, event_ns);
		return 0;
	}
	if (!peer)
		peer = add_locked(p, change->node);
	if (!peer)
		return -ENOMEM;
	peer->generation = p->generation;
	parsed = record_parse(change->value, change->len, &record, why) == 0;
	bare = parsed && record.address.family == AF_UNSPEC;
	if (bare && peer->bare)
		record.address = peer->address;
	/* A list after a cut tells again what is known. */
	if (parsed && peer->bare == bare && peer->order == change->order &&
	    says_nothing_new(peer, &record))
		return 0;
	if (parsed && !(claims = new_claims(peer, &record)))
		return -ENOMEM;
	reason = TAKE(peer->reason);
	take_out_locked(p, peer, &t);
	peer->order = change->order;
	peer->parsed = parsed;
	peer->bare = bare;
	free(peer->claims);
	peer->claims = claims;
	peer->nclaims = (uint8_t)record.nsubnets;
	peer->address = record.address;
	if (!parsed)
		reject_locked(peer, why);
	admit_locked(p, peer, &t, why);
	settle_touched_locked(p, &t, event_ns);
	if (reason && strncmp(reason, why->text, REASON_MAX - 1) == 0)
		why->text[0] = '\0';
	return 0;
}

int peers_apply(struct peers *p, const struct store_change *change, struct err *err)
{
	int64_t event_ns = clock_ns();
	struct err why = ERR_INIT;
	int r;

	mutex_lock(&p->lock);
	r = change_locked(p, change, event_ns, &why);
	mutex_unlock(&p->lock);
	if (why.text[0])
		log_warn("record refused" KV("node", "%s") KV("reason", "%s"), change->node,
			 why.text);
	return r < 0 ? err_errno(err, r, "record of node '%.64s'", change->node) : 0;
}

void peers_begin_sync(struct peers *p)
{
	mutex_hold(&p->lock);
	p->generation++;
}

void peers_end_sync(struct peers *p)
{
	int64_t event_ns = clock_ns();
	struct peer *peer, *next;

	mutex_hold(&p->lock);
	RB_FOREACH_SAFE(peer, peer_tree, &p->by_name, next)
	if (peer->generation != p->generation)
		remove_locked(p, peer, event_ns);
	p->complete = true;
}

bool peers_resolved(struct peers *p, const char *node, const struct addr *address)
{
	struct touched t = { .count = 0 };
	int64_t event_ns = clock_ns();
	struct err why = ERR_INIT;
	struct peer *peer;

	mutex_hold(&p->lock);
	peer = find_locked(p, node);
	if (!peer || !peer->bare)
		return false;
	if (addr_cmp(&peer->address, address) == 0)
		return true;
	take_out_locked(p, peer, &t);
	peer->address = *address;
	admit_locked(p, peer, &t, &why);
	settle_touched_locked(p, &t, event_ns);
	return true;
}

void peers_set_own_subnet(struct peers *p, const struct prefix *subnet)
{
	struct peer *peer;

	mutex_hold(&p->lock);
	p->own_subnet = *subnet;
	RB_FOREACH (peer, peer_tree, &p->by_name)
		judge_again_locked(p, peer);
}

void peers_set_own_address(struct peers *p, const struct addr *address)
{
	struct peer *peer;

	mutex_hold(&p->lock);
	p->own_address = *address;
	RB_FOREACH (peer, peer_tree, &p->by_name)
		judge_again_locked(p, peer);
}

/* -- readers ------------------------------------------------------------------ */

bool peers_complete(struct peers *p)
{
	mutex_hold(&p->lock);
	return p->complete;
}

bool peers_lookup(struct peers *p, const struct prefix *prefix, struct addr *ret)
{
	mutex_hold(&p->lock);
	const struct claim *first = peers_first_claim_locked(p, prefix);

	if (!first || !first->winner)
		return false;
	*ret = first->peer->address;
	return true;
}

bool peers_gateway_used(struct peers *p, const struct addr *gateway)
{
	mutex_hold(&p->lock);
	return find_gateway_locked(p, gateway) != NULL;
}

static struct claim *claim_after_locked(struct peers *p, const struct prefix *prefix)
{
	struct claim *claim = RB_ROOT(&p->claims), *found = NULL;

	while (claim) {
		if (prefix_cmp(prefix, &claim->prefix) < 0) {
			found = claim;
			claim = RB_LEFT(claim, by_prefix);
		} else {
			claim = RB_RIGHT(claim, by_prefix);
		}
	}
	return found;
}

/* Some of the routes behind *last, which moves on. False: there are no more. */
static bool tell_some(struct peers *p, struct prefix *last,
		      void (*fn)(const struct prefix *prefix, const struct addr *gateway,
				 const char *node, void *arg),
		      void *arg)
{
	struct claim *claim;
	unsigned told = 0;

	mutex_hold(&p->lock);
	for (claim = claim_after_locked(p, last); claim && told < PEERS_AT_ONCE;
	     claim = RB_NEXT(claim_tree, &p->claims, claim)) {
		if (!claim->winner)
			continue;
		fn(&claim->prefix, &claim->peer->address, claim->peer->name, arg);
		*last = claim->prefix; /* there is no other winner of it */
		told++;
	}
	return claim != NULL;
}

void peers_foreach_route(struct peers *p,
			 void (*fn)(const struct prefix *prefix, const struct addr *gateway,
				    const char *node, void *arg),
			 void *arg)
{
	struct prefix last = { .addr.family = AF_UNSPEC }; /* before all others */

	while (tell_some(p, &last, fn, arg))
		;
}

/* -- life --------------------------------------------------------------------- */

int peers_new(struct peers **ret, const struct peers_config *config, struct err *err)
{
	struct peers *p = calloc(1, sizeof(*p));

	if (!p)
		return err_errno(err, -ENOMEM, "peers");
	p->config = *config;
	strlcpy(p->node, config->node, sizeof(p->node));
	p->config.node = p->node;
	p->own_address = config->address;
	mutex_init(&p->lock, LOCK_PEERS);
	RB_INIT(&p->by_name);
	RB_INIT(&p->claims);
	RB_INIT(&p->gateways);
	*ret = p;
	return 0;
}

void peers_free(struct peers *p)
{
	struct gateway *gateway, *next_gateway;
	struct peer *peer, *next_peer;

	RB_FOREACH_SAFE(peer, peer_tree, &p->by_name, next_peer)
	{
		RB_REMOVE(peer_tree, &p->by_name, peer);
		free(peer->claims);
		free(peer->reason);
		free(peer);
	}
	RB_FOREACH_SAFE(gateway, gateway_tree, &p->gateways, next_gateway)
	{
		RB_REMOVE(gateway_tree, &p->gateways, gateway);
		free(gateway);
	}
	mutex_done(&p->lock);
	free(p);
}

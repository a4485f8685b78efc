/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdio.h>
#include <string.h>

#include "peers_private.h"

static enum peer_state state_of(const struct peers *p, const struct peer *peer)
{
	bool wins = false;

	if (peers_is_own(p, peer))
		return PEER_OWN;
	if (!peer->accepted)
		return PEER_REJECTED;
	if (peer->address.family == AF_UNSPEC)
		return PEER_UNRESOLVED;
	for (unsigned i = 0; i < peer->nclaims; i++)
		wins = wins || peer->claims[i].winner;
	return wins ? PEER_OK : PEER_CONFLICT;
}

void peers_stats(struct peers *p, struct peers_stats *ret)
{
	struct peers_stats stats = { .known = 0 };
	struct peer *peer;

	mutex_hold(&p->lock);
	RB_FOREACH (peer, peer_tree, &p->by_name) {
		switch (state_of(p, peer)) {
		case PEER_OWN:
			break;
		case PEER_REJECTED:
			stats.rejected++;
			break;
		case PEER_CONFLICT:
			stats.conflicts++;
			stats.known++;
			break;
		case PEER_OK:
		case PEER_UNRESOLVED:
			stats.known++;
			break;
		}
	}
	stats.routes[0] = p->routes[0];
	stats.routes[1] = p->routes[1];
	*ret = stats;
}

const char *peer_state_name(enum peer_state state)
{
	static const char *const names[] = {
		[PEER_OK] = "ok",
		[PEER_UNRESOLVED] = "unresolved",
		[PEER_REJECTED] = "rejected",
		[PEER_CONFLICT] = "conflict",
		[PEER_OWN] = "own",
	};

	return names[state];
}

/* Who holds what this peer claims in vain. */
static void explain_conflict(struct peers *p, const struct peer *peer, char reason[REASON_MAX])
{
	const struct claim *winner = peers_first_claim_locked(p, &peer->claims[0].prefix);
	char text[PREFIX_TEXT_MAX];

	(void)snprintf(reason, REASON_MAX, "node '%.64s' claimed %s earlier", winner->peer->name,
		       prefix_format(&winner->prefix, text));
}

static int show_locked(struct peers *p, const struct peer *peer,
		       int (*fn)(const struct peer_view *peer, void *arg), void *arg)
{
	struct prefix subnets[RECORD_SUBNETS_MAX];
	char reason[REASON_MAX] = "";
	struct peer_view view = {
		.node = peer->name,
		.order = peer->order,
		.bare = peer->bare,
		.subnets = subnets,
		.nsubnets = peer->nclaims,
		.state = state_of(p, peer),
		.reason = reason,
	};

	for (unsigned i = 0; i < peer->nclaims; i++)
		subnets[i] = peer->claims[i].prefix;
	if (peer->parsed)
		view.address = peer->address;
	if (view.state == PEER_CONFLICT)
		explain_conflict(p, peer, reason);
	else if (view.state == PEER_UNRESOLVED)
		strlcpy(reason, "the node's name has no address yet", sizeof(reason));
	else if (view.state == PEER_REJECTED)
		strlcpy(reason, peer->reason ? peer->reason : "out of memory", sizeof(reason));
	return fn(&view, arg);
}

int peers_foreach(struct peers *p, int (*fn)(const struct peer_view *peer, void *arg), void *arg)
{
	struct peer *peer;
	int r = 0;

	mutex_hold(&p->lock);
	RB_FOREACH (peer, peer_tree, &p->by_name) {
		r = show_locked(p, peer, fn, arg);
		if (r < 0)
			break;
	}
	return r;
}

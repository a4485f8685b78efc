/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "peers_private.h"
#include "poplin/base/buf.h"

/* The first of the peer's claims that another node's comes before, or NULL. */
static const struct claim *lost_claim(const struct peer *peer)
{
	for (unsigned i = 0; i < peer->nclaims; i++)
		if (!peer->claims[i].winner)
			return &peer->claims[i];
	return NULL;
}

static enum peer_state state_of(const struct peers *p, const struct peer *peer)
{
	if (peers_is_own(p, peer))
		return PEER_OWN;
	if (!peer->accepted)
		return PEER_REJECTED;
	if (peer->address.family == AF_UNSPEC)
		return PEER_UNRESOLVED;
	return lost_claim(peer) ? PEER_CONFLICT : PEER_OK;
}

size_t peers_routes(struct peers *p)
{
	mutex_hold(&p->lock);
	return p->routes[0] + p->routes[1];
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
	const struct claim *winner = peers_first_claim_locked(p, &lost_claim(peer)->prefix);
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

/* The first one behind this name; NULL: of all. */
static struct peer *after_locked(struct peers *p, const char *name)
{
	struct peer *peer = RB_ROOT(&p->by_name), *found = NULL;

	while (peer) {
		if (!name || strcmp(name, peer->name) < 0) {
			found = peer;
			peer = RB_LEFT(peer, by_name);
		} else {
			peer = RB_RIGHT(peer, by_name);
		}
	}
	return found;
}

/* Some of those behind *last, which moves on. 1: there are more. */
static int show_some(struct peers *p, struct buf *last,
		     int (*fn)(const struct peer_view *peer, void *arg), void *arg)
{
	const struct peer *shown = NULL;
	struct peer *peer;

	mutex_hold(&p->lock);
	peer = after_locked(p, last->data);
	for (unsigned i = 0; peer && i < PEERS_AT_ONCE; i++) {
		int r = show_locked(p, peer, fn, arg);

		if (r < 0)
			return r;
		shown = peer;
		peer = RB_NEXT(peer_tree, &p->by_name, peer);
	}
	if (!peer)
		return 0;
	buf_reset(last);
	return buf_adds(last, shown->name) < 0 ? -ENOMEM : 1;
}

int peers_foreach(struct peers *p, int (*fn)(const struct peer_view *peer, void *arg), void *arg)
{
	auto_buf struct buf last = BUF_INIT;
	int r;

	do
		r = show_some(p, &last, fn, arg);
	while (r > 0);
	return r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. A list is copied under its module's lock into two plain buffers, rows and
 * their texts, and becomes JSON after the lock was given back: formatting takes ten times as long
 * as copying, and the route workers wait for the same locks. What a row says of the kernel and of
 * the queue is asked row by row later, so rows may be some milliseconds apart; a list is a look,
 * not a transaction.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"
#include "poplin/model/pod.h"

#include "fib.h"
#include "metrics.h"
#include "peers.h"
#include "pool.h"
#include "queue.h"
#include "status.h"
#include "status_json.h"

#define TYPE_JSON "application/json"

/* -- copies ----------------------------------------------------------------- */

/* One row of any list. */
struct row {
	struct prefix prefix;
	struct addr addr;
	enum peer_state state; /* of a peer */
	size_t name, text;     /* offsets in texts */
};

struct copy {
	struct buf rows, texts;
	bool failed; /* no memory */
};

static void copy_done(struct copy *c)
{
	buf_done(&c->rows);
	buf_done(&c->texts);
}
#define auto_copy __attribute__((cleanup(copy_done)))

static void copy_add(struct copy *c, const struct prefix *prefix, const struct addr *addr,
		     enum peer_state state, const char *name, const char *text)
{
	struct row row = { .addr = *addr, .state = state, .name = c->texts.len };

	if (prefix)
		row.prefix = *prefix;
	if (c->failed || buf_add(&c->texts, name, strlen(name) + 1) < 0)
		goto failed;
	row.text = c->texts.len;
	if (buf_add(&c->texts, text, strlen(text) + 1) < 0 ||
	    buf_add(&c->rows, &row, sizeof(row)) < 0)
		goto failed;
	return;
failed:
	c->failed = true;
}

static size_t copy_count(const struct copy *c)
{
	return c->rows.len / sizeof(struct row);
}

static struct row copy_row(const struct copy *c, size_t i)
{
	struct row row;

	memcpy(&row, c->rows.data + i * sizeof(row), sizeof(row));
	return row;
}

static const char *copy_text(const struct copy *c, size_t offset)
{
	return c->texts.data[offset] ? c->texts.data + offset : NULL;
}

/* -- peers ------------------------------------------------------------------ */

static int copy_peer(const struct peer_view *peer, void *arg)
{
	struct copy *c = arg;

	if (peer->nsubnets == 0)
		copy_add(c, NULL, &peer->address, peer->state, peer->node, peer->reason);
	for (unsigned i = 0; i < peer->nsubnets; i++)
		copy_add(c, &peer->subnets[i], &peer->address, peer->state, peer->node,
			 peer->reason);
	return c->failed ? -ENOMEM : 0;
}

static int handle_peers(struct httpd_reply *reply, void *arg)
{
	const struct status_source *s = arg;
	auto_copy struct copy copy = { .failed = false };
	struct status_list list;
	int r;

	peers_foreach(s->peers, copy_peer, &copy);
	if (copy.failed)
		return -ENOMEM;
	reply->type = TYPE_JSON;
	r = status_json_begin(&list, &reply->body, "peers");
	for (size_t i = 0; i < copy_count(&copy) && r == 0; i++) {
		struct row row = copy_row(&copy, i);

		r = status_json_peer(&list, copy_text(&copy, row.name), &row.prefix, &row.addr,
				     row.prefix.addr.family == AF_UNSPEC ? NULL : "host-gw",
				     peer_state_name(row.state), copy_text(&copy, row.text));
	}
	return r < 0 ? r : status_json_end(&list);
}

/* -- routes ----------------------------------------------------------------- */

static void copy_route(const struct prefix *prefix, const struct addr *gateway, const char *node,
		       void *arg)
{
	copy_add(arg, prefix, gateway, PEER_OK, node, "");
}

/* From now, or -1 when none is due. */
static int64_t next_try(const struct queue_view *work)
{
	int64_t wait = work->next_try_ns - clock_ns();

	if (work->state != QUEUE_DELAYED)
		return -1;
	return wait > 0 ? wait : 0;
}

#define FAILURE_MAX 200

/* Why the last try failed: what that means, and what the kernel said. NULL: it did not. */
static const char *explain(const struct queue_view *work, char ret[static FAILURE_MAX])
{
	if (work->error >= 0)
		return NULL;
	(void)snprintf(ret, FAILURE_MAX, "%s%s%s", route_failure_text(work->error),
		       work->text[0] ? ": " : "", work->text);
	return ret;
}

/* How the route stands, from what the kernel has and what the queue has still to do about it. */
static void judge_route(const struct status_source *s, struct status_route *route,
			char reason[static FAILURE_MAX])
{
	struct key key = key_route(route->destination);
	struct queue_view work;
	struct fib_route kernel;

	fib_get(s->fib, route->destination, &kernel);
	queue_look(s->queue, &key, &work);
	route->next_try_ns = next_try(&work);
	if (kernel.state == FIB_OURS && addr_cmp(&kernel.gateway, route->via) == 0 && !work.tries) {
		route->state = "installed";
		return;
	}
	route->state = "pending";
	if (work.tries > 0) {
		route->state = "failing";
		route->reason = explain(&work, reason);
		route->tries = work.tries;
	}
	if (kernel.state == FIB_FOREIGN) {
		route->state = "clash";
		route->reason = "a route that is not ours stands there";
	}
}

/* The routes that should be. Adds to *installed how many of them are. */
static int list_desired(const struct status_source *s, struct status_list *list, size_t *installed)
{
	auto_copy struct copy copy = { .failed = false };
	char reason[FAILURE_MAX];
	int r = 0;

	peers_foreach_route(s->peers, copy_route, &copy);
	if (copy.failed)
		return -ENOMEM;
	for (size_t i = 0; i < copy_count(&copy) && r == 0; i++) {
		struct row row = copy_row(&copy, i);
		struct status_route route = {
			.destination = &row.prefix,
			.via = &row.addr,
			.node = copy_text(&copy, row.name),
		};

		judge_route(s, &route, reason);
		*installed += strcmp(route.state, "installed") == 0;
		r = status_json_route(list, &route);
	}
	return r;
}

static int copy_installed(const struct prefix *prefix, const struct fib_route *route, void *arg)
{
	struct copy *c = arg;

	if (route->state == FIB_OURS)
		copy_add(c, prefix, &route->gateway, PEER_OK, "", "");
	return c->failed ? -ENOMEM : 0;
}

/* Routes of ours that no record asks for, for as long as they are let be. */
static int list_stale(const struct status_source *s, struct status_list *list)
{
	auto_copy struct copy copy = { .failed = false };
	struct addr gateway;
	int r = fib_foreach(s->fib, copy_installed, &copy);

	for (size_t i = 0; i < copy_count(&copy) && r == 0; i++) {
		struct row row = copy_row(&copy, i);
		const struct status_route route = {
			.destination = &row.prefix,
			.via = &row.addr,
			.state = "stale",
			.reason = "no record asks for it; it goes when ROUTE_GRACE is over",
			.next_try_ns = -1,
		};

		if (!peers_lookup(s->peers, &row.prefix, &gateway))
			r = status_json_route(list, &route);
	}
	return r;
}

/* What fails and is no desired route: next hops, and routes that cannot be removed. */
static int list_failing(const struct status_source *s, struct status_list *list)
{
	static const struct prefix none = { .len = 0 };
	struct queue_row rows[64];
	char reason[FAILURE_MAX];
	struct addr gateway;
	int r = 0;
	size_t n = queue_list(s->queue, NULL, rows, countof(rows));

	while (n > 0 && r == 0) {
		for (size_t i = 0; i < n && r == 0; i++) {
			const struct key *key = &rows[i].key;
			bool hop = key->kind == KEY_NEXTHOP;
			const struct status_route route = {
				.destination = hop ? &none : &key->prefix,
				.via = hop ? &key->prefix.addr : &none.addr,
				.state = "failing",
				.reason = explain(&rows[i].view, reason),
				.tries = rows[i].view.tries,
				.next_try_ns = next_try(&rows[i].view),
			};

			if (rows[i].view.tries &&
			    (hop || !peers_lookup(s->peers, &key->prefix, &gateway)))
				r = status_json_route(list, &route);
		}
		n = queue_list(s->queue, &rows[n - 1].key, rows, countof(rows));
	}
	return r;
}

static int handle_routes(struct httpd_reply *reply, void *arg)
{
	const struct status_source *s = arg;
	struct status_list list;
	struct fib_stats fib;
	size_t installed = 0;
	int r;

	reply->type = TYPE_JSON;
	r = status_json_begin(&list, &reply->body, "routes");
	if (r == 0)
		r = list_desired(s, &list, &installed);
	if (r < 0)
		return r;
	fib_stats(s->fib, &fib);
	if (installed < fib.routes[0] + fib.routes[1])
		r = list_stale(s, &list);
	if (r == 0)
		r = list_failing(s, &list);
	return r < 0 ? r : status_json_end(&list);
}

/* -- pods ------------------------------------------------------------------- */

/* A folder that changes while it is read: a pod that comes or goes meanwhile may be missing. */
static void foreach_pod(const struct status_source *s, ipam_fn *fn, void *arg)
{
	struct err err = ERR_INIT;
	int r = ipam_foreach(s->ipam_dir, fn, arg, &err);

	if (r < 0 && r != -ENOENT && r != -ENOMEM)
		log_limited(LOG_WARN, "cannot read the pods' addresses, ignoring" KV("error", "%s"),
			    err.text);
}

static int count_pod(const struct addr *addr, const char *container, const char *interface,
		     void *arg)
{
	uint64_t *count = arg;

	(*count)++;
	return 0;
}

static int copy_pod(const struct addr *addr, const char *container, const char *interface,
		    void *arg)
{
	struct copy *c = arg;

	copy_add(c, NULL, addr, PEER_OK, container, interface);
	return c->failed ? -ENOMEM : 0;
}

static int compare_rows(const void *a, const void *b)
{
	return addr_cmp(&((const struct row *)a)->addr, &((const struct row *)b)->addr);
}

static int handle_pods(struct httpd_reply *reply, void *arg)
{
	auto_copy struct copy copy = { .failed = false };
	struct status_list list;
	int r;

	foreach_pod(arg, copy_pod, &copy);
	if (copy.failed)
		return -ENOMEM;
	if (copy.rows.data)
		qsort(copy.rows.data, copy_count(&copy), sizeof(struct row), compare_rows);
	reply->type = TYPE_JSON;
	r = status_json_begin(&list, &reply->body, "pods");
	for (size_t i = 0; i < copy_count(&copy) && r == 0; i++) {
		struct row row = copy_row(&copy, i);
		const char *container = copy.texts.data + row.name;
		const char *interface = copy.texts.data + row.text;
		char link[16];

		pod_link_name(container, interface, link);
		r = status_json_pod(&list, &row.addr, container, interface, link);
	}
	return r < 0 ? r : status_json_end(&list);
}

/* -- numbers ---------------------------------------------------------------- */

static void look(const struct status_source *s, struct status_view *view,
		 struct status_counts *counts)
{
	struct peers_stats peers;
	struct fib_stats fib;
	struct queue_stats queue;

	*view = (struct status_view){ .healthy = false };
	s->view(view, s->arg);
	peers_stats(s->peers, &peers);
	fib_stats(s->fib, &fib);
	queue_stats(s->queue, &queue);
	*counts = (struct status_counts){
		.peers = peers.known,
		.rejected = peers.rejected,
		.conflicts = peers.conflicts,
		.desired = { peers.routes[0], peers.routes[1] },
		.installed = { fib.routes[0], fib.routes[1] },
		.failing = queue.delayed,
		.queue_depth = queue.ready,
	};
	foreach_pod(s, count_pod, &counts->pods_held);
	if (view->subnet.addr.family != AF_UNSPEC)
		counts->pods_capacity = ipam_capacity(&view->subnet);
}

static int handle_status(struct httpd_reply *reply, void *arg)
{
	struct status_view view;
	struct status_counts counts;

	look(arg, &view, &counts);
	reply->type = TYPE_JSON;
	return status_json_status(&reply->body, &view, &counts);
}

static int64_t gauge(uint64_t n)
{
	return n < INT64_MAX ? (int64_t)n : INT64_MAX;
}

static void set_gauges(const struct status_view *v, const struct status_counts *c)
{
	int64_t real = clock_real_ns(), expiry = 0, change = 0;

	if (v->lease_deadline_ns > 0)
		expiry = real + v->lease_deadline_ns - clock_boot_ns();
	if (v->store_last_change_ns > 0)
		change = real + v->store_last_change_ns - clock_ns();
	metric_set(METRIC_LEASE_TTL, 0, v->lease_held ? v->lease_ttl_s : 0);
	metric_set(METRIC_LEASE_EXPIRY, 0, expiry);
	metric_set(METRIC_WATCH_LAST_EVENT, 0, change);
	metric_set(METRIC_PODS_CUT_OFF, 0, gauge(v->pods_cut_off));
	metric_set(METRIC_PEERS, 0, gauge(c->peers));
	metric_set(METRIC_PEERS_REJECTED, 0, gauge(c->rejected));
	metric_set(METRIC_PEERS_CONFLICTS, 0, gauge(c->conflicts));
	for (unsigned family = 0; family < METRIC_FAMILIES; family++) {
		metric_set(METRIC_ROUTES_DESIRED, family, gauge(c->desired[family]));
		metric_set(METRIC_ROUTES_INSTALLED, family, gauge(c->installed[family]));
	}
	for (unsigned i = 0; i < LIMITS; i++)
		metric_set(METRIC_LIMITS_NEAR, i, v->limits.text[i][0] != '\0');
	metric_set(METRIC_WORKQUEUE_DEPTH, 0, gauge(c->queue_depth));
	metric_set(METRIC_WORKQUEUE_DELAYED, 0, gauge(c->failing));
	metric_set(METRIC_IPAM_ADDRESSES, 0, gauge(c->pods_held));
	metric_set(METRIC_IPAM_CAPACITY, 0, gauge(c->pods_capacity));
}

static void count_operation(const struct podlog_entry *entry, void *arg)
{
	enum metric_result result = entry->failed ? METRIC_ERROR : METRIC_OK;

	metric_inc_labels(METRIC_CNI_OPERATIONS, entry->command, result);
	metric_observe(METRIC_CNI_DURATION, entry->command, entry->duration_ns);
}

static int handle_metrics(struct httpd_reply *reply, void *arg)
{
	const struct status_source *source = arg;
	struct status_view view;
	struct status_counts counts;

	look(arg, &view, &counts);
	set_gauges(&view, &counts);
	if (source->podlog)
		podlog_read(source->podlog, count_operation, NULL);
	reply->type = METRICS_CONTENT_TYPE;
	return metrics_write(&reply->body);
}

/* -- health ----------------------------------------------------------------- */

/* 200, "ok" and what is degraded nevertheless, or 503 and the reasons, a line each. */
static int answer_health(struct httpd_reply *reply, bool fine, const struct status_view *v)
{
	if (fine) {
		if (buf_adds(&reply->body, "ok\n") < 0)
			return -ENOMEM;
		for (unsigned i = 0; i < v->nwarnings; i++)
			if (buf_printf(&reply->body, "degraded: %s\n", v->warnings[i]) < 0)
				return -ENOMEM;
		return 0;
	}
	reply->status = 503;
	if (v->nreasons == 0)
		return buf_adds(&reply->body, "no reason is known\n");
	for (unsigned i = 0; i < v->nreasons; i++)
		if (buf_printf(&reply->body, "%s\n", v->reasons[i]) < 0)
			return -ENOMEM;
	return 0;
}

static int handle_healthz(struct httpd_reply *reply, void *arg)
{
	const struct status_source *s = arg;
	struct status_view view = { .healthy = false };

	s->view(&view, s->arg);
	return answer_health(reply, view.healthy, &view);
}

static int handle_readyz(struct httpd_reply *reply, void *arg)
{
	const struct status_source *s = arg;
	struct status_view view = { .healthy = false };

	s->view(&view, s->arg);
	return answer_health(reply, view.healthy && view.ready, &view);
}

const struct httpd_path status_paths[] = {
	{ "/metrics", handle_metrics, "metrics for Prometheus" },
	{ "/healthz", handle_healthz, "200 while the agent works" },
	{ "/readyz", handle_readyz, "200 once pods can be attached" },
	{ "/status", handle_status, "this node, as JSON" },
	{ "/status/peers", handle_peers, "the other nodes, as JSON" },
	{ "/status/routes", handle_routes, "routes to the other nodes, as JSON" },
	{ "/status/pods", handle_pods, "pods' addresses, as JSON" },
	{ NULL, NULL, NULL },
};

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. A worker takes a batch of keys and goes through it twice. First it compares,
 * for each key, what should be (peers) with what is (fib), notes in fib what it is about to do, and
 * adds the messages to one netlink batch: a nexthop before the route that needs it. Then it sends
 * the batch and gives each key its own result.
 *
 * A route of ours is replaced in one step, so that no packet is lost. Where fib knows of none, it
 * is created only if nothing stands there (NLM_F_EXCL): a foreign route is never overwritten.
 * "Exists" then means one of two things, and the kernel is asked which: a foreign route (a clash,
 * reported and tried again) or one of ours that fib had not heard of.
 *
 * A nexthop is removed when no record asks for its gateway and no route goes by it. Between the
 * look and the removal a record could ask for it anew; so the worker first notes it as leaving,
 * then looks into peers again. Whoever needs it from then on finds it leaving and waits for its
 * next try.
 */
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/nl/route.h"

/* -- what is to be done ------------------------------------------------------- */

/* Returns the tag for its message, which must be added to the batch next. */
static size_t add_op(struct work *w, size_t item, enum op_kind kind, const struct addr *gateway)
{
	w->ops[w->nops] = (struct op){ .item = item, .kind = kind, .gateway = *gateway };
	w->sent[item] = true;
	return w->nops++;
}

/* r: what came of adding its message. Without one nothing is sent, and no answer comes. */
static int keep_op(struct work *w, int r)
{
	if (r < 0)
		w->nops--;
	return r;
}

/* Routes follow a nexthop that is replaced. */
static int plan_nexthop_put(struct worker *worker, size_t item, const struct addr *gateway,
			    bool replace)
{
	struct work *w = &worker->work;
	size_t tag = add_op(w, item, replace ? OP_NEXTHOP_REPLACE : OP_NEXTHOP_ADD, gateway);

	return keep_op(w,
		       routes_add_nexthop(&w->routes, worker->batch, gateway, replace, tag, NULL));
}

static int plan_nexthop(struct worker *worker, size_t item, const struct addr *gateway)
{
	struct pool *p = worker->pool;
	struct work *w = &worker->work;

	if (!routes_nexthop_id(&w->routes, gateway))
		return 0;
	switch (fib_nexthop_get(p->config.fib, gateway)) {
	case FIB_NEXTHOP_THERE:
		return 0;
	case FIB_NEXTHOP_LEAVING:
		return -EAGAIN;
	case FIB_NEXTHOP_FOREIGN: /* until a comparison finds it gone */
		return -EEXIST;
	case FIB_NEXTHOP_MISPLACED:
		return plan_nexthop_put(worker, item, gateway, true);
	case FIB_NEXTHOP_ABSENT:
		break;
	}
	return plan_nexthop_put(worker, item, gateway, false);
}

/* A route that goes by this gateway does so by its nexthop, and that is ours. */
static bool nexthop_stands(struct worker *worker, const struct addr *gateway)
{
	enum fib_nexthop is;

	if (!routes_nexthop_id(&worker->work.routes, gateway))
		return true;
	is = fib_nexthop_get(worker->pool->config.fib, gateway);
	return is != FIB_NEXTHOP_ABSENT && is != FIB_NEXTHOP_FOREIGN;
}

static int plan_put(struct worker *worker, size_t item, const struct prefix *prefix,
		    const struct addr *gateway, const struct fib_route *is)
{
	struct pool *p = worker->pool;
	struct work *w = &worker->work;
	bool replace = is->state == FIB_OURS;
	size_t tag;
	int r;

	/* To ask the kernel would take a dump each time; the monitor sees when it goes. */
	if (is->state == FIB_FOREIGN)
		return -EEXIST;
	if (replace && addr_cmp(&is->gateway, gateway) == 0 && nexthop_stands(worker, gateway))
		return 0;
	/* A snapshot is no newer than the route that is there. What a list says comes at its end. */
	if (replace && !peers_complete(p->config.peers))
		return 0;
	r = plan_nexthop(worker, item, gateway);
	if (r == 0 && replace)
		r = fib_nexthop_hold(p->config.fib, &is->gateway, true);
	if (r < 0)
		return r;
	r = fib_note(p->config.fib, prefix, FIB_OURS, gateway);
	if (r < 0) {
		if (replace)
			(void)fib_nexthop_hold(p->config.fib, &is->gateway, false);
		return r;
	}
	tag = add_op(w, item, replace ? OP_REPLACE : OP_ADD, gateway);
	if (replace)
		w->ops[tag].left = is->gateway;
	r = keep_op(w, routes_add_route(&w->routes, worker->batch, prefix, gateway, replace, tag,
					NULL));
	if (r == 0)
		return 0;
	(void)fib_note(p->config.fib, prefix, FIB_UNKNOWN, NULL);
	if (replace)
		(void)fib_nexthop_hold(p->config.fib, &is->gateway, false);
	return r;
}

/*
 * Until a list is complete nobody knows what is stale, and for some time after it a record may be
 * on its way back: a store that was away, or set back, lost records whose nodes live.
 */
static bool stays(const struct worker *worker, size_t item)
{
	const struct pool *p = worker->pool;

	return worker->work.items[item].event_ns <= p->listed_ns && !pool_sweeps(p);
}

static int plan_delete(struct worker *worker, size_t item, const struct prefix *prefix,
		       const struct fib_route *is)
{
	struct pool *p = worker->pool;
	struct work *w = &worker->work;
	size_t tag;
	int r;

	if (is->state == FIB_ABSENT)
		return fib_note(p->config.fib, prefix, FIB_ABSENT, NULL);
	/* FIB_FOREIGN: behind somebody else's route there may be one of ours. */
	if (stays(worker, item))
		return 0;
	(void)fib_note(p->config.fib, prefix, FIB_ABSENT, NULL);
	tag = add_op(w, item, OP_DELETE, &is->gateway);
	w->ops[tag].left = is->gateway;
	r = keep_op(w, routes_delete_route(&w->routes, worker->batch, prefix, tag, NULL));
	if (r < 0)
		(void)fib_note(p->config.fib, prefix, FIB_UNKNOWN, NULL);
	return r;
}

static int plan_nexthop_key(struct worker *worker, size_t item, const struct addr *gateway)
{
	struct pool *p = worker->pool;
	struct work *w = &worker->work;
	enum fib_nexthop is = fib_nexthop_get(p->config.fib, gateway);
	bool used = peers_gateway_used(p->config.peers, gateway);
	size_t tag;
	int r;

	if (!routes_nexthop_id(&w->routes, gateway))
		return 0;
	if (used)
		return plan_nexthop(worker, item, gateway);
	if ((is != FIB_NEXTHOP_THERE && is != FIB_NEXTHOP_MISPLACED) || stays(worker, item))
		return 0;
	/*
	 * -EBUSY: routes go by it that are about to be removed, by a worker that is not done yet.
	 */
	if (fib_nexthop_note(p->config.fib, gateway, FIB_NEXTHOP_LEAVING) < 0)
		return -EAGAIN;
	if (peers_gateway_used(p->config.peers, gateway)) {
		fib_nexthop_left(p->config.fib, gateway, is, p->config.queue);
		return -EAGAIN;
	}
	tag = add_op(w, item, OP_NEXTHOP_DELETE, gateway);
	r = keep_op(w, routes_delete_nexthop(&w->routes, worker->batch, gateway, tag, NULL));
	if (r < 0)
		fib_nexthop_left(p->config.fib, gateway, is, p->config.queue);
	return r;
}

static int plan(struct worker *worker, size_t item)
{
	struct pool *p = worker->pool;
	const struct key *key = &worker->work.items[item].key;
	struct fib_route is;
	struct addr gateway;

	switch (key->kind) {
	case KEY_NEXTHOP:
		return plan_nexthop_key(worker, item, &key->prefix.addr);
	case KEY_ROUTE:
		break;
	}
	/*
	 * First what should be, then what is: a nexthop that a worker finds unused after this
	 * look is noted as leaving before the second one.
	 */
	bool wanted = peers_lookup(p->config.peers, &key->prefix, &gateway);

	fib_get(p->config.fib, &key->prefix, &is);
	return wanted ? plan_put(worker, item, &key->prefix, &gateway, &is)
		      : plan_delete(worker, item, &key->prefix, &is);
}

/* -- what came of it ----------------------------------------------------------- */

/*
 * Routes that could not be put because of what stands there: somebody else's where ours was to be
 * added, or one before ours where it was to be replaced. That one the kernel has already, but goes
 * by the first (fa_match in fib_table_insert, fib_trie.c).
 */
struct standing {
	const struct routes_config *routes;
	struct prefix prefixes[BATCH_KEYS]; /* sorted */
	struct fib_route found[BATCH_KEYS];
	size_t count;
};

static int compare_prefixes(const void *a, const void *b)
{
	return prefix_cmp(a, b);
}

static int look_at_route(const struct route *r, void *arg)
{
	struct standing *s = arg;
	const struct prefix *at =
		bsearch(&r->dst, s->prefixes, s->count, sizeof(*at), compare_prefixes);
	struct addr gateway;

	if (!at || routes_beside(r))
		return 0;
	/* The kernel goes by the first of several, and that is what a replacement would replace. */
	if (s->found[at - s->prefixes].state != FIB_ABSENT)
		return 0;
	if (routes_recognize(s->routes, r, &gateway))
		s->found[at - s->prefixes] =
			(struct fib_route){ .state = FIB_OURS, .gateway = gateway };
	else
		s->found[at - s->prefixes] = (struct fib_route){ .state = FIB_FOREIGN };
	return 0;
}

static void forget_routes(void *arg)
{
	struct standing *s = arg;

	memset(s->found, 0, sizeof(s->found)); /* FIB_ABSENT */
}

/*
 * Asks the kernel what stands where routes "exist", and notes it. It has no lookup by exact prefix,
 * but one dump serves the whole batch.
 */
static void look_up_standing(struct worker *worker)
{
	struct work *w = &worker->work;
	struct standing s;
	bool families[2] = { false, false };
	struct err err = ERR_INIT;
	int r = 0;

	s.routes = &w->routes;
	s.count = 0;
	for (size_t i = 0; i < w->nops; i++) {
		const struct prefix *prefix = &w->items[w->ops[i].item].key.prefix;

		if ((w->ops[i].kind != OP_ADD && w->ops[i].kind != OP_REPLACE) ||
		    w->ops[i].result != -EEXIST)
			continue;
		s.prefixes[s.count++] = *prefix;
		families[prefix->addr.family == AF_INET6] = true;
	}
	if (s.count == 0)
		return;
	forget_routes(&s);
	qsort(s.prefixes, s.count, sizeof(s.prefixes[0]), compare_prefixes);
	if (families[0])
		r = route_foreach(worker->nl, AF_INET, 0, look_at_route, forget_routes, &s, &err);
	if (r == 0 && families[1])
		r = route_foreach(worker->nl, AF_INET6, 0, look_at_route, forget_routes, &s, &err);
	if (r < 0)
		log_limited(LOG_WARN, "cannot look up routes that clash" KV("error", "%s"),
			    err.text);
	for (size_t i = 0; i < s.count; i++)
		(void)fib_note(worker->pool->config.fib, &s.prefixes[i],
			       r < 0 ? FIB_UNKNOWN : s.found[i].state, &s.found[i].gateway);
}

static void count_result(const struct op *op, int result)
{
	static const enum metric_op labels[] = {
		[OP_ADD] = METRIC_ADD,
		[OP_REPLACE] = METRIC_REPLACE,
		[OP_DELETE] = METRIC_DELETE,
	};

	if (op->kind <= OP_DELETE)
		metric_inc_labels(METRIC_ROUTE_OPERATIONS, labels[op->kind],
				  (unsigned)(result < 0 ? METRIC_ERROR : METRIC_OK));
	if (result < 0)
		metric_netlink_error(result);
}

/* A route that could not be put: fib must not say that it is there. */
static int put_failed(struct worker *worker, const struct op *op, int result)
{
	const struct key *key = &worker->work.items[op->item].key;
	struct fib *fib = worker->pool->config.fib;
	struct fib_route is;

	if (result != -EEXIST) {
		/* The nexthop that fib believed in may be gone, and its routes with it. */
		if (result == -EINVAL)
			(void)fib_nexthop_note(fib, &op->gateway, FIB_NEXTHOP_ABSENT);
		(void)fib_note(fib, &key->prefix, FIB_UNKNOWN, NULL);
		return result;
	}
	fib_get(fib, &key->prefix, &is);
	if (is.state == FIB_FOREIGN)
		return -EEXIST;
	return is.state == FIB_OURS && addr_cmp(&is.gateway, &op->gateway) == 0 ? 0 : -EAGAIN;
}

static int nexthop_failed(struct worker *worker, const struct op *op, int result)
{
	const struct routes_config *routes = &worker->work.routes;
	struct fib *fib = worker->pool->config.fib;
	struct nexthop is;
	int r;

	if (result != -EEXIST)
		return result;
	r = nexthop_get(worker->nl, routes_nexthop_id(routes, &op->gateway), &is, NULL);
	if (r < 0)
		return -EAGAIN;
	if (is.protocol != routes->protocol) {
		(void)fib_nexthop_note(fib, &op->gateway, FIB_NEXTHOP_FOREIGN);
		return -EEXIST;
	}
	if (addr_cmp(&is.gateway, &op->gateway) != 0 || is.index != routes->index) {
		(void)fib_nexthop_note(fib, &op->gateway, FIB_NEXTHOP_MISPLACED);
		return -EAGAIN;
	}
	(void)fib_nexthop_note(fib, &op->gateway, FIB_NEXTHOP_THERE);
	return 0;
}

static int judge(struct worker *worker, const struct op *op, int result)
{
	const struct key *key = &worker->work.items[op->item].key;
	struct fib *fib = worker->pool->config.fib;

	switch (op->kind) {
	case OP_ADD:
	case OP_REPLACE:
		return result < 0 ? put_failed(worker, op, result) : 0;
	case OP_DELETE:
		if (result == 0 || result == -ESRCH)
			return 0;
		(void)fib_note(fib, &key->prefix, FIB_UNKNOWN, NULL);
		return result;
	case OP_NEXTHOP_ADD:
	case OP_NEXTHOP_REPLACE:
		if (result < 0)
			return nexthop_failed(worker, op, result);
		(void)fib_nexthop_note(fib, &op->gateway, FIB_NEXTHOP_THERE);
		return 0;
	case OP_NEXTHOP_DELETE:
		if (result == -ENOENT)
			result = 0;
		fib_nexthop_left(fib, &op->gateway,
				 result == 0 ? FIB_NEXTHOP_ABSENT : FIB_NEXTHOP_THERE,
				 worker->pool->config.queue);
		return result;
	}
	return result;
}

/*
 * Peers tells of gateways that it knew. Those of an earlier run it never heard of, so whoever takes
 * a route off a nexthop has it looked at too.
 */
static void leave_nexthop(struct worker *worker, const struct op *op)
{
	const struct work *w = &worker->work;
	struct key key = key_nexthop(&op->left);

	if (op->left.family != AF_UNSPEC && routes_nexthop_id(&w->routes, &op->left))
		/* Due from now on: before it was in use. */
		queue_put_later(worker->pool->config.queue, &key, QUEUE_CHANGE,
				w->items[op->item].event_ns, 0);
}

static const char *op_name(enum op_kind kind)
{
	static const char *const names[] = {
		[OP_ADD] = "add route",
		[OP_REPLACE] = "replace route",
		[OP_DELETE] = "delete route",
		[OP_NEXTHOP_ADD] = "add nexthop",
		[OP_NEXTHOP_REPLACE] = "replace nexthop",
		[OP_NEXTHOP_DELETE] = "delete nexthop",
	};

	return names[kind];
}

static void tell_failure(const struct op *op, const struct key *key, int result)
{
	char prefix[PREFIX_TEXT_MAX], gateway[ADDR_TEXT_MAX];

	log_limited(LOG_WARN,
		    "the kernel refused" KV("what", "%s") KV("prefix", "%s") KV("via", "%s")
			    KV("error", "%s") KV("text", "%s"),
		    op_name(op->kind), prefix_format(&key->prefix, prefix),
		    addr_format(&op->gateway, gateway), route_failure_text(result), op->text);
}

static void take_result(size_t tag, int result, const char *text, void *arg)
{
	struct work *w = arg;

	w->ops[tag].result = result;
	strlcpy(w->ops[tag].text, text, sizeof(w->ops[tag].text));
	if (result < 0)
		log_debug("netlink" KV("what", "%s") KV("errno", "%d") KV("text", "%s"),
			  op_name(w->ops[tag].kind), -result, text);
}

static void take_undone(size_t tag, int result, const char *text, void *arg)
{
	struct worker *worker = arg;
	const struct work *w = &worker->work;

	(void)text;
	if (result < 0 && result != -ESRCH)
		(void)fib_note(worker->pool->config.fib, &w->items[w->ops[tag].item].key.prefix,
			       FIB_UNKNOWN, NULL);
}

/*
 * A nexthop and its route are sent together. When somebody else's nexthop has the id, the kernel
 * takes the route all the same, and it leads to another node.
 */
static void undo_misled(struct worker *worker)
{
	struct work *w = &worker->work;
	struct err err = ERR_INIT;
	size_t count = 0;

	for (size_t i = 0; i < w->nops; i++) {
		const struct op *op = &w->ops[i];
		const struct prefix *prefix = &w->items[op->item].key.prefix;

		if (op->kind > OP_REPLACE || op->result < 0 || w->results[op->item] != -EEXIST)
			continue;
		(void)fib_note(worker->pool->config.fib, prefix, FIB_ABSENT, NULL);
		if (routes_delete_route(&w->routes, worker->batch, prefix, i, NULL) < 0)
			(void)fib_note(worker->pool->config.fib, prefix, FIB_UNKNOWN, NULL);
		count++;
	}
	if (count && netlink_batch_send(worker->nl, worker->batch, take_undone, worker, &err) < 0)
		log_limited(LOG_ERROR, "netlink" KV("error", "%s"), err.text);
}

static void send_batch(struct worker *worker)
{
	struct work *w = &worker->work;
	struct err err = ERR_INIT;

	if (netlink_batch_send(worker->nl, worker->batch, take_result, w, &err) < 0)
		log_limited(LOG_ERROR, "netlink" KV("error", "%s"), err.text);
	look_up_standing(worker);
	for (size_t i = 0; i < w->nops; i++) {
		const struct op *op = &w->ops[i];
		int result = judge(worker, op, op->result);

		count_result(op, op->result);
		if (op->kind == OP_REPLACE)
			(void)fib_nexthop_hold(worker->pool->config.fib, &op->left, false);
		if (result == 0)
			leave_nexthop(worker, op);
		/* Of a nexthop and its route, the nexthop's failure is the cause. */
		if (result < 0 && w->results[op->item] == 0) {
			w->results[op->item] = result;
			if (op->text[0])
				queue_explain(worker->pool->config.queue, &w->items[op->item],
					      op->text);
			if (result != -EAGAIN)
				tell_failure(op, &w->items[op->item].key, result);
		}
	}
	undo_misled(worker);
}

static void work_on(struct worker *worker)
{
	struct work *w = &worker->work;
	struct pool *p = worker->pool;

	pool_get_routes(p, &w->routes);
	fib_work_begin(p->config.fib, &w->fib_work);
	w->nops = 0;
	memset(w->sent, 0, sizeof(w->sent));
	for (size_t i = 0; i < w->nitems; i++)
		w->results[i] = plan(worker, i);
	if (w->nops)
		send_batch(worker);
	fib_work_end(p->config.fib, &w->fib_work);
	for (size_t i = 0; i < w->nitems; i++) {
		const struct queue_item *item = &w->items[i];

		int64_t late = clock_ns() - item->from_ns;

		/* Not late at all when it came on the queue before for another reason. */
		if (w->sent[i] && w->results[i] == 0 && item->event_ns)
			metric_observe(METRIC_EVENT_TO_KERNEL, 0, late > 0 ? late : 0);
		queue_done(p->config.queue, item, w->results[i]);
	}
}

void *worker_run(void *arg)
{
	struct worker *worker = arg;
	struct queue *queue = worker->pool->config.queue;
	struct work *w = &worker->work;

	while ((w->nitems = queue_take(queue, w->items, BATCH_KEYS, &worker->quit)) > 0)
		work_on(worker);
	return NULL;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing and watching. The handle remembers the revision up to which everything was told; a watch
 * begins with the next one. Three things make that position worthless, and are told as -ESTALE:
 *
 *	compacted	etcd says so
 *	another cluster	its id is in every header
 *	restored	the store was set back to a backup, and lives on from there
 *
 * A watch of a restored store would stay silent until that has grown to our position, and then leave
 * out what differs before. So after each list but the first one, and before each watch that does not
 * follow a list at once, the store has to prove its history (etcd_history.c). That goes as far as the
 * newest change that was told; so a watch begins with the next revision after that, and nothing may
 * come before our position. It does not where that would make etcd go through much of its history
 * (other keys than ours had thousands of changes since then), and where it was compacted away. What
 * then gets past us, and what is restored in the moment between proof and watch, the periodic
 * comparison repairs.
 *
 * A message may come in fragments. Their changes are told as they come, but the position moves only
 * with the last one, so whatever is cut off comes again as a whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "etcd.h"
#include "splitter.h"

#define MESSAGE_MAX ((size_t)8 * 1024 * 1024)
#define REPLAY_MAX  1000     /* revisions before our position that etcd is made to go through */
#define BEHIND	    (-EXDEV) /* the member is behind our position; never leaves this file */

/* -- list ------------------------------------------------------------------- */

struct listing {
	const struct store_handler *handler;
	size_t skip; /* length of the folder's name */
	struct position position;
};

/*
 * A key may hold a NUL byte, a name in C may not: up to there it could be another node's name. With
 * question marks it is none, and is refused under a name of its own.
 */
static void mask_nul(const struct buf *key)
{
	char *nul;

	while ((nul = memchr(key->data, '\0', key->len)))
		*nul = '?';
}

static int tell(const struct store_handler *handler, size_t skip, const struct etcd_kv *kv,
		bool deleted, struct err *err)
{
	const struct store_change change = {
		.node = kv->key.data + skip,
		.value = deleted ? NULL : kv->value.data,
		.len = kv->value.len,
		.order = (uint64_t)kv->create_revision,
		.version = (uint64_t)kv->mod_revision,
	};

	mask_nul(&kv->key);
	return handler->on_change(&change, handler->arg, err);
}

static int on_listed(const struct etcd_kv *kv, void *arg, struct err *err)
{
	struct listing *listing = arg;
	int r;

	if (kv->key.len < listing->skip)
		return err_set(err, -EPROTO, "etcd: a key that was not asked for");
	r = position_note(&listing->position, kv, false, err);
	return r < 0 ? r : tell(listing->handler, listing->skip, kv, false, err);
}

static void on_page(void *arg)
{
	const struct listing *listing = arg;

	if (listing->handler->on_batch)
		listing->handler->on_batch(listing->handler->arg);
}

/* Tells whether the store has the history that was told before this list. */
static int prove_list(struct store *s, const struct store_handler *handler, struct err *err)
{
	bool proven;
	int r = etcd_prove_history(s, &proven, err);

	if (r == -ESTALE && handler->on_set_back)
		handler->on_set_back(handler->arg);
	if (proven && handler->on_proven)
		handler->on_proven(handler->arg);
	return r == -ESTALE ? 0 : r;
}

int store_list(struct store *s, const struct store_handler *handler, struct err *err)
{
	struct listing listing = { .handler = handler };
	char folder[ETCD_KEY_MAX];
	int r;

	r = etcd_records_folder(s, folder, err);
	if (r < 0)
		return r;
	listing.skip = strlen(folder);
	etcd_spread(s);
	r = etcd_range(s, folder, false, on_listed, on_page, &listing, &listing.position, err);
	if (r == 0)
		r = prove_list(s, handler, err);
	if (r == 0) {
		listing.position.listed = listing.position.revision;
		listing.position.fresh = true;
		position_move(&s->position, &listing.position);
	}
	buf_done(&listing.position.newest_key);
	return r;
}

/* -- watch ------------------------------------------------------------------ */

struct watching {
	struct store *store;
	const struct store_handler *handler;
	size_t skip;
	struct etcd_kv kv;
	struct position next; /* what the fragments so far make of the position */
	bool replay;	      /* the watch begins right after the newest change that was told */
	bool compacted;	      /* etcd has no longer what the watch was to begin with */
	bool lagging;	      /* the member may be behind our position: the quorum is not */
	bool connected;
};

static int check_header(const struct watching *w, const json_t *result, struct err *err)
{
	const struct position *p = &w->store->position;
	const json_t *header = json_object_get(result, "header");
	int64_t revision = etcd_revision(header, "revision");

	if (etcd_uint(header, "cluster_id") != p->cluster_id)
		return err_set(err, -ESTALE, "another etcd cluster answers");
	if (!w->lagging && revision && revision < p->revision)
		return err_set(err, BEHIND,
			       "etcd stands at revision %" PRId64 ", behind %" PRId64
			       " that was seen",
			       revision, p->revision);
	return 0;
}

/*
 * A change up to our position, of which nothing was told. Those before the last list may be of
 * records that were gone by then.
 */
static int take_replayed(const struct watching *w, struct err *err)
{
	if (w->kv.mod_revision <= w->store->position.listed)
		return 0;
	return err_set(err, -ESTALE, "etcd has another history: it was restored from a backup");
}

static bool is_delete(const json_t *event)
{
	const json_t *type = json_object_get(event, "type");
	const char *name = json_string_value(type);

	return (name && strcmp(name, "DELETE") == 0) || json_integer_value(type) == 1;
}

static int take_event(struct watching *w, const json_t *event, struct err *err)
{
	bool deleted = is_delete(event);
	int r = etcd_kv_parse(json_object_get(event, "kv"), &w->kv, err);

	if (r < 0)
		return r;
	if (w->kv.key.len < w->skip)
		return err_set(err, -EPROTO, "etcd: an event of a key that is not watched");
	if (!w->kv.mod_revision)
		return err_set(err, -EPROTO, "etcd: an event without a revision");
	if (w->kv.mod_revision <= w->store->position.revision)
		return take_replayed(w, err);
	r = position_note(&w->next, &w->kv, deleted, err);
	return r < 0 ? r : tell(w->handler, w->skip, &w->kv, deleted, err);
}

/* The last one is told in full: one message, or all its fragments, holds whole revisions. */
static void end_of_message(struct watching *w)
{
	struct position *p = &w->store->position;

	if (w->next.newest <= p->newest)
		return;
	w->next.revision = w->next.newest;
	w->next.cluster_id = p->cluster_id;
	w->next.listed = p->listed;
	w->next.fresh = false;
	position_move(p, &w->next);
	w->next.newest = p->newest;
	if (w->handler->on_batch)
		w->handler->on_batch(w->handler->arg);
}

/* A message without events tells how far the store is (watch_progress). */
static int take_progress(struct watching *w, const json_t *result, struct err *err)
{
	int64_t now = etcd_revision(json_object_get(result, "header"), "revision");

	if (etcd_bool(result, "created"))
		return 0;
	if (w->next.newest > w->store->position.newest)
		return err_set(err, -EPROTO, "etcd: a message of the watch lacks its last part");
	if (now > w->store->position.revision)
		w->store->position.revision = now;
	return 0;
}

static int take_events(struct watching *w, const json_t *result, struct err *err)
{
	const json_t *events = json_object_get(result, "events"), *event;
	size_t i;

	if (json_array_size(events) == 0)
		return take_progress(w, result, err);
	json_array_foreach (events, i, event) {
		int r = take_event(w, event, err);

		if (r < 0)
			return r;
	}
	if (!etcd_bool(result, "fragment"))
		end_of_message(w);
	return 0;
}

/* Only words tell why. */
static int canceled(const json_t *result, struct err *err)
{
	const char *reason = json_string_value(etcd_field(result, "cancel_reason"));
	int r = etcd_error_text("the watch", 0, reason ? reason : "it ended for no reason told",
				err);

	return r == -EPROTO ? err_wrap(err, -EAGAIN, "etcd ended it") : r;
}

static int take_result(struct watching *w, const json_t *result, struct err *err)
{
	int64_t compacted = etcd_int(result, "compact_revision");
	int r;

	w->compacted = compacted > 0;
	if (compacted)
		return err_set(err, -ESTALE, "etcd has compacted up to revision %" PRId64,
			       compacted);
	if (etcd_bool(result, "canceled"))
		return canceled(result, err);
	r = check_header(w, result, err);
	if (r < 0)
		return r;
	if (etcd_bool(result, "created") && !w->connected) {
		w->connected = true;
		if (w->handler->on_connected)
			w->handler->on_connected(w->handler->arg);
	}
	return take_events(w, result, err);
}

static int on_object(const char *text, size_t len, void *arg, struct err *err)
{
	auto_(json_decref) json_t *message = NULL;
	struct watching *w = arg;
	const json_t *result;
	json_error_t why;

	message = json_loadb(text, len, 0, &why);
	if (!message)
		return err_set(err, -EPROTO, "etcd: the watch is not JSON: %s", why.text);
	result = json_object_get(message, "result");
	if (result)
		return take_result(w, result, err);
	if (json_object_get(message, "error"))
		return etcd_error("watch", message, err);
	return err_set(err, -EPROTO, "etcd: a message of the watch holds no result");
}

static int on_data(const char *data, size_t len, void *arg, struct err *err)
{
	return splitter_feed(arg, data, len, err);
}

/*
 * The member answers, by another connection. But a watch is confirmed at once: somebody in between
 * swallows it.
 */
static int on_idle(void *arg, struct err *err)
{
	const struct splitter *splitter = arg;
	const struct watching *w = splitter->arg;

	if (w->connected)
		return 0;
	return err_set(err, -ETIMEDOUT,
		       "etcd answers, but does not begin the watch: is there a proxy that holds "
		       "streams back?");
}

static json_t *watch_request(const struct watching *w, const char *folder)
{
	const struct position *p = &w->store->position;
	char end[ETCD_KEY_MAX];

	etcd_folder_end(folder, end);
	return json_pack("{s{so so so sb sb}}", "create_request", "key", etcd_string(folder),
			 "range_end", etcd_string(end), "start_revision",
			 etcd_number((w->replay ? p->newest : p->revision) + 1), "progress_notify",
			 1, "fragment", 1);
}

static int watch_once(struct watching *w, const char *folder, int64_t until_ns, struct err *err)
{
	struct splitter splitter = SPLITTER_INIT(MESSAGE_MAX, on_object, w);
	const struct etcd_stream stream = {
		.on_data = on_data,
		.on_idle = on_idle,
		.arg = &splitter,
		.until_ns = until_ns,
	};
	auto_(json_decref) json_t *body = watch_request(w, folder);
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "watch");
	r = etcd_stream(w->store, STORE_WATCH, "/v3/watch", body, &stream, err);
	splitter_done(&splitter);
	/* It would be as long the next time; a list takes it in pieces. */
	if (r == -EFBIG)
		r = err_set(err, -ESTALE, "a message of the watch is longer than %zu bytes",
			    MESSAGE_MAX);
	return r;
}

/* Tells that the store has the history that was told; a list of this moment needs no proof. */
static int prove(struct watching *w, struct err *err)
{
	struct position *p = &w->store->position;
	bool proven;
	int r;

	if (p->fresh) {
		p->fresh = false;
		return 0;
	}
	r = etcd_prove_history(w->store, &proven, err);
	if (proven && w->handler->on_proven)
		w->handler->on_proven(w->handler->arg);
	return r;
}

/* Once more at once: at the next endpoint, or in the way that this one allows. */
static bool again(struct watching *w, int r, unsigned *turns)
{
	if (r == BEHIND) {
		w->lagging = true; /* unless the store proves to be */
		return true;
	}
	/* Whether our position is compacted away as well, it will tell. */
	if (r == -ESTALE && w->compacted && w->replay) {
		w->replay = false;
		return true;
	}
	return !w->connected && etcd_worth_another(r) && --*turns > 0;
}

int store_watch(struct store *s, const struct store_handler *handler, int64_t until_ns,
		struct err *err)
{
	const struct position *p = &s->position;
	struct watching w = { .store = s, .handler = handler };
	char folder[ETCD_KEY_MAX];
	unsigned turns;
	int r;

	r = etcd_records_folder(s, folder, err);
	if (r == 0)
		r = etcd_adopt(s, err);
	if (r < 0)
		return r;
	turns = s->access->endpoints.count;
	w.skip = strlen(folder);
	w.next.newest = p->newest;
	w.replay = p->newest > 0 && p->revision - p->newest < REPLAY_MAX;
	do {
		r = prove(&w, err);
		if (r < 0)
			break;
		r = watch_once(&w, folder, until_ns, err);
	} while (again(&w, r, &turns));
	etcd_kv_done(&w.kv);
	buf_done(&w.next.newest_key);
	return r;
}

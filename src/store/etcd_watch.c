/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing and watching. The handle remembers the revision up to which everything was told; a watch
 * begins with the next one. Three things make that position worthless, and are told as -ESTALE:
 *
 *	compacted	etcd says so
 *	another cluster	its id is in every header
 *	restored	the store was set back to a backup, and lives on from there
 *
 * A restored store has the same cluster id when it was restored under the same names. As long as
 * its revision is behind ours a watch would stay silent; the header of its first message tells
 * that. A member that only lags behind the others tells the same, so the quorum is asked then. Once
 * the restored store has grown past our position there is nothing in its headers to tell; but its
 * history is another one. So a watch begins a little earlier, with the newest change that was told
 * already: etcd has to tell the very same one again. That is left out where it would make etcd go
 * through much of its history (other keys than ours had thousands of changes since then), and where
 * the change was compacted away. What then gets past us the periodic comparison repairs.
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

/* -- position ----------------------------------------------------------------- */

/* Notes a change as the newest one if it is. */
static int note(struct position *p, const struct etcd_kv *kv, bool deleted, struct err *err)
{
	if (kv->mod_revision <= p->newest)
		return 0;
	buf_reset(&p->newest_key);
	if (buf_add(&p->newest_key, kv->key.data, kv->key.len) < 0)
		return err_errno(err, -ENOMEM, "watch");
	p->newest = kv->mod_revision;
	p->newest_created = kv->create_revision;
	p->newest_deleted = deleted;
	return 0;
}

static bool is_newest(const struct position *p, const struct etcd_kv *kv, bool deleted)
{
	return kv->mod_revision == p->newest && kv->create_revision == p->newest_created &&
	       deleted == p->newest_deleted && kv->key.len == p->newest_key.len &&
	       memcmp(kv->key.data, p->newest_key.data, kv->key.len) == 0;
}

/* Gives p what next has; the old memory goes to next. */
static void move_on(struct position *p, struct position *next)
{
	struct position old = *p;

	*p = *next;
	*next = old;
}

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
	r = note(&listing->position, kv, false, err);
	return r < 0 ? r : tell(listing->handler, listing->skip, kv, false, err);
}

static void on_page(void *arg)
{
	const struct listing *listing = arg;

	if (listing->handler->on_batch)
		listing->handler->on_batch(listing->handler->arg);
}

/* The quorum told both revisions, so it is not just a member that lags behind. */
static bool is_set_back(const struct position *before, const struct position *now)
{
	return before->revision &&
	       (now->revision < before->revision || now->cluster_id != before->cluster_id);
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
	if (r == 0) {
		if (is_set_back(&s->position, &listing.position) && handler->on_set_back)
			handler->on_set_back(handler->arg);
		listing.position.listed = listing.position.revision;
		move_on(&s->position, &listing.position);
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
	bool replay;	      /* the watch begins with a change that was told already... */
	bool proven;	      /* ... and it was the very same one */
	bool lagging;	      /* the member may be behind our position: the quorum is not */
	bool compacted;	      /* etcd has no longer what the watch was to begin with */
	bool connected;
};

static int restored(struct err *err)
{
	return err_set(err, -ESTALE, "etcd has another history: it was restored from a backup");
}

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
 * A change up to our position. Those before the last list may be of records that were gone by then.
 * After it nothing can be there but the newest one and others of its transaction.
 */
static int take_replayed(struct watching *w, bool deleted, struct err *err)
{
	const struct position *p = &w->store->position;

	if (is_newest(p, &w->kv, deleted)) {
		w->proven = true;
		if (w->handler->on_proven)
			w->handler->on_proven(w->handler->arg);
	}
	if (!w->replay || w->kv.mod_revision <= p->listed || w->kv.mod_revision == p->newest)
		return 0;
	return restored(err);
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
		return take_replayed(w, deleted, err);
	if (w->replay && !w->proven)
		return restored(err);
	r = note(&w->next, &w->kv, deleted, err);
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
	move_on(p, &w->next);
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
	if (w->replay && !w->proven)
		return restored(err);
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
 * swallows it. And what is to come again at the start came long ago, or never will.
 */
static int on_idle(void *arg, struct err *err)
{
	const struct splitter *splitter = arg;
	const struct watching *w = splitter->arg;

	if (!w->connected)
		return err_set(err, -ETIMEDOUT,
			       "etcd answers, but does not begin the watch: is there a proxy "
			       "that holds streams back?");
	return w->replay && !w->proven ? restored(err) : 0;
}

static json_t *watch_request(const struct watching *w, const char *folder)
{
	const struct position *p = &w->store->position;
	char end[ETCD_KEY_MAX];

	etcd_folder_end(folder, end);
	return json_pack("{s{so so so sb sb}}", "create_request", "key", etcd_string(folder),
			 "range_end", etcd_string(end), "start_revision",
			 etcd_number(w->replay ? p->newest : p->revision + 1), "progress_notify", 1,
			 "fragment", 1);
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

/* The member is behind our position. Is the whole store? */
static int ask_quorum(struct watching *w, struct err *err)
{
	int64_t revision = 0;
	int r = etcd_newest_revision(w->store, &revision, err);

	if (r < 0)
		return r;
	w->lagging = true;
	return revision < w->store->position.revision ? restored(err) : 0;
}

/* Once more at once: at the next endpoint, or in the way that this one allows. */
static bool again(struct watching *w, int *r, unsigned *turns, struct err *err)
{
	if (*r == BEHIND) {
		*r = ask_quorum(w, err);
		return *r == 0;
	}
	/* The change that was told is compacted away; whether our position is as well, it will tell. */
	if (*r == -ESTALE && w->compacted && w->replay) {
		w->replay = false;
		return true;
	}
	return !w->connected && etcd_worth_another(*r) && --*turns > 0;
}

int store_watch(struct store *s, const struct store_handler *handler, int64_t until_ns,
		struct err *err)
{
	const struct position *p = &s->position;
	struct watching w = { .store = s, .handler = handler };
	struct err own = ERR_INIT;
	char folder[ETCD_KEY_MAX];
	unsigned turns;
	int r;

	if (!err)
		err = &own; /* some of the ways below follow from its text */
	r = etcd_records_folder(s, folder, err);
	if (r == 0)
		r = etcd_adopt(s, err);
	if (r < 0)
		return r;
	turns = s->access->endpoints.count;
	w.skip = strlen(folder);
	w.next.newest = p->newest;
	w.replay = p->newest > 0 && p->revision - p->newest < REPLAY_MAX;
	do
		r = watch_once(&w, folder, until_ns, err);
	while (again(&w, &r, &turns, err));
	etcd_kv_done(&w.kv);
	buf_done(&w.next.newest_key);
	return r;
}

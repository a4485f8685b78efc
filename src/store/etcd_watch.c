/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing and watching. The handle remembers the revision up to which everything was told; a watch
 * begins with the next one. Three things make that position worthless, and are told as -ESTALE: the
 * revision was compacted away; the cluster is another one; or the store is younger than the position
 * (it was restored from a backup), where etcd would stay silent until it gets there.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "etcd.h"
#include "splitter.h"

#define MESSAGE_MAX ((size_t)8 * 1024 * 1024)

/* -- list ------------------------------------------------------------------- */

struct listing {
	const struct store_handler *handler;
	size_t skip; /* length of the folder's name */
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
	};

	mask_nul(&kv->key);
	return handler->on_change(&change, handler->arg, err);
}

static int on_listed(const struct etcd_kv *kv, void *arg, struct err *err)
{
	const struct listing *listing = arg;

	return tell(listing->handler, listing->skip, kv, false, err);
}

static void on_page(void *arg)
{
	const struct listing *listing = arg;

	if (listing->handler->on_batch)
		listing->handler->on_batch(listing->handler->arg);
}

int store_list(struct store *s, const struct store_handler *handler, struct err *err)
{
	struct listing listing = { .handler = handler };
	char folder[ETCD_KEY_MAX];
	int64_t revision;
	int r;

	r = etcd_records_folder(s, folder, err);
	if (r < 0)
		return r;
	listing.skip = strlen(folder);
	r = etcd_range(s, folder, false, on_listed, on_page, &listing, &revision, err);
	if (r < 0)
		return r;
	s->revision = revision;
	return 0;
}

/* -- watch ------------------------------------------------------------------ */

struct watching {
	struct store *store;
	const struct store_handler *handler;
	size_t skip;
	struct etcd_kv kv;
};

static int check_header(const struct watching *w, const json_t *header, struct err *err)
{
	const struct store *s = w->store;
	uint64_t cluster = etcd_uint(header, "cluster_id");
	int64_t revision = etcd_int(header, "revision");

	if (cluster != s->cluster_id)
		return err_set(err, -ESTALE, "another etcd cluster answers");
	/*
	 * Where a message tells the store's revision, it is never one before what was told already.
	 */
	if (revision && revision < s->revision)
		return err_set(err, -ESTALE,
			       "etcd stands at revision %" PRId64 ", behind %" PRId64
			       " that was seen: it was restored",
			       revision, s->revision);
	return 0;
}

static int take_event(struct watching *w, const json_t *event, struct err *err)
{
	const char *type = json_string_value(json_object_get(event, "type"));
	bool deleted = type && strcmp(type, "DELETE") == 0;
	int r = etcd_kv_parse(json_object_get(event, "kv"), &w->kv, err);

	if (r < 0)
		return r;
	if (w->kv.key.len < w->skip)
		return err_set(err, -EPROTO, "etcd: an event of a key that is not watched");
	return tell(w->handler, w->skip, &w->kv, deleted, err);
}

static int take_events(struct watching *w, const json_t *result, struct err *err)
{
	const json_t *events = json_object_get(result, "events"), *event;
	int64_t now = etcd_int(json_object_get(result, "header"), "revision");
	size_t i;

	json_array_foreach (events, i, event) {
		int r = take_event(w, event, err);

		if (r < 0)
			return r;
	}
	/*
	 * One message holds whole revisions (fragments are off), so the last one is told in full.
	 * A message without events tells how far the store is (watch_progress).
	 */
	if (i)
		w->store->revision = w->kv.mod_revision;
	else if (!json_is_true(json_object_get(result, "created")) && now)
		w->store->revision = now;
	if (i && w->handler->on_batch)
		w->handler->on_batch(w->handler->arg);
	return 0;
}

static int take_result(struct watching *w, const json_t *result, struct err *err)
{
	const char *reason = json_string_value(json_object_get(result, "cancel_reason"));
	int64_t compacted = etcd_int(result, "compact_revision");
	int r;

	if (compacted)
		return err_set(err, -ESTALE, "etcd has compacted up to revision %" PRId64,
			       compacted);
	r = check_header(w, json_object_get(result, "header"), err);
	if (r < 0)
		return r;
	if (json_is_true(json_object_get(result, "canceled")))
		return err_set(err, -EAGAIN, "etcd ended the watch: %.100s",
			       reason ? reason : "no reason told");
	if (json_is_true(json_object_get(result, "created")) && w->handler->on_connected)
		w->handler->on_connected(w->handler->arg);
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

static json_t *watch_request(const struct store *s, const char *folder)
{
	char end[ETCD_KEY_MAX];

	etcd_folder_end(folder, end);
	return json_pack("{s{so so so sb}}", "create_request", "key", etcd_string(folder),
			 "range_end", etcd_string(end), "start_revision",
			 etcd_number(s->revision + 1), "progress_notify", 1);
}

int store_watch(struct store *s, const struct store_handler *handler, struct err *err)
{
	struct watching w = { .store = s, .handler = handler };
	struct splitter splitter = SPLITTER_INIT(MESSAGE_MAX, on_object, &w);
	auto_(json_decref) json_t *body = NULL;
	char folder[ETCD_KEY_MAX];
	int r;

	r = etcd_records_folder(s, folder, err);
	if (r < 0)
		return r;
	w.skip = strlen(folder);
	body = watch_request(s, folder);
	if (!body)
		return err_errno(err, -ENOMEM, "watch");
	r = etcd_stream(s, STORE_WATCH, "/v3/watch", body, on_data, &splitter, err);
	/* It would be as long the next time; a list takes it in pieces. */
	if (r == -EFBIG)
		r = err_set(err, -ESTALE, "a message of the watch is longer than %zu bytes",
			    MESSAGE_MAX);
	splitter_done(&splitter);
	etcd_kv_done(&w.kv);
	return r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "etcd.h"

/* About 200 KiB of JSON: little memory, and few round trips for 10,000 nodes. */
#define PAGE_KEYS 500

static int folder_of(const struct store *s, const char *end, char ret[static ETCD_KEY_MAX],
		     struct err *err)
{
	if (snprintf(ret, ETCD_KEY_MAX, "%s%s", s->prefix, end) >= ETCD_KEY_MAX)
		return err_set(err, -ENAMETOOLONG, "ETCD_PREFIX is too long");
	return 0;
}

int etcd_records_folder(const struct store *s, char ret[static ETCD_KEY_MAX], struct err *err)
{
	return folder_of(s, "/", ret, err);
}

int etcd_subnets_folder(const struct store *s, char ret[static ETCD_KEY_MAX], struct err *err)
{
	return folder_of(s, "-subnets/", ret, err);
}

int etcd_get(struct store *s, const char *key, struct etcd_kv *ret, bool *ret_found,
	     struct err *err)
{
	auto_(json_decref) json_t *body = json_pack("{so}", "key", etcd_string(key));
	auto_(json_decref) json_t *answer = NULL;
	const json_t *kv;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "read %s", key);
	r = etcd_call(s, STORE_RANGE, "/v3/kv/range", body, &answer, err);
	if (r < 0)
		return r;
	kv = json_array_get(json_object_get(answer, "kvs"), 0);
	*ret_found = kv != NULL;
	return kv ? etcd_kv_parse(kv, ret, err) : 0;
}

static json_t *ranges_of(const struct etcd_wanted *wanted, size_t count)
{
	json_t *ranges = json_array();

	for (size_t i = 0; i < count; i++)
		if (json_array_append_new(ranges, json_pack("{s{so}}", "request_range", "key",
							    etcd_string(wanted[i].key))) < 0) {
			json_decref(ranges);
			return NULL;
		}
	return ranges;
}

int etcd_get_all(struct store *s, struct etcd_wanted *wanted, size_t count, struct err *err)
{
	auto_(json_decref) json_t *body = json_pack("{so}", "success", ranges_of(wanted, count));
	auto_(json_decref) json_t *answer = NULL;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "read %s", wanted[0].key);
	r = etcd_call(s, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	for (size_t i = 0; i < count && r == 0; i++) {
		const json_t *kv = json_array_get(
			json_object_get(etcd_response(answer, i, "response_range"), "kvs"), 0);

		wanted[i].found = kv != NULL;
		if (kv)
			r = etcd_kv_parse(kv, wanted[i].kv, err);
	}
	return r;
}

/* '/' becomes '0': the end of everything below the folder. */
void etcd_folder_end(const char *folder, char ret[static ETCD_KEY_MAX])
{
	strlcpy(ret, folder, ETCD_KEY_MAX);
	ret[strlen(ret) - 1]++;
}

/* The pages of one range. */
struct pages {
	struct buf next; /* first key of the next page */
	char end[ETCD_KEY_MAX];
	int64_t revision; /* 0: the newest */
	uint64_t cluster_id;
	unsigned limit; /* keys of a page */
	bool keys_only;
	bool more;
};

static json_t *page_request(const struct pages *p)
{
	json_t *body = json_pack("{so so sI sb}", "key", etcd_bytes(p->next.data, p->next.len),
				 "range_end", etcd_string(p->end), "limit", (json_int_t)p->limit,
				 "keys_only", (int)p->keys_only);

	/*
	 * The first page asks the quorum what is newest. The others are of that revision, so what
	 * the member itself has is just as good.
	 */
	if (body && p->revision &&
	    (json_object_set_new(body, "revision", etcd_number(p->revision)) < 0 ||
	     json_object_set_new(body, "serializable", json_true()) < 0)) {
		json_decref(body);
		return NULL;
	}
	return body;
}

/* Notes where the next page begins: with the first key after the last one of this page. */
static int note_next(struct pages *p, const json_t *kvs, struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv last = { .lease = 0 };
	size_t count = json_array_size(kvs);
	int r;

	if (!p->more)
		return 0;
	if (count == 0)
		return err_set(err, -EPROTO, "etcd: an empty page with more to come");
	r = etcd_kv_parse(json_array_get(kvs, count - 1), &last, err);
	if (r < 0)
		return r;
	buf_reset(&p->next);
	if (buf_add(&p->next, last.key.data, last.key.len) < 0 || buf_add(&p->next, "", 1) < 0)
		return err_errno(err, -ENOMEM, "list");
	return 0;
}

static int take_header(const json_t *answer, struct pages *p, struct err *err)
{
	const json_t *header = json_object_get(answer, "header");

	if (!p->revision) {
		p->revision = etcd_revision(header, "revision");
		if (!p->revision)
			return err_set(err, -EPROTO, "etcd: an answer without a revision");
		p->cluster_id = etcd_uint(header, "cluster_id");
	} else if (etcd_uint(header, "cluster_id") != p->cluster_id) {
		return err_set(err, -EAGAIN, "another etcd cluster answered in the middle");
	}
	p->more = etcd_bool(answer, "more");
	return note_next(p, json_object_get(answer, "kvs"), err);
}

static int take_page(const json_t *answer,
		     int (*fn)(const struct etcd_kv *kv, void *arg, struct err *err), void *arg,
		     struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv kv = { .lease = 0 };
	const json_t *object;
	size_t i;

	json_array_foreach (json_object_get(answer, "kvs"), i, object) {
		int r = etcd_kv_parse(object, &kv, err);

		if (r == 0)
			r = fn(&kv, arg, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* One page. While it is worked through, etcd makes the next one ready. */
static int do_page(struct store *s, struct pages *p,
		   int (*fn)(const struct etcd_kv *kv, void *arg, struct err *err), void *arg,
		   struct err *err)
{
	auto_(json_decref) json_t *body = page_request(p);
	auto_(json_decref) json_t *next = NULL;
	auto_(json_decref) json_t *answer = NULL;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "list");
	r = etcd_call(s, STORE_RANGE, "/v3/kv/range", body, &answer, err);
	if (r == 0)
		r = take_header(answer, p, err);
	if (r < 0)
		return r;
	next = p->more ? page_request(p) : NULL;
	if (next)
		etcd_call_ahead(s, "/v3/kv/range", next);
	return take_page(answer, fn, arg, err);
}

int etcd_range(struct store *s, const char *folder, bool keys_only,
	       int (*fn)(const struct etcd_kv *kv, void *arg, struct err *err),
	       void (*on_page)(void *arg), void *arg, struct position *ret, struct err *err)
{
	struct pages p = { .limit = PAGE_KEYS, .keys_only = keys_only, .more = true };
	int r = buf_adds(&p.next, folder) < 0 ? err_errno(err, -ENOMEM, "list") : 0;

	etcd_folder_end(folder, p.end);
	while (r == 0 && p.more) {
		r = do_page(s, &p, fn, arg, err);
		/* Somebody put huge values there: fewer at a time, so that the rest is seen. */
		if (r == -EFBIG && p.limit > 1) {
			p.limit /= 4;
			p.limit += !p.limit;
			r = 0;
			continue;
		}
		if (r == 0 && on_page)
			on_page(arg);
	}
	buf_done(&p.next);
	if (r < 0)
		return r;
	if (ret) {
		ret->revision = p.revision;
		ret->cluster_id = p.cluster_id;
	}
	return 0;
}

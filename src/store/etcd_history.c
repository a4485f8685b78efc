/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether the store still has the history that we followed. One that was restored from a backup has
 * the same cluster id when it was restored under the same names. As long as its revision is behind
 * ours its headers tell; once it has grown past that, nothing does. But its history is another one:
 * it does not have the newest change that was told to us, at the revision that this had.
 *
 * The quorum is asked for that, by a read of one key, so a member that only lags behind the others
 * is not mistaken for a store that was set back. When the key has changed since, it is read as it was
 * at that revision; what cannot be read any more, as it was compacted away, tells nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "etcd.h"

int position_note(struct position *p, const struct etcd_kv *kv, bool deleted, struct err *err)
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

void position_move(struct position *p, struct position *next)
{
	struct position old = *p;

	*p = *next;
	*next = old;
}

/* What the key was at a revision (0: is now), without its value. */
struct look {
	bool found;
	int64_t created, modified;
};

static int check_header(const struct position *p, const json_t *answer, struct err *err)
{
	const json_t *header = json_object_get(answer, "header");

	if (etcd_uint(header, "cluster_id") != p->cluster_id)
		return err_set(err, -ESTALE, "another etcd cluster answers");
	if (etcd_revision(header, "revision") < p->revision)
		return err_set(err, -ESTALE,
			       "etcd has another history: it was restored from a backup, to before "
			       "revision %" PRId64,
			       p->revision);
	return 0;
}

static int look(struct store *s, int64_t revision, struct look *ret, struct err *err)
{
	const struct position *p = &s->position;
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char folder[ETCD_KEY_MAX];
	const json_t *kv;
	int r = etcd_records_folder(s, folder, err);

	if (r < 0)
		return r;
	/* Before any change was told: the folder itself, for the header. */
	body = json_pack("{so sb so}", "key",
			 p->newest ? etcd_bytes(p->newest_key.data, p->newest_key.len)
				   : etcd_string(folder),
			 "keys_only", 1, "revision", etcd_number(revision));
	if (!body)
		return err_errno(err, -ENOMEM, "read");
	r = etcd_call(s, STORE_RANGE, "/v3/kv/range", body, &answer, err);
	if (r == 0)
		r = check_header(p, answer, err);
	if (r < 0)
		return r;
	kv = json_array_get(json_object_get(answer, "kvs"), 0);
	*ret = (struct look){
		.found = kv != NULL,
		.created = etcd_revision(kv, "create_revision"),
		.modified = etcd_revision(kv, "mod_revision"),
	};
	return 0;
}

static bool is_newest(const struct position *p, const struct look *l)
{
	return l->found && l->modified == p->newest && l->created == p->newest_created;
}

/* The key as it was. *ret_proven stays false where that was compacted away. */
static int look_back(struct store *s, bool *ret_proven, struct err *err)
{
	const struct position *p = &s->position;
	struct look then = { .found = false }, before = { .found = true };
	int r = look(s, p->newest, &then, err);

	if (r == 0 && p->newest_deleted)
		r = look(s, p->newest - 1, &before, err);
	if (r < 0)
		return r == -ESTALE ? 0 : r;
	*ret_proven = p->newest_deleted ? !then.found && before.found : is_newest(p, &then);
	if (*ret_proven)
		return 0;
	return err_set(err, -ESTALE, "etcd has another history: it was restored from a backup");
}

int etcd_prove_history(struct store *s, bool *ret_proven, struct err *err)
{
	const struct position *p = &s->position;
	struct look now;
	int r;

	*ret_proven = false;
	if (!p->revision)
		return 0;
	r = look(s, 0, &now, err);
	if (r < 0 || !p->newest)
		return r;
	*ret_proven = !p->newest_deleted && is_newest(p, &now);
	return *ret_proven ? 0 : look_back(s, ret_proven, err);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "etcd_claim.h"

static json_t *delete_op(const char *key)
{
	return json_pack("{s{so}}", "request_delete_range", "key", etcd_string(key));
}

/*
 * A record without a lease is deleted, if it is still the one that was seen, and the subnet's key
 * with it when that is this node's: beside a record that was written by hand it may be another's.
 */
static int delete_keys(struct claimer *c, const struct record *record, struct err *err)
{
	const struct seen node = { .key = c->node_key, .mod_revision = c->record.mod_revision };
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char key[ETCD_KEY_MAX], holder[NODE_NAME_TEXT_MAX];
	struct seen subnet;
	int r = claim_subnet_key(c, &record->subnets[0], key, err);

	if (r == 0)
		r = claim_look_at_subnet(c, key, &subnet, holder, sizeof(holder), err);
	if (r < 0)
		return r;
	body = json_pack("{s[oo] s[o]}", "compare", claim_compare(&node), claim_compare(&subnet),
			 "success", delete_op(c->node_key));
	if (!body || (subnet.mod_revision && !holder[0] &&
		      json_array_append_new(json_object_get(body, "success"), delete_op(key)) < 0))
		return err_errno(err, -ENOMEM, "release");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r == 0 && !json_is_true(json_object_get(answer, "succeeded")))
		return err_set(err, -EAGAIN, "the record changed this moment");
	return r;
}

static int release(struct claimer *c, const char *machine, struct prefix *ret_subnet,
		   struct err *err)
{
	struct record record;
	int r = etcd_get(c->store, c->node_key, &c->record, &c->found, err);

	if (r < 0)
		return r;
	if (!c->found)
		return err_set(err, -ENOENT, "node '%s' has no record", c->req->node);
	r = record_parse(c->record.value.data, c->record.value.len, &record, err);
	if (r < 0)
		return err_wrap(err, -EEXIST, "record of node '%s'", c->req->node);
	if (record.machine[0] && strcmp(record.machine, machine) != 0)
		return claim_tell_other_machine(c, &record, err);
	if (ret_subnet)
		*ret_subnet = record.subnets[0];
	return c->record.lease ? etcd_revoke(c->store, (uint64_t)c->record.lease, err)
			       : delete_keys(c, &record, err);
}

int store_release(struct store *s, const char *node, const char *machine, struct prefix *ret_subnet,
		  struct err *err)
{
	const struct store_claim_request req = { .node = node };
	struct claimer c;
	int r = claimer_init(&c, s, &req, err);

	if (r == 0)
		r = release(&c, machine, ret_subnet, err);
	etcd_kv_done(&c.record);
	return r;
}

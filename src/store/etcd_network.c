/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The settings that all nodes of a cluster must share stand beside the records, without a lease, in
 *	<ETCD_PREFIX>-network	{"version":1,"subnet":"10.2.0.0/16","margin":8}
 * The first node writes them; every other one compares before it claims.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "etcd_claim.h"

#define NETWORK_VERSION 1

static unsigned margin_of(const struct network *n)
{
	return n->node_len - n->pods.len;
}

/* False in *ret_done: another node wrote them first. */
static int write_settings(struct claimer *c, bool *ret_done, struct err *err)
{
	const struct seen absent = { .key = c->network_key };
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char value[128], pods[PREFIX_TEXT_MAX];
	int r;

	(void)snprintf(value, sizeof(value), "{\"version\":%d,\"subnet\":\"%s\",\"margin\":%u}",
		       NETWORK_VERSION, prefix_format(&c->req->network->pods, pods),
		       margin_of(c->req->network));
	body = json_pack("{s[o] s[{s{so so}}]}", "compare", claim_compare(&absent), "success",
			 "request_put", "key", etcd_string(c->network_key), "value",
			 etcd_string(value));
	if (!body)
		return err_errno(err, -ENOMEM, "settings of the cluster");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r < 0)
		return r;
	*ret_done = json_is_true(json_object_get(answer, "succeeded"));
	if (*ret_done)
		c->network_revision = etcd_int(json_object_get(answer, "header"), "revision");
	return 0;
}

static int parse(const struct etcd_kv *kv, struct network *ret, struct err *err)
{
	auto_(json_decref) json_t *object = NULL;
	struct prefix pods;
	const char *subnet;
	json_error_t why;
	int version, margin, r;

	object = json_loadb(kv->value.data ? kv->value.data : "", kv->value.len, 0, &why);
	if (!object || json_unpack_ex(object, &why, 0, "{si ss si}", "version", &version, "subnet",
				      &subnet, "margin", &margin) < 0)
		return err_set(err, -EPROTO, "%s", why.text);
	if (version != NETWORK_VERSION || margin < 0)
		return err_set(err, -EPROTO, "version %d, margin %d", version, margin);
	r = prefix_parse(subnet, &pods, err);
	return r < 0 ? r : network_init(ret, &pods, (unsigned)margin, err);
}

static int compare(const struct claimer *c, const struct network *theirs, struct err *err)
{
	const struct network *ours = c->req->network;
	char a[PREFIX_TEXT_MAX], b[PREFIX_TEXT_MAX];

	if (prefix_cmp(&ours->pods, &theirs->pods) == 0 && ours->node_len == theirs->node_len)
		return 0;
	return err_set(err, -EDOM,
		       "this node has IP_SUBNET=%s and IP_SUBNET_MARGIN=%u, the cluster %s and %u "
		       "(key %s)",
		       prefix_format(&ours->pods, a), margin_of(ours),
		       prefix_format(&theirs->pods, b), margin_of(theirs), c->network_key);
}

int claim_check_network(struct claimer *c, const struct etcd_kv *kv, struct err *err)
{
	struct network theirs;
	bool written = false;
	int r;

	if (!kv) {
		r = write_settings(c, &written, err);
		if (r == 0 && !written)
			r = err_set(err, OVERTAKEN, "another node wrote the cluster's settings");
		return r;
	}
	c->network_revision = kv->mod_revision;
	r = parse(kv, &theirs, err);
	if (r < 0)
		return err_wrap(err, -EPROTO, "settings of the cluster in key %s", c->network_key);
	return compare(c, &theirs, err);
}

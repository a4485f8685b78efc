/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. A claim is two keys under one lease: the node's record and the subnet's
 * holder. Every change of them is one transaction that compares both with what was seen before
 * (their mod_revision; that of a key which is not there is 0), so of any number of claimers one
 * wins, and a decision that was made on old knowledge fails and is made anew.
 *
 *	record there, ours, lease alive	   keep the lease; if the record or the TTL should differ,
 *					   put both keys under a new lease, then revoke the old
 *					   one, which by then holds nothing: watchers see a PUT,
 *					   never a DELETE
 *	record there, another machine's	   -EEXIST: two machines share a name
 *	record there, under another lease  -EEXIST: a clone of this machine shares even the machine-id
 *	than those of this process	   (a new process cannot tell: it takes the claim over, and the
 *					   other one gives way)
 *	record there, bare, no lease	   the Python agent's: its subnet is taken over
 *	record there, not the preferred	   an older store's or put by hand, while pods have addresses
 *					   of the preferred subnet: that one, unless another holds it
 *	no record			   the preferred subnet; otherwise a ticket from the
 *					   counter key gives the first candidate, and the next
 *					   free one is taken
 *
 * The settings that all nodes must agree on stand in a key of their own. It is compared too, so no
 * claim is made by settings that others changed meanwhile.
 *
 * A lease that was granted for nothing is revoked, as far as that can be done; it runs out anyway.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "etcd_claim.h"
#include "poplin/base/log.h"

#define ROUNDS_MAX 10 /* of decisions made on what another claimer changed meanwhile */

/* -- the transaction ---------------------------------------------------------- */

json_t *claim_compare(const struct seen *seen)
{
	return json_pack("{so ss ss so}", "key", etcd_string(seen->key), "target", "MOD", "result",
			 "EQUAL", "mod_revision", etcd_number(seen->mod_revision));
}

static json_t *put(const char *key, const char *value, uint64_t lease)
{
	return json_pack("{s{so so so}}", "request_put", "key", etcd_string(key), "value",
			 etcd_string(value), "lease", etcd_number((int64_t)lease));
}

int claim_subnet_key(const struct claimer *c, const struct prefix *subnet,
		     char ret[static ETCD_KEY_MAX], struct err *err)
{
	char text[ADDR_TEXT_MAX];

	if (snprintf(ret, ETCD_KEY_MAX, "%s%s-%u", c->subnets_folder,
		     addr_format(&subnet->addr, text), (unsigned)subnet->len) >= ETCD_KEY_MAX)
		return err_set(err, -ENAMETOOLONG, "ETCD_PREFIX is too long");
	return 0;
}

/*
 * Whether the keys hang on our lease although the transaction did not succeed: it was made before,
 * the answer got lost, and this was the same one sent again (to the next endpoint, or by libcurl on
 * a connection that had died). The number of the lease is nobody else's.
 */
static bool was_put_before(const json_t *answer, uint64_t lease)
{
	const json_t *kvs = json_object_get(etcd_response(answer, 0, "response_range"), "kvs");

	return etcd_uint(json_array_get(kvs, 0), "lease") == lease;
}

/* Which revision the keys have now: that of the transaction, or of the one that came before it. */
static uint64_t revision_of(const json_t *answer, bool succeeded)
{
	const json_t *kvs = json_object_get(etcd_response(answer, 0, "response_range"), "kvs");

	return succeeded ? etcd_uint(json_object_get(answer, "header"), "revision")
			 : etcd_uint(json_array_get(kvs, 0), "mod_revision");
}

/* Puts both keys if all are as seen. *ret_done says whether they stand now. */
static int put_claim(struct claimer *c, const struct seen *node, const struct seen *subnet,
		     struct store_claim *claim, bool *ret_done, struct err *err)
{
	const struct seen network = { .key = c->network_key, .mod_revision = c->network_revision };
	struct record record = *c->req->record;
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char value[RECORD_BYTES_MAX];
	bool succeeded;
	int r;

	record.subnets[0] = claim->subnet;
	record.nsubnets = 1;
	r = record_format(&record, value, sizeof(value), err);
	if (r < 0)
		return r;
	body = json_pack("{s[ooo] s[oo] s[{s{so}}]}", "compare", claim_compare(node),
			 claim_compare(subnet), claim_compare(&network), "success",
			 put(node->key, value, claim->lease),
			 put(subnet->key, c->req->node, claim->lease), "failure", "request_range",
			 "key", etcd_string(node->key));
	if (!body)
		return err_errno(err, -ENOMEM, "claim");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r < 0)
		return r;
	succeeded = json_is_true(json_object_get(answer, "succeeded"));
	*ret_done = succeeded || was_put_before(answer, claim->lease);
	claim->record_version = claim->subnet_version = revision_of(answer, succeeded);
	return 0;
}

/* -- one subnet ----------------------------------------------------------------- */

int claim_look_at_subnet(struct claimer *c, const char *key, struct seen *ret, char *holder,
			 size_t size, struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv kv = { .lease = 0 };
	bool found;
	int r = etcd_get(c->store, key, &kv, &found, err);

	if (r < 0)
		return r;
	*ret = (struct seen){ .key = key };
	if (found) {
		ret->mod_revision = kv.mod_revision;
		ret->lease = kv.lease;
	}
	holder[0] = '\0';
	if (found && strcmp(kv.value.data, c->req->node) != 0)
		strlcpy(holder, kv.value.data[0] ? kv.value.data : "?", size);
	return 0;
}

/* Puts the claim under a new lease, if the subnet's key is as it was seen. */
static int claim_seen(struct claimer *c, const struct prefix *subnet, const struct seen *seen,
		      struct store_claim *ret, struct err *err)
{
	const struct seen node = {
		.key = c->node_key,
		.mod_revision = c->found ? c->record.mod_revision : 0,
	};
	struct store_claim claim = { .subnet = *subnet };
	char text[PREFIX_TEXT_MAX];
	bool done = false;
	int r = etcd_grant(c->store, c->req->ttl_s, &claim, err);

	if (r < 0)
		return r;
	r = c->req->on_lease ? c->req->on_lease(&claim, c->req->arg, err) : 0;
	if (r < 0) {
		(void)etcd_revoke(c->store, claim.lease, NULL);
		return r;
	}
	r = put_claim(c, &node, seen, &claim, &done, err);
	if (r == 0 && done) {
		*ret = claim;
		return 0;
	}
	/* When the answer got lost the keys may hang on this lease: then it must stay. */
	if (r == 0)
		(void)etcd_revoke(c->store, claim.lease, NULL);
	return r < 0 ? r
		     : err_set(err, OVERTAKEN, "subnet %s: another node was faster",
			       prefix_format(subnet, text));
}

/* Looks at the subnet's key. -EADDRINUSE: another node holds it. */
static int see_subnet(struct claimer *c, const struct prefix *subnet, const char *key,
		      struct seen *ret, struct err *err)
{
	char holder[NODE_NAME_TEXT_MAX], text[PREFIX_TEXT_MAX];
	int r = claim_look_at_subnet(c, key, ret, holder, sizeof(holder), err);

	if (r < 0 || !holder[0])
		return r;
	return err_set(err, -EADDRINUSE, "subnet %s is held by node '%s'",
		       prefix_format(subnet, text), holder);
}

int claim_subnet(struct claimer *c, const struct prefix *subnet, struct store_claim *ret,
		 struct err *err)
{
	char key[ETCD_KEY_MAX];
	struct seen seen;
	int r = claim_subnet_key(c, subnet, key, err);

	if (r == 0)
		r = see_subnet(c, subnet, key, &seen, err);
	return r < 0 ? r : claim_seen(c, subnet, &seen, ret, err);
}

int claim_free_subnet(struct claimer *c, const struct prefix *subnet, struct store_claim *ret,
		      struct err *err)
{
	char key[ETCD_KEY_MAX];
	struct seen seen = { .key = key };
	int r = claim_subnet_key(c, subnet, key, err);

	if (r == 0)
		r = claim_seen(c, subnet, &seen, ret, err);
	if (r == OVERTAKEN && see_subnet(c, subnet, key, &seen, err) == -EADDRINUSE)
		return -EADDRINUSE;
	return r;
}

/* -- a record of ours -------------------------------------------------------------- */

static bool same_content(const struct record *a, const struct record *b)
{
	return addr_cmp(&a->address, &b->address) == 0 && a->backend == b->backend &&
	       strcmp(a->machine, b->machine) == 0;
}

/* The subnet's own key stands as it should beside the record, under the same lease. */
static int holder_is_right(struct claimer *c, const struct prefix *subnet, bool *ret,
			   uint64_t *ret_version, struct err *err)
{
	char key[ETCD_KEY_MAX], holder[NODE_NAME_TEXT_MAX];
	struct seen seen;
	int r = claim_subnet_key(c, subnet, key, err);

	if (r == 0)
		r = claim_look_at_subnet(c, key, &seen, holder, sizeof(holder), err);
	if (r < 0)
		return r;
	*ret = seen.mod_revision && !holder[0] && seen.lease == c->record.lease;
	*ret_version = (uint64_t)seen.mod_revision;
	return 0;
}

/*
 * etcd has a least TTL, which follows from its election timeout: what it would grant for ours tells.
 * Otherwise each start would move the claim to a lease that is just like the one before.
 */
static int ttl_is_right(struct claimer *c, const struct store_claim *claim, bool *ret,
			struct err *err)
{
	struct store_claim probe;
	int r;

	*ret = claim->ttl_s == c->req->ttl_s;
	if (claim->ttl_s <= c->req->ttl_s)
		return 0;
	r = etcd_grant(c->store, c->req->ttl_s, &probe, err);
	if (r < 0)
		return r;
	(void)etcd_revoke(c->store, probe.lease, NULL);
	*ret = probe.ttl_s == claim->ttl_s;
	return 0;
}

static int attach(struct claimer *c, const struct record *record, struct store_claim *ret,
		  struct err *err)
{
	struct store_claim claim = {
		.subnet = record->subnets[0],
		.lease = (uint64_t)c->record.lease,
		.record_version = (uint64_t)c->record.mod_revision,
	};
	bool right = false;
	int r;

	r = claim.lease ? store_renew(c->store, &claim, err) : -ENOENT;
	if (r == -ENOENT && c->record.lease)
		return err_set(err, OVERTAKEN, "the lease ran out this moment");
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && record->nsubnets == 1 && same_content(record, c->req->record)) {
		r = ttl_is_right(c, &claim, &right, err);
		if (r == 0 && right)
			r = holder_is_right(c, &claim.subnet, &right, &claim.subnet_version, err);
		if (r < 0)
			return r;
		if (right) {
			*ret = claim;
			return 0;
		}
	}
	r = claim_subnet(c, &record->subnets[0], ret, err);
	if (r == 0 && c->record.lease)
		(void)etcd_revoke(c->store, (uint64_t)c->record.lease, NULL);
	return r;
}

int claim_tell_other_machine(const struct claimer *c, const struct record *record, struct err *err)
{
	char address[ADDR_TEXT_MAX], subnet[PREFIX_TEXT_MAX];

	(void)addr_format(&record->address, address);
	(void)prefix_format(&record->subnets[0], subnet);
	if (!c->record.lease)
		return err_set(
			err, -EEXIST,
			"node name '%s' is held by another machine, at %s with subnet %s, "
			"and its record has no lease that runs out: give one of them another "
			"NODE_NAME, or, if that machine is gone, delete the key %s",
			c->req->node, address, subnet, c->node_key);
	return err_set(
		err, -EEXIST,
		"node name '%s' is held by another machine, at %s with subnet %s, which is "
		"alive: give one of them another NODE_NAME, or wait until its lease runs out",
		c->req->node, address, subnet);
}

/* Whether our record hangs on a lease that this process knows to be none of its own. */
static bool is_twins(const struct claimer *c)
{
	uint64_t lease = (uint64_t)c->record.lease;

	for (size_t i = 0; i < c->req->nleases; i++)
		if (c->req->leases[i] == lease)
			return false;
	return lease && c->req->nleases;
}

static int tell_twin(const struct claimer *c, const struct record *record, struct err *err)
{
	char address[ADDR_TEXT_MAX], subnet[PREFIX_TEXT_MAX];

	return err_set(err, -EEXIST,
		       "node name '%s' is held by another machine with our machine-id, at %s with "
		       "subnet %s: give a cloned machine another /etc/machine-id and NODE_NAME",
		       c->req->node, addr_format(&record->address, address),
		       prefix_format(&record->subnets[0], subnet));
}

/* -- deciding ----------------------------------------------------------------------------- */

static bool usable(const struct claimer *c, const struct record *record)
{
	uint32_t index;

	return record->nsubnets > 0 && network_index(c->req->network, &record->subnets[0], &index);
}

/* The subnet that we hold, in place of the one that our record names. */
static int claim_instead(struct claimer *c, struct store_claim *ret, struct err *err)
{
	int r = claim_survey(c, err);

	if (r == 0)
		r = claim_preferred(c, ret, err);
	if (r == 0 && c->record.lease)
		(void)etcd_revoke(c->store, (uint64_t)c->record.lease, NULL);
	return r;
}

/* A record of ours. -EADDRINUSE: no subnet that it leads to is to be had. */
static int keep(struct claimer *c, const struct record *record, bool only_preferred,
		struct store_claim *ret, struct err *err)
{
	const struct prefix *preferred = c->req->preferred;
	uint32_t index;

	if (preferred && prefix_cmp(preferred, &record->subnets[0]) != 0 &&
	    network_index(c->req->network, preferred, &index)) {
		int r = claim_instead(c, ret, err);

		if (r != -EADDRINUSE || only_preferred)
			return r;
	}
	return attach(c, record, ret, err);
}

/* Reads what stands under our name, and compares the cluster's settings with ours. */
static int look(struct claimer *c, struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv network = { .lease = 0 };
	struct etcd_wanted wanted[] = {
		{ .key = c->network_key, .kv = &network },
		{ .key = c->node_key, .kv = &c->record },
	};
	int r = etcd_get_all(c->store, wanted, countof(wanted), err);

	c->found = wanted[1].found;
	return r < 0 ? r : claim_check_network(c, wanted[0].found ? &network : NULL, err);
}

/*
 * Judges what stands under our name. *ret_usable: a record of ours, or of nobody's, with a subnet
 * that we may have. -EEXIST: another machine's.
 */
static int read_record(const struct claimer *c, struct record *ret, bool *ret_usable,
		       struct err *err)
{
	bool bare;

	*ret_usable = false;
	if (!c->found || record_parse(c->record.value.data, c->record.value.len, ret, NULL) < 0)
		return 0;
	bare = ret->address.family == AF_UNSPEC && !c->record.lease;
	if (!bare && strcmp(ret->machine, c->req->record->machine) != 0)
		return claim_tell_other_machine(c, ret, err);
	if (is_twins(c))
		return tell_twin(c, ret, err);
	*ret_usable = usable(c, ret);
	return 0;
}

/* One decision on what is seen now. */
static int decide(struct claimer *c, bool only_preferred, struct store_claim *ret, struct err *err)
{
	struct record record;
	bool known = false;
	int r = look(c, err);

	if (r == 0)
		r = read_record(c, &record, &known, err);
	if (r < 0)
		return r;
	if (c->req->on_admitted)
		c->req->on_admitted(c->req->arg);
	if (known) {
		r = keep(c, &record, only_preferred, ret, err);
		/* Else the subnet that it names is another node's by now. */
		if (r != -EADDRINUSE)
			return r;
	}
	r = claim_survey(c, err);
	if (r < 0)
		return r;
	if (c->req->preferred) {
		r = claim_preferred(c, ret, err);
		if (r != -EADDRINUSE || only_preferred)
			return r;
	}
	return claim_any(c, ret, err);
}

int claimer_init(struct claimer *c, struct store *s, const struct store_claim_request *req,
		 struct err *err)
{
	int r;

	*c = (struct claimer){ .store = s, .req = req };
	r = etcd_records_folder(s, c->node_key, err);
	if (r == 0)
		r = etcd_subnets_folder(s, c->subnets_folder, err);
	if (r < 0)
		return r;
	if (strlcat(c->node_key, req->node, sizeof(c->node_key)) >= sizeof(c->node_key) ||
	    snprintf(c->network_key, sizeof(c->network_key), "%s-network", s->prefix) >=
		    (int)sizeof(c->network_key))
		return err_set(err, -ENAMETOOLONG, "ETCD_PREFIX is too long");
	return 0;
}

int store_claim(struct store *s, const struct store_claim_request *req, bool only_preferred,
		struct store_claim *ret, struct err *err)
{
	struct claimer c;
	struct err why = ERR_INIT;
	int r;

	/* As with a renewal: what is claimed anew still has a lease, and that runs on. */
	s->timeout_ms = req->ttl_s * 1000 / 6;
	r = claimer_init(&c, s, req, &why);
	for (int round = 0; r == 0 && round < ROUNDS_MAX; round++) {
		r = decide(&c, only_preferred, ret, &why);
		free(c.taken);
		c.taken = NULL;
		if (r != OVERTAKEN)
			break;
		log_debug("claim decided anew" KV("reason", "%s"), why.text);
		r = round + 1 < ROUNDS_MAX ? 0 : -EAGAIN;
	}
	s->timeout_ms = 0;
	etcd_kv_done(&c.record);
	return r < 0 ? err_set(err, r, "%s", why.text) : 0;
}

int store_verify(struct store *s, const char *node, const struct store_claim *claim,
		 struct err *err)
{
	const struct store_claim_request req = { .node = node };
	char key[ETCD_KEY_MAX], text[PREFIX_TEXT_MAX];
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	struct claimer c;
	int r = claimer_init(&c, s, &req, err);

	if (r == 0)
		r = claim_subnet_key(&c, &claim->subnet, key, err);
	if (r < 0)
		return r;
	body = json_pack(
		"{s[oo]}", "compare",
		claim_compare(&(struct seen){ c.node_key, (int64_t)claim->record_version, 0 }),
		claim_compare(&(struct seen){ key, (int64_t)claim->subnet_version, 0 }));
	if (!body)
		return err_errno(err, -ENOMEM, "verify");
	s->timeout_ms = claim->ttl_s * 1000 / 6; /* as store_renew(): the lease runs on */
	r = etcd_call(s, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	s->timeout_ms = 0;
	if (r < 0 || json_is_true(json_object_get(answer, "succeeded")))
		return r;
	return err_set(err, -ENOENT, "the keys of node '%s' and subnet %s are not as they were put",
		       node, prefix_format(&claim->subnet, text));
}

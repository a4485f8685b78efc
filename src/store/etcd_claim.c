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
 *	record there, bare, no lease	   the Python agent's: its subnet is taken over
 *	no record			   the preferred subnet; otherwise a ticket from the
 *					   counter key gives the first candidate, and the next
 *					   free one is taken
 *
 * A lease that was granted for nothing is revoked, as far as that can be done; it runs out anyway.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "etcd.h"
#include "poplin/base/log.h"

#define ROUNDS_MAX  10		/* of decisions made on what another claimer changed meanwhile */
#define BLIND_TRIES 4		/* of subnets, before the held ones are listed */
#define OVERTAKEN   (-ERESTART) /* that happened; never leaves this file */

struct claimer {
	struct store *store;
	const struct store_claim_request *req;
	char node_key[ETCD_KEY_MAX];
	char subnets_folder[ETCD_KEY_MAX];
	struct etcd_kv record; /* the node's key, as seen */
	bool found;	       /* it is there */
	bool keyed;	       /* every record has its subnet's key */
	uint8_t *taken;	       /* a bit per subnet of the network */
};

/* A key that was seen: the transaction fails when it changed since. */
struct seen {
	const char *key;
	int64_t mod_revision; /* 0: it was not there */
	int64_t lease;
};

/* -- the transaction ---------------------------------------------------------- */

static json_t *compare(const struct seen *seen)
{
	return json_pack("{so ss ss so}", "key", etcd_string(seen->key), "target", "MOD", "result",
			 "EQUAL", "mod_revision", etcd_number(seen->mod_revision));
}

static json_t *put(const char *key, const char *value, uint64_t lease)
{
	return json_pack("{s{so so so}}", "request_put", "key", etcd_string(key), "value",
			 etcd_string(value), "lease", etcd_number((int64_t)lease));
}

static int subnet_key(const struct claimer *c, const struct prefix *subnet,
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
	const json_t *response = json_array_get(json_object_get(answer, "responses"), 0);
	const json_t *kvs = json_object_get(json_object_get(response, "response_range"), "kvs");

	return etcd_uint(json_array_get(kvs, 0), "lease") == lease;
}

/* Puts both keys if both are as seen. *ret_done says whether they stand now. */
static int put_claim(struct claimer *c, const struct seen *node, const struct seen *subnet,
		     const struct store_claim *claim, bool *ret_done, struct err *err)
{
	struct record record = *c->req->record;
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char value[RECORD_BYTES_MAX];
	int r;

	record.subnets[0] = claim->subnet;
	record.nsubnets = 1;
	r = record_format(&record, value, sizeof(value), err);
	if (r < 0)
		return r;
	body = json_pack("{s[oo] s[oo] s[{s{so}}]}", "compare", compare(node), compare(subnet),
			 "success", put(node->key, value, claim->lease),
			 put(subnet->key, c->req->node, claim->lease), "failure", "request_range",
			 "key", etcd_string(node->key));
	if (!body)
		return err_errno(err, -ENOMEM, "claim");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r == 0)
		*ret_done = json_is_true(json_object_get(answer, "succeeded")) ||
			    was_put_before(answer, claim->lease);
	return r;
}

/* -- one subnet ----------------------------------------------------------------- */

/* Who holds the subnet, unless it is this node: "" for nobody. */
static int look_at_subnet(struct claimer *c, const char *key, struct seen *ret, char *holder,
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

/*
 * Claims this very subnet under a new lease, in place of what the record says now. -EADDRINUSE:
 * another node holds it. OVERTAKEN: something changed meanwhile, look again.
 */
static int claim_subnet(struct claimer *c, const struct prefix *subnet, struct store_claim *ret,
			struct err *err)
{
	const struct seen node = {
		.key = c->node_key,
		.mod_revision = c->found ? c->record.mod_revision : 0,
	};
	char key[ETCD_KEY_MAX], holder[NODE_NAME_TEXT_MAX], text[PREFIX_TEXT_MAX];
	struct store_claim claim = { .subnet = *subnet };
	struct seen seen;
	bool done = false;
	int r;

	r = subnet_key(c, subnet, key, err);
	if (r == 0)
		r = look_at_subnet(c, key, &seen, holder, sizeof(holder), err);
	if (r < 0)
		return r;
	if (holder[0])
		return err_set(err, -EADDRINUSE, "subnet %s is held by node '%s'",
			       prefix_format(subnet, text), holder);
	r = etcd_grant(c->store, c->req->ttl_s, &claim, err);
	if (r < 0)
		return r;
	r = put_claim(c, &node, &seen, &claim, &done, err);
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

/* -- a record of ours -------------------------------------------------------------- */

static bool same_content(const struct record *a, const struct record *b)
{
	return addr_cmp(&a->address, &b->address) == 0 && a->backend == b->backend &&
	       strcmp(a->machine, b->machine) == 0;
}

/* The subnet's own key stands as it should beside the record, under the same lease. */
static int holder_is_right(struct claimer *c, const struct prefix *subnet, bool *ret,
			   struct err *err)
{
	char key[ETCD_KEY_MAX], holder[NODE_NAME_TEXT_MAX];
	struct seen seen;
	int r = subnet_key(c, subnet, key, err);

	if (r == 0)
		r = look_at_subnet(c, key, &seen, holder, sizeof(holder), err);
	if (r == 0)
		*ret = seen.mod_revision && !holder[0] && seen.lease == c->record.lease;
	return r;
}

static int attach(struct claimer *c, const struct record *record, struct store_claim *ret,
		  struct err *err)
{
	struct store_claim claim = {
		.subnet = record->subnets[0],
		.lease = (uint64_t)c->record.lease,
	};
	bool right = false;
	int r;

	r = claim.lease ? store_renew(c->store, &claim, err) : -ENOENT;
	if (r == -ENOENT && c->record.lease)
		return err_set(err, OVERTAKEN, "the lease ran out this moment");
	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0 && claim.ttl_s == c->req->ttl_s && record->nsubnets == 1 &&
	    same_content(record, c->req->record)) {
		r = holder_is_right(c, &claim.subnet, &right, err);
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

static int tell_other_machine(const struct claimer *c, const struct record *record, struct err *err)
{
	char address[ADDR_TEXT_MAX], subnet[PREFIX_TEXT_MAX];

	return err_set(
		err, -EEXIST,
		"node name '%s' is held by another machine, at %s with subnet %s, which is "
		"alive: give one of them another NODE_NAME, or wait until its lease runs out",
		c->req->node, addr_format(&record->address, address),
		prefix_format(&record->subnets[0], subnet));
}

/* -- any free subnet ------------------------------------------------------------------ */

static void mark(struct claimer *c, const struct prefix *subnet)
{
	uint32_t index;

	if (network_index(c->req->network, subnet, &index))
		c->taken[index / 8] |= (uint8_t)(1U << index % 8);
}

/* ".../10.2.1.0-24". */
static int mark_subnet_key(const struct etcd_kv *kv, void *arg, struct err *err)
{
	struct claimer *c = arg;
	char text[PREFIX_TEXT_MAX];
	struct prefix subnet;
	char *dash;

	strlcpy(text, kv->key.data + strlen(c->subnets_folder), sizeof(text));
	dash = strrchr(text, '-');
	if (dash)
		*dash = '/';
	if (prefix_parse(text, &subnet, NULL) == 0)
		mark(c, &subnet);
	return 0;
}

/*
 * Records without a subnet's key are those of the Python agent. What our own says is no obstacle.
 */
static int mark_record(const struct etcd_kv *kv, void *arg, struct err *err)
{
	struct claimer *c = arg;
	struct record record;

	if (strcmp(kv->key.data, c->node_key) == 0 ||
	    record_parse(kv->value.data, kv->value.len, &record, NULL) < 0)
		return 0;
	for (unsigned i = 0; i < record.nsubnets; i++)
		mark(c, &record.subnets[i]);
	return 0;
}

static int mark_keyed(struct claimer *c, struct err *err)
{
	return etcd_range(c->store, c->subnets_folder, true, mark_subnet_key, NULL, c, NULL, err);
}

static int mark_records(struct claimer *c, struct err *err)
{
	char folder[ETCD_KEY_MAX];
	int r = etcd_records_folder(c->store, folder, err);

	return r < 0 ? r : etcd_range(c->store, folder, false, mark_record, NULL, c, NULL, err);
}

static json_t *survey_request(const char *records, const char *subnets)
{
	char records_end[ETCD_KEY_MAX], subnets_end[ETCD_KEY_MAX];

	etcd_folder_end(records, records_end);
	etcd_folder_end(subnets, subnets_end);
	return json_pack("{s[{s{so so sb}} {s{so so sb}} {s{so so ss ss sI}}]}", "success",
			 "request_range", "key", etcd_string(records), "range_end",
			 etcd_string(records_end), "count_only", 1, "request_range", "key",
			 etcd_string(subnets), "range_end", etcd_string(subnets_end), "count_only",
			 1, "request_range", "key", etcd_string(records), "range_end",
			 etcd_string(records_end), "sort_target", "VALUE", "sort_order", "ASCEND",
			 "limit", (json_int_t)1);
}

static const json_t *survey_part(const json_t *answer, size_t i)
{
	return json_object_get(json_array_get(json_object_get(answer, "responses"), i),
			       "response_range");
}

/*
 * Finds out whether every record has its subnet's key, so that a transaction on that key is all it
 * takes to learn that a subnet is free. That is so when there are no more records than keys and no
 * record is a bare one, which sorts before all that begin with a brace. One short request, seen at
 * one revision: of two counts the second would take in what was claimed meanwhile. Only beside
 * records of the Python agent, which have no such key, is there a need to read them all.
 */
static int survey(struct claimer *c, struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv kv = { .lease = 0 };
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char folder[ETCD_KEY_MAX];
	const json_t *first;
	int r = etcd_records_folder(c->store, folder, err);

	if (r < 0)
		return r;
	c->taken = calloc(network_subnets(c->req->network) / 8 + 1, 1);
	body = survey_request(folder, c->subnets_folder);
	if (!c->taken || !body)
		return err_errno(err, -ENOMEM, "claim");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r < 0)
		return r;
	c->keyed = etcd_int(survey_part(answer, 0), "count") <=
		   etcd_int(survey_part(answer, 1), "count");
	first = json_array_get(json_object_get(survey_part(answer, 2), "kvs"), 0);
	if (first) {
		r = etcd_kv_parse(first, &kv, err);
		if (r < 0)
			return r;
		c->keyed = c->keyed && kv.value.data[0] == '{';
	}
	return c->keyed ? 0 : mark_records(c, err);
}

/* Each put raises the counter's version by one, so each claimer draws its own number. */
static int draw_ticket(struct claimer *c, uint64_t *ret, struct err *err)
{
	struct store *s = c->store;
	auto_(json_decref) json_t *body =
		json_pack("{so so sb}", "key", etcd_string(s->counter_key), "value",
			  etcd_string(c->req->node), "prev_kv", 1);
	auto_(json_decref) json_t *answer = NULL;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "ticket");
	r = etcd_call(s, STORE_PUT, "/v3/kv/put", body, &answer, err);
	if (r == 0)
		*ret = etcd_uint(json_object_get(answer, "prev_kv"), "version");
	return r;
}

/* The first free one from `from` on, around the end. False: none is free. */
static bool next_free(const struct claimer *c, uint32_t from, uint32_t *ret)
{
	uint32_t count = network_subnets(c->req->network);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t index = (from + i) % count;

		if (c->taken[index / 8] & 1U << index % 8)
			continue;
		*ret = index;
		return true;
	}
	return false;
}

static int claim_any(struct claimer *c, struct store_claim *ret, struct err *err)
{
	const struct network *network = c->req->network;
	uint32_t count = network_subnets(network), index;
	char text[PREFIX_TEXT_MAX];
	uint64_t ticket = 0;
	int r = c->keyed ? 0 : mark_keyed(c, err);

	if (r == 0)
		r = draw_ticket(c, &ticket, err);
	if (r < 0)
		return r;
	index = (uint32_t)(ticket % count);
	for (unsigned tries = 1; next_free(c, index, &index); tries++) {
		struct prefix subnet = network_subnet(network, index);

		r = claim_subnet(c, &subnet, ret, err);
		if (r != -EADDRINUSE)
			return r;
		/* Held: the next one. Where much is held, a list is quicker than trying. */
		mark(c, &subnet);
		if (tries == BLIND_TRIES && c->keyed) {
			r = mark_keyed(c, err);
			if (r < 0)
				return r;
		}
	}
	return err_set(err, -ENOSPC,
		       "the pod network %s is full: all of its %u subnets of /%u are held",
		       prefix_format(&network->pods, text), count, network->node_len);
}

/* -- deciding ----------------------------------------------------------------------------- */

static bool usable(const struct claimer *c, const struct record *record)
{
	uint32_t index;

	return record->nsubnets > 0 && network_index(c->req->network, &record->subnets[0], &index);
}

/* A record may name it that has no subnet's key: the Python agent's. */
static int claim_preferred(struct claimer *c, struct store_claim *ret, struct err *err)
{
	const struct prefix *subnet = c->req->preferred;
	char text[PREFIX_TEXT_MAX];
	uint32_t index;

	if (network_index(c->req->network, subnet, &index) && c->taken[index / 8] & 1U << index % 8)
		return err_set(err, -EADDRINUSE, "subnet %s stands in another node's record",
			       prefix_format(subnet, text));
	return claim_subnet(c, subnet, ret, err);
}

/* One decision on what is seen now. */
static int decide(struct claimer *c, bool only_preferred, struct store_claim *ret, struct err *err)
{
	struct record record;
	bool bare, ours;
	int r;

	r = etcd_get(c->store, c->node_key, &c->record, &c->found, err);
	if (r < 0)
		return r;
	if (c->found &&
	    record_parse(c->record.value.data, c->record.value.len, &record, NULL) == 0) {
		bare = record.address.family == AF_UNSPEC && !c->record.lease;
		ours = strcmp(record.machine, c->req->record->machine) == 0;
		if (!ours && !bare)
			return tell_other_machine(c, &record, err);
		if (usable(c, &record)) {
			r = attach(c, &record, ret, err);
			/* Else the subnet that it names is another node's by now. */
			if (r != -EADDRINUSE)
				return r;
		}
	}
	r = survey(c, err);
	if (r < 0)
		return r;
	if (c->req->preferred) {
		r = claim_preferred(c, ret, err);
		if (r != -EADDRINUSE || only_preferred)
			return r;
	}
	return claim_any(c, ret, err);
}

static int prepare(struct claimer *c, struct err *err)
{
	int r = etcd_records_folder(c->store, c->node_key, err);

	if (r == 0)
		r = etcd_subnets_folder(c->store, c->subnets_folder, err);
	if (r == 0 &&
	    strlcat(c->node_key, c->req->node, sizeof(c->node_key)) >= sizeof(c->node_key))
		return err_set(err, -ENAMETOOLONG, "ETCD_PREFIX is too long");
	return r;
}

int store_claim(struct store *s, const struct store_claim_request *req, bool only_preferred,
		struct store_claim *ret, struct err *err)
{
	struct claimer c = { .store = s, .req = req };
	struct err why = ERR_INIT;
	int r;

	/* As with a renewal: what is claimed anew still has a lease, and that runs on. */
	s->timeout_ms = req->ttl_s * 1000 / 6;
	r = prepare(&c, &why);
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

/* -- release ------------------------------------------------------------------------------- */

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
	int r = subnet_key(c, &record->subnets[0], key, err);

	if (r == 0)
		r = look_at_subnet(c, key, &subnet, holder, sizeof(holder), err);
	if (r < 0)
		return r;
	body = json_pack("{s[oo] s[o]}", "compare", compare(&node), compare(&subnet), "success",
			 delete_op(c->node_key));
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
		return err_wrap(err, r, "record of node '%s'", c->req->node);
	if (record.machine[0] && strcmp(record.machine, machine) != 0)
		return tell_other_machine(c, &record, err);
	r = c->record.lease ? etcd_revoke(c->store, (uint64_t)c->record.lease, err)
			    : delete_keys(c, &record, err);
	if (r == 0 && ret_subnet)
		*ret_subnet = record.subnets[0];
	return r;
}

int store_release(struct store *s, const char *node, const char *machine, struct prefix *ret_subnet,
		  struct err *err)
{
	const struct store_claim_request req = { .node = node };
	struct claimer c = { .store = s, .req = &req };
	int r = prepare(&c, err);

	if (r == 0)
		r = release(&c, machine, ret_subnet, err);
	etcd_kv_done(&c.record);
	return r;
}

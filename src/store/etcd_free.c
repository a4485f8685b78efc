/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding a subnet that nobody holds. A ticket from the counter key gives the first candidate, so
 * claimers that come together do not meet.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "etcd_claim.h"

#define BLIND_TRIES 4 /* of subnets, before the held ones are listed */

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

static json_t *survey_request(const struct claimer *c, const char *records)
{
	char records_end[ETCD_KEY_MAX], subnets_end[ETCD_KEY_MAX];

	etcd_folder_end(records, records_end);
	etcd_folder_end(c->subnets_folder, subnets_end);
	return json_pack("{s[{s{so so sb}} {s{so so sb}} {s{so so ss ss sI}}]}", "success",
			 "request_range", "key", etcd_string(records), "range_end",
			 etcd_string(records_end), "count_only", 1, "request_range", "key",
			 etcd_string(c->subnets_folder), "range_end", etcd_string(subnets_end),
			 "count_only", 1, "request_range", "key", etcd_string(records), "range_end",
			 etcd_string(records_end), "sort_target", "VALUE", "sort_order", "ASCEND",
			 "limit", (json_int_t)1);
}

/*
 * Finds out whether every record has its subnet's key, so that a transaction on that key is all it
 * takes to learn that a subnet is free. That is so when there are no more records than keys and no
 * record is a bare one, which sorts before all that begin with a brace. One short request, seen at
 * one revision: of two counts the second would take in what was claimed meanwhile. Only beside
 * records of the Python agent, which have no such key, is there a need to read them all.
 *
 * It only reads, so one member does it, beside what else that does. Together with the ticket's put
 * every member would have to look through all keys, and let all other writes wait.
 */
int claim_survey(struct claimer *c, struct err *err)
{
	__attribute__((cleanup(etcd_kv_done))) struct etcd_kv kv = { .lease = 0 };
	auto_(json_decref) json_t *body = NULL;
	auto_(json_decref) json_t *answer = NULL;
	char folder[ETCD_KEY_MAX];
	const json_t *first;
	int r = etcd_records_folder(c->store, folder, err);

	if (r < 0)
		return r;
	free(c->taken);
	c->taken = calloc(network_subnets(c->req->network) / 8 + 1, 1);
	body = survey_request(c, folder);
	if (!c->taken || !body)
		return err_errno(err, -ENOMEM, "claim");
	r = etcd_call(c->store, STORE_TXN, "/v3/kv/txn", body, &answer, err);
	if (r < 0)
		return r;
	c->held = etcd_int(etcd_response(answer, 1, "response_range"), "count");
	c->keyed = etcd_int(etcd_response(answer, 0, "response_range"), "count") <= c->held;
	first = json_array_get(json_object_get(etcd_response(answer, 2, "response_range"), "kvs"),
			       0);
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
	auto_(json_decref) json_t *body =
		json_pack("{so so sb}", "key", etcd_string(c->store->counter_key), "value",
			  etcd_string(c->req->node), "prev_kv", 1);
	auto_(json_decref) json_t *answer = NULL;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "ticket");
	r = etcd_call(c->store, STORE_PUT, "/v3/kv/put", body, &answer, err);
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

int claim_any(struct claimer *c, struct store_claim *ret, struct err *err)
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

		/* Where little is held, hardly ever the one that a ticket leads to. */
		r = tries == 1 && c->held < count / 2 ? claim_free_subnet(c, &subnet, ret, err)
						      : claim_subnet(c, &subnet, ret, err);
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

/* A record may name it that has no subnet's key: the Python agent's. */
int claim_preferred(struct claimer *c, struct store_claim *ret, struct err *err)
{
	const struct prefix *subnet = c->req->preferred;
	char text[PREFIX_TEXT_MAX];
	uint32_t index;

	if (network_index(c->req->network, subnet, &index) && c->taken[index / 8] & 1U << index % 8)
		return err_set(err, -EADDRINUSE, "subnet %s stands in another node's record",
			       prefix_format(subnet, text));
	return claim_subnet(c, subnet, ret, err);
}

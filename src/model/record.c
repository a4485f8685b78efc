/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/record.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "poplin/base/mem.h"

DEFINE_AUTO(json_t *, json_decref)

bool node_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len >= NODE_NAME_TEXT_MAX || !isalnum((unsigned char)name[0]) ||
	    !isalnum((unsigned char)name[len - 1]))
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && *name != '-' && *name != '.')
			return false;
	return true;
}

/* -- reading ---------------------------------------------------------------- */

static int parse_subnets(const json_t *list, struct record *record, struct err *err)
{
	size_t n = json_array_size(list);

	if (!json_is_array(list) || n == 0 || n > RECORD_SUBNETS_MAX)
		return err_set(err, -EINVAL, "\"subnets\" must be a list of 1 to %d prefixes",
			       RECORD_SUBNETS_MAX);
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(list, i));
		int r;

		if (!text)
			return err_set(err, -EINVAL, "\"subnets\" holds what is not a string");
		r = prefix_parse(text, &record->subnets[i], err);
		if (r < 0)
			return err_wrap(err, r, "\"subnets\"");
	}
	record->nsubnets = (unsigned)n;
	return 0;
}

static int parse_backend(const json_t *backend, struct record *record, struct err *err)
{
	const char *type = json_string_value(json_object_get(backend, "type"));

	if (!type)
		return err_set(err, -EINVAL, "\"backend\" has no \"type\"");
	if (strcmp(type, "host-gw") != 0)
		return err_set(err, -EINVAL, "backend '%.32s' is not known here", type);
	record->backend = BACKEND_HOST_GW;
	return 0;
}

static int parse_machine(const json_t *value, struct record *record, struct err *err)
{
	const char *machine = json_string_value(value);

	if (!value)
		return 0;
	if (!machine || strlen(machine) > RECORD_MACHINE_MAX)
		return err_set(err, -EINVAL,
			       "\"machine\" must be a string of at most %d characters",
			       RECORD_MACHINE_MAX);
	strlcpy(record->machine, machine, sizeof(record->machine));
	return 0;
}

static int parse_object(const json_t *object, struct record *record, struct err *err)
{
	const json_t *version = json_object_get(object, "version");
	const char *address = json_string_value(json_object_get(object, "address"));
	int r;

	if (!json_is_integer(version) || json_integer_value(version) != RECORD_VERSION)
		return err_set(err, -EINVAL, "\"version\" must be %d", RECORD_VERSION);
	r = parse_subnets(json_object_get(object, "subnets"), record, err);
	if (r < 0)
		return r;
	if (!address)
		return err_set(err, -EINVAL, "\"address\" must be a string");
	r = addr_parse(address, &record->address, err);
	if (r < 0)
		return err_wrap(err, r, "\"address\"");
	r = parse_backend(json_object_get(object, "backend"), record, err);
	if (r < 0)
		return r;
	return parse_machine(json_object_get(object, "machine"), record, err);
}

/* What the Python agent wrote: a prefix and nothing else, perhaps with blanks around it. */
static int parse_bare(const char *data, size_t len, struct record *record, struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	int r;

	while (len && isspace((unsigned char)data[len - 1]))
		len--;
	while (len && isspace((unsigned char)*data)) {
		data++;
		len--;
	}
	if (len == 0 || len >= sizeof(text) || memchr(data, '\0', len))
		return err_set(err, -EINVAL, "neither a JSON object nor a prefix");
	memcpy(text, data, len);
	text[len] = '\0';
	r = prefix_parse(text, &record->subnets[0], err);
	if (r < 0)
		return err_wrap(err, r, "neither a JSON object nor a prefix");
	record->nsubnets = 1;
	record->backend = BACKEND_HOST_GW;
	return 0;
}

static bool looks_like_object(const char *data, size_t len)
{
	size_t i = 0;

	while (i < len && isspace((unsigned char)data[i]))
		i++;
	return i < len && data[i] == '{';
}

int record_parse(const char *data, size_t len, struct record *ret, struct err *err)
{
	auto_(json_decref) json_t *object = NULL;
	struct record record = { .nsubnets = 0 };
	json_error_t why;
	int r;

	if (len > RECORD_BYTES_MAX)
		return err_set(err, -EINVAL, "%zu bytes are more than a record has (%d)", len,
			       RECORD_BYTES_MAX);
	if (!looks_like_object(data, len)) {
		r = parse_bare(data, len, &record, err);
	} else {
		object = json_loadb(data, len, JSON_REJECT_DUPLICATES, &why);
		if (!object)
			return err_set(err, -EINVAL, "not JSON: %s", why.text);
		r = parse_object(object, &record, err);
	}
	if (r < 0)
		return r;
	*ret = record;
	return 0;
}

/* -- writing ---------------------------------------------------------------- */

int record_format(const struct record *r, char *ret, size_t size, struct err *err)
{
	char text[PREFIX_TEXT_MAX];
	json_t *subnets = json_array();
	auto_(json_decref) json_t *object = NULL;
	size_t len;

	for (unsigned i = 0; i < r->nsubnets; i++)
		(void)json_array_append_new(subnets,
					    json_string(prefix_format(&r->subnets[i], text)));
	object = json_pack("{si so ss s{ss} ss}", "version", RECORD_VERSION, "subnets", subnets,
			   "address", addr_format(&r->address, text), "backend", "type", "host-gw",
			   "machine", r->machine);
	if (!object || json_array_size(json_object_get(object, "subnets")) != r->nsubnets)
		return err_errno(err, -ENOMEM, "record");
	len = json_dumpb(object, ret, size, JSON_COMPACT);
	if (len == 0 || len >= size)
		return err_errno(err, -ENOSPC, "record");
	ret[len] = '\0';
	return 0;
}

/* -- judging ---------------------------------------------------------------- */

static int validate_subnet(const struct record *r, unsigned i, const struct network *network,
			   const struct prefix *own, struct err *err)
{
	const struct prefix *subnet = &r->subnets[i];
	char text[PREFIX_TEXT_MAX], pods[PREFIX_TEXT_MAX];
	uint32_t index;

	if (!network_index(network, subnet, &index))
		return err_set(err, -EINVAL, "%s is not one of the /%u subnets of %s",
			       prefix_format(subnet, text), network->node_len,
			       prefix_format(&network->pods, pods));
	if (own && prefix_overlaps(subnet, own))
		return err_set(err, -EADDRINUSE, "%s is this node's own subnet",
			       prefix_format(subnet, text));
	for (unsigned j = 0; j < i; j++)
		if (prefix_cmp(subnet, &r->subnets[j]) == 0)
			return err_set(err, -EINVAL, "%s is listed twice",
				       prefix_format(subnet, text));
	return 0;
}

int record_validate(const struct record *r, const struct network *network, const struct prefix *own,
		    const struct addr *own_address, struct err *err)
{
	const struct addr *hop = &r->address;
	char text[ADDR_TEXT_MAX], pods[PREFIX_TEXT_MAX];

	for (unsigned i = 0; i < r->nsubnets; i++) {
		int code = validate_subnet(r, i, network, own, err);

		if (code < 0)
			return code;
	}
	if (hop->family == AF_UNSPEC)
		return 0;
	if (hop->family != network->pods.addr.family)
		return err_set(err, -EINVAL, "next hop %s is of the other address family",
			       addr_format(hop, text));
	if (!addr_is_unicast(hop))
		return err_set(err, -EINVAL, "next hop %s is not a unicast address",
			       addr_format(hop, text));
	if (prefix_contains_addr(&network->pods, hop))
		return err_set(err, -EINVAL, "next hop %s lies inside the pod network %s",
			       addr_format(hop, text), prefix_format(&network->pods, pods));
	if (own_address && addr_cmp(hop, own_address) == 0)
		return err_set(err, -EADDRINUSE, "next hop %s is this node's own address",
			       addr_format(hop, text));
	return 0;
}

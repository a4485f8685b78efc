/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base64.h"
#include "etcd.h"

/* "create_revision" as "createRevision". */
static void camel(const char *name, char *ret, size_t size)
{
	size_t len = 0;

	for (; *name && len + 1 < size; name++) {
		bool joint = name[0] == '_' && name[1];

		if (joint)
			name++;
		ret[len++] = joint ? (char)toupper((unsigned char)*name) : *name;
	}
	ret[len] = '\0';
}

json_t *etcd_field(const json_t *object, const char *name)
{
	json_t *value = json_object_get(object, name);
	char other[64];

	if (value || !strchr(name, '_'))
		return value;
	camel(name, other, sizeof(other));
	return json_object_get(object, other);
}

bool etcd_bool(const json_t *object, const char *name)
{
	return json_is_true(etcd_field(object, name));
}

int64_t etcd_int(const json_t *object, const char *name)
{
	const json_t *value = etcd_field(object, name);

	if (json_is_integer(value))
		return json_integer_value(value);
	return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : 0;
}

uint64_t etcd_uint(const json_t *object, const char *name)
{
	const json_t *value = etcd_field(object, name);

	if (json_is_integer(value))
		return (uint64_t)json_integer_value(value);
	return json_is_string(value) ? strtoull(json_string_value(value), NULL, 10) : 0;
}

int64_t etcd_revision(const json_t *object, const char *name)
{
	int64_t revision = etcd_int(object, name);

	/* The next one must be a number, too. */
	return revision < 0 || revision == INT64_MAX ? 0 : revision;
}

json_t *etcd_response(const json_t *answer, size_t i, const char *kind)
{
	return json_object_get(json_array_get(json_object_get(answer, "responses"), i), kind);
}

json_t *etcd_bytes(const void *data, size_t len)
{
	auto_buf struct buf text = BUF_INIT;

	if (base64_encode(data, len, &text) < 0)
		return NULL;
	return json_string(text.data ? text.data : "");
}

json_t *etcd_string(const char *text)
{
	return etcd_bytes(text, strlen(text));
}

json_t *etcd_number(int64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRId64, value);
	return json_string(text);
}

void etcd_kv_done(struct etcd_kv *kv)
{
	buf_done(&kv->key);
	buf_done(&kv->value);
}

/* A missing field is an empty one. */
static int parse_bytes(const json_t *object, const char *name, struct buf *ret, struct err *err)
{
	const json_t *field = json_object_get(object, name);
	int r;

	buf_reset(ret);
	if (!field)
		return buf_add(ret, "", 0);
	if (!json_is_string(field))
		return err_set(err, -EPROTO, "etcd: '%s' is not a string", name);
	r = base64_decode(json_string_value(field), ret);
	return r == -EINVAL ? err_set(err, -EPROTO, "etcd: '%s' is not Base64", name) : r;
}

int etcd_kv_parse(const json_t *object, struct etcd_kv *ret, struct err *err)
{
	int r;

	if (!json_is_object(object))
		return err_set(err, -EPROTO, "etcd: a key-value pair is missing");
	r = parse_bytes(object, "key", &ret->key, err);
	if (r == 0)
		r = parse_bytes(object, "value", &ret->value, err);
	if (r < 0)
		return r;
	ret->create_revision = etcd_revision(object, "create_revision");
	ret->mod_revision = etcd_revision(object, "mod_revision");
	ret->lease = etcd_int(object, "lease");
	ret->version = etcd_int(object, "version");
	return 0;
}

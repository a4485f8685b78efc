/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

#include "status_json.h"

/* -- the view ---------------------------------------------------------------- */

void status_view_reason(struct status_view *v, const char *fmt, ...)
{
	va_list ap;

	if (v->nreasons == STATUS_REASONS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(v->reasons[v->nreasons++], STATUS_REASON_TEXT_MAX, fmt, ap);
	va_end(ap);
}

void status_view_warning(struct status_view *v, const char *fmt, ...)
{
	va_list ap;

	if (v->nwarnings == STATUS_REASONS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(v->warnings[v->nwarnings++], STATUS_REASON_TEXT_MAX, fmt, ap);
	va_end(ap);
}

/* -- values: each returns a new reference, or NULL without memory ----------- */

static json_t *text_value(const char *text)
{
	auto_free char *copy = NULL;
	json_t *value;

	if (!text)
		return json_null();
	value = json_string(text);
	if (value)
		return value;
	/* Not UTF-8, or no memory: then the copy fails as well. */
	copy = strdup(text);
	for (char *c = copy; c && *c; c++)
		if (*c & 0x80)
			*c = '?';
	return copy ? json_string(copy) : NULL;
}

/* For texts of ours that are "" while unknown. */
static json_t *known_value(const char *text)
{
	return text_value(*text ? text : NULL);
}

static json_t *addr_value(const struct addr *addr)
{
	char text[ADDR_TEXT_MAX];

	if (addr->family == AF_UNSPEC)
		return json_null();
	return json_string(addr_format(addr, text));
}

static json_t *prefix_value(const struct prefix *prefix)
{
	char text[PREFIX_TEXT_MAX];

	if (prefix->addr.family == AF_UNSPEC)
		return json_null();
	return json_string(prefix_format(prefix, text));
}

static json_t *seconds_value(int64_t ns)
{
	return json_integer((ns > 0 ? ns : 0) / NS_PER_S);
}

static json_t *count_value(uint64_t n)
{
	return json_integer(n < INT64_MAX ? (json_int_t)n : INT64_MAX);
}

static int add_data(const char *data, size_t len, void *arg)
{
	return buf_add(arg, data, len) < 0 ? -1 : 0;
}

/* Takes value; NULL stands for one that could not be made. */
static int write_take(struct buf *b, json_t *value, size_t flags)
{
	int r;

	if (!value)
		return -ENOMEM;
	r = json_dump_callback(value, add_data, b, flags | JSON_ENSURE_ASCII);
	json_decref(value);
	return r < 0 ? -ENOMEM : 0;
}

/* -- /status ---------------------------------------------------------------- */

static json_t *texts_value(const char texts[][STATUS_REASON_TEXT_MAX], unsigned count)
{
	json_t *array = json_array();

	for (unsigned i = 0; array && i < count; i++) {
		if (json_array_append_new(array, text_value(texts[i])) < 0) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}

/* Limits of the kernel first, then what else is not as it should be. */
static json_t *warnings_value(const struct status_view *v)
{
	json_t *array = texts_value(v->warnings, v->nwarnings);
	size_t at = 0;

	for (unsigned i = 0; array && i < LIMITS; i++) {
		if (v->limits.text[i][0] &&
		    json_array_insert_new(array, at++, text_value(v->limits.text[i])) < 0) {
			json_decref(array);
			array = NULL;
		}
	}
	return array;
}

static json_t *lease_value(const struct status_view *v)
{
	return json_pack("{s:b, s:I, s:o}", "held", v->lease_held, "ttl_s",
			 (json_int_t)v->lease_ttl_s, "expires_in_s",
			 v->lease_held ? seconds_value(v->lease_deadline_ns - clock_boot_ns())
				       : json_null());
}

static json_t *store_value(const struct status_view *v)
{
	return json_pack("{s:o, s:b, s:o}", "endpoint", known_value(v->store_endpoint), "connected",
			 v->store_connected, "last_change_age_s",
			 v->store_last_change_ns
				 ? seconds_value(clock_ns() - v->store_last_change_ns)
				 : json_null());
}

int status_json_status(struct buf *b, const struct status_view *v, const struct status_counts *c)
{
	json_t *root = json_pack(
		"{s:o, s:s, s:b, s:o, s:o, s:{s:s, s:o}, s:o, s:o, s:o, s:{s:o, s:o, s:I}, s:o, s:o,"
		" s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o}, s:{s:o}, s:{s:o, s:o, s:o}}",
		"node", known_value(v->node), "version", PACKAGE_VERSION, "ready", v->ready,
		"reasons", texts_value(v->reasons, v->nreasons), "warnings", warnings_value(v),
		"drain", "state", v->drain ? v->drain : "none", "reason",
		known_value(v->drain_reason), "subnet", prefix_value(&v->subnet), "address",
		addr_value(&v->address), "interface", known_value(v->interface), "bridge", "name",
		known_value(v->bridge), "address", addr_value(&v->bridge_address), "mtu",
		(json_int_t)v->bridge_mtu, "lease", lease_value(v), "store", store_value(v),
		"peers", "known", count_value(c->peers), "rejected", count_value(c->rejected),
		"conflicts", count_value(c->conflicts), "routes", "desired",
		count_value(c->desired[METRIC_IPV4] + c->desired[METRIC_IPV6]), "installed",
		count_value(c->installed[METRIC_IPV4] + c->installed[METRIC_IPV6]), "failing",
		count_value(c->failing), "queue", "depth", count_value(c->queue_depth), "pods",
		"held", count_value(c->pods_held), "capacity", count_value(c->pods_capacity),
		"cut_off", count_value(v->pods_cut_off));
	int r = write_take(b, root, JSON_INDENT(2));

	return r < 0 ? r : buf_adds(b, "\n");
}

/* -- lists ------------------------------------------------------------------ */

int status_json_begin(struct status_list *l, struct buf *b, const char *name)
{
	*l = (struct status_list){ .b = b, .any = false };
	return buf_printf(b, "{\"%s\":[", name);
}

int status_json_end(struct status_list *l)
{
	return buf_adds(l->b, "\n]}\n");
}

/* A row stands on its own line, so that the lists can be read by grep and by people, too. */
static int write_row(struct status_list *l, json_t *row)
{
	int r = buf_adds(l->b, l->any ? ",\n" : "\n");

	if (r < 0) {
		json_decref(row);
		return r;
	}
	l->any = true;
	return write_take(l->b, row, JSON_COMPACT);
}

int status_json_peer(struct status_list *l, const char *node, const struct prefix *subnet,
		     const struct addr *address, const char *backend, const char *state,
		     const char *reason)
{
	return write_row(l, json_pack("{s:o, s:o, s:o, s:s?, s:s, s:o}", "node", text_value(node),
				      "subnet", prefix_value(subnet), "address",
				      addr_value(address), "backend", backend, "state", state,
				      "reason", text_value(reason)));
}

int status_json_route(struct status_list *l, const struct status_route *r)
{
	return write_row(
		l, json_pack("{s:o, s:o, s:o, s:s, s:o, s:I, s:o}", "destination",
			     prefix_value(r->destination), "via", addr_value(r->via), "node",
			     text_value(r->node), "state", r->state, "reason",
			     text_value(r->reason), "tries", (json_int_t)r->tries, "next_try_s",
			     r->next_try_ns >= 0 ? seconds_value(r->next_try_ns) : json_null()));
}

int status_json_pod(struct status_list *l, const struct addr *address, const char *container,
		    const char *interface, const char *link)
{
	return write_row(l, json_pack("{s:o, s:o, s:o, s:o}", "address", addr_value(address),
				      "container", text_value(container), "interface",
				      text_value(interface), "link", text_value(link)));
}

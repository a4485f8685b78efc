/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/store/store.h"

#include <errno.h>
#include <string.h>

#include "etcd.h"

const char *store_op_name(enum store_op op)
{
	static const char *const names[] = {
		[STORE_RANGE] = "range",
		[STORE_PUT] = "put",
		[STORE_TXN] = "txn",
		[STORE_GRANT] = "lease_grant",
		[STORE_KEEPALIVE] = "lease_keepalive",
		[STORE_REVOKE] = "lease_revoke",
		[STORE_WATCH] = "watch",
	};

	_Static_assert(countof(names) == STORE_OPS, "each has a name");
	return names[op];
}

int store_open(struct store **ret, const struct store_config *config, struct err *err)
{
	auto_(store_close) struct store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_errno(err, -ENOMEM, "store");
	mutex_init(&s->lock, LOCK_STORE);
	s->prefix = strdup(config->prefix);
	s->counter_key = strdup(config->counter_key);
	s->observe = config->observe;
	s->observe_arg = config->observe_arg;
	if (!s->prefix || !s->counter_key)
		return err_errno(err, -ENOMEM, "store");
	r = endpoints_parse(config->endpoints, &s->endpoints, err);
	if (r == 0)
		r = http_new(&s->http, err);
	if (r < 0)
		return r;
	/* Nodes that start together spread over the members. */
	s->current = arc4random_uniform(s->endpoints.count);
	*ret = TAKE(s);
	return 0;
}

void store_close(struct store *s)
{
	if (s->http)
		http_free(s->http);
	buf_done(&s->response.body);
	mutex_done(&s->lock);
	free(s->prefix);
	free(s->counter_key);
	free(s);
}

void store_cancel(struct store *s)
{
	http_cancel(s->http);
}

void store_rearm(struct store *s)
{
	http_rearm(s->http);
}

int store_set_endpoints(struct store *s, const char *endpoints, struct err *err)
{
	auto_free struct endpoints *list = calloc(1, sizeof(*list));
	int r;

	if (!list)
		return err_errno(err, -ENOMEM, "endpoints");
	r = endpoints_parse(endpoints, list, err);
	if (r < 0)
		return r;
	mutex_hold(&s->lock);
	s->endpoints = *list;
	return 0;
}

const char *store_endpoint(const struct store *s)
{
	return s->answered;
}

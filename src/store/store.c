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
		[STORE_LOGIN] = "login",
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
	r = access_new(&s->next, &config->access, err);
	if (r == 0)
		r = http_new(&s->http, err);
	if (r == 0)
		r = http_new(&s->probe, err);
	if (r < 0)
		return r;
	*ret = TAKE(s);
	return 0;
}

void store_close(struct store *s)
{
	if (s->http)
		http_free(s->http);
	if (s->probe)
		http_free(s->probe);
	if (s->access)
		access_free(s->access);
	if (s->next)
		access_free(s->next);
	etcd_forget_token(s);
	buf_done(&s->response.body);
	buf_done(&s->probed.body);
	buf_done(&s->position.newest_key);
	mutex_done(&s->lock);
	free(s->prefix);
	free(s->counter_key);
	free(s);
}

void store_cancel(struct store *s)
{
	http_cancel(s->http);
	http_cancel(s->probe);
}

void store_rearm(struct store *s)
{
	http_rearm(s->http);
	http_rearm(s->probe);
}

int store_set_access(struct store *s, const struct store_access *access, struct err *err)
{
	auto_(access_free) struct access *a = NULL;
	int r = access_new(&a, access, err);

	if (r < 0)
		return r;
	mutex_hold(&s->lock);
	if (s->next)
		access_free(s->next);
	s->next = TAKE(a);
	return 0;
}

const char *store_endpoint(const struct store *s)
{
	return s->answered;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "etcd.h"
#include "poplin/base/clock.h"

int etcd_grant(struct store *s, int64_t ttl_s, struct store_claim *ret, struct err *err)
{
	auto_(json_decref) json_t *body = json_pack("{so}", "TTL", etcd_number(ttl_s));
	auto_(json_decref) json_t *answer = NULL;
	int64_t sent = clock_boot_ns();
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "lease");
	r = etcd_call(s, STORE_GRANT, "/v3/lease/grant", body, &answer, err);
	if (r < 0)
		return r;
	ret->lease = (uint64_t)etcd_int(answer, "ID");
	ret->ttl_s = etcd_int(answer, "TTL");
	ret->sent_boot_ns = sent;
	if (!ret->lease || ret->ttl_s <= 0)
		return err_set(err, -EPROTO, "etcd: a lease without number or time to live");
	return 0;
}

int etcd_revoke(struct store *s, uint64_t lease, struct err *err)
{
	auto_(json_decref) json_t *body = json_pack("{so}", "ID", etcd_number((int64_t)lease));
	auto_(json_decref) json_t *answer = NULL;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "lease");
	r = etcd_call(s, STORE_REVOKE, "/v3/lease/revoke", body, &answer, err);
	return r == -ENOENT ? 0 : r;
}

int store_renew(struct store *s, struct store_claim *claim, struct err *err)
{
	auto_(json_decref) json_t *body =
		json_pack("{so}", "ID", etcd_number((int64_t)claim->lease));
	auto_(json_decref) json_t *answer = NULL;
	int64_t sent = clock_boot_ns(), before = s->timeout_ms, ttl_s;
	const json_t *result;
	int r;

	if (!body)
		return err_errno(err, -ENOMEM, "lease");
	/* With a short lease there must be time left for the other endpoints. */
	s->timeout_ms = claim->ttl_s * 1000 / 6;
	r = etcd_call(s, STORE_KEEPALIVE, "/v3/lease/keepalive", body, &answer, err);
	s->timeout_ms = before;
	if (r < 0)
		return r;
	result = json_object_get(answer, "result");
	if (!result)
		return err_set(err, -EPROTO, "etcd: a renewal without a result");
	ttl_s = etcd_int(result, "TTL");
	if (ttl_s <= 0)
		return err_set(err, -ENOENT, "the lease is gone");
	claim->ttl_s = ttl_s;
	claim->sent_boot_ns = sent;
	return 0;
}

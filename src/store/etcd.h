/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * etcd's JSON gateway (v3): one request at a time, over a list of endpoints. Inside the store only.
 *
 * What stands here was seen on etcd 3.4.23: 64-bit numbers are strings, zero and empty fields are
 * left out, keys and values are Base64, errors are {"error","message","code"} with gRPC's code
 * numbers.
 *
 * Threads: those of the struct store.
 */
#ifndef POPLIN_STORE_ETCD_H
#define POPLIN_STORE_ETCD_H

#include <jansson.h>

#include "poplin/base/buf.h"
#include "poplin/base/mem.h"
#include "poplin/base/thread.h"
#include "poplin/http/http.h"
#include "poplin/store/store.h"

DEFINE_AUTO(json_t *, json_decref)

#define ETCD_URL_MAX	   512
#define ETCD_KEY_MAX	   1024 /* of keys that we make ourselves */
#define ETCD_ENDPOINTS_MAX 32

struct endpoints {
	char urls[ETCD_ENDPOINTS_MAX][ETCD_URL_MAX]; /* "http://host:port" */
	unsigned count;
};

struct store {
	struct http *http;
	struct http_response response;
	char *prefix; /* without a slash at the end */
	char *counter_key;
	store_observe_fn *observe;
	void *observe_arg;
	unsigned current;   /* endpoint to try first; may be past the end of a new list */
	int64_t timeout_ms; /* of the next calls, where it is to be shorter than usual; or 0 */
	char answered[ETCD_URL_MAX];

	/* Where the last list or watch stood. */
	int64_t revision;    /* 0: no list yet */
	uint64_t cluster_id; /* 0: none seen yet */

	struct mutex lock;
	struct endpoints endpoints; /* under lock */
};

/* Reads an ETCD_HOST value. -EINVAL. */
int endpoints_parse(const char *text, struct endpoints *ret, struct err *err);

/*
 * POSTs body to path ("/v3/kv/range") at the endpoints in turn until one answers. *ret is the
 * answer; the caller releases it. Errors as store.h says, and -ENOENT, -ESTALE where etcd says so.
 */
int etcd_call(struct store *s, enum store_op op, const char *path, const json_t *body, json_t **ret,
	      struct err *err);
/* Sends ahead what the next etcd_call() will ask: etcd works on it meanwhile. */
void etcd_call_ahead(struct store *s, const char *path, const json_t *body);
/* The same for a stream: on_data as in struct http_request. Always ends with an error. */
int etcd_stream(struct store *s, enum store_op op, const char *path, const json_t *body,
		int (*on_data)(const char *data, size_t len, void *arg, struct err *err), void *arg,
		struct err *err);
/* What an "error" answer means. */
int etcd_error(const char *what, const json_t *answer, struct err *err);

/* 64-bit numbers: strings in JSON, 0 when the field is missing. */
int64_t etcd_int(const json_t *object, const char *name);
uint64_t etcd_uint(const json_t *object, const char *name);
/* NULL when memory is short. */
json_t *etcd_bytes(const void *data, size_t len);
json_t *etcd_string(const char *text);
json_t *etcd_number(int64_t value);

struct etcd_kv {
	struct buf key, value;
	int64_t create_revision, mod_revision, lease, version;
};
void etcd_kv_done(struct etcd_kv *kv);
/* ret's buffers are reset and filled. -EPROTO, -ENOMEM. */
int etcd_kv_parse(const json_t *object, struct etcd_kv *ret, struct err *err);

/* Reads one key. False in *ret_found when it is not there. */
int etcd_get(struct store *s, const char *key, struct etcd_kv *ret, bool *ret_found,
	     struct err *err);
/*
 * Calls fn for each key below the folder ("/poplin/nodes/"), page by page, all at one revision,
 * which is *ret_revision. keys_only: without values. on_page, which may be NULL, is called after
 * each page.
 */
int etcd_range(struct store *s, const char *folder, bool keys_only,
	       int (*fn)(const struct etcd_kv *kv, void *arg, struct err *err),
	       void (*on_page)(void *arg), void *arg, int64_t *ret_revision, struct err *err);

/* Where everything below the folder ends. */
void etcd_folder_end(const char *folder, char ret[static ETCD_KEY_MAX]);

/* Sets lease, ttl_s and sent_boot_ns of ret. */
int etcd_grant(struct store *s, int64_t ttl_s, struct store_claim *ret, struct err *err);
/* All keys of the lease go with it. A lease that is gone is no error. */
int etcd_revoke(struct store *s, uint64_t lease, struct err *err);

/* "<prefix>/" and "<prefix>-subnets/", where the records and the subnets' holders stand. */
int etcd_records_folder(const struct store *s, char ret[static ETCD_KEY_MAX], struct err *err);
int etcd_subnets_folder(const struct store *s, char ret[static ETCD_KEY_MAX], struct err *err);

#endif

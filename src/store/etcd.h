/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * etcd's JSON gateway (v3): one request at a time, over a list of endpoints. Inside the store only.
 *
 * What all versions from 3.4 on have in common, and is taken for granted: zero and empty fields are
 * left out, keys and values are Base64, every answer has a header. What differs, and is read either
 * way: 64-bit numbers as strings or numbers, names in snake or camel case, enumerations as names or
 * numbers, errors as {"error","message","code"} (to 3.5) or {"code","message","details"}.
 *
 * Threads: those of the struct store.
 */
#ifndef POPLIN_STORE_ETCD_H
#define POPLIN_STORE_ETCD_H

#include <errno.h>
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

/* A struct store_access with strings of its own, none of them NULL. */
struct access {
	struct endpoints endpoints;
	char *ca_file, *cert_file, *key_file, *user, *password_file;
};

/* Where a list or watch stands: everything up to a revision was told. */
struct position {
	int64_t revision;    /* 0: no list yet */
	uint64_t cluster_id; /* 0: none seen yet */
	int64_t listed;	     /* of the last list: what was there before it and went is not known */
	bool fresh;	     /* the last list has just ended */
	/* The newest of the changes that were told, to know the store's history again by it. */
	int64_t newest; /* its revision; 0: none */
	int64_t newest_created;
	struct buf newest_key;
	bool newest_deleted;
};

struct store {
	struct http *http;
	struct http *probe; /* looks whether a silent member is alive, while http watches */
	struct http_response response, probed;
	char *prefix; /* without a slash at the end */
	char *counter_key;
	store_observe_fn *observe;
	void *observe_arg;

	struct access *access;
	char *token;			       /* "Authorization: ...", or NULL: not logged in */
	int64_t login_ns;		       /* no login before: etcd knew no users */
	unsigned current;		       /* endpoint to try first */
	int64_t failed_ns[ETCD_ENDPOINTS_MAX]; /* when it last did not answer; 0: it did */
	int64_t spread_ns;		       /* when to choose an endpoint anew */
	int64_t timeout_ms; /* of the next calls, where it is to be shorter than usual; or 0 */
	char answered[ETCD_URL_MAX];

	struct position position;

	struct mutex lock;
	struct access *next; /* under lock: to be used instead of access; may be NULL */
};

/* Reads an ETCD_HOST value; a host without a scheme gets this one. -EINVAL. */
int endpoints_parse(const char *text, const char *scheme, struct endpoints *ret, struct err *err);
/* The endpoints in an order of chance. -EINVAL, -ENOMEM. */
int access_new(struct access **ret, const struct store_access *from, struct err *err);
void access_free(struct access *a);
DEFINE_AUTO(struct access *, access_free)

/*
 * POSTs body to path ("/v3/kv/range") at the endpoints in turn until one answers. *ret is the
 * answer; the caller releases it. Errors as store.h says, and -ENOENT, -ESTALE where etcd says so.
 */
int etcd_call(struct store *s, enum store_op op, const char *path, const json_t *body, json_t **ret,
	      struct err *err);
/* How long the next request may take at one endpoint. */
int64_t etcd_timeout_ms(const struct store *s);
/* Sends ahead what the next etcd_call() will ask: etcd works on it meanwhile. */
void etcd_call_ahead(struct store *s, const char *path, const json_t *body);
/*
 * The same for a stream, at one endpoint: the one that answered last, or after a failure the next.
 * Always ends with an error.
 */
struct etcd_stream {
	int (*on_data)(const char *data, size_t len, void *arg, struct err *err);
	/* Called when nothing came for a while and the member is alive; may be NULL. */
	int (*on_idle)(void *arg, struct err *err);
	void *arg;
	int64_t until_ns; /* -ETIME when clock_ns() gets there; 0: never */
};
int etcd_stream(struct store *s, enum store_op op, const char *path, const json_t *body,
		const struct etcd_stream *stream, struct err *err);
/* Whether another endpoint could do better after this error. */
bool etcd_worth_another(int error);
/* Chooses an endpoint anew if that is due: members that were away get their share again. */
void etcd_spread(struct store *s);
/* Takes over what store_set_access() left. Before anything is asked. */
int etcd_adopt(struct store *s, struct err *err);

/*
 * Reads an answer: 0 and the caller's *ret, or what the error in it means, or -EPROTO. `what` stands
 * first in the error. ETCD_NO_TOKEN: it asks for a login, or for a new one; nobody above
 * etcd_call() and etcd_stream() gets to see that.
 */
#define ETCD_NO_TOKEN (-EKEYEXPIRED)
int etcd_answer(const char *what, const struct http_response *response, json_t **ret,
		struct err *err);
/* What an "error" answer means. */
int etcd_error(const char *what, const json_t *answer, struct err *err);
/* The same for an error of which there is only the text. */
int etcd_error_text(const char *what, int64_t code, const char *text, struct err *err);

/* Gets a token at this endpoint if there is a user and no token. -EACCES. */
int etcd_login(struct store *s, const char *endpoint, struct err *err);
void etcd_forget_token(struct store *s);
/* Reads a password file. -EINVAL: there is none in it. */
int etcd_password(const char *path, struct buf *ret, struct err *err);

/* A field by its name in snake case, or the same in camel case; NULL: missing. */
json_t *etcd_field(const json_t *object, const char *name);
bool etcd_bool(const json_t *object, const char *name);
/* 64-bit numbers: strings in JSON, 0 when the field is missing. */
int64_t etcd_int(const json_t *object, const char *name);
uint64_t etcd_uint(const json_t *object, const char *name);
/* The revision in a header or a key; 0: there is none that could be one. */
int64_t etcd_revision(const json_t *object, const char *name);
/* The part of a transaction's answer by its place; "response_range", "response_put". */
json_t *etcd_response(const json_t *answer, size_t i, const char *kind);
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
/* The same for several, all at one revision. */
struct etcd_wanted {
	const char *key;
	struct etcd_kv *kv; /* the caller's; its buffers are reset and filled */
	bool found;
};
int etcd_get_all(struct store *s, struct etcd_wanted *wanted, size_t count, struct err *err);
/*
 * Calls fn for each key below the folder ("/poplin/nodes/"), page by page, all at one revision,
 * which *ret (may be NULL) gets. keys_only: without values. on_page, which may be NULL, is called after
 * each page.
 */
int etcd_range(struct store *s, const char *folder, bool keys_only,
	       int (*fn)(const struct etcd_kv *kv, void *arg, struct err *err),
	       void (*on_page)(void *arg), void *arg, struct position *ret, struct err *err);

/* Notes a change as the newest one if it is. */
int position_note(struct position *p, const struct etcd_kv *kv, bool deleted, struct err *err);
/* Gives p what next has; the old memory goes to next. */
void position_move(struct position *p, struct position *next);
/*
 * Asks the quorum whether the store has the history that led to our position. *ret_proven: it has;
 * false with 0: it may, as far as can be told. -ESTALE: it has not, or it is another cluster.
 */
int etcd_prove_history(struct store *s, bool *ret_proven, struct err *err);

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

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent needs of a datastore: claim a subnet for a node, keep the claim alive, release it,
 * list the nodes and watch them. etcd stands behind it today; nothing of etcd's own (revisions,
 * lease numbers, base64) shows here.
 *
 * Threads: a struct store belongs to one thread (it holds one HTTP handle); a process opens as many
 * as it has threads that talk to the store. store_cancel() and store_set_access() may be called
 * from any thread. Every call but store_watch() has a deadline of its own.
 *
 * Errors common to all: -ECANCELED (store_cancel), -ETIMEDOUT, -ECONNREFUSED and their like (no
 * endpoint could be reached: each was tried), -EAGAIN (the store is there but cannot serve now, no
 * leader for instance), -EPROTO (an answer that makes no sense), -EACCES.
 */
#ifndef POPLIN_STORE_STORE_H
#define POPLIN_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/model/network.h"
#include "poplin/model/record.h"

struct store;

/* What a request was and how it went, for metrics. Called on the thread that made the request. */
enum store_op {
	STORE_RANGE,
	STORE_PUT,
	STORE_TXN,
	STORE_GRANT,
	STORE_KEEPALIVE,
	STORE_REVOKE,
	STORE_WATCH,
	STORE_LOGIN,
	STORE_OPS
};
const char *store_op_name(enum store_op op); /* "range", ... */
typedef void store_observe_fn(enum store_op op, int result, int64_t duration_ns, void *arg);

/*
 * How the store is reached. A string that is NULL or "" is not given. The files are read when they
 * are needed: TLS files for each connection, the password for each login.
 */
struct store_access {
	const char *endpoints; /* ETCD_HOST: host, host:port or http(s) URL, separated by commas */
	const char *ca_file, *cert_file, *key_file; /* PEM */
	const char *user, *password_file;
};

struct store_config {
	struct store_access access;
	const char *prefix;	   /* ETCD_PREFIX, without a slash at the end */
	const char *counter_key;   /* ETCD_COUNTER_KEY */
	store_observe_fn *observe; /* may be NULL */
	void *observe_arg;
};

/* Checks an ETCD_HOST value without touching the network. */
int store_endpoints_check(const char *endpoints, struct err *err);
/*
 * Checks everything of it without touching the network: that the files can be read, that
 * certificate and key fit together, and that nothing of it would go as plain text: with TLS files
 * an endpoint without a scheme is one of https, and one of http is refused.
 */
int store_access_check(const struct store_access *access, struct err *err);

int store_open(struct store **ret, const struct store_config *config, struct err *err);
void store_close(struct store *s);
DEFINE_AUTO(struct store *, store_close)
void store_cancel(struct store *s); /* any thread; until store_rearm() */
void store_rearm(struct store *s);
/*
 * Any thread; used from the next request on. A running watch goes on until it is cut or cancelled.
 */
int store_set_access(struct store *s, const struct store_access *access, struct err *err);
/* The endpoint that answered last, for logs. */
const char *store_endpoint(const struct store *s);

/* -- claims ---------------------------------------------------------------- */

struct store_claim {
	struct prefix subnet;
	int64_t ttl_s;	      /* as the store granted it, which may be more than was asked for */
	int64_t sent_boot_ns; /* clock_boot_ns() before the grant or renewal that counts was sent */
	/* Handles of the store, opaque here: of the lease, and of what was put. */
	uint64_t lease, record_version, subnet_version;
};

struct store_claim_request {
	const char *node;
	const struct network *network;
	const struct record *record;	/* its subnets are filled in by the claim */
	const struct prefix *preferred; /* subnet to take if it is free; may be NULL */
	int64_t ttl_s;
	/*
	 * The leases that this process may have put the record under. Under another one, though of our
	 * machine-id, it is a twin's: a machine that was cloned. None: the record may be an earlier
	 * process' of this machine.
	 */
	const uint64_t *leases;
	size_t nleases;
	/*
	 * Called, if not NULL, before the claim is moved to a new lease: the last moment to promise
	 * no more than that one will keep. A negative return ends the claim.
	 */
	int (*on_lease)(const struct store_claim *claim, void *arg, struct err *err);
	/*
	 * Called, if not NULL, when the store was seen to have no other settings than ours and no
	 * record of another machine under this name. Of two that come at the same moment both are
	 * told so, and one is refused after that. May be called several times.
	 */
	void (*on_admitted)(void *arg);
	void *arg;
};

/*
 * Gets the node a subnet, in one transaction that puts the node's record and the subnet's key under
 * one lease. A record of ours that is still alive is attached to (same subnet, lease renewed,
 * nothing rewritten unless the record or the TTL differs, or it names another subnet than the
 * preferred one and that is free); otherwise the preferred subnet if it is free, otherwise the
 * first free one from our ticket on. -ENOSPC: no subnet is free. -EEXIST:
 * another machine holds this node name and is alive. -EADDRINUSE: a preferred subnet was demanded
 * (`only_preferred`) and somebody else holds it. -EDOM: the cluster's network, which the
 * first node of all wrote, is another than req->network; both stand in the text.
 */
int store_claim(struct store *s, const struct store_claim_request *req, bool only_preferred,
		struct store_claim *ret, struct err *err);

/*
 * Renews the lease: sets claim->ttl_s and sent_boot_ns. -ENOENT: the lease is gone (an answer
 * without a TTL).
 */
int store_renew(struct store *s, struct store_claim *claim, struct err *err);

/*
 * Reads back whether the claim stands as it was put, by one short request: a renewal alone tells
 * nothing of the keys. -ENOENT: it does not, so claim again.
 */
int store_verify(struct store *s, const char *node, const struct store_claim *claim,
		 struct err *err);

/*
 * Gives the node's subnet back, by its name: the lease that its record hangs on is revoked, and
 * both keys go with it. *ret_subnet (may be NULL) says which it was; it is set before that is asked
 * for, so as long as it is untouched the store has certainly changed nothing. -ENOENT: it holds none.
 * -EEXIST: the record is of another machine (`machine`), or nobody can read whose it is.
 */
int store_release(struct store *s, const char *node, const char *machine, struct prefix *ret_subnet,
		  struct err *err);

/* -- the nodes ------------------------------------------------------------- */

/*
 * A change of one node's record. `order` grows with the time of the claim: of two records for one
 * subnet the smaller order is the older claim, on every node alike. It changes only when the key is
 * created anew.
 */
struct store_change {
	const char *node; /* the key without the prefix: untrusted, may not be a node name at all */
	const char *value; /* not NUL-terminated; NULL: the record is gone */
	size_t len;
	uint64_t order;
	uint64_t version; /* of the record, as in struct store_claim; other with each write */
};

struct store_handler {
	/* Called for each record of a list, and for each event of a watch, in order. */
	int (*on_change)(const struct store_change *change, void *arg, struct err *err);
	/* Watch only: the stream stands (called once per store_watch() that got so far). */
	void (*on_connected)(void *arg);
	/*
	 * May be NULL. The store has the history that was told so far, at the end of a list or the
	 * begin of a watch. List: it has not, as it was set back or is another one (a watch ends
	 * with -ESTALE then). Neither is called where the store cannot tell any more.
	 */
	void (*on_proven)(void *arg);
	void (*on_set_back)(void *arg);
	/*
	 * The changes of one answer (a page of a list, a message of a watch) are told; may be NULL.
	 */
	void (*on_batch)(void *arg);
	void *arg;
};

/*
 * Lists every record, page by page, all at one revision, and remembers in s where the list stood.
 * Returns 0 only when the list is complete.
 */
int store_list(struct store *s, const struct store_handler *handler, struct err *err);

/*
 * Watches from where the last list or watch of this handle stood, until it ends; it always ends
 * with an error. -ESTALE: changes were missed for good (compaction, another cluster, a store set
 * back in time): list again. -ETIME: clock_ns() is at until_ns (0: never). Anything else: call
 * again to resume. A store that has become silent is noticed within 30 s.
 */
int store_watch(struct store *s, const struct store_handler *handler, int64_t until_ns,
		struct err *err);

#endif

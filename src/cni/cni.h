/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CNI plugin's shared ground: what was asked, the verbs that answer, and the specification's
 * error codes (https://github.com/containernetworking/cni/blob/main/SPEC.md, sections 2 and 5).
 *
 * A verb returns 0 or one of the codes, with the story in err->text, and writes its result, if it
 * has one, to standard output. Nothing else is ever written there.
 *
 * Threads: one.
 */
#ifndef POPLIN_CNI_CNI_H
#define POPLIN_CNI_CNI_H

#include <jansson.h>
#include <net/if.h>

#include "poplin/base/err.h"
#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"
#include "poplin/model/prefix.h"
#include "poplin/nl/nl.h"

enum cni_code {
	CNI_OK = 0,
	CNI_INCOMPATIBLE_VERSION = 1,
	CNI_UNKNOWN_CONTAINER = 3,
	CNI_INVALID_ENVIRONMENT = 4,
	CNI_IO_FAILURE = 5,
	CNI_DECODE_FAILURE = 6,
	CNI_INVALID_CONFIG = 7,
	CNI_TRY_AGAIN_LATER = 11,
	CNI_NOT_AVAILABLE = 50,
	/* Our own, from 100 on. */
	CNI_NO_ADDRESS = 100,	    /* every address of the node's subnet is held */
	CNI_KERNEL_REFUSED = 101,   /* a link, address or route could not be made */
	CNI_NOT_AS_EXPECTED = 102,  /* CHECK found a difference */
	CNI_ALREADY_ATTACHED = 103, /* ADD of an attachment that is there */
};

/* Versions of the specification that are spoken, oldest first. */
enum cni_version { CNI_0_3_0, CNI_0_3_1, CNI_0_4_0, CNI_1_0_0, CNI_1_1_0, CNI_VERSIONS };
extern const char *const cni_version_names[CNI_VERSIONS];

#define CNI_NAME_MAX 128
#define CNI_PATH_MAX 512

/* The network configuration on standard input, as the agent wrote it (agent/cniconf.c). */
struct netconf {
	json_t *json; /* the whole; owned */
	enum cni_version version;
	char name[CNI_NAME_MAX];
	struct prefix network, subnet;
	char bridge[IF_NAMESIZE];
	unsigned mtu;
	char state_dir[CNI_PATH_MAX];
	char ipam_dir[CNI_PATH_MAX + CNI_NAME_MAX + 8];
};

struct request {
	struct ipam_owner owner; /* CNI_CONTAINERID and CNI_IFNAME; "" where the verb has none */
	const char *netns;	 /* CNI_NETNS, or "" */
	const char *args;	 /* CNI_ARGS, or "" */
	struct netconf conf;
};

/* Reads text; *ret_version is set as soon as it is known, for the error object. 0 or a code. */
int netconf_parse(const char *text, size_t len, struct netconf *ret, enum cni_version *ret_version,
		  struct err *err);
void netconf_done(struct netconf *conf);
/* False, and *ret untouched, for a version that is not spoken. */
bool cni_version_parse(const char *text, enum cni_version *ret);

/* -- verbs ----------------------------------------------------------------- */

int verb_add(const struct request *req, struct err *err);
int verb_del(const struct request *req, struct err *err);
int verb_check(const struct request *req, struct err *err);
int verb_gc(const struct request *req, struct err *err);
int verb_status(const struct request *req, struct err *err);

/* -- what several verbs do --------------------------------------------------- */

/* Whether the agent holds the subnet, so that addresses of it may be given out. 0 or a code. */
int node_ready(const struct netconf *conf, struct err *err);
/* Removes an attachment's link and address, whatever there is of them. 0 or a code. */
int detach(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
	   struct err *err);

/*
 * Opens the pod's network namespace. -ENOENT: it is gone. -EINVAL: it is none, or it is the host's.
 * Returns a descriptor.
 */
int netns_open(const char *path, struct err *err);
/* Enters it, for the rest of the process: sockets that were opened before stay where they are. */
int netns_enter(int fd, struct err *err);

#endif

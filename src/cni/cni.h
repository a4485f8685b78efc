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
	CNI_UNSUPPORTED_FIELD = 2,
	CNI_UNKNOWN_CONTAINER = 3,
	CNI_INVALID_ENVIRONMENT = 4,
	CNI_IO_FAILURE = 5,
	CNI_DECODE_FAILURE = 6,
	CNI_INVALID_CONFIG = 7,
	CNI_TRY_AGAIN_LATER = 11,
	CNI_NOT_AVAILABLE = 50,
	CNI_LIMITED_CONNECTIVITY = 51,
	/* Our own, from 100 on. */
	CNI_NO_ADDRESS = 100,	    /* every address of the node's subnet is held */
	CNI_KERNEL_REFUSED = 101,   /* a link, address or route could not be made */
	CNI_NOT_AS_EXPECTED = 102,  /* CHECK found a difference */
	CNI_ALREADY_ATTACHED = 103, /* ADD of an attachment that is there */
};

/* Versions of the specification that are spoken, oldest first. */
enum cni_version {
	CNI_0_1_0,
	CNI_0_2_0,
	CNI_0_3_0,
	CNI_0_3_1,
	CNI_0_4_0,
	CNI_1_0_0,
	CNI_1_1_0,
	CNI_VERSIONS
};
extern const char *const cni_version_names[CNI_VERSIONS];

#define CNI_NAME_MAX 128
#define CNI_PATH_MAX 512

/* -- the network configuration on standard input --------------------------------- */

/* A route of a pod, as ipam.routes has it; 0 or -1: it is not said. */
struct netconf_route {
	struct prefix dst;
	struct addr gateway; /* AF_UNSPEC: that of the address */
	unsigned mtu, advmss, priority;
	int64_t table, scope;
};
#define NETCONF_ROUTES_MAX 64

enum netconf_ipam_kind {
	NETCONF_IPAM_NONE,	/* pods get no address: the network is of layer 2 alone */
	NETCONF_IPAM_OWN,	/* poplin/ipam/ipam.h */
	NETCONF_IPAM_DELEGATED, /* another plugin's */
};

struct netconf_ipam {
	enum netconf_ipam_kind kind;
	char type[CNI_NAME_MAX];
	/* Of our own only: */
	struct ipam_pool pool;
	struct netconf_route routes[NETCONF_ROUTES_MAX];
	unsigned nroutes;
	char resolv_conf[CNI_PATH_MAX]; /* "": none */
};

/*
 * What the plugin `bridge` takes, with its meaning (poplin(8)); what the agent writes has in
 * addition "stateDir" and "network".
 */
struct netconf {
	json_t *json; /* the whole; owned */
	enum cni_version version;
	char name[CNI_NAME_MAX];
	char bridge[IF_NAMESIZE];
	unsigned mtu; /* 0: the bridge's */
	bool is_gateway, is_default_gateway, force_address, ip_masq, hairpin, promiscuous,
		enable_dad, mac_spoof_check, port_isolation, disable_interface;
	char state_dir[CNI_PATH_MAX]; /* of the agent, which makes the bridge; "": there is none */
	struct prefix network;	      /* all pods of the cluster; AF_UNSPEC: not said */
	struct netconf_ipam ipam;
};

struct request {
	struct ipam_owner owner; /* CNI_CONTAINERID and CNI_IFNAME; "" where the verb has none */
	const char *netns;	 /* CNI_NETNS, or "" */
	const char *args;	 /* CNI_ARGS, or "" */
	int64_t started_ns;	 /* CLOCK_REALTIME: when this process began */
	const char *text;	 /* the configuration as it came, for other plugins */
	size_t text_len;
	struct netconf conf;
};

/* What a verb cannot do without. */
enum need { NEED_CONTAINER = 1, NEED_NETNS = 2, NEED_INTERFACE = 4 };
/* Fills in the variables, which stay the environment's; `needs`: of enum need. 0 or a code. */
int environment_read(unsigned needs, struct request *req, struct err *err);
/*
 * What the kernel takes (dev_valid_name, net/core/dev.c), without what cannot be seen, and without
 * '%', which it would expand.
 */
bool is_interface_name(const char *text);
const char *environment_get(const char *name); /* "": it is not set */

/* Reads text; *ret_version is set as soon as it is known, for the error object. 0 or a code. */
int netconf_parse(const char *text, size_t len, struct netconf *ret, enum cni_version *ret_version,
		  struct err *err);
void netconf_done(struct netconf *conf);
/* False, and *ret untouched, for a version that is not spoken. */
bool cni_version_parse(const char *text, enum cni_version *ret);

/* Readers of single keys, for the parts of the configuration; null counts as missing. 0 or a code. */
/* Capital or small letters are alike, as the plugins written in Go have it; exactly the key goes first. */
json_t *netconf_get(const json_t *json, const char *key);
int netconf_get_text(const json_t *json, const char *key, char *ret, size_t size, struct err *err);
int netconf_get_flag(const json_t *json, const char *key, bool *ret, struct err *err);
/* *ret stays as it is when the key is missing. */
int netconf_get_number(const json_t *json, const char *key, int64_t min, int64_t max, int64_t *ret,
		       struct err *err);
int netconf_parse_ipam(struct netconf *conf, struct err *err);
int netconf_parse_route(const json_t *json, struct netconf_route *ret, struct err *err);

/* -- what a runtime asks for of one attachment ------------------------------------ */

struct wishes {
	struct addr addresses[IPAM_SETS_MAX];
	unsigned naddresses;
	int addresses_code; /* of an error that they lead to */
	uint8_t mac[6];
	bool has_mac;
};
int wishes_read(const struct request *req, struct wishes *ret, struct err *err);

/* -- verbs ----------------------------------------------------------------- */

int verb_add(const struct request *req, struct err *err);
int verb_del(const struct request *req, struct err *err);
int verb_check(const struct request *req, struct err *err);
int verb_gc(const struct request *req, struct err *err);
int verb_status(const struct request *req, struct err *err);

/* -- addresses of an attachment, whoever gives them ----------------------------- */

/* What the pod's interface is to have. */
struct given {
	struct ipam_address addresses[IPAM_SETS_MAX];
	unsigned naddresses;
	/* Those without a gateway go to that of the first address of their family. */
	struct netconf_route routes[NETCONF_ROUTES_MAX + 2];
	unsigned nroutes;
	json_t *dns; /* owned; may be NULL */
};

/* Takes addresses for the attachment. 0 or a code; only then is anything held. */
int addresses_take(const struct request *req, const struct wishes *wishes, struct given *ret,
		   struct err *err);
/* Gives those of another plugin back; our own go with detach(). Holding none is fine. */
int addresses_give_back(const struct request *req, struct err *err);
void given_done(struct given *given);
/* Where a route of the given ones goes to; AF_UNSPEC: to the link itself. */
struct addr given_route_gateway(const struct given *given, const struct netconf_route *route);

/* -- what several verbs do --------------------------------------------------- */

/* Whether the agent holds the subnet, so that addresses of it may be given out. 0 or a code. */
int node_ready(const struct netconf *conf, struct err *err);
/*
 * Removes an attachment's link, unless another network made it, and our own addresses, whatever there
 * is of them, and what ipMasq and macspoofchk made. Addresses of another plugin are left:
 * addresses_give_back(). 0 or a code.
 */
int detach(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
	   struct err *err);

/*
 * Whose the link is: 1 the network's, 0 another's, as two networks give an attachment the same name.
 * ret_index may be NULL. -ENODEV: there is none.
 */
int pod_link_is_of(struct netlink *nl, const char *name, const char *network, unsigned *ret_index,
		   struct err *err);
/*
 * Removes the host's end of a pod's veth, and so both, and returns as soon as they can carry no
 * packet any more. A child process sees to the rest. The name is for the error. -ENODEV: it was gone.
 */
int pod_link_remove(struct netlink *nl, const char *name, unsigned index, struct err *err);

/*
 * Opens the pod's network namespace. -ENOENT: it is gone. -EINVAL: it is none, or it is the host's.
 * Returns a descriptor.
 */
int netns_open(const char *path, struct err *err);
/* Enters it, for the rest of the process: sockets that were opened before stay where they are. */
int netns_enter(int fd, struct err *err);
/* Goes back to that of a socket. */
int netns_return(const struct netlink *nl, struct err *err);

#endif

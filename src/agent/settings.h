/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's settings: one table of name, type, range, default, whether a reload can change it,
 * and a line of help. The environment, the configuration file, --help, --check-config and the
 * manual page (poplin.conf(5)) all follow it.
 *
 * A setting comes from the environment, else from the file, else it has its default; an empty value
 * means the default. Wrong values are told by name, value, origin and what is allowed. Names of the
 * file that are no settings are not an error (an EnvironmentFile may feed others too), but
 * each gets a warning, with the nearest name that there is.
 *
 * Threads: a struct settings belongs to one thread while it is loaded; afterwards it is only read.
 */
#ifndef POPLIN_AGENT_SETTINGS_H
#define POPLIN_AGENT_SETTINGS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "poplin/base/err.h"
#include "poplin/base/log.h"
#include "poplin/model/defaults.h"
#include "poplin/model/network.h"
#include "poplin/model/prefix.h"
#include "poplin/model/record.h"

/* Sizes of members, with the NUL. */
#define SETTING_LIST_MAX     1024
#define SETTING_PATH_MAX     256
#define SETTING_CNI_NAME_MAX 128
#define SETTING_LISTEN_MAX   64
#define SETTING_USER_MAX     128

/*
 * X(id, type, member, default, min, max, reloadable, help)
 * Each type has a row in settings.c's table of types. min and max bound a UINT's value and a text's
 * length; other types have limits of their own (0, 0).
 */
#define SETTING_TABLE(X)                                                                           \
	X(ETCD_HOST, ENDPOINTS, etcd_host, "127.0.0.1:2379", 1, 1023, true, "the servers of etcd") \
	X(ETCD_CA_FILE, FILE, etcd_ca_file, "", 1, 255, true,                                      \
	  "CA certificates that etcd's must be signed by (default: those of the system)")          \
	X(ETCD_CERT_FILE, FILE, etcd_cert_file, "", 1, 255, true,                                  \
	  "certificate to show to etcd, with its chain (default: none)")                           \
	X(ETCD_KEY_FILE, FILE, etcd_key_file, "", 1, 255, true,                                    \
	  "private key of that certificate (default: none)")                                       \
	X(ETCD_USER, USER, etcd_user, "", 1, 127, true,                                            \
	  "user to log in to etcd as (default: none)")                                             \
	X(ETCD_PASSWORD_FILE, FILE, etcd_password_file, "", 1, 255, true,                          \
	  "file with that user's password in its first line (default: none)")                      \
	X(ETCD_PREFIX, KEY, etcd_prefix, "/poplin/nodes", 1, 255, false,                           \
	  "key in etcd below which each node has its record")                                      \
	X(ETCD_COUNTER_KEY, KEY, etcd_counter_key, "/poplin/counter", 1, 255, false,               \
	  "key in etcd that hands out the tickets for subnets")                                    \
	X(IP_SUBNET, SUBNET, pods, "10.2.0.0/16", 0, 0, false, "the cluster's pod network")        \
	X(IP_SUBNET_MARGIN, UINT, ip_subnet_margin, "8", 1, 24, false,                             \
	  "bits added to IP_SUBNET's length for a node's subnet: 8 makes 256 of /24 from a /16")   \
	X(NODE_NAME, NODE_NAME, node_name, "", 1, 253, false,                                      \
	  "name of this node, unique in the cluster (default: the host name)")                     \
	X(NODE_ADDRESS, ADDRESS, node_address, "", 0, 0, false,                                    \
	  "address that the other nodes send to (default: that of the interface)")                 \
	X(NODE_INTERFACE, IFNAME, node_interface, "", 1, 15, false,                                \
	  "interface to the other nodes (default: that of the default route)")                     \
	X(LEASE_TTL, UINT, lease_ttl_s, "120", 5, 86400, true,                                     \
	  "seconds after which a silent node's subnet is free for others")                         \
	X(LEASE_FENCE, SWITCH, lease_fence, "on", 0, 0, true,                                      \
	  "refuse new pods while the lease may have run out; off: two nodes may use one subnet")   \
	X(BRIDGE_NAME, IFNAME, bridge_name, "poplin0", 1, 15, false, "bridge of this node's pods") \
	X(MTU, MTU, mtu, "0", 0, 65535, false, "MTU of the pods' links, 0: that of the interface") \
	X(CNI_CONFIG_LOCATION, CNI_CONFIG, cni_config_location,                                    \
	  "/etc/cni/net.d/10-poplin.conflist", 1, 255, false,                                      \
	  "CNI configuration to write; a name in .conf gets a single plugin, .conflist a list")    \
	X(CNI_PLUGIN_LOCATION, FILE, cni_plugin_location, "/opt/cni/bin/poplin", 1, 255, false,    \
	  "where the CNI plugin is put")                                                           \
	X(CNI_VERSION, CNI_VERSION, cni_version, "1.0.0", 0, 0, false,                             \
	  "version of the CNI specification in the CNI configuration")                             \
	X(CNI_NAME, CNI_NAME, cni_name, "poplin", 1, 127, false,                                   \
	  "name of the network in the CNI configuration")                                          \
	X(CNI_TYPE, CNI_NAME, cni_type, "poplin", 1, 127, false,                                   \
	  "name of the plugin's file in the CNI configuration")                                    \
	X(CNI_CHAIN, FILE, cni_chain, "", 1, 255, true,                                            \
	  "JSON file with plugins that follow in the CNI configuration (default: none)")           \
	X(ROUTE_PROTOCOL, UINT, route_protocol, "84", 5, 255, false,                               \
	  "protocol number that marks routes as ours (see /etc/iproute2/rt_protos)")               \
	X(ROUTE_WORKERS, UINT, route_workers, "4", 1, 64, true, "threads that set routes")         \
	X(ROUTE_GRACE, UINT, route_grace_s, "30", 0, 86400, false,                                 \
	  "seconds that routes without a record stay after a start or a restored etcd")            \
	X(RESYNC_INTERVAL, UINT, resync_interval_s, "300", 1, 86400, true,                         \
	  "seconds between full comparisons of routes with records, and of these with etcd")       \
	X(METRICS_ADDRESS, LISTEN, metrics_address, DEFAULT_METRICS_ADDRESS, 0, 0, false,          \
	  "where metrics, health and status are served over HTTP; port 0: any free one")           \
	X(LOG_LEVEL, LEVEL, log_level, "info", 0, 0, true, "the least that is logged")             \
	X(LOG_FORMAT, FORMAT, log_format, "text", 0, 0, true, "form of the log lines")             \
	X(STATE_DIR, FOLDER, state_dir, DEFAULT_STATE_DIR, 1, 200, false,                          \
	  "folder of the node's state; best on a tmpfs, as nothing in it outlives a boot")

enum setting {
#define SETTING_ENUM(id, ...) SETTING_##id,
	SETTING_TABLE(SETTING_ENUM)
#undef SETTING_ENUM
		SETTINGS
};

enum setting_origin {
	SETTING_ORIGIN_DEFAULT,
	SETTING_ORIGIN_FILE,
	SETTING_ORIGIN_ENVIRONMENT,
};

struct settings {
	char etcd_host[SETTING_LIST_MAX];
	char etcd_ca_file[SETTING_PATH_MAX];
	char etcd_cert_file[SETTING_PATH_MAX];
	char etcd_key_file[SETTING_PATH_MAX];
	char etcd_user[SETTING_USER_MAX];
	char etcd_password_file[SETTING_PATH_MAX];
	char etcd_prefix[SETTING_PATH_MAX]; /* without a slash at the end */
	char etcd_counter_key[SETTING_PATH_MAX];
	struct prefix pods;
	unsigned ip_subnet_margin;
	char node_name[NODE_NAME_TEXT_MAX]; /* never empty: the host name is filled in */
	struct addr node_address;	    /* AF_UNSPEC: that of the interface */
	char node_interface[IF_NAMESIZE];   /* "": that of the default route */
	unsigned lease_ttl_s;
	bool lease_fence;
	char bridge_name[IF_NAMESIZE];
	unsigned mtu; /* 0: that of the interface */
	char cni_config_location[SETTING_PATH_MAX];
	char cni_plugin_location[SETTING_PATH_MAX];
	char cni_version[16];
	char cni_name[SETTING_CNI_NAME_MAX];
	char cni_type[SETTING_CNI_NAME_MAX];
	char cni_chain[SETTING_PATH_MAX]; /* "": none */
	unsigned route_protocol;
	unsigned route_workers;
	unsigned route_grace_s;
	unsigned resync_interval_s;
	char metrics_address[SETTING_LISTEN_MAX]; /* as httpd_address_parse() takes it */
	enum log_level log_level;
	enum log_format log_format;
	char state_dir[SETTING_PATH_MAX];

	struct network network; /* from pods and ip_subnet_margin */

	/* Where each came from, for messages. */
	char file[SETTING_PATH_MAX];
	struct {
		enum setting_origin origin;
		unsigned line; /* of the file */
	} source[SETTINGS];
};

/* How the store is reached; the strings are those of the settings. */
struct store_access;
void settings_access(const struct settings *s, struct store_access *ret);

/* Whether CNI_CONFIG_LOCATION is a list of plugins (CNI specification, section 1), or one plugin. */
bool settings_cni_list(const struct settings *s);

/* A remark that is no error: told to the caller, who logs it. */
typedef void settings_warn_fn(const char *text, void *arg);

/*
 * Loads *ret from file (NULL: none) and the environment, checks each value and then all together.
 * required: a missing file is an error; otherwise it is as an empty one. Returns 0, or
 * -EINVAL (a wrong value or line), or what reading the file met. Of several wrong values err tells the
 * last one, and warn those before it. warn may be NULL.
 */
int settings_load(struct settings *ret, const char *file, bool required, settings_warn_fn *warn,
		  void *arg, struct err *err);

/* What a reload from `running` to `loaded` means. */
struct settings_diff {
	bool changed[SETTINGS]; /* reloadable or not */
	bool any_reloadable;
	char refused[SETTING_LIST_MAX]; /* changed but not reloadable: "NAME, NAME" or "" */
};
void settings_compare(const struct settings *running, const struct settings *loaded,
		      struct settings_diff *ret);
/*
 * Gives `loaded` the running values of everything that a reload cannot change, so that it may take
 * the place of `running` as a whole.
 */
void settings_keep(const struct settings *running, struct settings *loaded);

const char *setting_name(enum setting id); /* "ETCD_HOST" */
/* As it would stand in the file; returns ret. No secret is a setting: those are in files. */
const char *settings_value(const struct settings *s, enum setting id,
			   char ret[static SETTING_LIST_MAX]);
const char *setting_default(enum setting id); /* as text; "": found at run time */
bool setting_reloadable(enum setting id);

/* Writes the table for people: defaults, help, what is allowed. For poplind --help. */
void settings_usage(FILE *out);
/* Writes a configuration file that says where each value came from, and what an empty one means. For poplind --check-config. */
void settings_print(const struct settings *s, FILE *out);
/* Writes the table as mdoc(7) source, the body of poplin.conf(5)'s list. */
void settings_mdoc(FILE *out);

#endif

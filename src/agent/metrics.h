/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent's metrics: one table, counted into from any thread, written in Prometheus' text format
 * (https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4).
 *
 * Every series is a fixed cell of one array, found by arithmetic: counting is one atomic addition,
 * without lock or lookup, and can neither fail nor grow. That is why every label has a closed set
 * of values. Gauges are set when somebody asks (status.c does it for /metrics), counters and
 * histograms where the thing happens.
 *
 * Threads: any. The cells belong to the process.
 */
#ifndef POPLIN_AGENT_METRICS_H
#define POPLIN_AGENT_METRICS_H

#include <stdint.h>

#include "limits.h"
#include "poplin/base/buf.h"
#include "poplin/model/podlog.h"
#include "poplin/store/store.h"

/* -- values of labels ------------------------------------------------------ */

enum metric_result { METRIC_OK, METRIC_ERROR, METRIC_LOST, METRIC_RESULTS };
enum metric_family { METRIC_IPV4, METRIC_IPV6, METRIC_FAMILIES };
enum metric_op { METRIC_ADD, METRIC_REPLACE, METRIC_DELETE, METRIC_OPS };
/* What was found different from what it should be, and repaired. */
enum metric_drift {
	METRIC_DRIFT_ROUTE,
	METRIC_DRIFT_NEXTHOP,
	METRIC_DRIFT_BRIDGE,
	METRIC_DRIFT_FILE,
	METRIC_DRIFTS
};
/* Why a watch began anew. */
enum metric_restart {
	METRIC_RESTART_CUT,   /* the stream ended or failed */
	METRIC_RESTART_IDLE,  /* nothing came for too long */
	METRIC_RESTART_STALE, /* changes were missed for good: compaction, another or older store */
	METRIC_RESTART_RELOAD,
	METRIC_RESTART_COMPARE, /* a full comparison was due */
	METRIC_RESTARTS
};
#define METRIC_ERRNOS 134 /* Linux's highest, EHWPOISON, is 133; 0 stands for any other */

/* -- the table ------------------------------------------------------------- */

/*
 * X(id, kind, name without "poplin_", label set, label set, help)
 * Kinds: COUNTER; GAUGE (a whole number); GAUGE_NS (set in nanoseconds, written as seconds);
 * HISTOGRAM (observed in nanoseconds, written as seconds).
 */
#define METRIC_TABLE(X)                                                                            \
	X(LEASE_TTL, GAUGE, "lease_ttl_seconds", NONE, NONE,                                       \
	  "Time to live of the lease as the store granted it, 0 without one.")                     \
	X(LEASE_EXPIRY, GAUGE_NS, "lease_expiry_timestamp_seconds", NONE, NONE,                    \
	  "Unix time at which the lease runs out unless it is renewed, 0 without one.")            \
	X(LEASE_RENEWALS, COUNTER, "lease_renewals_total", RENEWAL, NONE,                          \
	  "Renewals of the lease: ok, error (no answer) or lost (the lease was gone).")            \
	X(LEASE_CLAIMS, COUNTER, "lease_claims_total", RESULT, NONE,                               \
	  "Claims of a subnet, first and renewed ones.")                                           \
	X(LEASE_CONFLICTS, COUNTER, "lease_conflicts_total", NONE, NONE,                           \
	  "Times that the node's subnet was found to be another node's.")                          \
	X(PODS_CUT_OFF, GAUGE, "pods_cut_off", NONE, NONE,                                         \
	  "Pods with addresses of subnets that this node holds no longer.")                        \
	X(PEERS, GAUGE, "peers", NONE, NONE, "Other nodes known from the store.")                  \
	X(PEERS_REJECTED, GAUGE, "peers_rejected", NONE, NONE,                                     \
	  "Records in the store that were refused as wrong.")                                      \
	X(PEERS_CONFLICTS, GAUGE, "peers_conflicts", NONE, NONE,                                   \
	  "Records whose subnet an older claim holds.")                                            \
	X(ROUTES_DESIRED, GAUGE, "routes_desired", FAMILY, NONE,                                   \
	  "Routes that the records in the store ask for.")                                         \
	X(ROUTES_INSTALLED, GAUGE, "routes_installed", FAMILY, NONE,                               \
	  "Routes of ours that the kernel has.")                                                   \
	X(ROUTE_OPERATIONS, COUNTER, "route_operations_total", OP, RESULT,                         \
	  "Route requests to the kernel.")                                                         \
	X(DRIFT_REPAIRS, COUNTER, "drift_repairs_total", DRIFT, NONE,                              \
	  "Things of ours that somebody else changed or removed and that were put right.")         \
	X(NETLINK_ERRORS, COUNTER, "netlink_errors_total", ERRNO, NONE,                            \
	  "Netlink requests that the kernel refused.")                                             \
	X(NETLINK_OVERRUNS, COUNTER, "netlink_overruns_total", NONE, NONE,                         \
	  "Times that the kernel had to drop notifications for us.")                               \
	X(RESYNCS, COUNTER, "resyncs_total", NONE, NONE,                                           \
	  "Full comparisons of the kernel with what it should have.")                              \
	X(RESYNC_DURATION, HISTOGRAM, "resync_duration_seconds", NONE, NONE,                       \
	  "Duration of full comparisons.")                                                         \
	X(NODE_CHECKS, COUNTER, "node_checks_total", NONE, NONE,                                   \
	  "Looks at the node's interface, bridge and CNI files, as something changed or was due.") \
	X(WORKQUEUE_DEPTH, GAUGE, "workqueue_depth", NONE, NONE, "Keys that wait for a worker.")   \
	X(WORKQUEUE_DELAYED, GAUGE, "workqueue_delayed", NONE, NONE,                               \
	  "Keys that failed and wait for their next try.")                                         \
	X(WORKQUEUE_ADDS, COUNTER, "workqueue_adds_total", NONE, NONE,                             \
	  "Keys put on the work queue.")                                                           \
	X(WORKQUEUE_RETRIES, COUNTER, "workqueue_retries_total", NONE, NONE,                       \
	  "Keys put back on the work queue after a failure.")                                      \
	X(ETCD_REQUESTS, COUNTER, "etcd_requests_total", STORE_OP, RESULT, "Requests to etcd.")    \
	X(ETCD_REQUEST_DURATION, HISTOGRAM, "etcd_request_duration_seconds", STORE_OP, NONE,       \
	  "Duration of requests to etcd; a watch counts until it ends.")                           \
	X(WATCH_RESTARTS, COUNTER, "watch_restarts_total", RESTART, NONE,                          \
	  "Times that the watch of the store began anew.")                                         \
	X(WATCH_CONNECTED, GAUGE, "watch_connected", NONE, NONE,                                   \
	  "1 while the watch of the store stands, 0 while changes do not arrive.")                 \
	X(WATCH_LAST_EVENT, GAUGE_NS, "watch_last_event_timestamp_seconds", NONE, NONE,            \
	  "Unix time of the last change that came from the store, 0 before the first.")            \
	X(EVENT_TO_KERNEL, HISTOGRAM, "event_to_kernel_seconds", NONE, NONE,                       \
	  "Time from a change's arrival to the kernel's acknowledgement of its route.")            \
	X(LIMITS_NEAR, GAUGE, "limits_near", LIMIT, NONE,                                          \
	  "1 where a limit of the kernel will cost packets soon, as poplinctl status explains.")   \
	X(RELOAD_OK, GAUGE, "config_last_reload_successful", NONE, NONE,                           \
	  "1 if the last read of the configuration was accepted, 0 if it was refused.")            \
	X(RELOAD_TIME, GAUGE_NS, "config_last_reload_success_timestamp_seconds", NONE, NONE,       \
	  "Unix time of the last configuration that was accepted.")                                \
	X(CNI_OPERATIONS, COUNTER, "cni_operations_total", COMMAND, RESULT,                        \
	  "Runs of the CNI plugin that it told of.")                                               \
	X(CNI_DURATION, HISTOGRAM, "cni_duration_seconds", COMMAND, NONE,                          \
	  "Duration of the CNI plugin's runs, without the start of its process.")                  \
	X(IPAM_ADDRESSES, GAUGE, "ipam_addresses", NONE, NONE, "Pod addresses in use.")            \
	X(IPAM_COLLECTED, COUNTER, "ipam_collected_total", NONE, NONE,                             \
	  "Pod addresses released by the agent, as their pods were gone.")                         \
	X(IPAM_CAPACITY, GAUGE, "ipam_capacity", NONE, NONE,                                       \
	  "Pod addresses that the node's subnet has.")

enum metric {
#define METRIC_ENUM(id, kind, name, label1, label2, help) METRIC_##id,
	METRIC_TABLE(METRIC_ENUM)
#undef METRIC_ENUM
		METRICS
};

/* -- counting -------------------------------------------------------------- */

/*
 * label1 and label2 are values of the metric's label sets in the table's order, and 0 where it has
 * none. A label or kind that does not fit the metric is a bug and asserted.
 */
void metric_add(enum metric m, unsigned label1, unsigned label2, uint64_t n); /* COUNTER */
void metric_set(enum metric m, unsigned label1, int64_t value); /* GAUGE; GAUGE_NS: nanoseconds */
void metric_observe(enum metric m, unsigned label1, int64_t duration_ns); /* HISTOGRAM */

static inline void metric_inc(enum metric m)
{
	metric_add(m, 0, 0, 1);
}

static inline void metric_inc_label(enum metric m, unsigned label1)
{
	metric_add(m, label1, 0, 1);
}

static inline void metric_inc_labels(enum metric m, unsigned label1, unsigned label2)
{
	metric_add(m, label1, label2, 1);
}

/* NETLINK_ERRORS by the (negative) errno of the kernel's answer. */
void metric_netlink_error(int code);
/* ETCD_REQUESTS and ETCD_REQUEST_DURATION: fits store_config.observe. */
void metric_observe_store(enum store_op op, int result, int64_t duration_ns, void *arg);

/* -- reading --------------------------------------------------------------- */

/* Value of a COUNTER or GAUGE; of a HISTOGRAM the number of observations. */
int64_t metric_get(enum metric m, unsigned label1, unsigned label2);
/* Appends everything to b. -ENOMEM. */
int metrics_write(struct buf *b);
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
void metrics_reset(void); /* all to zero: for tests */

#endif

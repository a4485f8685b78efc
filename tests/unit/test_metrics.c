/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Metrics: cells do not run into each other, histograms add up, and the text is valid. */
#include "unit.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "agent/metrics.h"
#include "poplin/base/clock.h"

static int setup(void **state)
{
	metrics_reset();
	return 0;
}

static char *text_of_all(struct buf *b)
{
	buf_reset(b);
	assert_int_equal(metrics_write(b), 0);
	return b->data;
}

static void assert_line(const char *text, const char *line)
{
	char wanted[512];

	snprintf(wanted, sizeof(wanted), "\n%s\n", line);
	if (!strstr(text, wanted))
		fail_msg("no line '%s' in:\n%s", line, text);
}

/* -- the format, checked by a small reader --------------------------------- */

static bool name_char(char c, bool first)
{
	return isalpha((unsigned char)c) || c == '_' || c == ':' ||
	       (!first && isdigit((unsigned char)c));
}

static const char *skip_name(const char *c)
{
	assert_true(name_char(*c, true));
	while (name_char(*c, false))
		c++;
	return c;
}

/* {name="value",...}; a value holds nothing that would need an escape. */
static const char *skip_labels(const char *c)
{
	if (*c != '{')
		return c;
	do {
		c = skip_name(c + 1);
		assert_int_equal(*c++, '=');
		assert_int_equal(*c++, '"');
		assert_int_not_equal(*c, '"'); /* an empty label is as none */
		while (*c != '"') {
			assert_true(*c >= ' ' && *c <= '~' && *c != '\\');
			c++;
		}
		c++;
	} while (*c == ',');
	assert_int_equal(*c, '}');
	return c + 1;
}

static void check_sample(const char *line, const char *family, bool histogram)
{
	size_t n = strlen(family);
	const char *end = skip_name(line), *suffix = line + n;
	char *rest;

	assert_memory_equal(line, family, n);
	if (histogram)
		assert_true(strncmp(suffix, "_bucket{", 8) == 0 ||
			    strncmp(suffix, "_sum", 4) == 0 || strncmp(suffix, "_count", 6) == 0);
	else
		assert_ptr_equal(suffix, end);
	end = skip_labels(end);
	assert_int_equal(*end, ' ');
	strtod(end + 1, &rest);
	assert_true(rest > end + 1 && *rest == '\0');
}

static void check_format(char *text)
{
	char family[128] = "", type[32] = "";
	unsigned families = 0;
	char *line;

	assert_int_equal(text[strlen(text) - 1], '\n');
	while ((line = strsep(&text, "\n"))) {
		if (strncmp(line, "# HELP ", 7) == 0) {
			assert_int_equal(sscanf(line, "# HELP %127s", family), 1);
			assert_null(strchr(line, '\\'));
			assert_int_equal(line[strlen(line) - 1], '.');
			families++;
		} else if (strncmp(line, "# TYPE ", 7) == 0) {
			char name[128];

			assert_int_equal(sscanf(line, "# TYPE %127s %31s", name, type), 2);
			assert_string_equal(name, family);
			if (strcmp(type, "counter") == 0)
				assert_string_equal(name + strlen(name) - 6, "_total");
		} else if (*line) {
			check_sample(line, family, strcmp(type, "histogram") == 0);
		}
	}
	assert_int_equal(families, METRICS + 1); /* and build_info */
}

static void test_format(void **state)
{
	struct buf b = BUF_INIT;

	check_format(text_of_all(&b));
	metric_netlink_error(-EEXIST);
	metric_observe_store(STORE_TXN, -ETIMEDOUT, 3 * NS_PER_S, NULL);
	check_format(text_of_all(&b));
	buf_done(&b);
}

/* -- values ---------------------------------------------------------------- */

static void test_counters(void **state)
{
	struct buf b = BUF_INIT;
	const char *text;

	metric_inc(METRIC_RESYNCS);
	metric_add(METRIC_RESYNCS, 0, 0, 4);
	metric_inc_label(METRIC_LEASE_RENEWALS, METRIC_LOST);
	metric_inc_labels(METRIC_ROUTE_OPERATIONS, METRIC_DELETE, METRIC_ERROR);
	assert_int_equal(metric_get(METRIC_RESYNCS, 0, 0), 5);
	text = text_of_all(&b);
	assert_line(text, "poplin_resyncs_total 5");
	assert_line(text, "poplin_lease_renewals_total{result=\"lost\"} 1");
	assert_line(text, "poplin_lease_renewals_total{result=\"ok\"} 0");
	assert_line(text, "poplin_route_operations_total{op=\"delete\",result=\"error\"} 1");
	assert_line(text, "poplin_route_operations_total{op=\"add\",result=\"ok\"} 0");
	assert_line(text, "poplin_build_info{version=\"" PACKAGE_VERSION "\"} 1");
	buf_done(&b);
}

static void test_gauges(void **state)
{
	struct buf b = BUF_INIT;
	const char *text;

	metric_set(METRIC_PEERS, 0, 10000);
	metric_set(METRIC_ROUTES_INSTALLED, METRIC_IPV6, 7);
	metric_set(METRIC_LEASE_EXPIRY, 0, INT64_C(1700000000) * NS_PER_S + 5 * NS_PER_MS);
	text = text_of_all(&b);
	assert_line(text, "poplin_peers 10000");
	assert_line(text, "poplin_routes_installed{family=\"ipv4\"} 0");
	assert_line(text, "poplin_routes_installed{family=\"ipv6\"} 7");
	assert_line(text, "poplin_lease_expiry_timestamp_seconds 1700000000.005000000");
	metric_set(METRIC_PEERS, 0, -1);
	assert_line(text_of_all(&b), "poplin_peers -1");
	buf_done(&b);
}

static void test_histogram(void **state)
{
	struct buf b = BUF_INIT;
	const char *text;

	metric_observe(METRIC_EVENT_TO_KERNEL, 0, NS_PER_MS);	    /* exactly on a bound */
	metric_observe(METRIC_EVENT_TO_KERNEL, 0, NS_PER_MS + 1);   /* just beyond it */
	metric_observe(METRIC_EVENT_TO_KERNEL, 0, -5);		    /* a clock that went back */
	metric_observe(METRIC_EVENT_TO_KERNEL, 0, 3600 * NS_PER_S); /* beyond every bound */
	assert_int_equal(metric_get(METRIC_EVENT_TO_KERNEL, 0, 0), 4);
	text = text_of_all(&b);
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"0.0001\"} 1");
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"0.0005\"} 1");
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"0.001\"} 2");
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"0.0025\"} 3");
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"60\"} 3");
	assert_line(text, "poplin_event_to_kernel_seconds_bucket{le=\"+Inf\"} 4");
	assert_line(text, "poplin_event_to_kernel_seconds_sum 3600.002000001");
	assert_line(text, "poplin_event_to_kernel_seconds_count 4");
	/* its neighbours in the array saw nothing of it */
	assert_line(text, "poplin_config_last_reload_successful 0");
	assert_line(text, "poplin_watch_last_event_timestamp_seconds 0.000000000");
	buf_done(&b);
}

static void test_store(void **state)
{
	struct buf b = BUF_INIT;
	const char *text;

	for (unsigned op = 0; op < STORE_OPS; op++)
		metric_observe_store((enum store_op)op, op % 2 ? -EAGAIN : 0, NS_PER_S, NULL);
	text = text_of_all(&b);
	for (unsigned op = 0; op < STORE_OPS; op++) {
		char line[128];

		snprintf(line, sizeof(line),
			 "poplin_etcd_requests_total{op=\"%s\",result=\"%s\"} 1",
			 store_op_name((enum store_op)op), op % 2 ? "error" : "ok");
		assert_line(text, line);
		snprintf(line, sizeof(line),
			 "poplin_etcd_request_duration_seconds_count{op=\"%s\"} 1",
			 store_op_name((enum store_op)op));
		assert_line(text, line);
	}
	buf_done(&b);
}

static void test_netlink_errors(void **state)
{
	struct buf b = BUF_INIT;
	const char *text = text_of_all(&b);

	assert_null(strstr(text, "poplin_netlink_errors_total{"));
	metric_netlink_error(-EEXIST);
	metric_netlink_error(-EEXIST);
	metric_netlink_error(-ENOBUFS);
	metric_netlink_error(-100000); /* not Linux's */
	metric_netlink_error(-58);     /* a hole in Linux's list */
	metric_netlink_error(17);      /* a caller's mistake must not cost the agent */
	text = text_of_all(&b);
	assert_line(text, "poplin_netlink_errors_total{errno=\"EEXIST\"} 2");
	assert_line(text, "poplin_netlink_errors_total{errno=\"ENOBUFS\"} 1");
	assert_line(text, "poplin_netlink_errors_total{errno=\"other\"} 3");
	buf_done(&b);
}

/* -- threads --------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS	2000

static void *count(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		metric_inc(METRIC_WORKQUEUE_ADDS);
		metric_observe(METRIC_RESYNC_DURATION, 0, i);
		metric_set(METRIC_WORKQUEUE_DEPTH, 0, i);
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	struct buf b = BUF_INIT;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
	for (int i = 0; i < 10; i++)
		check_format(text_of_all(&b));
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(metric_get(METRIC_WORKQUEUE_ADDS, 0, 0), THREADS * ROUNDS);
	assert_int_equal(metric_get(METRIC_RESYNC_DURATION, 0, 0), THREADS * ROUNDS);
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_format, setup),
		cmocka_unit_test_setup(test_counters, setup),
		cmocka_unit_test_setup(test_gauges, setup),
		cmocka_unit_test_setup(test_histogram, setup),
		cmocka_unit_test_setup(test_store, setup),
		cmocka_unit_test_setup(test_netlink_errors, setup),
		cmocka_unit_test_setup(test_threads, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

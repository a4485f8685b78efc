/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Settings: defaults, ranges, origins, messages, what fits together, reload, documentation. */
#include "unit.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/settings.h"
#include "agent/settings_types.h"
#include "poplin/base/buf.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"

static char file[] = "/tmp/poplin-settings-XXXXXX";
static struct settings s;
static struct err err;
static struct buf warnings;

static int group_setup(void **state)
{
	int fd = mkstemp(file);

	return fd < 0 ? -1 : close(fd);
}

static int group_teardown(void **state)
{
	buf_done(&warnings);
	return unlink(file);
}

/* A host name that is a node name, whatever the machine that runs the tests is called. */
static int setup(void **state)
{
	for (unsigned id = 0; id < SETTINGS; id++)
		unsetenv(setting_name((enum setting)id));
	setenv("NODE_NAME", "n1", 1);
	memset(&s, 0xee, sizeof(s));
	err = ERR_INIT;
	return 0;
}

static void on_warning(const char *text, void *arg)
{
	assert_int_equal(buf_printf(&warnings, "%s\n", text), 0);
}

static int load(const char *text)
{
	FILE *out = fopen(file, "w");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
	buf_reset(&warnings);
	err = ERR_INIT;
	return settings_load(&s, file, true, on_warning, NULL, &err);
}

static void assert_loads(const char *text)
{
	if (load(text) < 0)
		fail_msg("'%s' is refused: %s", text, err.text);
}

static void assert_refused(const char *text, const char *message)
{
	struct settings before = s;

	assert_int_equal(load(text), -EINVAL);
	if (!strstr(err.text, message))
		fail_msg("'%s' not in '%s'", message, err.text);
	assert_memory_equal(&before, &s, sizeof(s));
}

static void assert_warned(const char *message)
{
	if (!strstr(warnings.data ? warnings.data : "", message))
		fail_msg("'%s' not in '%s'", message, warnings.data ? warnings.data : "");
}

/* -- origins --------------------------------------------------------------- */

static void test_defaults(void **state)
{
	char text[PREFIX_TEXT_MAX];

	assert_loads("");
	assert_string_equal(s.etcd_host, "127.0.0.1:2379");
	assert_string_equal(s.etcd_prefix, "/poplin/nodes");
	assert_string_equal(s.etcd_counter_key, "/poplin/counter");
	assert_string_equal(prefix_format(&s.pods, text), "10.2.0.0/16");
	assert_int_equal(s.ip_subnet_margin, 8);
	assert_int_equal(s.network.node_len, 24);
	assert_string_equal(s.node_name, "n1");
	assert_int_equal(s.node_address.family, AF_UNSPEC);
	assert_string_equal(s.node_interface, "");
	assert_int_equal(s.lease_ttl_s, 120);
	assert_string_equal(s.bridge_name, "poplin0");
	assert_int_equal(s.mtu, 0);
	assert_string_equal(s.cni_config_location, "/etc/cni/net.d/10-poplin.conflist");
	assert_string_equal(s.cni_plugin_location, "/opt/cni/bin/poplin");
	assert_string_equal(s.cni_version, "1.0.0");
	assert_string_equal(s.cni_name, "poplin");
	assert_string_equal(s.cni_type, "poplin");
	assert_int_equal(s.route_protocol, 84);
	assert_int_equal(s.route_workers, 4);
	assert_int_equal(s.route_grace_s, 30);
	assert_int_equal(s.resync_interval_s, 300);
	assert_string_equal(s.metrics_address, "127.0.0.1:9476");
	assert_int_equal(s.log_level, LOG_INFO);
	assert_int_equal(s.log_format, LOG_TEXT);
	assert_string_equal(s.state_dir, "/run/poplin");
	assert_int_equal(warnings.len, 0);
}

static void test_host_name(void **state)
{
	char name[NODE_NAME_TEXT_MAX] = "";

	gethostname(name, sizeof(name) - 1);
	unsetenv("NODE_NAME");
	if (!node_name_valid(name)) {
		assert_refused("", "set NODE_NAME");
		return;
	}
	assert_loads("");
	assert_string_equal(s.node_name, name);
}

static void test_precedence(void **state)
{
	assert_loads("LEASE_TTL=30\nROUTE_WORKERS=2\n");
	assert_int_equal(s.lease_ttl_s, 30);
	assert_int_equal(s.source[SETTING_LEASE_TTL].origin, SETTING_ORIGIN_FILE);
	assert_int_equal(s.source[SETTING_ROUTE_WORKERS].line, 2);
	assert_int_equal(s.source[SETTING_MTU].origin, SETTING_ORIGIN_DEFAULT);
	setenv("LEASE_TTL", "40", 1);
	assert_loads("LEASE_TTL=30\nROUTE_WORKERS=2\n");
	assert_int_equal(s.lease_ttl_s, 40);
	assert_int_equal(s.source[SETTING_LEASE_TTL].origin, SETTING_ORIGIN_ENVIRONMENT);
	/* An empty value is as none, wherever it stands. */
	setenv("LEASE_TTL", "", 1);
	assert_loads("LEASE_TTL=30\nROUTE_WORKERS=\n");
	assert_int_equal(s.lease_ttl_s, 30);
	assert_int_equal(s.route_workers, 4);
	/* The environment also hides a wrong value of the file. */
	setenv("LEASE_TTL", "50", 1);
	assert_loads("LEASE_TTL=never\n");
	assert_int_equal(s.lease_ttl_s, 50);
}

static void test_file(void **state)
{
	assert_int_equal(settings_load(&s, "/nonexistent/poplin.conf", false, NULL, NULL, &err), 0);
	assert_int_equal(settings_load(&s, NULL, false, NULL, NULL, &err), 0);
	assert_int_equal(settings_load(&s, "/nonexistent/poplin.conf", true, NULL, NULL, &err),
			 -ENOENT);
	assert_non_null(strstr(err.text, "/nonexistent/poplin.conf"));
	assert_refused("LEASE_TTL\n", ":1");
	assert_loads("# a comment\n\n  LOG_LEVEL = \"debug\"  \nLEASE_TTL='60'\n");
	assert_int_equal(s.log_level, LOG_DEBUG);
	assert_int_equal(s.lease_ttl_s, 60);
	assert_loads("LEASE_TTL=60\nLEASE_TTL=70\n");
	assert_int_equal(s.lease_ttl_s, 70);
	assert_warned(":2: LEASE_TTL was set in line 1 already");
}

static void test_unknown_names(void **state)
{
	assert_loads("LEASE_TLL=60\netcd_host=a\nHTTP_PROXY=x\nROUTE_WORKER=9\n");
	assert_warned(":1: LEASE_TLL is no setting of poplin (did you mean LEASE_TTL?), ignoring");
	assert_warned(":2: etcd_host is no setting of poplin (did you mean ETCD_HOST?), ignoring");
	assert_warned(":3: HTTP_PROXY is no setting of poplin, ignoring");
	assert_warned(":4: ROUTE_WORKER is no setting of poplin (did you mean ROUTE_WORKERS?)");
	assert_int_equal(s.lease_ttl_s, 120);
	assert_int_equal(s.route_workers, 4);
}

/* -- values ---------------------------------------------------------------- */

static void test_messages(void **state)
{
	char expected[512];

	snprintf(expected, sizeof(expected),
		 "LEASE_TTL='3' (from %s:2): too small; allowed: a whole number from 5 to 86400",
		 file);
	assert_refused("#\nLEASE_TTL=3\n", expected);
	assert_string_equal(err.text, expected);
	setenv("LOG_LEVEL", "loud", 1);
	assert_refused("", "LOG_LEVEL='loud' (from the environment): no such level; "
			   "allowed: error, warn, info or debug");
	unsetenv("LOG_LEVEL");
	assert_refused("CNI_VERSION=0.2.0\n", "allowed: 0.3.0, 0.3.1, 0.4.0, 1.0.0 or 1.1.0");
}

static const struct {
	const char *name;
	unsigned min, max;
} numbers[] = {
	{ "LEASE_TTL", 5, 86400 },   { "ROUTE_WORKERS", 1, 64 },      { "ROUTE_PROTOCOL", 5, 255 },
	{ "ROUTE_GRACE", 0, 86400 }, { "RESYNC_INTERVAL", 1, 86400 },
};

static void test_numbers(void **state)
{
	static const char *const wrong[] = { "x",	  "1x",	  "-1",	 "+7",
					     "7.0",	  "0x10", "1 0", "99999999999999999999",
					     "4294967301" };
	char line[128];

	for (size_t i = 0; i < countof(numbers); i++) {
		snprintf(line, sizeof(line), "%s=%u\n", numbers[i].name, numbers[i].min);
		assert_loads(line);
		snprintf(line, sizeof(line), "%s=%u\n", numbers[i].name, numbers[i].max);
		assert_loads(line);
		if (numbers[i].min > 0) {
			snprintf(line, sizeof(line), "%s=%u\n", numbers[i].name,
				 numbers[i].min - 1);
			assert_refused(line, "too small");
		}
		snprintf(line, sizeof(line), "%s=%u\n", numbers[i].name, numbers[i].max + 1);
		assert_refused(line, "too large");
		for (size_t j = 0; j < countof(wrong); j++) {
			snprintf(line, sizeof(line), "%s=%s\n", numbers[i].name, wrong[j]);
			assert_refused(line, numbers[i].name);
		}
	}
	assert_loads("MTU=576\n");
	assert_loads("MTU=65535\n");
	assert_refused("MTU=575\n", "allowed: 0 or a whole number from 576 to 65535");
	assert_refused("MTU=65536\n", "too large");
}

static const char *const good[] = {
	"ETCD_HOST=etcd",
	"ETCD_HOST=https://a:2379,http://b:2379,c",
	"ETCD_HOST=[::1]:2379",
	"ETCD_PREFIX=/a/b/",
	"ETCD_COUNTER_KEY=c",
	"IP_SUBNET=fd00:10::/48",
	"NODE_ADDRESS=192.168.0.1",
	"NODE_INTERFACE=eth0.100",
	"NODE_NAME=a.b-c",
	"BRIDGE_NAME=br0",
	"CNI_CONFIG_LOCATION=/x/y.conf",
	"CNI_NAME=a_b.c-d",
	"CNI_VERSION=0.3.1",
	"METRICS_ADDRESS=0.0.0.0:0",
	"METRICS_ADDRESS=[::]:9476",
	"METRICS_ADDRESS=localhost:1",
	"STATE_DIR=/run/p/",
	"LOG_FORMAT=json",
};

static const char *const bad[] = {
	"ETCD_HOST=ftp://a",
	"ETCD_HOST=a:99999",
	"ETCD_HOST=a:0",
	"ETCD_HOST=,",
	"ETCD_PREFIX=///",
	"ETCD_PREFIX=/a b",
	"IP_SUBNET=10.2.0.0",
	"IP_SUBNET=10.2.0.1/16",
	"IP_SUBNET=10.2.0.0/33",
	"IP_SUBNET=127.0.0.0/8",
	"IP_SUBNET=0.0.0.0/4",
	"IP_SUBNET=224.0.0.0/8",
	"IP_SUBNET=169.254.0.0/16",
	"IP_SUBNET=fe80::/48",
	"IP_SUBNET=ff00::/48",
	"IP_SUBNET=x",
	"NODE_ADDRESS=127.0.0.1",
	"NODE_ADDRESS=224.0.0.1",
	"NODE_ADDRESS=host",
	"NODE_INTERFACE=sixteencharacter",
	"NODE_INTERFACE=a/b",
	"NODE_INTERFACE=eth%d",
	"BRIDGE_NAME=..",
	"BRIDGE_NAME=a:b",
	"CNI_CONFIG_LOCATION=/x/y.json",
	"CNI_CONFIG_LOCATION=y.conf",
	"CNI_PLUGIN_LOCATION=/opt/cni/bin/",
	"CNI_PLUGIN_LOCATION=poplin",
	"CNI_NAME=.x",
	"CNI_NAME=a/b",
	"CNI_TYPE=../sh",
	"CNI_CHAIN=chain.json",
	"CNI_CHAIN=/etc/poplin/",
	"CNI_VERSION=1.0",
	"METRICS_ADDRESS=9476",
	"METRICS_ADDRESS=:9476",
	"METRICS_ADDRESS=127.0.0.1",
	"METRICS_ADDRESS=127.0.0.1:65536",
	"METRICS_ADDRESS=127.0.0.1:",
	"METRICS_ADDRESS=::1:9476",
	"METRICS_ADDRESS=[::1:9476",
	"METRICS_ADDRESS=[127.0.0.1]:9476",
	"METRICS_ADDRESS=name:9476",
	"METRICS_ADDRESS=]:9476",
	"METRICS_ADDRESS=[:1",
	"STATE_DIR=/",
	"STATE_DIR=run",
	"LOG_LEVEL=trace",
	"LOG_FORMAT=xml",
};

static void test_values(void **state)
{
	char name[64];

	for (size_t i = 0; i < countof(good); i++)
		assert_loads(good[i]);
	for (size_t i = 0; i < countof(bad); i++) {
		snprintf(name, sizeof(name), "%.*s='", (int)strcspn(bad[i], "="), bad[i]);
		assert_refused(bad[i], name);
		assert_non_null(strstr(err.text, "; allowed: "));
	}
	unsetenv("NODE_NAME");
	assert_refused("NODE_NAME=under_score", "NODE_NAME='under_score'");
	assert_refused("NODE_NAME=-a", "NODE_NAME='-a'");
	assert_loads("NODE_NAME=n1\nETCD_PREFIX=/a/b//\nSTATE_DIR=/run/p/\n");
	assert_string_equal(s.etcd_prefix, "/a/b");
	assert_string_equal(s.state_dir, "/run/p");
}

static void test_long_values(void **state)
{
	char line[2200];

	for (size_t n = 250; n < 2100; n += 50) {
		snprintf(line, sizeof(line), "STATE_DIR=/%0*d\n", (int)n, 0);
		assert_refused(line, "characters are too long");
		assert_non_null(strstr(err.text, "; allowed: the absolute path of a folder"));
	}
	snprintf(line, sizeof(line), "ETCD_HOST=%0*d\n", 1024, 0);
	assert_refused(line, "1024 characters are too long, 1023 fit");
	snprintf(line, sizeof(line), "BRIDGE_NAME=sixteencharacter\n");
	assert_refused(line, "16 characters are too long, 15 fit");
}

/* -- together -------------------------------------------------------------- */

static void test_together(void **state)
{
	assert_refused("IP_SUBNET_MARGIN=15\n", "IP_SUBNET='10.2.0.0/16' (the default) and "
						"IP_SUBNET_MARGIN='15' (from ");
	assert_refused("IP_SUBNET=10.2.0.0/30\n", "IP_SUBNET_MARGIN='8' (the default)");
	assert_refused("NODE_ADDRESS=10.2.3.4\n", "cannot lie in the pod network");
	assert_refused("NODE_ADDRESS=fd00::1\n", "both must be IPv4 or both IPv6");
	assert_refused("IP_SUBNET=fd00:10::/48\nMTU=1000\n", "1280");
	assert_refused("BRIDGE_NAME=eth0\nNODE_INTERFACE=eth0\n", "the bridge cannot be");
	assert_refused("ETCD_COUNTER_KEY=/poplin/nodes/x\n", "among the records");
	assert_refused("ETCD_COUNTER_KEY=/poplin/nodes-subnets/x\n", "among the records");
	assert_refused("ETCD_COUNTER_KEY=/poplin/nodes\n", "among the records");
	assert_loads("ETCD_COUNTER_KEY=/poplin/nodes-counter\n");
	assert_refused("CNI_PLUGIN_LOCATION=/a.conf\nCNI_CONFIG_LOCATION=/a.conf\n", "one path");
	assert_refused("CNI_CHAIN=/x.json\nCNI_CONFIG_LOCATION=/a.conf\n",
		       "CNI_CHAIN='/x.json' (from ");
	assert_non_null(strstr(err.text, " and CNI_CONFIG_LOCATION='/a.conf' (from "));
	assert_refused("CNI_CHAIN=/nonexistent/x.json\n", "CNI_CHAIN: /nonexistent/x.json: open");
	assert_loads("CNI_TYPE=other\n");
	assert_warned("CNI_TYPE=other is not the file name");
	assert_loads("ROUTE_PROTOCOL=12\n");
	assert_warned("ROUTE_PROTOCOL=12 is used by others");
	assert_loads("ROUTE_PROTOCOL=80\n");
	assert_warned("Calico");
}

/* -- reload ---------------------------------------------------------------- */

static void test_compare(void **state)
{
	static struct settings running;
	struct settings_diff diff;

	assert_loads("LEASE_TTL=60\nNODE_NAME=other\n");
	running = s;
	settings_compare(&running, &s, &diff);
	assert_false(diff.any_reloadable);
	assert_string_equal(diff.refused, "");
	/* The same values from elsewhere are no change. */
	setenv("LEASE_TTL", "60", 1);
	assert_loads("IP_SUBNET=10.2.0.0/16\nSTATE_DIR=/run/poplin/\n");
	settings_compare(&running, &s, &diff);
	assert_false(diff.any_reloadable);
	assert_string_equal(diff.refused, "");
	unsetenv("LEASE_TTL");

	assert_loads("LEASE_TTL=70\nETCD_HOST=e\nROUTE_WORKERS=5\nRESYNC_INTERVAL=9\n"
		     "LOG_LEVEL=debug\nLOG_FORMAT=json\nIP_SUBNET=10.3.0.0/16\nMTU=1400\n");
	settings_compare(&running, &s, &diff);
	assert_true(diff.any_reloadable);
	assert_string_equal(diff.refused, "IP_SUBNET, MTU");
	assert_true(diff.changed[SETTING_LEASE_TTL] && diff.changed[SETTING_ETCD_HOST] &&
		    diff.changed[SETTING_ROUTE_WORKERS] && diff.changed[SETTING_RESYNC_INTERVAL] &&
		    diff.changed[SETTING_LOG_LEVEL] && diff.changed[SETTING_LOG_FORMAT] &&
		    diff.changed[SETTING_MTU]);
	assert_false(diff.changed[SETTING_STATE_DIR]);

	settings_keep(&running, &s);
	settings_compare(&running, &s, &diff);
	assert_true(diff.any_reloadable);
	assert_string_equal(diff.refused, "");
	assert_int_equal(s.lease_ttl_s, 70);
	assert_int_equal(s.mtu, 0);
	assert_memory_equal(&s.network, &running.network, sizeof(s.network));
}

/* -- documentation --------------------------------------------------------- */

static char *printed(void (*print)(FILE *))
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	print(out);
	fclose(out);
	return text;
}

static void print_settings(FILE *out)
{
	settings_print(&s, out);
}

static void test_every_wrong_value_is_told(void **state)
{
	assert_refused("LEASE_TTL=soon\nMTU=1\nROUTE_WORKERS=4\nLOG_LEVEL=loud\n",
		       "LOG_LEVEL='loud'");
	assert_warned("LEASE_TTL='soon'");
	assert_warned("MTU='1'");
	assert_null(strstr(warnings.data, "ROUTE_WORKERS"));
	assert_null(strstr(warnings.data, "LOG_LEVEL"));
	setenv("LOG_FORMAT", "xml", 1);
	assert_refused("LEASE_TTL=soon\nno setting\n", "expected NAME=value");
	assert_warned("LEASE_TTL='soon'");
	assert_refused("LEASE_TTL=soon\n", "LOG_FORMAT='xml'");
	assert_warned("LEASE_TTL='soon'");
	unsetenv("LOG_FORMAT");
	/* What does not fit together, too. */
	assert_refused("NODE_ADDRESS=10.2.0.1\nETCD_CERT_FILE=/nonexistent\n", "access to etcd");
	assert_warned("a node's own address cannot lie in the pod network");
}

/* What --check-config prints is itself a configuration with the same meaning. */
static void test_print(void **state)
{
	static struct settings before;
	struct settings_diff diff;
	char *text;

	assert_loads("LEASE_TTL=33\nNODE_ADDRESS=192.168.7.1\nETCD_HOST=a,b\nLOG_FORMAT=json\n");
	before = s;
	text = printed(print_settings);
	assert_non_null(strstr(text, ":1\nLEASE_TTL=33\n"));
	assert_non_null(strstr(text, "# the default\nMTU=0\n"));
	assert_non_null(
		strstr(text, "# the default (that of the default route)\nNODE_INTERFACE=\n"));
	assert_non_null(strstr(text, "# the default (none)\nETCD_USER=\n"));
	assert_null(strstr(text, "(that of the interface)"));
	unsetenv("NODE_NAME");
	assert_loads(text);
	settings_compare(&before, &s, &diff);
	assert_false(diff.any_reloadable);
	assert_string_equal(diff.refused, "");
	assert_int_equal(warnings.len, 0);
	free(text);
}

static void test_usage(void **state)
{
	char *text = printed(settings_usage), *line = text;

	for (unsigned id = 0; id < SETTINGS; id++) {
		char wanted[SETTING_LIST_MAX];

		snprintf(wanted, sizeof(wanted), "  %s=%s", setting_name((enum setting)id),
			 setting_default((enum setting)id));
		assert_non_null(strstr(text, wanted));
	}
	for (; *line; line += strcspn(line, "\n") + 1)
		assert_true(strcspn(line, "\n") <= 100);
	free(text);
}

static const char *source_path(const char *name, char *ret, size_t size)
{
	const char *dir = getenv("srcdir"); /* automake's harness sets it */

	snprintf(ret, size, "%s/%s", dir ? dir : ".", name);
	return ret;
}

#define MDOC_BEGIN ".\\\" settings: begin (from src/agent/settings.h, see tests/unit)\n"
#define MDOC_END   ".\\\" settings: end\n"

/*
 * The list in the manual page is what settings_mdoc() prints. After a change of the table, run this
 * test with POPLIN_UPDATE=1 to write it anew.
 */
static void test_manual(void **state)
{
	auto_buf struct buf page = BUF_INIT;
	char path[256], *list = printed(settings_mdoc), *begin, *end;

	assert_int_equal(file_read(source_path("doc/poplin.conf.5", path, sizeof(path)), 1 << 20,
				   &page, &err),
			 0);
	begin = strstr(page.data, MDOC_BEGIN);
	end = strstr(page.data, MDOC_END);
	assert_non_null(begin);
	assert_non_null(end);
	begin += strlen(MDOC_BEGIN);
	if (getenv("POPLIN_UPDATE")) {
		auto_buf struct buf updated = BUF_INIT;

		buf_add(&updated, page.data, (size_t)(begin - page.data));
		buf_adds(&updated, list);
		buf_adds(&updated, end);
		assert_int_equal(file_write_atomic(path, 0644, updated.data, updated.len, &err), 0);
	} else {
		*end = '\0';
		assert_string_equal(begin, list);
	}
	free(list);
}

/* The file that is installed shows every setting, commented out, with its default. */
static void test_installed_file(void **state)
{
	auto_buf struct buf text = BUF_INIT;
	char path[256], line[SETTING_LIST_MAX];

	assert_int_equal(file_read(source_path("init/poplin.conf", path, sizeof(path)), 1 << 20,
				   &text, &err),
			 0);
	for (unsigned id = 0; id < SETTINGS; id++) {
		snprintf(line, sizeof(line), "\n#%s=%s\n", setting_name((enum setting)id),
			 setting_default((enum setting)id));
		if (!strstr(text.data, line))
			fail_msg("%s lacks the line%s", path, line);
	}
	assert_loads(text.data);
	assert_int_equal(warnings.len, 0);
}

/* The README's table has a line for each setting, with its default and an R if it reloads. */
static void test_readme(void **state)
{
	auto_buf struct buf text = BUF_INIT;
	char path[256], line[SETTING_LIST_MAX];

	assert_int_equal(
		file_read(source_path("README.md", path, sizeof(path)), 1 << 20, &text, &err), 0);
	for (unsigned id = 0; id < SETTINGS; id++) {
		const char *value = setting_default((enum setting)id);
		const char *reload = setting_reloadable((enum setting)id) ? " R " : " ";

		if (*value)
			snprintf(line, sizeof(line), "\n| `%s` | `%s` |%s|",
				 setting_name((enum setting)id), value, reload);
		else
			snprintf(line, sizeof(line), "\n| `%s` | ", setting_name((enum setting)id));
		if (!strstr(text.data, line))
			fail_msg("%s lacks the line%s", path, line);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_defaults, setup),
		cmocka_unit_test_setup(test_host_name, setup),
		cmocka_unit_test_setup(test_precedence, setup),
		cmocka_unit_test_setup(test_file, setup),
		cmocka_unit_test_setup(test_unknown_names, setup),
		cmocka_unit_test_setup(test_messages, setup),
		cmocka_unit_test_setup(test_numbers, setup),
		cmocka_unit_test_setup(test_values, setup),
		cmocka_unit_test_setup(test_long_values, setup),
		cmocka_unit_test_setup(test_together, setup),
		cmocka_unit_test_setup(test_compare, setup),
		cmocka_unit_test_setup(test_every_wrong_value_is_told, setup),
		cmocka_unit_test_setup(test_print, setup),
		cmocka_unit_test_setup(test_usage, setup),
		cmocka_unit_test_setup(test_manual, setup),
		cmocka_unit_test_setup(test_installed_file, setup),
		cmocka_unit_test_setup(test_readme, setup),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

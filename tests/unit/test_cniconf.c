/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The CNI configuration that the agent writes, and the plugins of CNI_CHAIN behind its own. */
#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/cniconf.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"

static char file[] = "/tmp/poplin-test-chain.XXXXXX";
static struct settings s;
static struct err err;

DEFINE_AUTO(json_t *, json_decref)

static int group_setup(void **state)
{
	int fd = mkstemp(file);

	return fd < 0 ? -1 : close(fd);
}

static int group_teardown(void **state)
{
	return unlink(file);
}

static int setup(void **state)
{
	for (unsigned id = 0; id < SETTINGS; id++)
		unsetenv(setting_name((enum setting)id));
	setenv("NODE_NAME", "n1", 1);
	err = ERR_INIT;
	return settings_load(&s, NULL, false, NULL, NULL, &err);
}

static int format(struct buf *ret)
{
	struct prefix subnet;

	err = ERR_INIT;
	assert_int_equal(prefix_parse("10.2.7.0/24", &subnet, NULL), 0);
	return cniconf_format(&s, &subnet, 1450, ret, &err);
}

static json_t *formatted(void)
{
	auto_buf struct buf text = BUF_INIT;
	json_t *json;

	if (format(&text) < 0)
		fail_msg("%s", err.text);
	json = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(json);
	return json;
}

static void chain(const char *text)
{
	assert_int_equal(file_write_atomic(file, 0600, text, strlen(text), NULL), 0);
	strlcpy(s.cni_chain, file, sizeof(s.cni_chain));
}

/* The plugin's object, of a list or alone. */
static void assert_own(const json_t *plugin)
{
	auto_(json_decref) json_t *ipam =
		json_pack("{ss s[[{ss}]] ss}", "type", "poplin", "ranges", "subnet", "10.2.7.0/24",
			  "dataDir", "/run/poplin/ipam");

	assert_string_equal(json_string_value(json_object_get(plugin, "type")), "poplin");
	assert_string_equal(json_string_value(json_object_get(plugin, "bridge")), "poplin0");
	assert_string_equal(json_string_value(json_object_get(plugin, "network")), "10.2.0.0/16");
	assert_string_equal(json_string_value(json_object_get(plugin, "stateDir")), "/run/poplin");
	assert_int_equal(json_integer_value(json_object_get(plugin, "mtu")), 1450);
	assert_true(json_is_true(json_object_get(plugin, "isDefaultGateway")));
	assert_true(json_is_true(json_object_get(plugin, "hairpinMode")));
	assert_true(json_equal(json_object_get(plugin, "ipam"), ipam));
}

static void assert_named(const json_t *config)
{
	assert_string_equal(json_string_value(json_object_get(config, "cniVersion")), "1.0.0");
	assert_string_equal(json_string_value(json_object_get(config, "name")), "poplin");
}

static void test_list(void **state)
{
	auto_(json_decref) json_t *config = formatted();
	const json_t *plugins = json_object_get(config, "plugins");

	assert_named(config);
	assert_int_equal(json_object_size(config), 3);
	assert_int_equal(json_array_size(plugins), 1);
	assert_own(json_array_get(plugins, 0));
}

static void test_single(void **state)
{
	auto_(json_decref) json_t *config = NULL;

	strlcpy(s.cni_config_location, "/etc/cni/net.d/10-poplin.conf",
		sizeof(s.cni_config_location));
	config = formatted();
	assert_named(config);
	assert_own(config);
	assert_null(json_object_get(config, "plugins"));
}

#define PORTMAP "{\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}"
#define TUNING	"{\"type\": \"tuning\", \"sysctl\": {\"net.core.somaxconn\": \"500\"}, \"x\": 1.5}"

/* A list, and an object with one: behind ours, in their order, with all that they have. */
static void test_chain(void **state)
{
	static const char *const texts[] = {
		"[" PORTMAP ", " TUNING "]\n",
		"{\"name\": \"x\", \"cniVersion\": \"0.4.0\", \"plugins\": [" PORTMAP "," TUNING
		"]}",
	};

	for (size_t i = 0; i < countof(texts); i++) {
		auto_(json_decref) json_t *config = NULL, *portmap = json_loads(PORTMAP, 0, NULL),
					  *tuning = json_loads(TUNING, 0, NULL);
		const json_t *plugins;

		chain(texts[i]);
		config = formatted();
		plugins = json_object_get(config, "plugins");
		assert_named(config);
		assert_int_equal(json_array_size(plugins), 3);
		assert_own(json_array_get(plugins, 0));
		assert_true(json_equal(json_array_get(plugins, 1), portmap));
		assert_true(json_equal(json_array_get(plugins, 2), tuning));
	}
	chain("[]");
	test_list(state);
}

static void assert_refused(const char *message)
{
	auto_buf struct buf text = BUF_INIT;

	assert_true(format(&text) < 0);
	assert_int_equal(text.len, 0);
	assert_non_null(strstr(err.text, "CNI_CHAIN: "));
	assert_non_null(strstr(err.text, s.cni_chain));
	if (!strstr(err.text, message))
		fail_msg("'%s' not in '%s'", message, err.text);
}

static void test_chain_refused(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "", ":1: " },
		{ "[\n" PORTMAP ",\n", ":3: " },
		{ "[{\"type\": \"a\", \"type\": \"b\"}]", "duplicate" },
		{ "[{\"type\": \"a\\u0000b\"}]", "\\u0000" },
		{ "[] []", ":1: " },
		{ "7", ":1: " },
		{ "{}", "neither a list" },
		{ "{\"plugins\": {}}", "neither a list" },
		{ "[" PORTMAP ", 7]", "plugin 2: not an object" },
		{ "[{}]", "plugin 1: 'type' is missing" },
		{ "[{\"type\": 1}]", "plugin 1: 'type' is missing or not a string" },
		{ "[{\"type\": \"\"}]", "plugin 1: 'type' is ''" },
		{ "[" PORTMAP ", " PORTMAP ", {\"type\": \"../sh\"}]",
		  "plugin 3: 'type' is '../sh'" },
		{ "[{\"type\": \"a/b\"}]", "no file's name" },
		{ "[{\"type\": \"a b\"}]", "no file's name" },
		{ "[{\"type\": \"..\"}]", "no file's name" },
		{ "[{\"type\": \"poplin\"}]", "comes first without it" },
	};
	auto_buf struct buf long_text = BUF_INIT;

	for (size_t i = 0; i < countof(cases); i++) {
		chain(cases[i].text);
		assert_refused(cases[i].message);
	}
	assert_int_equal(buf_adds(&long_text, "[{}"), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(buf_adds(&long_text, ",{}"), 0);
	assert_int_equal(buf_adds(&long_text, "]"), 0);
	chain(long_text.data);
	assert_refused("17 plugins, more than 16");
	while (long_text.len <= 64 * 1024)
		assert_int_equal(buf_adds(&long_text, "                "), 0);
	chain(long_text.data);
	assert_refused("larger than 65536 bytes");
}

/* What is no regular file does not hold the agent up. */
static void test_chain_file(void **state)
{
	strlcpy(s.cni_chain, "/dev/zero", sizeof(s.cni_chain));
	assert_refused("not a regular file");
	strlcpy(s.cni_chain, "/tmp", sizeof(s.cni_chain));
	assert_refused("not a regular file");
	strlcpy(s.cni_chain, "/nonexistent/chain.json", sizeof(s.cni_chain));
	assert_refused("No such file");
	assert_int_equal(unlink(file), 0);
	assert_int_equal(mkfifo(file, 0600), 0);
	strlcpy(s.cni_chain, file, sizeof(s.cni_chain));
	assert_refused("not a regular file");
	assert_int_equal(unlink(file), 0);
	chain("[]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_list, setup),
		cmocka_unit_test_setup(test_single, setup),
		cmocka_unit_test_setup(test_chain, setup),
		cmocka_unit_test_setup(test_chain_refused, setup),
		cmocka_unit_test_setup(test_chain_file, setup),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

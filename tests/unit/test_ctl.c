/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poplinctl's tables, and that no name from the store reaches a terminal as it is. */
#include "unit.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ctl/commands.h"
#include "ctl/output.h"
#include "poplin/base/buf.h"
#include "poplin/base/mem.h"

typedef int command_fn(const json_t *root, FILE *out);

/* Runs a command over JSON text; the caller frees what it printed. */
static char *run(command_fn *command, const char *json, int expected)
{
	json_t *root = json_loads(json, 0, NULL);
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(root);
	assert_non_null(out);
	assert_int_equal(command(root, out), expected);
	fclose(out);
	json_decref(root);
	return text;
}

static void assert_prints(command_fn *command, const char *json, const char *expected)
{
	char *text = run(command, json, 0);

	assert_string_equal(text, expected);
	free(text);
}

static void assert_refuses(command_fn *command, const char *json)
{
	char *text = run(command, json, -EPROTO);

	assert_string_equal(text, "");
	free(text);
}

static void test_escaped(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{ "node-1.example", "node-1.example" },
		{ "a\\b", "a\\\\b" },
		{ "\x1b[2Jx\n\r\t\x7f", "\\x1b[2Jx\\x0a\\x0d\\x09\\x7f" },
		{ "\xc2\x9b", "\\xc2\\x9b" },	       /* CSI, as one character */
		{ "\xe2\x80\xae", "\\xe2\\x80\\xae" }, /* right-to-left override */
		{ "", "" },
	};

	for (size_t i = 0; i < countof(cases); i++) {
		auto_buf struct buf b = BUF_INIT;

		assert_int_equal(output_escaped(&b, cases[i].text), 0);
		assert_string_equal(b.data ? b.data : "", cases[i].expected);
	}
}

static void test_expand(void **state)
{
	json_t *root = json_loads("{\"a\":{\"b\":\"x\",\"n\":-7,\"t\":true,\"f\":false,"
				  "\"z\":null,\"r\":1.25,\"l\":[1]},\"e\":\"\"}",
				  0, NULL);
	auto_buf struct buf b = BUF_INIT;

	assert_int_equal(output_expand(&b,
				       "{a.b} {a.n}|{a.t}/{a.f} {a.z} {a.r} {a.l} {e} {q} {q.r}"
				       " {a} {e.x} end",
				       root),
			 0);
	assert_string_equal(b.data, "x -7|yes/no - 1.2 - - - - - - end");
	buf_reset(&b);
	assert_int_equal(output_expand(&b, "{a.b}[, {a.n} and {q}][; {a.n}][({q})]", root), 0);
	assert_string_equal(b.data, "x; -7");
	buf_reset(&b);
	assert_int_equal(output_expand(&b, "[{q}]", root), 0);
	assert_string_equal(b.data, "");
	json_decref(root);
}

static void test_peers(void **state)
{
	assert_prints(command_peers,
		      "{\"peers\":[{\"node\":\"n1\",\"subnet\":\"10.2.1.0/24\","
		      "\"address\":\"192.168.0.11\",\"backend\":\"host-gw\",\"state\":\"ok\","
		      "\"reason\":null},"
		      "{\"node\":\"e\\u001b[31mvil\",\"subnet\":null,\"state\":\"rejected\","
		      "\"reason\":\"not JSON\"}]}",
		      "NODE          SUBNET       ADDRESS       BACKEND  STATE     REASON\n"
		      "n1            10.2.1.0/24  192.168.0.11  host-gw  ok        -\n"
		      "e\\x1b[31mvil  -            -             -        rejected  not JSON\n");
	assert_prints(command_peers, "{\"peers\":[]}",
		      "NODE  SUBNET  ADDRESS  BACKEND  STATE  REASON\n");
	assert_refuses(command_peers, "{}");
	assert_refuses(command_peers, "{\"peers\":{}}");
	assert_refuses(command_peers, "[]");
}

static void test_rows_of_wrong_kind(void **state)
{
	assert_prints(command_peers, "{\"peers\":[1,null,\"x\",[]]}",
		      "NODE  SUBNET  ADDRESS  BACKEND  STATE  REASON\n"
		      "-     -       -        -        -      -\n"
		      "-     -       -        -        -      -\n"
		      "-     -       -        -        -      -\n"
		      "-     -       -        -        -      -\n");
}

static void test_routes(void **state)
{
	assert_prints(command_routes,
		      "{\"routes\":[{\"destination\":\"10.2.7.0/24\",\"via\":\"192.168.0.17\","
		      "\"node\":\"n7\",\"state\":\"failing\",\"reason\":\"Network is unreachable\","
		      "\"tries\":3,\"next_try_s\":12}]}",
		      "DESTINATION  VIA           NODE  STATE    TRIES  RETRY(S)  REASON\n"
		      "10.2.7.0/24  192.168.0.17  n7    failing  3      12        "
		      "Network is unreachable\n");
	assert_refuses(command_routes, "{\"peers\":[]}");
}

static void test_pods(void **state)
{
	assert_prints(command_pods,
		      "{\"pods\":[{\"address\":\"10.2.1.2\",\"container\":\"abc\","
		      "\"interface\":\"eth0\",\"link\":\"pop0123456789ab\"}]}",
		      "ADDRESS   INTERFACE  LINK             CONTAINER\n"
		      "10.2.1.2  eth0       pop0123456789ab  abc\n");
	assert_refuses(command_pods, "{}");
}

static void test_status(void **state)
{
	assert_prints(command_status,
		      "{\"node\":\"n1\",\"version\":\"0.1.0\",\"ready\":false,"
		      "\"reasons\":[\"no lease\",\"two\\nlines\",7],"
		      "\"warnings\":[\"nearly full\"],\"subnet\":\"10.2.1.0/24\","
		      "\"address\":\"192.168.0.11\",\"interface\":\"eth0\","
		      "\"bridge\":{\"name\":\"poplin0\",\"address\":\"10.2.1.1\",\"mtu\":1500},"
		      "\"lease\":{\"held\":true,\"ttl_s\":120,\"expires_in_s\":83},"
		      "\"store\":{\"endpoint\":\"http://127.0.0.1:2379\",\"connected\":true,"
		      "\"last_change_age_s\":null},"
		      "\"peers\":{\"known\":3,\"rejected\":1,\"conflicts\":0},"
		      "\"routes\":{\"desired\":3,\"installed\":2,\"failing\":1},"
		      "\"queue\":{\"depth\":1},\"pods\":{\"held\":2,\"capacity\":253}}",
		      "Node      n1 (poplin 0.1.0)\n"
		      "Ready     no\n"
		      "          no lease\n"
		      "          two\\x0alines\n"
		      "          -\n"
		      "Subnet    10.2.1.0/24\n"
		      "Address   192.168.0.11 on eth0\n"
		      "Bridge    poplin0, gateway 10.2.1.1, MTU 1500\n"
		      "Lease     held: yes, runs out in 83 s unless renewed, time to live 120 s\n"
		      "Store     http://127.0.0.1:2379, connected: yes\n"
		      "Peers     3 known, 1 rejected, 0 in conflict\n"
		      "Routes    3 desired, 2 installed, 1 failing\n"
		      "Queue     1 waiting\n"
		      "Pods      2 of 253 addresses\n"
		      "Warning   nearly full\n");
	assert_refuses(command_status, "{\"peers\":[]}");
	assert_refuses(command_status, "[]");
	free(run(command_status, "{\"node\":\"n1\"}", 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escaped), cmocka_unit_test(test_expand),
		cmocka_unit_test(test_peers),	cmocka_unit_test(test_rows_of_wrong_kind),
		cmocka_unit_test(test_routes),	cmocka_unit_test(test_pods),
		cmocka_unit_test(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

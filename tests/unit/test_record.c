/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Node records and the node state file. */
#include <errno.h>
#include <string.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "poplin/base/clock.h"
#include "poplin/model/nodestate.h"
#include "poplin/model/record.h"
#include "unit.h"

#define GOOD                                                                                       \
	"{\"version\":1,\"subnets\":[\"10.2.1.0/24\"],\"address\":\"192.168.0.11\","               \
	"\"backend\":{\"type\":\"host-gw\"},\"machine\":\"m\"}"

static struct network network;

static int setup(void **state)
{
	struct prefix pods;

	return prefix_parse("10.2.0.0/16", &pods, NULL) < 0
		       ? -1
		       : network_init(&network, &pods, 8, NULL);
}

static int parse(const char *text, struct record *ret, struct err *err)
{
	return record_parse(text, strlen(text), ret, err);
}

static void a_record_comes_back_as_it_went(void **state)
{
	char text[RECORD_BYTES_MAX];
	struct record r;

	assert_int_equal(parse(GOOD, &r, NULL), 0);
	assert_int_equal(r.nsubnets, 1);
	assert_string_equal(r.machine, "m");
	assert_int_equal(record_format(&r, text, sizeof(text), NULL), 0);
	assert_string_equal(text, GOOD);
	assert_int_equal(record_format(&r, text, 20, NULL), -ENOSPC);
}

static void unknown_keys_are_accepted(void **state)
{
	struct record r;

	assert_int_equal(parse("  {\"version\":1,\"subnets\":[\"10.2.1.0/24\",\"10.2.2.0/24\"],"
			       "\"address\":\"192.168.0.11\",\"backend\":{\"type\":\"host-gw\","
			       "\"new\":1},\"zone\":\"a\"}",
			       &r, NULL),
			 0);
	assert_int_equal(r.nsubnets, 2);
	assert_string_equal(r.machine, "");
}

static void the_pythons_bare_records(void **state)
{
	struct record r;

	assert_int_equal(parse(" 10.2.1.0/24\n", &r, NULL), 0);
	assert_int_equal(r.address.family, AF_UNSPEC);
	assert_int_equal(r.nsubnets, 1);
	/* Not NUL-terminated, as it comes from the store. */
	assert_int_equal(record_parse("10.2.1.0/24999", 11, &r, NULL), 0);
	assert_int_equal(record_parse("10.2.1.0\0/24", 12, &r, NULL), -EINVAL);
}

static void what_is_no_record_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"{",
		"[]",
		"null",
		"10.2.1.5/24",
		"{}",
		"{\"version\":2,\"subnets\":[\"10.2.1.0/24\"],\"address\":\"192.168.0.11\","
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":[],\"address\":\"192.168.0.11\","
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":[5],\"address\":\"192.168.0.11\","
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":\"10.2.1.0/24\",\"address\":\"192.168.0.11\","
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":[\"10.2.1.0/24\"],\"address\":\"$(reboot)\","
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":[\"10.2.1.0/24\"],\"address\":7,"
		"\"backend\":{\"type\":\"host-gw\"}}",
		"{\"version\":1,\"subnets\":[\"10.2.1.0/24\"],\"address\":\"192.168.0.11\","
		"\"backend\":\"host-gw\"}",
		"{\"version\":1,\"version\":1,\"subnets\":[\"10.2.1.0/24\"],"
		"\"address\":\"192.168.0.11\",\"backend\":{\"type\":\"host-gw\"}}",
		GOOD "x",
	};
	char large[RECORD_BYTES_MAX + 2];
	struct err err = ERR_INIT;
	struct record r;

	for (size_t i = 0; i < countof(bad); i++) {
		err.text[0] = '\0';
		assert_int_equal(parse(bad[i], &r, &err), -EINVAL);
		assert_true(err.text[0]);
	}
	memset(large, ' ', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	assert_int_equal(parse(large, &r, &err), -EINVAL);
}

static int validate(const char *subnet, const char *address, struct err *err)
{
	struct prefix own;
	struct addr own_address;
	struct record r = { .nsubnets = 1 };

	assert_int_equal(prefix_parse("10.2.9.0/24", &own, NULL), 0);
	assert_int_equal(addr_parse("192.168.0.9", &own_address, NULL), 0);
	assert_int_equal(prefix_parse(subnet, &r.subnets[0], NULL), 0);
	if (address)
		assert_int_equal(addr_parse(address, &r.address, NULL), 0);
	return record_validate(&r, &network, &own, &own_address, err);
}

static void records_are_judged(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(validate("10.2.1.0/24", "192.168.0.11", &err), 0);
	assert_int_equal(validate("10.2.1.0/24", NULL, &err), 0);
	assert_int_equal(validate("0.0.0.0/0", "192.168.0.11", &err), -EINVAL);
	assert_int_equal(validate("10.3.1.0/24", "192.168.0.11", &err), -EINVAL);
	assert_int_equal(validate("10.2.1.0/25", "192.168.0.11", &err), -EINVAL);
	assert_int_equal(validate("10.2.9.0/24", "192.168.0.11", &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "own subnet"));
	assert_int_equal(validate("10.2.1.0/24", "192.168.0.9", &err), -EADDRINUSE);
	assert_int_equal(validate("10.2.1.0/24", "10.2.1.1", &err), -EINVAL);
	assert_int_equal(validate("10.2.1.0/24", "127.0.0.1", &err), -EINVAL);
	assert_int_equal(validate("10.2.1.0/24", "fd00::1", &err), -EINVAL);
}

static void a_subnet_listed_twice_is_refused(void **state)
{
	struct record r = { .nsubnets = 2 };

	assert_int_equal(prefix_parse("10.2.1.0/24", &r.subnets[0], NULL), 0);
	r.subnets[1] = r.subnets[0];
	assert_int_equal(record_validate(&r, &network, NULL, NULL, NULL), -EINVAL);
}

static void node_names(void **state)
{
	static const char *const good[] = { "a", "node-1", "n1.example.net", "7" };
	static const char *const bad[] = { "",	  "-a",	 "a-",	".a",	    "a b",
					   "a/b", "a;b", "a\n", "n\xc3\xb6" };
	char longest[NODE_NAME_TEXT_MAX + 1];

	for (size_t i = 0; i < countof(good); i++)
		assert_true(node_name_valid(good[i]));
	for (size_t i = 0; i < countof(bad); i++)
		assert_false(node_name_valid(bad[i]));
	memset(longest, 'a', sizeof(longest));
	longest[NODE_NAME_TEXT_MAX - 1] = '\0';
	assert_true(node_name_valid(longest));
	longest[NODE_NAME_TEXT_MAX - 1] = 'a';
	longest[NODE_NAME_TEXT_MAX] = '\0';
	assert_false(node_name_valid(longest));
}

static void the_node_state_file(void **state)
{
	char dir[] = "/tmp/poplin-test-XXXXXX", path[64];
	struct nodestate in = { .node = "n1",
				.lease_deadline_ns = INT64_C(0x7fffffffffff0001),
				.boot = "b",
				.drained = true };
	struct nodestate out;
	struct err err = ERR_INIT;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(nodestate_read(dir, &out, &err), -ENOENT);
	assert_int_equal(prefix_parse("10.2.1.0/24", &in.subnet, NULL), 0);
	assert_int_equal(nodestate_write(dir, &in, &err), 0);
	assert_int_equal(nodestate_read(dir, &out, &err), 0);
	assert_string_equal(out.node, "n1");
	assert_int_equal(prefix_cmp(&in.subnet, &out.subnet), 0);
	assert_true(in.lease_deadline_ns == out.lease_deadline_ns);
	assert_string_equal(out.boot, "b");
	assert_true(out.drained && !out.fence);
	snprintf(path, sizeof(path), "%s/" NODESTATE_FILE, dir);
	assert_int_equal(file_write_atomic(path, 0600, "{\"node\":\"n1\"}", 13, NULL), 0);
	assert_int_equal(nodestate_read(dir, &out, &err), -EINVAL);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(file_remove_tree(dir, NULL), 0);
}

static void assert_closed(const struct nodestate *s, const char *why)
{
	struct err err = ERR_INIT;

	assert_int_equal(nodestate_check(s, &err), -EAGAIN);
	if (!strstr(err.text, why))
		fail_msg("'%s' does not say '%s'", err.text, why);
}

static void when_addresses_may_be_given_out(void **state)
{
	struct nodestate s = { .lease_deadline_ns = clock_boot_ns() + 60 * NS_PER_S,
			       .fence = true };
	struct nodestate good;

	assert_int_equal(prefix_parse("10.2.1.0/24", &s.subnet, NULL), 0);
	assert_int_equal(nodestate_check(&s, NULL), 0); /* of a boot that is not known */
	nodestate_this_boot(s.boot);
	assert_int_equal(strlen(s.boot), 36);
	assert_int_equal(nodestate_check(&s, NULL), 0);
	good = s;
	s.lease_deadline_ns = clock_boot_ns();
	assert_closed(&s, "lease of subnet 10.2.1.0/24 has run out");
	s = good;
	s.boot[0] ^= 1;
	assert_closed(&s, "earlier boot");
	s.lease_deadline_ns = 1;
	s.fence = false;
	assert_int_equal(nodestate_check(&s, NULL), 0);
	/* What is known to be lost is lost without a fence, too. */
	s.lease_deadline_ns = 0;
	assert_closed(&s, "no lease of subnet 10.2.1.0/24");
	s = good;
	s.drained = true;
	assert_closed(&s, "drained");
}

/* A file as an earlier version wrote it: fenced. */
static void an_older_node_state_file(void **state)
{
	static const char text[] = "{\"node\":\"n1\",\"subnet\":\"10.2.1.0/24\","
				   "\"leaseDeadlineBootNs\":1}";
	char dir[] = "/tmp/poplin-test-XXXXXX", path[64];
	struct nodestate s;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/" NODESTATE_FILE, dir);
	assert_int_equal(file_write_atomic(path, 0600, text, strlen(text), NULL), 0);
	assert_int_equal(nodestate_read(dir, &s, NULL), 0);
	assert_true(s.fence && !s.drained && !s.boot[0]);
	assert_closed(&s, "run out");
	assert_int_equal(file_remove_tree(dir, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_comes_back_as_it_went),
		cmocka_unit_test(unknown_keys_are_accepted),
		cmocka_unit_test(the_pythons_bare_records),
		cmocka_unit_test(what_is_no_record_is_refused),
		cmocka_unit_test(records_are_judged),
		cmocka_unit_test(a_subnet_listed_twice_is_refused),
		cmocka_unit_test(node_names),
		cmocka_unit_test(the_node_state_file),
		cmocka_unit_test(when_addresses_may_be_given_out),
		cmocka_unit_test(an_older_node_state_file),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}

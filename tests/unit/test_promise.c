/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What node.json promises the plugin, and what of an earlier process' promise still holds. */
#include "unit.h"

#include "agent/promise.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/log.h"

static char dir[64];
static struct network network;

static struct prefix prefix_of(const char *text)
{
	struct prefix ret;

	assert_int_equal(prefix_parse(text, &ret, NULL), 0);
	return ret;
}

static int setup(void **state)
{
	const struct prefix pods = prefix_of("10.2.0.0/16");

	(void)state;
	log_set_level(LOG_ERROR);
	strlcpy(dir, "/tmp/poplin-test-promise-XXXXXX", sizeof(dir));
	assert_int_equal(network_init(&network, &pods, 8, NULL), 0);
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return file_remove_tree(dir, NULL);
}

static const struct nodestate *read_back(void)
{
	static struct nodestate ret;

	assert_int_equal(nodestate_read(dir, &ret, NULL), 0);
	return &ret;
}

/* As an earlier process left it. */
static struct nodestate leave(void)
{
	struct nodestate s = {
		.node = "n1",
		.subnet = prefix_of("10.2.7.0/24"),
		.lease_deadline_ns = 4711,
		.fence = true,
		.drained = true,
	};

	nodestate_this_boot(s.boot);
	assert_true(s.boot[0]);
	assert_int_equal(nodestate_write(dir, &s, NULL), 0);
	return s;
}

static struct promise recall(void)
{
	struct promise p;

	promise_recall(&p, dir, "n1", &network);
	assert_string_equal(p.said.node, "n1");
	return p;
}

static void what_an_earlier_process_said_is_recalled(void **state)
{
	const struct nodestate before = leave();
	const struct promise p = recall();

	(void)state;
	assert_int_equal(prefix_cmp(&p.said.subnet, &before.subnet), 0);
	assert_int_equal(p.said.lease_deadline_ns, 4711);
	assert_string_equal(p.said.boot, before.boot);
	assert_true(p.said.fence && p.said.drained);
}

/* Its clock ran differently; but pods may have addresses of the subnet still. */
static void a_deadline_of_another_boot_is_none(void **state)
{
	struct nodestate before = leave();
	struct promise p;

	(void)state;
	strlcpy(before.boot, "another", sizeof(before.boot));
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	p = recall();
	assert_int_equal(p.said.lease_deadline_ns, 0);
	assert_int_equal(prefix_cmp(&p.said.subnet, &before.subnet), 0);
	assert_string_not_equal(p.said.boot, "another");
	before.boot[0] = '\0';
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_int_equal(recall().said.lease_deadline_ns, 0);
}

static void what_is_of_no_use_here_is_nothing(void **state)
{
	struct nodestate before;

	(void)state;
	assert_int_equal(recall().said.subnet.addr.family, AF_UNSPEC);
	before = leave();
	strlcpy(before.node, "n2", sizeof(before.node));
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_int_equal(recall().said.subnet.addr.family, AF_UNSPEC);
	before = leave();
	before.subnet = prefix_of("10.3.7.0/24");
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_int_equal(recall().said.lease_deadline_ns, 0);
	before.subnet = prefix_of("10.2.0.0/16");
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_int_equal(recall().said.subnet.addr.family, AF_UNSPEC);
	assert_true(recall().said.fence);
}

static void what_is_said_is_what_is_read(void **state)
{
	const struct prefix subnet = prefix_of("10.2.9.0/24"), none = { .len = 0 };
	struct promise p = recall();
	struct nodestate nothing;

	(void)state;
	/* There is nothing to say anything of. */
	assert_int_equal(promise_say(&p, &none, 5, false, NULL), 0);
	assert_int_equal(nodestate_read(dir, &nothing, NULL), -ENOENT);
	assert_int_equal(promise_say(&p, &subnet, 5, false, NULL), 0);
	assert_int_equal(read_back()->lease_deadline_ns, 5);
	assert_int_equal(prefix_cmp(&read_back()->subnet, &subnet), 0);
	assert_string_equal(read_back()->boot, p.said.boot);
	assert_true(read_back()->fence);
	promise_set_fence(&p, false);
	assert_false(read_back()->fence);
	assert_int_equal(read_back()->lease_deadline_ns, 5);
	promise_try(&p, &subnet, 0, true);
	assert_true(read_back()->drained);
	assert_false(read_back()->fence);
	assert_int_equal(recall().said.lease_deadline_ns, 0);
}

static void what_cannot_be_written_was_not_said(void **state)
{
	const struct prefix subnet = prefix_of("10.2.9.0/24");
	char away[80];
	struct err err = ERR_INIT;
	struct promise p = recall();

	(void)state;
	assert_int_equal(promise_say(&p, &subnet, 5, false, NULL), 0);
	(void)snprintf(away, sizeof(away), "%s.away", dir);
	assert_int_equal(rename(dir, away), 0);
	log_set_level(LOG_ERROR);
	assert_int_equal(promise_say(&p, &subnet, 7, true, &err), -ENOENT);
	assert_non_null(strstr(err.text, "node.json"));
	promise_try(&p, &subnet, 9, false);
	assert_int_equal(p.said.lease_deadline_ns, 5);
	assert_false(p.said.drained);
	assert_int_equal(rename(away, dir), 0);
	assert_int_equal(read_back()->lease_deadline_ns, 5);
}

/* Another node may hold the subnet already: a full disk must not keep a promise alive. */
static void what_cannot_be_taken_back_in_writing_is_removed(void **state)
{
	const struct prefix subnet = prefix_of("10.2.9.0/24");
	char path[96], blocked[96];
	struct nodestate left;
	struct err err = ERR_INIT;
	struct promise p = recall();

	(void)state;
	assert_int_equal(promise_say(&p, &subnet, 7, false, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/node.json", dir);
	(void)snprintf(blocked, sizeof(blocked), "%s/.node.json.tmp", dir);
	assert_int_equal(mkdir(blocked, 0700), 0); /* no new file can be made there */
	assert_true(promise_say(&p, &subnet, 9, false, &err) < 0);
	assert_int_equal(read_back()->lease_deadline_ns, 7);
	assert_int_equal(promise_say(&p, &subnet, 5, false, &err), 0);
	assert_int_equal(p.said.lease_deadline_ns, 0);
	assert_int_equal(nodestate_read(dir, &left, NULL), -ENOENT);
	assert_int_equal(rmdir(blocked), 0);
	assert_int_equal(promise_say(&p, &subnet, 9, false, &err), 0);
	assert_int_equal(read_back()->lease_deadline_ns, 9);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_an_earlier_process_said_is_recalled),
		TEST(a_deadline_of_another_boot_is_none),
		TEST(what_is_of_no_use_here_is_nothing),
		TEST(what_is_said_is_what_is_read),
		TEST(what_cannot_be_written_was_not_said),
		TEST(what_cannot_be_taken_back_in_writing_is_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

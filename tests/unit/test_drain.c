/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wish to drain a node: read from its file, told to the lease thread, which a test plays. */
#include "unit.h"

#include "agent/drain.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/log.h"
#include "poplin/model/drain.h"
#include "poplin/model/nodestate.h"

static char dir[64], path[96];
static struct drain d;

static struct {
	enum lease_drain drain;
	unsigned told;
	bool wish; /* as told last */
} lease;

/* -- in place of the lease thread ------------------------------------------------ */

void lease_get(struct lease *l, struct lease_status *ret)
{
	assert_null(l);
	*ret = (struct lease_status){ .drain = lease.drain };
}

void lease_drain(struct lease *l, bool drain)
{
	assert_null(l);
	lease.wish = drain;
	lease.told++;
}

/* -------------------------------------------------------------------------------- */

static int setup(void **state)
{
	(void)state;
	log_set_level(LOG_ERROR);
	memset(&lease, 0, sizeof(lease));
	memset(&d, 0, sizeof(d));
	strlcpy(dir, "/tmp/poplin-test-drain-XXXXXX", sizeof(dir));
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/" DRAIN_FILE, dir);
	assert_int_equal(drain_open(&d, dir, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	drain_close(&d);
	return file_remove_tree(dir, NULL);
}

static void put(const char *text)
{
	assert_int_equal(file_write_atomic(path, 0600, text, strlen(text), NULL), 0);
}

/* Whoever reads it meets an error. */
static void make_unreadable(void)
{
	char text[128];

	memset(text, 'x', sizeof(text));
	assert_int_equal(file_write_atomic(path, 0600, text, sizeof(text), NULL), 0);
}

static void the_file_is_what_was_written(void **state)
{
	bool wanted, force;

	(void)state;
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_true(!wanted && !force);
	assert_int_equal(drain_write(dir, false, NULL), 0);
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_true(wanted && !force);
	assert_int_equal(drain_write(dir, true, NULL), 0);
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_true(wanted && force);
	/* By hand: only the very word forces. */
	put("");
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_true(wanted && !force);
	put("force it\n");
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_true(wanted && !force);
	assert_int_equal(drain_remove(dir, NULL), 0);
	assert_int_equal(drain_remove(dir, NULL), 0);
	assert_int_equal(drain_read(dir, &wanted, &force, NULL), 0);
	assert_false(wanted);
}

static void a_wish_is_noticed_and_told_once(void **state)
{
	(void)state;
	assert_false(drain_noticed(&d));
	assert_int_equal(drain_write(dir, true, NULL), 0);
	assert_true(drain_noticed(&d));
	assert_false(drain_noticed(&d));
	drain_follow(&d, NULL);
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 1);
	assert_true(lease.wish && d.force);
	assert_int_equal(unlink(path), 0);
	assert_true(drain_noticed(&d));
	drain_follow(&d, NULL);
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 2);
	assert_false(lease.wish);
}

static void other_files_are_none_of_its_business(void **state)
{
	char other[96];

	(void)state;
	(void)snprintf(other, sizeof(other), "%s/" NODESTATE_FILE, dir);
	assert_int_equal(file_write_atomic(other, 0600, "", 0, NULL), 0);
	assert_false(drain_noticed(&d));
}

/* Or it would come true when nobody expects it. */
static void a_wish_that_was_refused_is_taken_away(void **state)
{
	(void)state;
	put("\n");
	drain_follow(&d, NULL);
	lease.drain = LEASE_KEPT;
	drain_follow(&d, NULL);
	assert_int_equal(access(path, F_OK), -1);
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 1);
	/* The next one is a new one. */
	put("\n");
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 2);
	assert_true(lease.wish);
}

static void what_cannot_be_read_changes_nothing(void **state)
{
	(void)state;
	make_unreadable();
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 0);
	put("force\n");
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 1);
	make_unreadable();
	drain_follow(&d, NULL);
	assert_int_equal(lease.told, 1);
	assert_true(d.asked && d.force);
}

static void a_start_finds_what_was_wished(void **state)
{
	struct nodestate before = { .node = "n1", .drained = true };

	(void)state;
	assert_false(drain_at_start(&d));
	put("\n");
	assert_true(drain_at_start(&d));
	assert_true(d.asked && !d.force);
	/* Where the wish cannot be read, the node stays what it was. */
	make_unreadable();
	assert_false(drain_at_start(&d));
	assert_int_equal(prefix_parse("10.2.1.0/24", &before.subnet, NULL), 0);
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_true(drain_at_start(&d));
	before.drained = false;
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_false(drain_at_start(&d));
	/* But where it can be read, it alone counts. */
	before.drained = true;
	assert_int_equal(nodestate_write(dir, &before, NULL), 0);
	assert_int_equal(unlink(path), 0);
	assert_false(drain_at_start(&d));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_file_is_what_was_written),
		TEST(a_wish_is_noticed_and_told_once),
		TEST(other_files_are_none_of_its_business),
		TEST(a_wish_that_was_refused_is_taken_away),
		TEST(what_cannot_be_read_changes_nothing),
		TEST(a_start_finds_what_was_wished),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

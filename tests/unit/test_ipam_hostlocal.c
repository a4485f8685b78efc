/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the plugin host-local reserved before this one took its place. */
#include "ipam_folder.h"
#include "refuse.h"

#include <errno.h>
#include <string.h>

static struct ipam_pool shared_pool(const struct fixture *f, const char *net)
{
	struct ipam_pool pool = pool_of(f, net);

	strlcpy(pool.reservations, f->dir, sizeof(pool.reservations));
	return pool;
}

static int take(const struct ipam_pool *pool, const char *container, const char *wanted,
		char ret[static ADDR_TEXT_MAX], struct err *err)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct ipam_address given[IPAM_SETS_MAX];
	struct addr asked;
	int r;

	if (wanted)
		assert_int_equal(addr_parse(wanted, &asked, NULL), 0);
	r = ipam_allocate(pool, &asked, wanted != NULL, &owner, given, err);
	if (r == 0)
		addr_format(&given[0].address.addr, ret);
	return r;
}

/* Found by the search, asked for, torn, of an old version, of IPv6: each is held. */
static void test_reserved_by_host_local(void **state)
{
	const struct fixture *f = *state;
	struct ipam_pool pool = shared_pool(f, "10.2.1.0/28"), six = shared_pool(f, "fd00::/64");
	char text[ADDR_TEXT_MAX], holder[IPAM_HOLDER_MAX];
	struct err err = ERR_INIT;
	struct addr a;

	reserve(f, "last_reserved_ip.0", "10.2.1.4");
	reserve(f, "lock", "");
	reserve(f, "10.2.1.2", "old\r\neth0");
	reserve(f, "10.2.1.3", "older");
	reserve(f, "10.2.1.4", "");
	reserve(f, "fd00::2", "old\r\neth0");
	assert_int_equal(take(&pool, "new", NULL, text, &err), 0);
	assert_string_equal(text, "10.2.1.5");
	assert_int_equal(take(&six, "six", NULL, text, &err), 0);
	assert_string_equal(text, "fd00::3");
	assert_int_equal(take(&pool, "other", "10.2.1.2", text, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "old:eth0"));
	assert_int_equal(take(&pool, "other", "10.2.1.4", text, &err), -EADDRINUSE);
	assert_int_equal(addr_parse("10.2.1.3", &a, NULL), 0);
	assert_int_equal(ipam_holder(&pool, &a, holder, NULL), 1);
	assert_string_equal(holder, "older:");
	/* Who holds one gets no other, before a DEL. */
	assert_int_equal(take(&pool, "old", NULL, text, &err), -EEXIST);
	assert_int_equal(take(&pool, "older", NULL, text, &err), -EEXIST);
}

static void test_reservation_is_released(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_owner old = { .container = "old", .interface = "eth0" };
	const struct ipam_owner second = { .container = "old", .interface = "net1" };
	const struct ipam_owner older = { .container = "older", .interface = "eth0" };
	struct ipam_pool pool = shared_pool(f, "10.2.1.0/29");
	struct addr held[IPAM_SETS_MAX];
	struct err err = ERR_INIT;
	char text[ADDR_TEXT_MAX];

	reserve(f, "10.2.1.2", "old\r\neth0");
	reserve(f, "10.2.1.3", "old\r\nnet1");
	reserve(f, "10.2.1.4", "older");
	reserve(f, "10.2.1.5", "x\neth0\n");
	reserve(f, "10.2.1.6", "y\r\neth0");
	/* Full, though nothing of ours is there; and the same when it is. */
	assert_int_equal(ipam_has_free(&pool, &err), -EADDRNOTAVAIL);
	assert_non_null(strstr(err.text, "5 are held"));
	assert_int_equal(take(&pool, "new", NULL, text, &err), -EADDRNOTAVAIL);
	assert_int_equal(ipam_lookup(&pool, &old, held, NULL), 1);
	assert_int_equal(ipam_release(&pool, &old, &err), 0);
	assert_int_equal(ipam_lookup(&pool, &old, held, NULL), -ENOENT);
	assert_int_equal(ipam_is_reserved(&pool, &second, NULL), 1);
	assert_int_equal(ipam_has_free(&pool, &err), 0);
	assert_int_equal(take(&pool, "new", NULL, text, &err), 0);
	assert_string_equal(text, "10.2.1.2");
	assert_int_equal(ipam_release(&pool, &older, &err), 0);
	assert_int_equal(ipam_release(&pool, &older, &err), 0);
	assert_int_equal(take(&pool, "new2", NULL, text, &err), 0);
	assert_string_equal(text, "10.2.1.4");
}

/* -- what cannot be read ------------------------------------------------------------------- */

static int is_reserved(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_is_reserved(&ask->pool, &ask->owner, NULL) & 0xff;
}

static int look_up(void *arg)
{
	const struct asking *ask = arg;
	struct addr held[IPAM_SETS_MAX];

	int n = ipam_lookup(&ask->pool, &ask->owner, held, NULL);

	return n < 0 ? -n : 0;
}

static int let_go(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_release(&ask->pool, &ask->owner, NULL);
}

static int list_reserved(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach_reserved(&ask->pool, count_one, &n, NULL);
}

/*
 * Whose it is, nobody knows: no answer that depends on it is given. An owner of our own addresses does
 * not need one.
 */
static void test_unreadable_reservation(void **state)
{
	static const struct {
		const char *what;
		int (*fn)(void *arg);
	} cases[] = {
		{ "allocate", allocate_one },
		{ "is reserved", is_reserved },
		{ "look up", look_up },
		{ "release", let_go },
		{ "reservations", list_reserved },
	};
	const struct fixture *f = *state;
	struct asking old = asking(f, "10.2.1.0/29", "old"), new = asking(f, "10.2.1.0/29", "new");
	char text[ADDR_TEXT_MAX];
	struct addr held[IPAM_SETS_MAX];

	old.pool = new.pool = shared_pool(f, "10.2.1.0/29");
	reserve(f, "10.2.1.3", "old\r\neth0");
	assert_int_equal(take(&new.pool, "new", NULL, text, NULL), 0);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (with_refused(SYS_read, EIO, cases[i].fn, &old) != EIO)
			fail_msg("%s: no error", cases[i].what);
	assert_int_equal(ipam_is_reserved(&old.pool, &old.owner, NULL), 1);
	assert_int_equal(with_refused(SYS_read, EIO, is_reserved, &new), 0);
	assert_int_equal(with_refused(SYS_read, EIO, look_up, &new), 0);
	assert_int_equal(with_refused(SYS_read, EIO, let_go, &new), 0);
	assert_int_equal(ipam_lookup(&new.pool, &new.owner, held, NULL), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reserved_by_host_local),
		TEST(test_reservation_is_released),
		TEST(test_unreadable_reservation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pod addresses: the range, the order, owners. */
#include "ipam_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/clock.h"

/* -- what is given ----------------------------------------------------------------- */

static void test_range(void **state)
{
	static const struct {
		const char *net;
		uint64_t pods;
	} cases[] = {
		{ "10.2.1.0/24", 253 }, { "10.2.0.0/16", 65533 },    { "10.2.1.0/30", 1 },
		{ "10.2.1.0/31", 0 },	{ "10.2.1.0/32", 0 },	     { "fd00::/126", 2 },
		{ "fd00::/120", 254 },	{ "fd00::/64", UINT64_MAX }, { "255.255.255.0/24", 253 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct prefix p = subnet(cases[i].net);

		assert_int_equal(ipam_capacity(&p), cases[i].pods);
	}
}

/* Every address but network, gateway and broadcast, each once; then a clear error. */
static void test_full(void **state)
{
	const struct fixture *f = *state;
	char text[ADDR_TEXT_MAX], name[16], expected[16];
	struct err err = ERR_INIT;

	for (unsigned i = 2; i <= 14; i++) {
		(void)snprintf(name, sizeof(name), "c%u", i);
		(void)snprintf(expected, sizeof(expected), "10.2.1.%u", i);
		assert_given(f, "10.2.1.0/28", name, expected);
	}
	assert_int_equal(allocate(f, "10.2.1.0/28", NULL, "more", text, &err), -EADDRNOTAVAIL);
	assert_non_null(strstr(err.text, "10.2.1.0/28"));
	assert_non_null(strstr(err.text, "13"));
	assert_non_null(strstr(err.text, f->dir));
	assert_int_equal(count_complete(f), 13);
	assert_int_equal(count_attachments(f), 13);
	/* The only free one is found wherever it is. */
	release(f, "c9");
	assert_given(f, "10.2.1.0/28", "more", "10.2.1.9");
}

/* A freed address rests while others are free. */
static void test_next_fit(void **state)
{
	const struct fixture *f = *state;

	assert_given(f, "10.2.1.0/29", "a", "10.2.1.2");
	release(f, "a");
	assert_given(f, "10.2.1.0/29", "b", "10.2.1.3");
	release(f, "b");
	assert_given(f, "10.2.1.0/29", "c", "10.2.1.4");
	assert_given(f, "10.2.1.0/29", "d", "10.2.1.5");
	assert_given(f, "10.2.1.0/29", "e", "10.2.1.6");
	assert_given(f, "10.2.1.0/29", "f", "10.2.1.2");
}

/* The map is only a hint: whatever becomes of it, no address is given twice or lost. */
static void test_bad_map(void **state)
{
	static const char ones[256] = { [0 ... 255] = '\xff' }, zeros[256];
	const struct {
		const char *data;
		size_t len;
	} contents[] = {
		{ ones, 24 }, { ones, 256 }, { zeros, 24 }, { zeros, 256 }, { "", 0 }, { ones, 7 },
	};
	const struct fixture *f = *state;
	char path[256], text[ADDR_TEXT_MAX];

	assert_given(f, "10.2.1.0/29", "a", "10.2.1.2");
	map_path(f, path, sizeof(path));
	for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
		assert_int_equal(
			file_write_atomic(path, 0600, contents[i].data, contents[i].len, NULL), 0);
		assert_given(f, "10.2.1.0/29", "b", "10.2.1.3");
		release(f, "b");
		assert_int_equal(unlink(path), 0);
	}
	/* Bits alone: held ones seem free, free ones held. */
	for (unsigned i = 3; i <= 5; i++) {
		(void)snprintf(text, sizeof(text), "c%u", i);
		assert_int_equal(allocate(f, "10.2.1.0/29", NULL, text, text, NULL), 0);
	}
	for (int bits = 0; bits < 256; bits++) {
		int fd = open(path, O_WRONLY);

		assert_int_equal(pwrite(fd, &(char){ (char)bits }, 1, 16), 1);
		assert_int_equal(close(fd), 0);
		assert_given(f, "10.2.1.0/29", "last", "10.2.1.6");
		assert_int_equal(allocate(f, "10.2.1.0/29", NULL, "more", text, NULL),
				 -EADDRNOTAVAIL);
		release(f, "last");
	}
	assert_int_equal(count_complete(f), 4);
}

/* The layout before maps: one address each, and a link to the last that was given. */
static void test_old_layout(void **state)
{
	const struct fixture *f = *state;
	char maps[256], last[160];
	struct addr a;

	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
	assert_given(f, "10.2.1.0/24", "b", "10.2.1.3");
	map_path(f, maps, sizeof(maps));
	assert_int_equal(unlink(maps), 0);
	(void)snprintf(maps, sizeof(maps), "%s/maps", f->dir);
	assert_int_equal(rmdir(maps), 0);
	(void)snprintf(last, sizeof(last), "%s/last", f->dir);
	assert_int_equal(symlink("10.2.1.9", last), 0);
	assert_int_equal(lookup(f, "a", &a), 1);
	assert_given(f, "10.2.1.0/24", "c", "10.2.1.10");
	release(f, "a");
	assert_given(f, "10.2.1.0/24", "d", "10.2.1.11");
	assert_int_equal(count_complete(f), 3);
}

static void test_ipv6(void **state)
{
	const struct fixture *f = *state;
	char text[ADDR_TEXT_MAX];

	assert_given(f, "fd00:1::/126", "a", "fd00:1::2");
	assert_given(f, "fd00:1::/126", "b", "fd00:1::3");
	assert_int_equal(allocate(f, "fd00:1::/126", NULL, "c", text, NULL), -EADDRNOTAVAIL);
	assert_given(f, "fd00:2::/64", "d", "fd00:2::2");
}

static void test_wanted(void **state)
{
	static const char *const refused[] = { "10.2.1.0", "10.2.1.1", "10.2.1.255", "10.2.2.5",
					       "fd00::5" };
	const struct fixture *f = *state;
	char text[ADDR_TEXT_MAX];
	struct err err = ERR_INIT;

	assert_int_equal(allocate(f, "10.2.1.0/24", "10.2.1.77", "a", text, NULL), 0);
	assert_string_equal(text, "10.2.1.77");
	assert_int_equal(allocate(f, "10.2.1.0/24", "10.2.1.77", "b", text, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "a:eth0"));
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		assert_int_equal(allocate(f, "10.2.1.0/24", refused[i], "b", text, NULL), -EINVAL);
	assert_int_equal(count_attachments(f), 1);
}

/* -- owners -------------------------------------------------------------------------- */

static void test_owner(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_owner second = { .container = "a", .interface = "net1" };
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	struct ipam_address b[IPAM_SETS_MAX];
	struct addr held[IPAM_SETS_MAX];
	char text[ADDR_TEXT_MAX];
	struct err err = ERR_INIT;
	struct addr a;

	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
	assert_int_equal(allocate(f, "10.2.1.0/24", NULL, "a", text, &err), -EEXIST);
	assert_non_null(strstr(err.text, "10.2.1.2"));
	/* Another interface of the container is another attachment. */
	assert_int_equal(ipam_allocate(&pool, NULL, 0, &second, b, NULL), 0);
	assert_int_equal(lookup(f, "a", &a), 1);
	assert_string_equal(addr_format(&a, text), "10.2.1.2");
	assert_string_equal(addr_format(&b[0].address.addr, text), "10.2.1.3");
	release(f, "a");
	assert_int_equal(lookup(f, "a", &a), -ENOENT);
	assert_int_equal(ipam_lookup(&pool, &second, held, NULL), 1);
}

static void set_time(const struct fixture *f, const char *name, int64_t seconds)
{
	const struct timespec times[] = { { .tv_sec = seconds }, { .tv_sec = seconds } };
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/attachments/%s", f->dir, name);
	assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* Which of an ADD and a GC of the same time comes first: the other one learns of it. */
static void test_taken_back_or_confirmed(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_owner pod = { .container = "pod", .interface = "eth0" };
	char text[ADDR_TEXT_MAX];
	struct err err = ERR_INIT;
	int64_t now;

	assert_int_equal(ipam_confirm(f->dir, &pod, &err), -ENOENT);
	assert_int_equal(ipam_condemn(f->dir, &pod, clock_real_ns(), &err), 0);
	/* Begun before the GC, and not at its end yet. */
	assert_int_equal(allocate(f, "10.2.1.0/24", NULL, "pod", text, &err), 0);
	set_time(f, "pod:eth0", clock_real_ns() / NS_PER_S - 5);
	assert_int_equal(ipam_condemn(f->dir, &pod, clock_real_ns(), &err), 1);
	assert_int_equal(ipam_condemn(f->dir, &pod, 1, &err), 1);
	assert_int_equal(ipam_confirm(f->dir, &pod, &err), -ENOENT);
	assert_non_null(strstr(err.text, "a GC takes it back"));
	assert_int_equal(lookup(f, "pod", &(struct addr){ 0 }), 1);
	release(f, "pod");
	/* Confirmed after the GC began, whenever it began itself; and before. */
	assert_int_equal(allocate(f, "10.2.1.0/24", NULL, "pod", text, &err), 0);
	set_time(f, "pod:eth0", clock_real_ns() / NS_PER_S - 5);
	now = clock_real_ns();
	assert_int_equal(ipam_confirm(f->dir, &pod, &err), 0);
	assert_int_equal(ipam_condemn(f->dir, &pod, now, &err), 0);
	assert_int_equal(ipam_confirm(f->dir, &pod, &err), 0);
	assert_int_equal(ipam_condemn(f->dir, &pod, clock_real_ns() + 1, &err), 1);
	/* Made under a clock that was ahead. */
	set_time(f, "pod:eth0", clock_real_ns() / NS_PER_S + 86400);
	assert_int_equal(ipam_condemn(f->dir, &pod, now, &err), 1);
}

static void test_release_of_nothing(void **state)
{
	const struct fixture *f = *state;
	struct addr a;

	release(f, "a"); /* the folder is not even there, and is not made */
	assert_int_not_equal(access(f->dir, F_OK), 0);
	assert_int_equal(lookup(f, "a", &a), -ENOENT);
	assert_int_equal(count_complete(f), 0);
	assert_int_equal(count_attachments(f), 0);
	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
	release(f, "a");
	release(f, "a");
	assert_int_equal(count_attachments(f), 0);
}

static void test_bad_names(void **state)
{
	static const char *const names[] = { "", "a/b", "a:b", "../../etc" };
	const struct fixture *f = *state;
	char text[ADDR_TEXT_MAX], longest[300];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(allocate(f, "10.2.1.0/24", NULL, names[i], text, NULL), -EINVAL);
	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(allocate(f, "10.2.1.0/24", NULL, longest, text, NULL), -EINVAL);
	longest[255 - 5] = '\0'; /* with ":eth0" as long as a file's name may be */
	assert_given(f, "10.2.1.0/24", longest, "10.2.1.2");
	release(f, longest);
	assert_int_equal(count_attachments(f), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_range),
		TEST(test_full),
		TEST(test_next_fit),
		TEST(test_bad_map),
		TEST(test_old_layout),
		TEST(test_ipv6),
		TEST(test_wanted),
		TEST(test_owner),
		TEST(test_taken_back_or_confirmed),
		TEST(test_release_of_nothing),
		TEST(test_bad_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pod addresses: the range, the order, half-made allocations, many processes at once. */
#include "refuse.h"
#include "unit.h"

#include "poplin/ipam/ipam.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "poplin/base/file.h"

struct fixture {
	char top[64];
	char dir[128]; /* two levels that are not there yet */
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->top, sizeof(f->top), "/tmp/poplin-test-ipam.XXXXXX");
	assert_non_null(mkdtemp(f->top));
	(void)snprintf(f->dir, sizeof(f->dir), "%s/ipam/net", f->top);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	(void)file_remove_tree(f->top, NULL);
	free(f);
	return 0;
}

/* -- short forms ---------------------------------------------------------------- */

static struct prefix subnet(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static struct ipam_pool pool_of(const struct fixture *f, const char *net)
{
	struct ipam_pool pool = { .nsets = 0 };
	struct prefix p = subnet(net);

	strlcpy(pool.dir, f->dir, sizeof(pool.dir));
	assert_int_equal(ipam_pool_add_subnet(&pool, &p, NULL), 0);
	return pool;
}

static int allocate(const struct fixture *f, const char *net, const char *wanted,
		    const char *container, char ret[static ADDR_TEXT_MAX], struct err *err)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct ipam_pool pool = pool_of(f, net);
	struct ipam_address given[IPAM_SETS_MAX];
	struct addr asked;
	int r;

	if (wanted)
		assert_int_equal(addr_parse(wanted, &asked, NULL), 0);
	r = ipam_allocate(&pool, &asked, wanted != NULL, &owner, given, err);
	if (r == 0) {
		assert_int_equal(given[0].address.len, subnet(net).len);
		addr_format(&given[0].address.addr, ret);
	}
	return r;
}

static void assert_given(const struct fixture *f, const char *net, const char *container,
			 const char *expected)
{
	char text[ADDR_TEXT_MAX];
	struct err err = ERR_INIT;

	if (allocate(f, net, NULL, container, text, &err) < 0)
		fail_msg("%s: %s", container, err.text);
	assert_string_equal(text, expected);
}

static void release(const struct fixture *f, const char *container)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	struct err err = ERR_INIT;

	if (ipam_release(&pool, &owner, &err) < 0)
		fail_msg("%s: %s", container, err.text);
}

static int lookup(const struct fixture *f, const char *container, struct addr *ret)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct addr held[IPAM_SETS_MAX];
	struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	int n = ipam_lookup(&pool, &owner, held, NULL);

	if (n > 0)
		*ret = held[0];
	return n;
}

static int count_one(const struct addr *addr, const char *container, const char *interface,
		     void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

static unsigned count_complete(const struct fixture *f)
{
	unsigned n = 0;

	assert_int_equal(ipam_foreach(f->dir, count_one, &n, NULL), 0);
	return n;
}

static unsigned count_attachments(const struct fixture *f)
{
	unsigned n = 0;

	assert_int_equal(ipam_foreach_attachment(f->dir, count_one, &n, NULL), 0);
	return n;
}

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
	assert_int_equal(allocate(f, "10.2.1.0/28", NULL, "more", text, &err), -ENOSPC);
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

/* The one map there is. */
static void map_path(const struct fixture *f, char *ret, size_t size)
{
	char pattern[160];
	glob_t found;

	(void)snprintf(pattern, sizeof(pattern), "%s/maps/*", f->dir);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 1);
	strlcpy(ret, found.gl_pathv[0], size);
	globfree(&found);
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
		assert_int_equal(allocate(f, "10.2.1.0/29", NULL, "more", text, NULL), -ENOSPC);
		release(f, "last");
	}
	assert_int_equal(count_complete(f), 4);
}

/* The pool, and whoever asks in the child of with_refused(). */
struct asking {
	struct ipam_pool pool;
	struct ipam_owner owner;
};

static int allocate_one(void *arg)
{
	const struct asking *ask = arg;
	struct ipam_address given[IPAM_SETS_MAX];

	return -ipam_allocate(&ask->pool, NULL, 0, &ask->owner, given, NULL);
}

static struct asking asking(const struct fixture *f, const char *net, const char *container)
{
	return (struct asking){ .pool = pool_of(f, net),
				.owner = { .container = container, .interface = "eth0" } };
}

/* A disk that takes no write to the map: the search goes on behind what it could not mark. */
static void test_map_cannot_be_written(void **state)
{
	static const char zeros[16];
	const struct fixture *f = *state;
	struct asking more = asking(f, "10.2.1.0/29", "more");
	char path[256], text[ADDR_TEXT_MAX];
	struct addr a;
	int fd;

	assert_given(f, "10.2.1.0/29", "a", "10.2.1.2");
	assert_given(f, "10.2.1.0/29", "b", "10.2.1.3");
	map_path(f, path, sizeof(path));
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	/* All seems free, whether the search begins there or has to wrap. */
	for (int next = 4; next >= 0; next--) {
		assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 8), sizeof(zeros));
		assert_int_equal(pwrite(fd, &(char){ (char)next }, 1, 8), 1);
		assert_int_equal(with_refused(SYS_pwrite64, EIO, allocate_one, &more), 0);
		assert_int_equal(lookup(f, "more", &a), 1);
		release(f, "more");
	}
	assert_string_equal(addr_format(&a, text), "10.2.1.4");
	for (unsigned i = 4; i <= 6; i++) {
		(void)snprintf(text, sizeof(text), "c%u", i);
		assert_int_equal(allocate(f, "10.2.1.0/29", NULL, text, text, NULL), 0);
	}
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 8), sizeof(zeros));
	assert_int_equal(with_refused(SYS_pwrite64, EIO, allocate_one, &more), EIO);
	assert_int_equal(close(fd), 0);
	assert_int_equal(count_complete(f), 5);
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
	assert_int_equal(allocate(f, "fd00:1::/126", NULL, "c", text, NULL), -ENOSPC);
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

/* -- processes that died ------------------------------------------------------------- */

static void make_link(const struct fixture *f, const char *folder, const char *name,
		      const char *content)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, folder);
	assert_int_equal(file_make_dirs(path, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/%s/%s", f->dir, folder, name);
	assert_int_equal(symlink(content, path), 0);
}

/* -- what the plugin host-local reserved ---------------------------------------------- */

static void reserve(const struct fixture *f, const char *address, const char *content)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, address);
	assert_int_equal(file_make_parent(path, NULL), 0);
	assert_int_equal(file_write_atomic(path, 0600, content, strlen(content), NULL), 0);
}

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
	assert_true(ipam_holder(&pool, &a, holder));
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
	assert_int_equal(ipam_has_free(&pool, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "5 are held"));
	assert_int_equal(take(&pool, "new", NULL, text, &err), -ENOSPC);
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

static int release_one(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_release(&ask->pool, &ask->owner, NULL);
}

static int ask_whether_reserved(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_is_reserved(&ask->pool, &ask->owner, NULL) & 0xff;
}

static int list_all(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach(ask->pool.dir, count_one, &n, NULL);
}

static int list_attachments(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach_attachment(ask->pool.dir, count_one, &n, NULL);
}

static int list_reserved(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach_reserved(&ask->pool, count_one, &n, NULL);
}

static int release_orphans(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_release_orphans(ask->pool.dir, NULL);
}

/* The disk does not list a folder: that is an error, and not an empty folder. */
static void test_folder_cannot_be_listed(void **state)
{
	static const struct {
		const char *what;
		int (*fn)(void *arg);
	} cases[] = {
		{ "allocate", allocate_one },
		{ "release", release_one },
		{ "is reserved", ask_whether_reserved },
		{ "addresses", list_all },
		{ "attachments", list_attachments },
		{ "reservations", list_reserved },
		{ "orphans", release_orphans },
	};
	const struct fixture *f = *state;
	struct asking old = asking(f, "10.2.1.0/24", "old");
	struct addr held[IPAM_SETS_MAX];

	strlcpy(old.pool.reservations, f->dir, sizeof(old.pool.reservations));
	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
	reserve(f, "10.2.1.3", "old\r\neth0");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int r = with_refused(SYS_getdents64, EIO, cases[i].fn, &old);

		if (r != EIO)
			fail_msg("%s: %s", cases[i].what, strerror(r));
	}
	assert_int_equal(ipam_lookup(&old.pool, &old.owner, held, NULL), 1);
	assert_int_equal(ipam_release(&old.pool, &old.owner, NULL), 0);
}

/* Killed between the two links: the attachment alone. It holds nothing, and any verb clears it. */
static void test_half_made(void **state)
{
	const struct fixture *f = *state;
	struct addr a;

	assert_given(f, "10.2.1.0/24", "first", "10.2.1.2");
	release(f, "first");
	make_link(f, "attachments", "a:eth0", "10.2.1.3");
	make_link(f, "attachments", "b:eth0", "10.2.1.3");
	assert_int_equal(lookup(f, "a", &a), -ENOENT);
	assert_int_equal(count_complete(f), 0);
	assert_int_equal(count_attachments(f), 2); /* GC finds them */
	assert_given(f, "10.2.1.0/24", "c", "10.2.1.3");
	/* What the halves name is another's by now, and stays so. */
	release(f, "a");
	assert_given(f, "10.2.1.0/24", "b", "10.2.1.4");
	assert_int_equal(lookup(f, "c", &a), 1);
	assert_int_equal(count_complete(f), 2);
	assert_int_equal(count_attachments(f), 2);
}

/* Killed while the folders were made. */
static void test_half_made_folders(void **state)
{
	const struct fixture *f = *state;
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/attachments", f->dir);
	assert_int_equal(file_make_dirs(path, NULL), 0);
	assert_int_equal(count_attachments(f), 0);
	release(f, "a");
	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
}

/* -- many at once ----------------------------------------------------------------------- */

#define PROCESSES 8
#define ROUNDS	  12

static void reap(const pid_t *pids, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int status = 0;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* A child of the test: no assertions, they would run on in the parent's place. */
static int allocate_many(const struct ipam_pool *pool, unsigned process)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		char name[32];
		const struct ipam_owner owner = { .container = name, .interface = "eth0" };
		struct ipam_address a[IPAM_SETS_MAX];

		(void)snprintf(name, sizeof(name), "p%u-%u", process, i);
		if (ipam_allocate(pool, NULL, 0, &owner, a, NULL) < 0)
			return 1;
		/* Every third goes away and comes back, amid the others. */
		if (i % 3 == 0 && (ipam_release(pool, &owner, NULL) < 0 ||
				   ipam_allocate(pool, NULL, 0, &owner, a, NULL) < 0))
			return 2;
	}
	return 0;
}

static int check_unique(const struct addr *addr, const char *container, const char *interface,
			void *arg)
{
	bool *seen = arg;
	uint32_t host = addr_to_ipv4(addr) & 0xff;

	assert_in_range(host, 2, 254);
	assert_false(seen[host]);
	seen[host] = true;
	return 0;
}

static void test_concurrent(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	bool seen[256] = { false };
	pid_t pids[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0)
			_exit(allocate_many(&pool, i));
	}
	reap(pids, PROCESSES);
	assert_int_equal(count_complete(f), PROCESSES * ROUNDS);
	assert_int_equal(count_attachments(f), PROCESSES * ROUNDS);
	/* By attachment: two that name one address would show here, and one of them not above. */
	assert_int_equal(ipam_foreach_attachment(f->dir, check_unique, seen, NULL), 0);
}

/* The first allocations on a node: all make the folders and the map at the same time. */
static void test_race_for_folders(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/24");

	for (unsigned round = 0; round < 40; round++) {
		pid_t pids[PROCESSES];

		for (unsigned i = 0; i < PROCESSES; i++) {
			pids[i] = fork();
			assert_true(pids[i] >= 0);
			if (pids[i] == 0)
				_exit(allocate_many(&pool, i));
		}
		reap(pids, PROCESSES);
		assert_int_equal(count_complete(f), PROCESSES * ROUNDS);
		assert_int_equal(file_remove_tree(f->dir, NULL), 0);
	}
}

/* All race for the last address: one gets it. */
static void test_race_for_one(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/30");
	pid_t pids[PROCESSES];
	unsigned winners = 0;

	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			char name[16];
			const struct ipam_owner owner = { .container = name, .interface = "eth0" };
			struct ipam_address a[IPAM_SETS_MAX];
			int r;

			(void)snprintf(name, sizeof(name), "p%u", i);
			r = ipam_allocate(&pool, NULL, 0, &owner, a, NULL);
			_exit(r == 0 ? 10 : r == -ENOSPC ? 11 : 12);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status = 0;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_in_range(WEXITSTATUS(status), 10, 11);
		winners += WEXITSTATUS(status) == 10;
	}
	assert_int_equal(winners, 1);
	assert_int_equal(count_attachments(f), 1);
}

/* Killed at any moment: whatever is left goes with a release, and the lock with the process. */
static void test_killed(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/28");
	const struct ipam_owner owner = { .container = "victim", .interface = "eth0" };

	for (unsigned i = 0; i < 60; i++) {
		struct timespec delay = { .tv_nsec = 1000L * (i * 37 % 1500) };
		pid_t pid = fork();

		assert_true(pid >= 0);
		while (pid == 0) {
			struct ipam_address a[IPAM_SETS_MAX];

			(void)ipam_allocate(&pool, NULL, 0, &owner, a, NULL);
			(void)ipam_release(&pool, &owner, NULL);
		}
		(void)nanosleep(&delay, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		release(f, "victim");
		assert_int_equal(count_attachments(f), 0);
		assert_int_equal(count_complete(f), 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_range),
		TEST(test_full),
		TEST(test_next_fit),
		TEST(test_bad_map),
		TEST(test_map_cannot_be_written),
		TEST(test_old_layout),
		TEST(test_ipv6),
		TEST(test_wanted),
		TEST(test_owner),
		TEST(test_release_of_nothing),
		TEST(test_bad_names),
		TEST(test_reserved_by_host_local),
		TEST(test_reservation_is_released),
		TEST(test_folder_cannot_be_listed),
		TEST(test_half_made),
		TEST(test_half_made_folders),
		TEST(test_concurrent),
		TEST(test_race_for_folders),
		TEST(test_race_for_one),
		TEST(test_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

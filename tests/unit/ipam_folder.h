/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of ipam share: a folder of their own, and short forms. */
#ifndef POPLIN_TESTS_UNIT_IPAM_FOLDER_H
#define POPLIN_TESTS_UNIT_IPAM_FOLDER_H

#include "unit.h"

#include "poplin/ipam/ipam.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/file.h"

struct fixture {
	char top[64];
	char dir[128]; /* two levels that are not there yet */
};

static inline int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->top, sizeof(f->top), "/tmp/poplin-test-ipam.XXXXXX");
	assert_non_null(mkdtemp(f->top));
	(void)snprintf(f->dir, sizeof(f->dir), "%s/ipam/net", f->top);
	*state = f;
	return 0;
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	(void)file_remove_tree(f->top, NULL);
	free(f);
	return 0;
}

/* -- short forms ---------------------------------------------------------------- */

static inline struct prefix subnet(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p, NULL), 0);
	return p;
}

static inline struct ipam_pool pool_of(const struct fixture *f, const char *net)
{
	struct ipam_pool pool = { .nsets = 0 };
	struct prefix p = subnet(net);

	strlcpy(pool.dir, f->dir, sizeof(pool.dir));
	assert_int_equal(ipam_pool_add_subnet(&pool, &p, NULL), 0);
	return pool;
}

static inline int allocate(const struct fixture *f, const char *net, const char *wanted,
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

static inline void assert_given(const struct fixture *f, const char *net, const char *container,
				const char *expected)
{
	char text[ADDR_TEXT_MAX];
	struct err err = ERR_INIT;

	if (allocate(f, net, NULL, container, text, &err) < 0)
		fail_msg("%s: %s", container, err.text);
	assert_string_equal(text, expected);
}

static inline void release(const struct fixture *f, const char *container)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	struct err err = ERR_INIT;

	if (ipam_release(&pool, &owner, &err) < 0)
		fail_msg("%s: %s", container, err.text);
}

static inline int lookup(const struct fixture *f, const char *container, struct addr *ret)
{
	const struct ipam_owner owner = { .container = container, .interface = "eth0" };
	struct addr held[IPAM_SETS_MAX];
	struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	int n = ipam_lookup(&pool, &owner, held, NULL);

	if (n > 0)
		*ret = held[0];
	return n;
}

static inline int count_one(const struct addr *addr, const char *container, const char *interface,
			    void *arg)
{
	++*(unsigned *)arg;
	return 0;
}

static inline unsigned count_complete(const struct fixture *f)
{
	unsigned n = 0;

	assert_int_equal(ipam_foreach(f->dir, count_one, &n, NULL), 0);
	return n;
}

static inline unsigned count_attachments(const struct fixture *f)
{
	unsigned n = 0;

	assert_int_equal(ipam_foreach_attachment(f->dir, count_one, &n, NULL), 0);
	return n;
}

/* The one map there is. */
static inline void map_path(const struct fixture *f, char *ret, size_t size)
{
	char pattern[160];
	glob_t found;

	(void)snprintf(pattern, sizeof(pattern), "%s/maps/*", f->dir);
	assert_int_equal(glob(pattern, 0, NULL, &found), 0);
	assert_int_equal(found.gl_pathc, 1);
	strlcpy(ret, found.gl_pathv[0], size);
	globfree(&found);
}

/* The pool, and whoever asks in the child of with_refused(). */
struct asking {
	struct ipam_pool pool;
	struct ipam_owner owner;
};

static inline int allocate_one(void *arg)
{
	const struct asking *ask = arg;
	struct ipam_address given[IPAM_SETS_MAX];

	return -ipam_allocate(&ask->pool, NULL, 0, &ask->owner, given, NULL);
}

static inline struct asking asking(const struct fixture *f, const char *net, const char *container)
{
	return (struct asking){ .pool = pool_of(f, net),
				.owner = { .container = container, .interface = "eth0" } };
}

static inline void make_link(const struct fixture *f, const char *folder, const char *name,
			     const char *content)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, folder);
	assert_int_equal(file_make_dirs(path, NULL), 0);
	(void)snprintf(path, sizeof(path), "%s/%s/%s", f->dir, folder, name);
	assert_int_equal(symlink(content, path), 0);
}

static inline void reserve(const struct fixture *f, const char *address, const char *content)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", f->dir, address);
	assert_int_equal(file_make_parent(path, NULL), 0);
	assert_int_equal(file_write_atomic(path, 0600, content, strlen(content), NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif

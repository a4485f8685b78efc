/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of the kernel, in a folder that stands in for /proc/sys. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "agent/limits.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "unit.h"

static char folder[64];
static struct limits limits;

static void write_value(const char *path, const char *value)
{
	char full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", folder, path);
	for (char *c = full + 1; (c = strchr(c, '/')); *c++ = '/') {
		*c = '\0';
		assert_true(mkdir(full, 0700) == 0 || errno == EEXIST);
	}
	f = fopen(full, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", value);
	fclose(f);
}

static unsigned look(int family, size_t peers)
{
	const struct limits_input in = {
		.sysctl = folder, .family = family, .peers = peers, .interface = "eth0"
	};
	unsigned near = 0;

	limits_look(&in, &limits);
	for (unsigned i = 0; i < LIMITS; i++)
		near |= limits.text[i][0] ? 1U << i : 0;
	return near;
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/poplin-limits-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	return file_remove_tree(folder, NULL);
}

static void what_cannot_be_read_is_no_limit(void **state)
{
	assert_int_equal(look(AF_INET, 100000), 0);
	assert_int_equal(look(AF_INET6, 100000), 0);
	write_value("net/ipv4/neigh/default/gc_thresh3", "");
	write_value("net/ipv6/route/max_size", "-1"); /* as some kernels say: none */
	assert_int_equal(look(AF_INET6, 100000), 0);
}

static void the_neighbour_table_needs_twice_the_peers(void **state)
{
	write_value("net/ipv4/neigh/default/gc_thresh3", "1024");
	write_value("net/ipv6/neigh/default/gc_thresh3", "10");
	assert_int_equal(look(AF_INET, 512), 0);
	assert_int_equal(look(AF_INET, 513), 1U << LIMIT_NEIGHBOURS);
	assert_non_null(strstr(limits.text[LIMIT_NEIGHBOURS], "gc_thresh3 is 1024 with 513"));
	assert_non_null(strstr(limits.text[LIMIT_NEIGHBOURS], "set it to 1026"));
	assert_int_equal(look(AF_INET6, 6), 1U << LIMIT_NEIGHBOURS);
}

static void only_ipv6_has_a_table_of_limited_size(void **state)
{
	write_value("net/ipv6/route/max_size", "4096");
	assert_int_equal(look(AF_INET, 3000), 0);
	assert_int_equal(look(AF_INET6, 2048), 0);
	assert_int_equal(look(AF_INET6, 2049), 1U << LIMIT_IPV6_ROUTES);
}

static void the_larger_rp_filter_counts(void **state)
{
	static const struct {
		const char *all, *own;
		bool strict;
	} cases[] = {
		{ "0", "0", false }, { "1", "0", true },  { "0", "1", true },
		{ "2", "1", false }, { "1", "2", false }, { "1", "1", true },
	};

	for (size_t i = 0; i < countof(cases); i++) {
		write_value("net/ipv4/conf/all/rp_filter", cases[i].all);
		write_value("net/ipv4/conf/eth0/rp_filter", cases[i].own);
		assert_int_equal(look(AF_INET, 1), cases[i].strict ? 1U << LIMIT_RP_FILTER : 0);
	}
	assert_int_equal(look(AF_INET6, 1), 0);
}

#define limits_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		limits_test(what_cannot_be_read_is_no_limit),
		limits_test(the_neighbour_table_needs_twice_the_peers),
		limits_test(only_ipv6_has_a_table_of_limited_size),
		limits_test(the_larger_rp_filter_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

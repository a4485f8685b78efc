/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The resolver, with a name server that does as it is told. */
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <time.h>

#include "agent/resolver.h"
#include "poplin/base/clock.h"
#include "poplin/base/thread.h"
#include "unit.h"

static struct mutex lock;
static struct cond told;
/* Under lock. */
static const char *answer; /* of the name server; NULL: it is away */
static bool wanted;
static unsigned calls;
static char last[ADDR_TEXT_MAX];

/* In place of libc's. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	struct found {
		struct addrinfo info;
		struct sockaddr_in address;
	};
	struct found *found;
	struct addr parsed;

	mutex_hold(&lock);
	if (!answer)
		return EAI_AGAIN;
	assert_int_equal(addr_parse(answer, &parsed, NULL), 0);
	found = calloc(1, sizeof(*found));
	assert_non_null(found);
	memcpy(&found->address.sin_addr, parsed.bytes, 4);
	found->info.ai_family = AF_INET;
	found->info.ai_addr = (struct sockaddr *)(void *)&found->address;
	*ret = &found->info;
	return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
	free(info);
}

static bool on_resolved(const char *node, const struct addr *address, void *arg)
{
	mutex_hold(&lock);
	calls++;
	strcpy(last, "none");
	if (address->family != AF_UNSPEC)
		addr_format(address, last);
	cond_signal(&told);
	return wanted;
}

static void set(const char *new_answer, bool new_wanted)
{
	mutex_hold(&lock);
	answer = new_answer;
	wanted = new_wanted;
}

/* Asks, and waits until something is told: last. */
static void ask(struct resolver *r)
{
	const int64_t until = clock_ns() + 10 * NS_PER_S;
	unsigned before;

	mutex_lock(&lock);
	before = calls;
	mutex_unlock(&lock);
	resolver_want(r, "node");
	mutex_hold(&lock);
	while (calls == before)
		assert_true(cond_wait_until(&told, &lock, until));
}

static void expect(struct resolver *r, const char *expected)
{
	ask(r);
	assert_string_equal(last, expected);
}

static int start(void **state)
{
	struct resolver *r;

	mutex_init(&lock, LOCK_LEAF);
	cond_init(&told);
	if (resolver_start(&r, AF_INET, on_resolved, NULL, NULL) < 0)
		return -1;
	*state = r;
	return 0;
}

static int stop(void **state)
{
	resolver_stop(*state);
	cond_done(&told);
	mutex_done(&lock);
	return 0;
}

static void a_name_server_that_is_away_costs_no_address(void **state)
{
	set(NULL, true);
	expect(*state, "none");
	set("192.0.2.1", true);
	expect(*state, "192.0.2.1");
	set(NULL, true);
	expect(*state, "192.0.2.1");
	set("192.0.2.2", true);
	expect(*state, "192.0.2.2");
}

static void whoever_asks_again_is_told_again(void **state)
{
	set("192.0.2.1", true);
	expect(*state, "192.0.2.1");
	expect(*state, "192.0.2.1");
}

static void a_name_that_nobody_wants_is_forgotten(void **state)
{
	unsigned tries = 0;

	set("192.0.2.1", false);
	expect(*state, "192.0.2.1");
	set(NULL, false);
	/* It goes after the call that said so, unless it was asked for meanwhile. */
	do
		ask(*state);
	while (strcmp(last, "none") != 0 && ++tries < 10000);
	assert_string_equal(last, "none");
}

static int64_t process_ns(void)
{
	struct timespec t;

	assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t), 0);
	return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* The record of each may be one of the Python agent's. Walks over all of them took 5 s and more. */
static void many_names_cost_no_walk_over_all_of_them(void **state)
{
	const int64_t until = clock_ns() + 60 * NS_PER_S, began = process_ns();
	const unsigned names = 50000;
	char name[16];

	set("192.0.2.1", true);
	mutex_lock(&lock);
	calls = 0;
	mutex_unlock(&lock);
	for (unsigned i = 0; i < names; i++) {
		(void)snprintf(name, sizeof(name), "node%u", i);
		resolver_want(*state, name);
	}
	mutex_lock(&lock);
	while (calls < names && cond_wait_until(&told, &lock, until))
		;
	mutex_unlock(&lock);
	assert_true(calls >= names);
	assert_true(process_ns() - began < 3 * NS_PER_S);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(a_name_server_that_is_away_costs_no_address),
		TEST(whoever_asks_again_is_told_again),
		TEST(a_name_that_nobody_wants_is_forgotten),
		TEST(many_names_cost_no_walk_over_all_of_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

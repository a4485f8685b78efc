/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests, dumps and batches against the kernel, and what must hold when answers are lost. */
#include <sys/socket.h>

#include "netns.h"
#include "nl/socket.h"
#include "poplin/base/clock.h"
#include "poplin/base/thread.h"

#define PROTOCOL 84
#define MANY	 5000

/* 10.0.0.0/24, 10.0.1.0/24, ... */
static struct prefix nth_prefix(size_t i)
{
	return (struct prefix){ .addr = addr_from_ipv4(0x0a000000 + ((uint32_t)i << 8)),
				.len = 24 };
}

static struct nl_msg *nth_route(size_t i, unsigned index, unsigned flags)
{
	const struct route r = { .dst = nth_prefix(i), .index = index, .protocol = PROTOCOL };

	return route_put_msg(&r, flags);
}

/* -- requests ----------------------------------------------------------------- */

static void test_error_text(void **state)
{
	const struct route r = { .dst = nth_prefix(1), .nexthop = 4711, .protocol = PROTOCOL };

	make_uplink();
	assert_int_equal(request(route_put_msg(&r, NLM_F_CREATE | NLM_F_EXCL)), -EINVAL);
	assert_string_equal(err.text, "Nexthop id does not exist: Invalid argument");
	assert_int_equal(err.code, -EINVAL);
	/* Without a text of the kernel's, and without anybody who listens. */
	assert_int_equal(link_delete(nl, 4711, &err), -ENODEV);
	assert_non_null(strstr(err.text, "No such device"));
	assert_int_equal(link_delete(nl, 4711, NULL), -ENODEV);
}

/* Any process may send to our port. Its "answer" must not be taken for the kernel's. */
static void test_forged_answer(void **state)
{
	struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_pid = netlink_port(nl) };
	auto_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct {
		struct nlmsghdr header;
		struct nlmsgerr body;
	} forged = {
		.header = { .nlmsg_len = sizeof(forged),
			    .nlmsg_type = NLMSG_ERROR,
			    .nlmsg_pid = netlink_port(nl) },
	};

	for (uint32_t ahead = 1; ahead < 4; ahead++) {
		forged.header.nlmsg_seq = nl->seq + ahead;
		assert_int_equal(
			sendto(fd, &forged, sizeof(forged), 0, (struct sockaddr *)&to, sizeof(to)),
			sizeof(forged));
	}
	assert_int_equal(link_delete(nl, 4711, &err), -ENODEV);
}

/* -- dumps -------------------------------------------------------------------- */

struct results {
	size_t count, next;
	size_t ok, exists, invalid, lost, other;
	bool in_order;
	int code[MANY];
};

static struct results results;

static void take_result(size_t tag, int result, const char *text, void *arg)
{
	struct results *r = arg;

	r->in_order = r->in_order && tag == r->next;
	r->next = tag + 1;
	r->count++;
	r->ok += result == 0;
	r->exists += result == -EEXIST;
	r->invalid += result == -EINVAL && strcmp(text, "Nexthop id does not exist") == 0;
	r->lost += result == -ENOBUFS;
	assert_in_range(tag, 0, MANY - 1);
	assert_int_equal(r->code[tag], 1); /* told once */
	r->code[tag] = result;
}

static void expect_results(void)
{
	results = (struct results){ .in_order = true };
	for (size_t i = 0; i < MANY; i++)
		results.code[i] = 1;
}

static void add_take(struct netlink_batch *b, struct nl_msg *msg, size_t tag)
{
	assert_non_null(msg);
	assert_int_equal(netlink_batch_add(b, msg, tag), 0);
	nlmsg_free(msg);
}

static struct netlink_batch *new_batch(void)
{
	struct netlink_batch *b;

	assert_ok(netlink_batch_new(&b, &err));
	return b;
}

static void make_routes(unsigned index, size_t count, size_t step)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();

	for (size_t i = 0; i < count; i += step)
		add_take(b, nth_route(i, index, NLM_F_CREATE | NLM_F_EXCL), i);
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.ok, (count + step - 1) / step);
}

static void make_nexthops(unsigned index, uint32_t count)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();

	for (uint32_t i = 0; i < count; i++) {
		const struct nexthop n = {
			.id = i + 1,
			.gateway = addr_from_ipv4(0xac100100 + i),
			.index = index,
			.protocol = PROTOCOL,
		};

		add_take(b, nexthop_put_msg(&n, NLM_F_CREATE | NLM_F_EXCL), i);
	}
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.ok, count);
}

static void test_dump(void **state)
{
	unsigned index = make_uplink();
	const struct route foreign = { .dst = prefix("10.99.0.0/24"),
				       .index = index,
				       .protocol = RTPROT_STATIC };

	make_routes(index, MANY, 1);
	assert_ok(request(route_put_msg(&foreign, NLM_F_CREATE)));
	assert_int_equal(count_routes(AF_INET, PROTOCOL), MANY);
	assert_int_equal(count_routes(AF_INET, RTPROT_STATIC), 1);
	assert_int_equal(count_routes(AF_INET6, PROTOCOL), 0);
	/* And that of the uplink's network. */
	assert_int_equal(count_routes(AF_INET, 0), MANY + 2);
}

static int refuse_tenth(const struct route *r, void *arg)
{
	return ++*(unsigned *)arg == 10 ? -ECANCELED : 0;
}

/* What is left of a dump does not stand in the way of the next request. */
static void test_dump_reader_fails(void **state)
{
	unsigned count = 0, index = make_uplink();

	make_routes(index, MANY, 1);
	assert_int_equal(route_foreach(nl, AF_INET, PROTOCOL, refuse_tenth, NULL, &count, &err),
			 -ECANCELED);
	assert_int_equal(count, 10);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), MANY);
}

/* A dump during which somebody changes the table, `changes` times. */
struct disturbed {
	struct netlink *other;
	unsigned changes, index, seen, restarts;
};

static int disturb(const struct nexthop *n, void *arg)
{
	struct disturbed *d = arg;
	const struct nexthop more = {
		.id = 100000 + d->changes,
		.gateway = addr("172.16.0.9"),
		.index = d->index,
		.protocol = PROTOCOL,
	};
	auto_(nlmsg_free) struct nl_msg *msg = NULL;

	if (d->seen++ || !d->changes)
		return 0;
	d->changes--;
	msg = nexthop_put_msg(&more, NLM_F_CREATE | NLM_F_EXCL);
	return netlink_request(d->other, msg, &err);
}

static void begin_anew(void *arg)
{
	struct disturbed *d = arg;

	d->seen = 0;
	d->restarts++;
}

static void test_dump_interrupted(void **state)
{
	struct disturbed d = { .changes = 3, .index = make_uplink() };

	make_nexthops(d.index, MANY);
	assert_ok(netlink_open(&d.other, &err));
	assert_ok(nexthop_foreach(nl, PROTOCOL, disturb, begin_anew, &d, &err));
	assert_int_equal(d.restarts, 3);
	assert_int_equal(d.seen, MANY + 3);
	/* It is not tried for ever. */
	d.changes = 1000;
	d.restarts = d.seen = 0;
	assert_int_equal(nexthop_foreach(nl, PROTOCOL, disturb, begin_anew, &d, &err), -EINTR);
	assert_int_equal(d.restarts, 10);
	assert_int_equal(count_nexthops(PROTOCOL), MANY + 13);
	netlink_close(d.other);
}

/* -- batches ------------------------------------------------------------------ */

static void test_batch_empty(void **state)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();

	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.count, 0);
}

/* Every 7th exists, every 100th names a nexthop that does not. */
static void test_batch_errors_in_the_middle(void **state)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();
	unsigned index = make_uplink();
	size_t exists = 0, invalid = 0;

	make_routes(index, MANY, 7);
	for (size_t i = 0; i < MANY; i++) {
		const struct route bad = { .dst = nth_prefix(i),
					   .nexthop = 4711,
					   .protocol = PROTOCOL };

		if (i % 100 == 50) {
			add_take(b, route_put_msg(&bad, NLM_F_CREATE | NLM_F_EXCL), i);
			invalid++;
		} else {
			add_take(b, nth_route(i, index, NLM_F_CREATE | NLM_F_EXCL), i);
			exists += i % 7 == 0;
		}
	}
	assert_int_equal(netlink_batch_count(b), MANY);
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(netlink_batch_count(b), 0);
	assert_int_equal(results.count, MANY);
	assert_true(results.in_order);
	assert_int_equal(results.invalid, invalid);
	assert_int_equal(results.exists, exists);
	assert_int_equal(results.ok, MANY - invalid - exists);
	for (size_t i = 0; i < MANY; i++)
		assert_int_equal(results.code[i], i % 100 == 50 ? -EINVAL : i % 7 ? 0 : -EEXIST);
	/* What is reported as done is done. */
	for (size_t i = 0; i < MANY; i++)
		if (i % 100 != 50 && i % 7 == 0)
			results.ok++;
	for (size_t i = 50; i < MANY; i += 100) /* these stood before */
		results.ok += i % 7 == 0;
	assert_int_equal(count_routes(AF_INET, PROTOCOL), results.ok);
	/* It is used again. */
	add_take(b, nth_route(0, index, NLM_F_CREATE | NLM_F_REPLACE), 3);
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.count, 1);
	assert_int_equal(results.code[3], 0);
}

static void fail_all(struct netlink_batch *b, unsigned index)
{
	for (size_t i = 0; i < MANY; i++)
		add_take(b, nth_route(i, index, NLM_F_CREATE | NLM_F_EXCL), i);
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.count, MANY);
	assert_true(results.in_order);
}

static void set_receive_buffer(int bytes)
{
	assert_int_equal(setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes)), 0);
}

/* Every message is answered, and the answers fit also where the buffer could not be enlarged. */
static void test_batch_all_fail(void **state)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();
	unsigned index = make_uplink();

	make_routes(index, MANY, 1);
	fail_all(b, index);
	assert_int_equal(results.exists, MANY);
	set_receive_buffer(212992 / 2); /* net.core.rmem_default; the kernel doubles it */
	fail_all(b, index);
	assert_int_equal(results.exists, MANY);
}

/* Lost answers are never taken for success, and cost no time. */
static void test_batch_overrun(void **state)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();
	unsigned index = make_uplink();
	int64_t start = clock_ns();

	make_routes(index, MANY, 1);
	set_receive_buffer(8192);
	fail_all(b, index);
	assert_true(results.lost > 0);
	assert_int_equal(results.exists + results.lost, MANY);
	/* The socket is in order again at once. */
	set_receive_buffer(212992);
	fail_all(b, index);
	assert_int_equal(results.exists, MANY);
	assert_int_equal(count_routes(AF_INET, PROTOCOL), MANY);
	assert_true(clock_ns() - start < 4 * NS_PER_S);
}

/* An answer given up once does not confuse what follows. */
static void test_batch_after_stale_answers(void **state)
{
	auto_(netlink_batch_free) struct netlink_batch *b = new_batch();
	auto_(nlmsg_free) struct nl_msg *msg = NULL;
	unsigned index = make_uplink();

	make_routes(index, 2, 1);
	msg = nth_route(0, index, NLM_F_CREATE | NLM_F_EXCL);
	nlmsg_hdr(msg)->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	nlmsg_hdr(msg)->nlmsg_seq = nl->seq;
	assert_true(send(nl->fd, nlmsg_hdr(msg), nlmsg_hdr(msg)->nlmsg_len, 0) > 0);
	add_take(b, nth_route(2, index, NLM_F_CREATE | NLM_F_EXCL), 2);
	expect_results();
	assert_ok(netlink_batch_send(nl, b, take_result, &results, &err));
	assert_int_equal(results.code[2], 0);
	assert_int_equal(results.count, 1);
}

/* -- threads ------------------------------------------------------------------ */

#define THREADS	   4
#define PER_THREAD 1000

struct adder {
	struct thread thread;
	struct netlink *nl;
	unsigned index, first;
	size_t ok;
};

static void count_ok(size_t tag, int result, const char *text, void *arg)
{
	((struct adder *)arg)->ok += result == 0;
}

static void *add_and_remove(void *arg)
{
	struct adder *a = arg;
	struct netlink_batch *b = NULL;

	if (netlink_batch_new(&b, NULL) < 0)
		return NULL;
	for (size_t i = a->first; i < a->first + PER_THREAD; i++) {
		struct nl_msg *msg = nth_route(i, a->index, NLM_F_CREATE | NLM_F_EXCL);

		(void)netlink_batch_add(b, msg, i);
		nlmsg_free(msg);
	}
	(void)netlink_batch_send(a->nl, b, count_ok, a, NULL);
	netlink_batch_free(b);
	return NULL;
}

static int count_told(const struct nlmsghdr *msg, void *arg)
{
	(*(unsigned *)arg)++;
	return 0;
}

static void test_threads(void **state)
{
	static const unsigned groups[] = { RTNLGRP_IPV4_ROUTE, RTNLGRP_NONE };
	struct adder adders[THREADS];
	struct netlink_monitor *m;
	uint32_t ports[THREADS - 1];
	unsigned told = 0, index = make_uplink();

	assert_ok(netlink_monitor_open(&m, groups, &err));
	for (unsigned i = 0; i < THREADS; i++) {
		adders[i] = (struct adder){ .index = index, .first = i * PER_THREAD };
		assert_ok(netlink_open(&adders[i].nl, &err));
		if (i < THREADS - 1)
			ports[i] = netlink_port(adders[i].nl);
	}
	assert_ok(netlink_monitor_ignore(m, ports, THREADS - 1, &err));
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(
			thread_start(&adders[i].thread, "adder", add_and_remove, &adders[i]), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		thread_join(&adders[i].thread);
		assert_int_equal(adders[i].ok, PER_THREAD);
		netlink_close(adders[i].nl);
	}
	assert_int_equal(count_routes(AF_INET, PROTOCOL), THREADS * PER_THREAD);
	/* Of all, those of the one that was not left out. */
	assert_ok(netlink_monitor_read(m, count_told, &told, &err));
	assert_int_equal(told, PER_THREAD);
	netlink_monitor_close(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		netns_test(test_error_text),
		netns_test(test_forged_answer),
		netns_test(test_dump),
		netns_test(test_dump_reader_fails),
		netns_test(test_dump_interrupted),
		netns_test(test_batch_empty),
		netns_test(test_batch_errors_in_the_middle),
		netns_test(test_batch_all_fail),
		netns_test(test_batch_overrun),
		netns_test(test_batch_after_stale_answers),
		netns_test(test_threads),
	};

	return netns_allowed() ? cmocka_run_group_tests(tests, NULL, NULL) : EXIT_SKIPPED;
}

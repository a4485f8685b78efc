/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. The kernel works through all messages of one send() before it returns
 * (netlink_rcv_skb, af_netlink.c) and answers in order. A message that fails is answered in any
 * case, one that succeeds only if it asks for it (NLM_F_ACK). So only the last message of each send
 * asks: when its answer is there, whatever was not answered before has succeeded. That is one
 * acknowledgement instead of hundreds, and the receive buffer can hardly overflow; if it does
 * (ENOBUFS), a failure may have been dropped, and the messages without an answer count as unknown.
 * What was queued before the overflow is read all the same: those answers are true, and the kernel
 * drops everything further until the queue is empty (NETLINK_S_CONGESTED), the next run's too.
 *
 * A send holds at most SEND_MESSAGES, whose failures fit into the receive buffer even without the
 * privilege to enlarge it (an answer takes about 1 KiB of it, net.core.rmem_default is 208 KiB).
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "poplin/base/buf.h"
#include "poplin/base/clock.h"
#include "poplin/nl/nl.h"
#include "socket.h"

#define SEND_MESSAGES	  128
#define SEND_BYTES	  65536
#define ANSWER_TIMEOUT_NS (5 * NS_PER_S)

struct entry {
	size_t offset; /* in bytes */
	size_t tag;
};

struct netlink_batch {
	struct buf bytes; /* the messages, aligned, one behind the other */
	struct entry *entries;
	size_t count, size;
};

int netlink_batch_new(struct netlink_batch **ret, struct err *err)
{
	struct netlink_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return err_errno(err, -ENOMEM, "netlink batch");
	*ret = b;
	return 0;
}

void netlink_batch_free(struct netlink_batch *b)
{
	buf_done(&b->bytes);
	free(b->entries);
	free(b);
}

size_t netlink_batch_count(const struct netlink_batch *b)
{
	return b->count;
}

static int reserve_entry(struct netlink_batch *b)
{
	size_t size = b->size ? b->size * 2 : 64;
	struct entry *entries;

	if (b->count < b->size)
		return 0;
	entries = reallocarray(b->entries, size, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	b->entries = entries;
	b->size = size;
	return 0;
}

int netlink_batch_add(struct netlink_batch *b, const struct nl_msg *msg, size_t tag)
{
	static const char padding[NLMSG_ALIGNTO];
	const struct nlmsghdr *header = nlmsg_hdr((struct nl_msg *)msg);
	size_t offset = b->bytes.len;

	if (reserve_entry(b) < 0 || buf_add(&b->bytes, header, header->nlmsg_len) < 0)
		return -ENOMEM;
	if (buf_add(&b->bytes, padding, NLMSG_ALIGN(header->nlmsg_len) - header->nlmsg_len) < 0) {
		b->bytes.len = offset;
		return -ENOMEM;
	}
	b->entries[b->count++] = (struct entry){ .offset = offset, .tag = tag };
	return 0;
}

/* -- sending ---------------------------------------------------------------- */

/* The run of messages [first, end) that one send() carries. */
struct run {
	struct netlink_batch *batch;
	size_t first, end;
	uint32_t seq; /* of the first */
	netlink_result_fn *fn;
	void *arg;
	size_t reported; /* up to here, exclusive */
	bool lost;	 /* answers were dropped: silence no longer means success */
};

static struct nlmsghdr *message_at(const struct netlink_batch *b, size_t i)
{
	return (struct nlmsghdr *)(b->bytes.data + b->entries[i].offset);
}

static size_t end_of(const struct netlink_batch *b, size_t i)
{
	return i + 1 < b->count ? b->entries[i + 1].offset : b->bytes.len;
}

static void report(struct run *run, size_t end, int result, const char *text)
{
	for (; run->reported < end; run->reported++)
		run->fn(run->batch->entries[run->reported].tag, result, text, run->arg);
}

/* Those that were not answered while a later one was, or that never will be. */
static void report_silent(struct run *run, size_t limit)
{
	if (run->lost)
		report(run, limit, -ENOBUFS, "answers of the kernel were lost");
	else
		report(run, limit, 0, "");
}

static void plan_run(struct netlink *nl, struct run *run)
{
	struct netlink_batch *b = run->batch;
	size_t start = b->entries[run->first].offset;

	run->end = run->first;
	run->seq = nl->seq + 1;
	while (run->end < b->count && run->end - run->first < SEND_MESSAGES &&
	       (run->end == run->first || end_of(b, run->end) - start <= SEND_BYTES)) {
		struct nlmsghdr *header = message_at(b, run->end++);

		header->nlmsg_seq = ++nl->seq;
		header->nlmsg_pid = netlink_port(nl);
		header->nlmsg_flags |= NLM_F_REQUEST;
		header->nlmsg_flags &= (uint16_t)~NLM_F_ACK;
	}
	message_at(b, run->end - 1)->nlmsg_flags |= NLM_F_ACK;
}

/* Reports what the answers of one datagram say. */
static void take_answers(struct netlink *nl, size_t len, struct run *run)
{
	int left = (int)len;

	for (struct nlmsghdr *msg = (struct nlmsghdr *)nl->buffer; nlmsg_ok(msg, left);
	     msg = nlmsg_next(msg, &left)) {
		const struct nlmsgerr *ack = NLMSG_DATA(msg);
		size_t i = run->first + (msg->nlmsg_seq - run->seq);

		if (msg->nlmsg_type != NLMSG_ERROR || i < run->reported || i >= run->end)
			continue;
		report_silent(run, i);
		report(run, i + 1, ack->error, socket_ack_text(msg));
	}
}

static int receive_run(struct netlink *nl, struct run *run, struct err *err)
{
	int64_t deadline = clock_ns() + ANSWER_TIMEOUT_NS;

	run->lost = false;
	while (run->reported < run->end) {
		ssize_t n = socket_receive(nl->fd, nl->buffer, sizeof(nl->buffer), MSG_DONTWAIT);
		int r;

		if (n > 0) {
			take_answers(nl, (size_t)n, run);
		} else if (n == -ENOBUFS) {
			run->lost = true;
		} else if (n == -EAGAIN && run->lost) {
			report_silent(run, run->end);
		} else if (n == -EAGAIN) {
			r = socket_wait(nl->fd, deadline);
			if (r < 0)
				report(run, run->end, r, "no answer from the kernel");
		} else if (n < 0) {
			return err_errno(err, (int)n, "receive the kernel's answers");
		}
	}
	return 0;
}

static int send_run(struct netlink *nl, const struct run *run, struct err *err)
{
	const struct netlink_batch *b = run->batch;
	size_t start = b->entries[run->first].offset;
	ssize_t n;

	do
		n = send(nl->fd, b->bytes.data + start, end_of(b, run->end - 1) - start, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? err_errno(err, -errno, "send %zu netlink requests", run->end - run->first)
		     : 0;
}

int netlink_batch_send(struct netlink *nl, struct netlink_batch *b, netlink_result_fn *fn,
		       void *arg, struct err *err)
{
	struct run run = { .batch = b, .fn = fn, .arg = arg };
	int r = 0;

	while (r == 0 && run.first < b->count) {
		plan_run(nl, &run);
		r = send_run(nl, &run, err);
		if (r == 0)
			r = receive_run(nl, &run, err);
		run.first = run.end;
	}
	if (r < 0)
		report(&run, b->count, r, err ? err->text : "");
	buf_reset(&b->bytes);
	b->count = 0;
	return r;
}

/* -- a few that belong together ---------------------------------------------- */

int netlink_batch_take(struct netlink_batch *b, struct nl_msg *msg, size_t tag, struct err *err)
{
	int r = msg ? netlink_batch_add(b, msg, tag) : -ENOMEM;

	nlmsg_free(msg);
	return r < 0 ? err_errno(err, r, "netlink message") : 0;
}

struct first_failure {
	const char *const *what;
	size_t tag;
	int code;
	struct err *err;
};

static void take_result(size_t tag, int result, const char *text, void *arg)
{
	struct first_failure *first = arg;

	if (result == 0 || first->code)
		return;
	first->code = result;
	first->tag = tag;
	err_errno(first->err, result, "%s%s%s", first->what[tag], text[0] ? ": " : "", text);
}

int netlink_batch_run(struct netlink *nl, struct netlink_batch *b, const char *const *what,
		      size_t *ret_failed, struct err *err)
{
	struct first_failure first = { .what = what, .err = err };
	struct err socket = ERR_INIT; /* told along with the first message that it concerns */

	(void)netlink_batch_send(nl, b, take_result, &first, &socket);
	if (first.code && ret_failed)
		*ret_failed = first.tag;
	return first.code;
}

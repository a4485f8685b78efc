/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The removal of a pod's link, without waiting for what nobody needs.
 *
 * Theory of operation. The kernel works through a RTM_DELLINK inside of the sender's send(2), and
 * most of the 20 ms that it takes is an rcu_barrier() at its very end, when it frees what is long
 * out of use (netdev_run_todo, net/core/dev.c). So a child sends the request, and the parent waits
 * for the kernel's notification of it, on a socket that joined the group before.
 *
 * With the notification the link can carry no packet any more. What the kernel did until then, in
 * this order (unregister_netdevice_many_notify, net/core/dev.c, called once for both ends of a
 * veth, veth_dellink): both are brought down, with a grace period for senders (netif_close_many,
 * dev_deactivate_many); both are taken off the lists of devices (unlist_netdevice); packets that
 * were received already are thrown away on every CPU (flush_all_backlogs); a grace period for
 * whoever still looks at them (synchronize_net); the host's end is taken out of its bridge, routes
 * and neighbours (NETDEV_UNREGISTER); only then comes RTM_DELLINK (rtmsg_ifinfo_send). A mere look
 * whether the name is gone would be too early, by the grace period.
 *
 * The request names the link by its index, which no other link ever has: a child that was stopped for
 * long, until its parent gave up, must not remove what a later ADD made under the same name.
 *
 * Who dies when: the request is carried out in whole once it was sent, whatever signal the child
 * gets meanwhile. A child that died before it sent leaves a pipe without an answer, and the parent
 * does the work itself. A parent that died leaves the address held, for the DEL that comes again.
 * The child has none of the parent's files but the socket and the pipe: a runtime waits until the
 * plugin's standard output is closed by all who have it.
 *
 * Rejected: a socket that does not block, as send(2) does the work all the same; moving the link to
 * a namespace that dies at once, as making one costs more than is saved; the agent as the one who
 * removes, as DEL must work without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cni.h"
#include "poplin/base/clock.h"
#include "poplin/nl/link.h"

#define WAIT_NS (10 * NS_PER_S)

struct removal {
	unsigned index;
	struct netlink *nl;
	struct netlink_monitor *monitor;
	int answer; /* the child's result comes here; end of file: it died */
	bool gone;
};

/* In the child: nothing but the request and its result. */
static void request_removal(const struct removal *r, int answer)
{
	int result;

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		(void)close(fd);
	(void)close(r->answer);
	result = link_delete(r->nl, r->index, NULL);
	(void)!write(answer, &result, sizeof(result));
	_exit(0);
}

static int start_child(struct removal *r, struct err *err)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	r->answer = ends[0];
	/* Nobody waits for it: the kernel is told to forget it when it ends before us. */
	(void)signal(SIGCHLD, SIG_IGN);
	pid = fork();
	if (pid == 0)
		request_removal(r, ends[1]);
	close(ends[1]);
	return pid < 0 ? err_errno(err, -errno, "fork") : 0;
}

static int look_at(const struct nlmsghdr *msg, void *arg)
{
	struct removal *r = arg;
	struct link link;

	if (msg->nlmsg_type == RTM_DELLINK && link_parse(msg, &link) == 0 && link.index == r->index)
		r->gone = true;
	return 0;
}

/* The child's own result, or that it has none: -ECHILD. */
static int take_answer(const struct removal *r)
{
	int result;
	ssize_t n = read(r->answer, &result, sizeof(result));

	return n == (ssize_t)sizeof(result) ? result : -ECHILD;
}

/* 0: it is gone. Otherwise the kernel's errno, or -ECHILD: the child died without a word. */
static int wait_for_it(struct removal *r)
{
	struct pollfd fds[] = { { .fd = netlink_monitor_fd(r->monitor), .events = POLLIN },
				{ .fd = r->answer, .events = POLLIN } };
	int64_t deadline = clock_ns() + WAIT_NS;

	for (;;) {
		int64_t left = deadline - clock_ns();
		int n = poll(fds, countof(fds), left > 0 ? (int)(left / NS_PER_MS) + 1 : 0);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -ETIMEDOUT;
		/* Where the notification was lost (-ENOBUFS) the child's result tells as well. */
		if (fds[0].revents)
			(void)netlink_monitor_read(r->monitor, look_at, r, NULL);
		if (r->gone)
			return 0;
		if (fds[1].revents)
			return take_answer(r);
		fds[0].revents = fds[1].revents = 0;
	}
}

int pod_link_remove(struct netlink *nl, const char *name, unsigned index, struct err *err)
{
	static const unsigned groups[] = { RTNLGRP_LINK, 0 };
	auto_(netlink_monitor_close) struct netlink_monitor *monitor = NULL;
	struct removal removal = { .index = index, .nl = nl, .answer = -1 };
	int r = netlink_monitor_open(&monitor, groups, err);

	removal.monitor = monitor;
	if (r == 0)
		r = start_child(&removal, err);
	/* Whatever is missing for the quick way, or went wrong with it, does not stand in the way. */
	r = r < 0 ? -ECHILD : wait_for_it(&removal);
	mem_close_cleanup(&removal.answer);
	if (r == -ECHILD)
		return link_delete(nl, index, err);
	return r < 0 ? err_errno(err, r, "delete link %s", name) : 0;
}

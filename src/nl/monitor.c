/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "poplin/nl/nl.h"
#include "socket.h"

/* A burst of tens of thousands of notifications must not overrun us while we look something up. */
#define MONITOR_RECEIVE_BYTES (16 * 1024 * 1024)

struct netlink_monitor {
	struct nl_sock *sock;
	int fd;
	char buffer[SOCKET_BUFFER_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

static int join(struct netlink_monitor *m, const unsigned *groups, struct err *err)
{
	int r = nl_connect(m->sock, NETLINK_ROUTE);

	if (r < 0)
		return err_set(err, -EIO, "open a netlink monitor: %s", nl_geterror(r));
	m->fd = nl_socket_get_fd(m->sock);
	socket_set_buffers(m->fd, 0, MONITOR_RECEIVE_BYTES);
	for (; *groups; groups++) {
		r = nl_socket_add_membership(m->sock, (int)*groups);
		if (r < 0)
			return err_set(err, -EIO, "join netlink group %u: %s", *groups,
				       nl_geterror(r));
	}
	r = nl_socket_set_nonblocking(m->sock);
	return r < 0 ? err_set(err, -EIO, "netlink monitor: %s", nl_geterror(r)) : 0;
}

int netlink_monitor_open(struct netlink_monitor **ret, const unsigned *groups, struct err *err)
{
	auto_(netlink_monitor_close) struct netlink_monitor *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_errno(err, -ENOMEM, "netlink monitor");
	m->sock = nl_socket_alloc();
	if (!m->sock)
		return err_errno(err, -ENOMEM, "netlink monitor");
	r = join(m, groups, err);
	if (r < 0)
		return r;
	*ret = TAKE(m);
	return 0;
}

void netlink_monitor_close(struct netlink_monitor *m)
{
	nl_socket_free(m->sock);
	free(m);
}

int netlink_monitor_fd(const struct netlink_monitor *m)
{
	return m->fd;
}

static int take_datagram(struct netlink_monitor *m, size_t len, netlink_message_fn *fn, void *arg)
{
	int left = (int)len;

	for (struct nlmsghdr *msg = (struct nlmsghdr *)m->buffer; nlmsg_ok(msg, left);
	     msg = nlmsg_next(msg, &left)) {
		int r = msg->nlmsg_type >= NLMSG_MIN_TYPE ? fn(msg, arg) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

int netlink_monitor_read(struct netlink_monitor *m, netlink_message_fn *fn, void *arg,
			 struct err *err)
{
	for (;;) {
		ssize_t n = socket_receive(m->fd, m->buffer, sizeof(m->buffer), MSG_DONTWAIT);
		int r;

		if (n == -EAGAIN)
			return 0;
		if (n == -ENOBUFS || n == -EMSGSIZE)
			return err_set(err, -ENOBUFS, "the kernel's notifications were lost");
		if (n < 0)
			return err_errno(err, (int)n, "receive the kernel's notifications");
		r = take_datagram(m, (size_t)n, fn, arg);
		if (r < 0)
			return r;
	}
}

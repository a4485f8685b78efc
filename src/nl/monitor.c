/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
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

/*
 * A classic BPF program, run by the kernel before it queues a notification (sk_filter() in
 * netlink_broadcast, af_netlink.c). A notification is one message, so nlmsg_pid stands at a fixed
 * place; BPF loads it as if it were in network byte order.
 */
int netlink_monitor_ignore(struct netlink_monitor *m, const uint32_t *ports, size_t count,
			   struct err *err)
{
	struct sock_filter code[NETLINK_PORTS_MAX + 3];
	struct sock_fprog program = { .filter = code };
	size_t n = 0;

	if (count > NETLINK_PORTS_MAX)
		return err_set(err, -EINVAL, "too many netlink ports");
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct nlmsghdr, nlmsg_pid));
	for (size_t i = 0; i < count; i++) /* equal: on to the last instruction */
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(ports[i]),
							 (uint8_t)(count - i), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, UINT32_MAX);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
	program.len = (unsigned short)n;
	if (setsockopt(m->fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
		return err_errno(err, -errno, "filter notifications");
	return 0;
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
	bool lost = false;

	/*
	 * An overrun is told before what was queued ahead of it, and until the queue is empty the
	 * kernel drops everything further without another word (netlink_overrun, af_netlink.c).
	 * Only then may the caller begin its comparison, or what changes meanwhile is never seen.
	 */
	for (;;) {
		ssize_t n = socket_receive(m->fd, m->buffer, sizeof(m->buffer), MSG_DONTWAIT);
		int r;

		if (n == -EAGAIN)
			break;
		if (n == -ENOBUFS || n == -EMSGSIZE) {
			lost = true;
			continue;
		}
		if (n < 0)
			return err_errno(err, (int)n, "receive the kernel's notifications");
		r = take_datagram(m, (size_t)n, fn, arg);
		if (r < 0)
			return r;
	}
	return lost ? err_set(err, -ENOBUFS, "the kernel's notifications were lost") : 0;
}

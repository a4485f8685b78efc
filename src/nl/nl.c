/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket is libnl's, so are the messages; sending and receiving is done here. libnl's own
 * receive loop wants callbacks for every kind of message and hides which request an answer belongs
 * to; requests in batches need that, and the kernel's extended acknowledgements.
 */
#include "poplin/nl/nl.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "poplin/base/clock.h"
#include "socket.h"

#define REQUEST_TIMEOUT_NS (5 * NS_PER_S)
#define DUMP_TRIES	   10

/* -- open ------------------------------------------------------------------- */

static void set_option(int fd, int level, int option, int value)
{
	/* Older kernels lack some; what they are for is then done without. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

/* The FORCE forms need CAP_NET_ADMIN in the first user namespace; the plain ones obey rmem_max. */
void socket_set_buffers(int fd, int send_bytes, int receive_bytes)
{
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_bytes, sizeof(send_bytes)) < 0)
		set_option(fd, SOL_SOCKET, SO_SNDBUF, send_bytes);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive_bytes, sizeof(receive_bytes)) < 0)
		set_option(fd, SOL_SOCKET, SO_RCVBUF, receive_bytes);
}

int netlink_open_protocol(struct netlink **ret, int protocol, struct err *err)
{
	struct netlink *nl = calloc(1, sizeof(*nl));
	int r;

	if (!nl)
		return err_errno(err, -ENOMEM, "netlink socket");
	nl->sock = nl_socket_alloc();
	if (!nl->sock) {
		free(nl);
		return err_errno(err, -ENOMEM, "netlink socket");
	}
	r = nl_connect(nl->sock, protocol);
	if (r < 0) {
		err_set(err, -EIO, "open a netlink socket: %s", nl_geterror(r));
		netlink_close(nl);
		return -EIO;
	}
	nl->fd = nl_socket_get_fd(nl->sock);
	socket_set_buffers(nl->fd, SOCKET_SEND_BYTES, SOCKET_RECEIVE_BYTES);
	set_option(nl->fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
	set_option(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
	set_option(nl->fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
	nl->seq = (uint32_t)clock_ns(); /* whatever: only equality counts */
	*ret = nl;
	return 0;
}

int netlink_open(struct netlink **ret, struct err *err)
{
	return netlink_open_protocol(ret, NETLINK_ROUTE, err);
}

void netlink_close(struct netlink *nl)
{
	nl_socket_free(nl->sock);
	free(nl);
}

int netlink_fd(const struct netlink *nl)
{
	return nl->fd;
}

uint32_t netlink_port(const struct netlink *nl)
{
	return nl_socket_get_local_port(nl->sock);
}

/* -- receive ---------------------------------------------------------------- */

int socket_wait(int fd, int64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	for (;;) {
		int64_t left = deadline_ns - clock_ns();
		int n = poll(&pfd, 1, left > 0 ? (int)(left / NS_PER_MS) + 1 : 0);

		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* One datagram of the kernel's. 0: it was somebody else's, or cut, and is left out. */
ssize_t socket_receive(int fd, void *buffer, size_t size, int flags)
{
	struct sockaddr_nl from = { .nl_family = AF_UNSPEC };
	struct iovec iov = { .iov_base = buffer, .iov_len = size };
	struct msghdr msg = {
		.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	ssize_t n;

	do
		n = recvmsg(fd, &msg, flags);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (msg.msg_flags & MSG_TRUNC)
		return -EMSGSIZE;
	/* Any process may send to our port; only the kernel has number 0. */
	return from.nl_pid == 0 ? n : 0;
}

const char *socket_ack_text(const struct nlmsghdr *msg)
{
	const struct nlmsgerr *ack = NLMSG_DATA(msg);
	size_t skip = sizeof(*ack);
	struct nlattr *attr;

	if (!(msg->nlmsg_flags & NLM_F_ACK_TLVS))
		return "";
	/* Without NLM_F_CAPPED the failed request follows in whole (netlink_ack, af_netlink.c). */
	if (!(msg->nlmsg_flags & NLM_F_CAPPED))
		skip += ack->msg.nlmsg_len - sizeof(ack->msg);
	skip = NLMSG_ALIGN(skip);
	if (msg->nlmsg_len < NLMSG_HDRLEN + skip + sizeof(struct nlattr))
		return "";
	attr = nla_find((struct nlattr *)((char *)NLMSG_DATA(msg) + skip),
			(int)(msg->nlmsg_len - NLMSG_HDRLEN - skip), NLMSGERR_ATTR_MSG);
	if (!attr || nla_len(attr) <= 0 ||
	    ((const char *)nla_data(attr))[nla_len(attr) - 1] != '\0')
		return "";
	return nla_get_string(attr);
}

static int ack_error(const struct nlmsghdr *msg, struct err *err)
{
	const struct nlmsgerr *ack = NLMSG_DATA(msg);
	const char *text = socket_ack_text(msg), *name = strerrordesc_np(-ack->error);

	if (ack->error == 0)
		return 0;
	/* The kernel has error numbers of its own, such as 524 (ENOTSUPP), without a text. */
	return err_set(err, ack->error, "%s%s%s", text, text[0] ? ": " : "",
		       name ? name : "an error of the kernel's own");
}

/* -- requests --------------------------------------------------------------- */

static int send_request(struct netlink *nl, struct nl_msg *msg, int flags, struct err *err)
{
	struct nlmsghdr *header = nlmsg_hdr(msg);
	ssize_t n;

	header->nlmsg_seq = ++nl->seq;
	header->nlmsg_pid = netlink_port(nl);
	header->nlmsg_flags |= (uint16_t)(NLM_F_REQUEST | flags);
	do
		n = send(nl->fd, header, header->nlmsg_len, 0);
	while (n < 0 && errno == EINTR);
	return n < 0 ? err_errno(err, -errno, "send a netlink request") : 0;
}

/* What is to be done with the answers to a request. */
struct exchange {
	netlink_message_fn *fn;
	void *arg;
	int result;	  /* of fn, the first that failed */
	bool interrupted; /* NLM_F_DUMP_INTR was seen */
	bool dump;
};

/* 1: the exchange is over. 0: more comes. Negative: it failed. */
static int take_message(const struct nlmsghdr *msg, struct exchange *x, struct err *err)
{
	if (msg->nlmsg_flags & NLM_F_DUMP_INTR)
		x->interrupted = true;
	if (msg->nlmsg_type == NLMSG_ERROR) {
		int r = ack_error(msg, err);

		return r < 0 ? r : 1;
	}
	if (msg->nlmsg_type == NLMSG_DONE) {
		/* The dump's own error stands where the length of other messages ends. */
		int code = msg->nlmsg_len >= NLMSG_LENGTH(sizeof(int))
				   ? *(const int *)NLMSG_DATA(msg)
				   : 0;

		return code < 0 ? err_errno(err, code, "netlink dump") : 1;
	}
	/* After a failure the rest of a dump is read but not told. */
	if (x->fn && x->result == 0 && msg->nlmsg_type >= NLMSG_MIN_TYPE)
		x->result = x->fn(msg, x->arg);
	return 0;
}

static int take_datagram(struct netlink *nl, size_t len, struct exchange *x, struct err *err)
{
	int left = (int)len;

	for (struct nlmsghdr *msg = (struct nlmsghdr *)nl->buffer; nlmsg_ok(msg, left);
	     msg = nlmsg_next(msg, &left)) {
		int r;

		if (msg->nlmsg_seq != nl->seq) /* of an exchange that was given up */
			continue;
		r = take_message(msg, x, err);
		if (r != 0)
			return r;
	}
	return 0;
}

/* After an overrun the kernel queues nothing more until the queue was empty. */
static void drain(struct netlink *nl)
{
	ssize_t n;

	do
		n = socket_receive(nl->fd, nl->buffer, sizeof(nl->buffer), MSG_DONTWAIT);
	while (n >= 0 || n == -ENOBUFS || n == -EMSGSIZE);
}

static int receive_answers(struct netlink *nl, struct exchange *x, struct err *err)
{
	int64_t deadline = clock_ns() + REQUEST_TIMEOUT_NS;

	for (;;) {
		ssize_t n;
		int r = socket_wait(nl->fd, deadline);

		if (r < 0)
			return err_errno(err, r, "wait for the kernel's answer");
		n = socket_receive(nl->fd, nl->buffer, sizeof(nl->buffer), MSG_DONTWAIT);
		if (n == -EAGAIN)
			continue;
		if (n == -ENOBUFS)
			drain(nl);
		if (n < 0)
			return err_errno(err, (int)n, "receive the kernel's answer");
		r = take_datagram(nl, (size_t)n, x, err);
		if (r < 0)
			return r;
		if (r > 0)
			return x->result;
		if (x->dump) /* it goes on: the time is for each part */
			deadline = clock_ns() + REQUEST_TIMEOUT_NS;
	}
}

int netlink_get(struct netlink *nl, struct nl_msg *msg, netlink_message_fn *fn, void *arg,
		struct err *err)
{
	struct exchange x = { .fn = fn, .arg = arg };
	int r = send_request(nl, msg, NLM_F_ACK, err);

	return r < 0 ? r : receive_answers(nl, &x, err);
}

int netlink_request(struct netlink *nl, struct nl_msg *msg, struct err *err)
{
	return netlink_get(nl, msg, NULL, NULL, err);
}

int netlink_dump(struct netlink *nl, struct nl_msg *msg, netlink_message_fn *fn,
		 void (*restart)(void *arg), void *arg, struct err *err)
{
	for (int try = 0; try < DUMP_TRIES; try++) {
		struct exchange x = { .fn = fn, .arg = arg, .dump = true };
		int r = send_request(nl, msg, NLM_F_DUMP, err);

		if (r == 0)
			r = receive_answers(nl, &x, err);
		if (r != -EINTR && (r < 0 || !x.interrupted))
			return r;
		if (restart)
			restart(arg);
	}
	return err_set(err, -EINTR, "the kernel's tables changed during each of %d dumps",
		       DUMP_TRIES);
}

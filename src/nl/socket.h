/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What nl.c, batch.c and monitor.c share of the socket. Threads: those of the struct netlink. */
#ifndef POPLIN_NL_SOCKET_H
#define POPLIN_NL_SOCKET_H

#include <stdint.h>
#include <sys/types.h>

#include "poplin/nl/nl.h"

/*
 * The kernel fills dumps in parts of up to 32 KiB when the reader offers so much (netlink_dump,
 * af_netlink.c), and a batch's acknowledgements may come while the batch is still being sent.
 */
#define SOCKET_BUFFER_BYTES  32768
#define SOCKET_SEND_BYTES    (1024 * 1024)
#define SOCKET_RECEIVE_BYTES (4 * 1024 * 1024)

struct netlink {
	struct nl_sock *sock;
	int fd;
	uint32_t seq; /* of the last message sent */
	char buffer[SOCKET_BUFFER_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
};

void socket_set_buffers(int fd, int send_bytes, int receive_bytes);
/* Waits until fd is readable. -ETIMEDOUT. */
int socket_wait(int fd, int64_t deadline_ns);
/* Receives one datagram. 0: not from the kernel, leave it out. -EAGAIN, -ENOBUFS, -EMSGSIZE, ... */
ssize_t socket_receive(int fd, void *buffer, size_t size, int flags);
/* The extended text of an NLMSG_ERROR, or "". */
const char *socket_ack_text(const struct nlmsghdr *msg);

#endif

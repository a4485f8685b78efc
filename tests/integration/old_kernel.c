/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LD_PRELOAD: a kernel that does not know nexthop objects (before Linux 5.3). Requests about them go
 * out under a number that no kernel knows, so the running one answers as an old one does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#define UNKNOWN_TYPE 0x7ffc

ssize_t send(int fd, const void *data, size_t len, int flags)
{
	ssize_t (*next)(int fd, const void *data, size_t len, int flags) =
		(ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
	struct nlmsghdr *header = (struct nlmsghdr *)data;
	struct sockaddr_storage address = { .ss_family = AF_UNSPEC };
	socklen_t size = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
	    address.ss_family == AF_NETLINK && len >= sizeof(*header) &&
	    header->nlmsg_type >= RTM_NEWNEXTHOP && header->nlmsg_type <= RTM_GETNEXTHOP)
		header->nlmsg_type = UNKNOWN_TYPE;
	return next(fd, data, len, flags);
}

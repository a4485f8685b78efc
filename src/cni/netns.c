/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "cni.h"

int netns_open(const char *path, struct err *err)
{
	/* O_NONBLOCK: the path may be anything, a pipe that nobody writes to too. */
	auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat pod, host;
	struct statfs fs;

	if (fd < 0)
		return err_errno(err, -errno, "network namespace %s", path);
	if (fstatfs(fd, &fs) < 0 || fs.f_type != NSFS_MAGIC)
		return err_set(err, -EINVAL, "%s is not a namespace", path);
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return err_set(err, -EINVAL, "%s is not a network namespace", path);
	if (fstat(fd, &pod) == 0 && stat("/proc/self/ns/net", &host) == 0 &&
	    pod.st_ino == host.st_ino && pod.st_dev == host.st_dev)
		return err_set(err, -EINVAL, "%s is the host's own network namespace", path);
	return TAKE_FD(fd);
}

int netns_enter(int fd, struct err *err)
{
	return setns(fd, CLONE_NEWNET) < 0 ? err_errno(err, -errno, "enter the pod's namespace")
					   : 0;
}

int netns_return(const struct netlink *nl, struct err *err)
{
	auto_close int fd = ioctl(netlink_fd(nl), SIOCGSKNS);

	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		return err_errno(err, -errno, "go back to the node's network namespace");
	return 0;
}

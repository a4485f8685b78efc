/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's own limit: what poplin does, done with as little else as possible.
 *
 *	floor routes N DEVICE	N nexthops and N routes in large batches; prints seconds, and removes
 *				them
 *	floor watch CAUSE N	waits until N routes of protocol 84 were made after the CAUSE (start,
 *				nexthop, delete, replace, link); prints when the last of the cause was seen
 *				and when the last route, by the monotonic clock
 *	floor pods N BRIDGE	N times a veth with its peer in a new namespace, address, up,
 *				default route, then its removal; prints the microseconds of each
 *	floor plugin BRIDGE	one of these, as a CNI plugin of its own: CNI_COMMAND, CNI_NETNS and
 *				the number at the end of CNI_CONTAINERID say what; nothing is read
 *
 * Run in a network namespace of its own, with DEVICE or BRIDGE there. Not a part of poplin, and
 * shares no code with it: raw sockets, prebuilt messages, one acknowledgement per batch.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH_BYTES 60000

struct batch {
	char bytes[BATCH_BYTES + 4096];
	size_t len;
	struct nlmsghdr *last;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int open_socket(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), size = 4 << 20;

	if (fd < 0)
		die("socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	return fd;
}

static struct nlmsghdr *begin(struct batch *b, uint16_t type, uint16_t flags, const void *body,
			      size_t len)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)(b->bytes + b->len);

	memset(h, 0, NLMSG_SPACE(len));
	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_len = (uint32_t)NLMSG_SPACE(len);
	memcpy(NLMSG_DATA(h), body, len);
	b->last = h;
	return h;
}

static struct rtattr *attr(struct nlmsghdr *h, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = (struct rtattr *)(void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));

	a->rta_type = type;
	a->rta_len = (uint16_t)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
	h->nlmsg_len = (uint32_t)(NLMSG_ALIGN(h->nlmsg_len) + RTA_ALIGN(a->rta_len));
	return a;
}

static void close_nest(const struct nlmsghdr *h, struct rtattr *a)
{
	a->rta_len = (uint16_t)((const char *)h + h->nlmsg_len - (const char *)a);
}

static void end(struct batch *b)
{
	b->len += NLMSG_ALIGN(b->last->nlmsg_len);
}

/* Sends the batch and waits for the answer to its last message; a failure of any ends it all. */
static void flush(int fd, struct batch *b)
{
	char answer[32768];

	if (!b->len)
		return;
	b->last->nlmsg_flags |= NLM_F_ACK;
	b->last->nlmsg_seq = 1;
	if (send(fd, b->bytes, b->len, 0) < 0)
		die("send");
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);
		int left = (int)n;

		if (n < 0)
			die("recv");
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)answer;
		     NLMSG_OK(h, (unsigned)left); left -= (int)NLMSG_ALIGN(h->nlmsg_len),
				     h = (struct nlmsghdr *)(void *)((char *)h +
								     NLMSG_ALIGN(h->nlmsg_len))) {
			const struct nlmsgerr *e = NLMSG_DATA(h);

			if (h->nlmsg_type != NLMSG_ERROR)
				continue;
			if (e->error) {
				errno = -e->error;
				die("netlink");
			}
			if (h->nlmsg_seq == 1) {
				b->len = 0;
				return;
			}
		}
	}
}

static void flush_if_full(int fd, struct batch *b)
{
	if (b->len > BATCH_BYTES - 512)
		flush(fd, b);
}

/* -- routes ------------------------------------------------------------------ */

/* 172.16.0.0/12 is on the device; the routes go to 10.x.y.0/24. */
static uint32_t nexthop_id(uint32_t i)
{
	return 0xac100000 + 256 + i;
}

static void put_nexthop(struct batch *b, uint32_t i, uint32_t oif)
{
	const struct nhmsg nh = { .nh_family = AF_INET, .nh_protocol = 84 };
	uint32_t id = nexthop_id(i), gateway = htonl(id);
	struct nlmsghdr *h = begin(b, RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, &nh, sizeof(nh));

	attr(h, NHA_ID, &id, 4);
	attr(h, NHA_OIF, &oif, 4);
	attr(h, NHA_GATEWAY, &gateway, 4);
	end(b);
}

static void delete_nexthop(struct batch *b, uint32_t i, uint32_t oif)
{
	const struct nhmsg nh = { .nh_family = AF_UNSPEC };
	uint32_t id = nexthop_id(i);

	(void)oif;
	attr(begin(b, RTM_DELNEXTHOP, 0, &nh, sizeof(nh)), NHA_ID, &id, 4);
	end(b);
}

static void begin_route(struct batch *b, uint32_t i, uint16_t type, uint16_t flags)
{
	const struct rtmsg rt = { .rtm_family = AF_INET,
				  .rtm_dst_len = 24,
				  .rtm_table = RT_TABLE_MAIN,
				  .rtm_protocol = 84,
				  .rtm_type = RTN_UNICAST };
	uint32_t dst = htonl(0x0a000000 + (i << 8));

	attr(begin(b, type, flags, &rt, sizeof(rt)), RTA_DST, &dst, 4);
}

static void put_route(struct batch *b, uint32_t i, uint32_t oif)
{
	uint32_t id = nexthop_id(i);

	(void)oif;
	begin_route(b, i, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
	attr(b->last, RTA_NH_ID, &id, 4);
	end(b);
}

static void delete_route(struct batch *b, uint32_t i, uint32_t oif)
{
	(void)oif;
	begin_route(b, i, RTM_DELROUTE, 0);
	end(b);
}

static void for_all(int fd, struct batch *b, uint32_t count, uint32_t oif,
		    void (*add)(struct batch *b, uint32_t i, uint32_t oif))
{
	for (uint32_t i = 0; i < count; i++) {
		add(b, i, oif);
		flush_if_full(fd, b);
	}
}

/*
 * Takes everything back in the end: of nexthops that go with their namespace, or with their link, the
 * kernel walks through all routes for each (remove_nexthop, nexthop.c), and holds up what is
 * measured next.
 */
static void routes(uint32_t count, const char *device)
{
	static struct batch b;
	uint32_t oif = if_nametoindex(device);
	int fd = open_socket();
	double start = now();

	for_all(fd, &b, count, oif, put_nexthop);
	for_all(fd, &b, count, oif, put_route);
	flush(fd, &b);
	printf("%.6f\n", now() - start);
	for_all(fd, &b, count, oif, delete_route);
	for_all(fd, &b, count, oif, delete_nexthop);
	flush(fd, &b);
}

/* -- watching ---------------------------------------------------------------- */

#define WATCH_AT_ONCE 256

/* What routes are made for, and what tells of it. */
enum cause {
	CAUSE_START,   /* nothing: from the first route on */
	CAUSE_NEXTHOP, /* nothing: from the first nexthop on; to read of those takes its share, too */
	CAUSE_DELETE,  /* routes of ours were deleted */
	CAUSE_REPLACE, /* one of ours was replaced by another of our protocol */
	CAUSE_LINK,    /* a link came up */
};

struct watch {
	enum cause cause;
	uint32_t wanted, seen;
	double began, last;
};

static bool is_ours(const struct nlmsghdr *h)
{
	return ((const struct rtmsg *)NLMSG_DATA(h))->rtm_protocol == 84;
}

static bool is_cause(const struct watch *w, const struct nlmsghdr *h)
{
	switch (w->cause) {
	case CAUSE_START:
		return w->began == 0 && h->nlmsg_type == RTM_NEWROUTE && is_ours(h);
	case CAUSE_NEXTHOP:
		return w->began == 0 && h->nlmsg_type == RTM_NEWNEXTHOP;
	case CAUSE_DELETE:
		return h->nlmsg_type == RTM_DELROUTE && is_ours(h);
	case CAUSE_REPLACE:
		return h->nlmsg_type == RTM_NEWROUTE && is_ours(h) && w->began == 0;
	case CAUSE_LINK:
		return h->nlmsg_type == RTM_NEWLINK && w->seen == 0 &&
		       (((const struct ifinfomsg *)NLMSG_DATA(h))->ifi_flags & IFF_UP);
	}
	return false;
}

static void take_notification(struct watch *w, const struct nlmsghdr *h, double at)
{
	bool cause = is_cause(w, h);

	if (cause)
		w->began = at;
	if (h->nlmsg_type == RTM_NEWROUTE && is_ours(h) && !(cause && w->cause == CAUSE_REPLACE)) {
		w->seen++;
		w->last = at;
	}
}

/* Many notifications per system call: who measures should not take the core. */
static void watch_routes(enum cause cause, uint32_t wanted)
{
	static char buffers[WATCH_AT_ONCE][512];
	struct sockaddr_nl address = { .nl_family = AF_NETLINK,
				       .nl_groups = RTMGRP_IPV4_ROUTE | RTMGRP_LINK };
	struct mmsghdr messages[WATCH_AT_ONCE] = { 0 };
	struct watch w = { .cause = cause, .wanted = wanted };
	struct iovec iov[WATCH_AT_ONCE];
	int fd = open_socket(), size = 512 << 20;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (cause == CAUSE_NEXTHOP)
		address.nl_groups |= 1U << (RTNLGRP_NEXTHOP - 1);
	if (bind(fd, (struct sockaddr *)(void *)&address, sizeof(address)) < 0)
		die("bind");
	printf("ready\n");
	fflush(stdout);
	for (int i = 0; i < WATCH_AT_ONCE; i++) {
		iov[i] = (struct iovec){ buffers[i], sizeof(buffers[i]) };
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	while (w.seen < w.wanted) {
		/* One by one where each has its own time. */
		unsigned most = wanted < WATCH_AT_ONCE ? 1 : WATCH_AT_ONCE;
		int n = recvmmsg(fd, messages, most, MSG_WAITFORONE, NULL);
		double at = now();

		if (n < 0)
			die("recvmmsg");
		for (int i = 0; i < n; i++)
			take_notification(&w, (const void *)buffers[i], at);
	}
	printf("%.6f %.6f\n", w.began, w.last);
}

/* -- pods -------------------------------------------------------------------- */

static void add_veth(int fd, uint32_t bridge, const char *name, int netns)
{
	struct batch b;
	const struct ifinfomsg up = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, none = { 0 };
	const uint32_t one = 1;
	const uint8_t hairpin = 1;
	struct rtattr *info, *data, *peer;
	struct nlmsghdr *h;

	b.len = 0;
	h = begin(&b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &up, sizeof(up));
	attr(h, IFLA_IFNAME, name, strlen(name) + 1);
	attr(h, IFLA_MASTER, &bridge, 4);
	/* With more the kernel takes them back at once, and waits for readers (veth_init_queues). */
	attr(h, IFLA_NUM_TX_QUEUES, &one, 4);
	attr(h, IFLA_NUM_RX_QUEUES, &one, 4);
	info = attr(h, IFLA_LINKINFO, NULL, 0);
	attr(h, IFLA_INFO_KIND, "veth", 5);
	data = attr(h, IFLA_INFO_DATA, NULL, 0);
	peer = attr(h, VETH_INFO_PEER, &none, sizeof(none));
	attr(h, IFLA_IFNAME, "eth0", 5);
	attr(h, IFLA_NET_NS_FD, &netns, 4);
	attr(h, IFLA_NUM_TX_QUEUES, &one, 4);
	attr(h, IFLA_NUM_RX_QUEUES, &one, 4);
	close_nest(h, peer);
	close_nest(h, data);
	close_nest(h, info);
	end(&b);
	h = begin(&b, RTM_NEWLINK, 0, &none, sizeof(none));
	attr(h, IFLA_IFNAME, name, strlen(name) + 1);
	info = attr(h, IFLA_LINKINFO, NULL, 0);
	attr(h, IFLA_INFO_SLAVE_KIND, "bridge", 7);
	data = attr(h, IFLA_INFO_SLAVE_DATA, NULL, 0);
	attr(h, IFLA_BRPORT_MODE, &hairpin, 1);
	close_nest(h, data);
	close_nest(h, info);
	end(&b);
	flush(fd, &b);
}

static void configure(int fd, uint32_t index, uint32_t address, uint32_t gateway)
{
	struct batch b;
	const struct ifaddrmsg ifa = { .ifa_family = AF_INET,
				       .ifa_prefixlen = 16,
				       .ifa_index = index };
	const struct ifinfomsg lo = { .ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	const struct ifinfomsg up = { .ifi_index = (int)index,
				      .ifi_flags = IFF_UP,
				      .ifi_change = IFF_UP };
	const struct rtmsg rt = { .rtm_family = AF_INET,
				  .rtm_table = RT_TABLE_MAIN,
				  .rtm_protocol = 4,
				  .rtm_type = RTN_UNICAST };
	struct nlmsghdr *h;

	b.len = 0;
	h = begin(&b, RTM_NEWADDR, NLM_F_CREATE, &ifa, sizeof(ifa));
	attr(h, IFA_LOCAL, &address, 4);
	end(&b);
	begin(&b, RTM_NEWLINK, 0, &lo, sizeof(lo));
	end(&b);
	begin(&b, RTM_NEWLINK, 0, &up, sizeof(up));
	end(&b);
	h = begin(&b, RTM_NEWROUTE, NLM_F_CREATE, &rt, sizeof(rt));
	attr(h, RTA_GATEWAY, &gateway, 4);
	end(&b);
	flush(fd, &b);
}

static void delete_veth(int fd, const char *name)
{
	struct batch b;
	const struct ifinfomsg none = { 0 };
	struct nlmsghdr *h;

	b.len = 0;
	h = begin(&b, RTM_DELLINK, 0, &none, sizeof(none));
	attr(h, IFLA_IFNAME, name, strlen(name) + 1);
	end(&b);
	flush(fd, &b);
}

static void pods(uint32_t count, const char *bridge_name)
{
	uint32_t bridge = if_nametoindex(bridge_name);
	int host = open_socket(), home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	for (uint32_t i = 0; i < count; i++) {
		uint32_t address = htonl(0x0a020000 + 2 + i), gateway = htonl(0x0a020001);
		double start, added, removed;
		char name[IFNAMSIZ];
		int netns, pod;

		/* The namespace is the runtime's work, and is not counted. */
		if (unshare(CLONE_NEWNET) < 0)
			die("unshare");
		netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		if (setns(home, CLONE_NEWNET) < 0)
			die("setns");
		snprintf(name, sizeof(name), "fp%u", i);
		start = now();
		add_veth(host, bridge, name, netns);
		if (setns(netns, CLONE_NEWNET) < 0)
			die("setns");
		pod = open_socket();
		configure(pod, if_nametoindex("eth0"), address, gateway);
		close(pod);
		added = now();
		if (setns(home, CLONE_NEWNET) < 0)
			die("setns");
		removed = now();
		delete_veth(host, name);
		printf("%.1f %.1f\n", (added - start) * 1e6, (now() - removed) * 1e6);
		close(netns);
	}
}

/* The last digits of the container's id. */
static uint32_t pod_number(void)
{
	const char *id = getenv("CNI_CONTAINERID"), *digits;

	if (!id)
		die("CNI_CONTAINERID");
	digits = id + strlen(id);
	while (digits > id && digits[-1] >= '0' && digits[-1] <= '9')
		digits--;
	return (uint32_t)strtoul(digits, NULL, 10);
}

static void plugin(const char *bridge)
{
	const char *command = getenv("CNI_COMMAND"), *path = getenv("CNI_NETNS");
	uint32_t number = pod_number();
	int host = open_socket(), netns, pod;
	char name[IFNAMSIZ];

	snprintf(name, sizeof(name), "fp%u", number);
	if (command && strcmp(command, "DEL") == 0) {
		delete_veth(host, name);
		return;
	}
	netns = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (netns < 0)
		die("CNI_NETNS");
	add_veth(host, if_nametoindex(bridge), name, netns);
	if (setns(netns, CLONE_NEWNET) < 0)
		die("setns");
	pod = open_socket();
	configure(pod, if_nametoindex("eth0"), htonl(0x0a020002 + number), htonl(0x0a020001));
}

static int watch(const char *cause, uint32_t count)
{
	static const char *const causes[] = { "start", "nexthop", "delete", "replace", "link" };

	for (unsigned i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
		if (strcmp(cause, causes[i]) != 0)
			continue;
		watch_routes((enum cause)i, count);
		return 0;
	}
	return 2;
}

int main(int argc, char **argv)
{
	uint32_t count = argc == 4 ? (uint32_t)atoi(argv[strcmp(argv[1], "watch") ? 2 : 3]) : 0;

	if (argc == 3 && strcmp(argv[1], "plugin") == 0) {
		plugin(argv[2]);
		return 0;
	}
	if (count && strcmp(argv[1], "watch") == 0)
		return watch(argv[2], count);
	if (count && strcmp(argv[1], "routes") == 0)
		routes(count, argv[3]);
	else if (count && strcmp(argv[1], "pods") == 0)
		pods(count, argv[3]);
	else
		fprintf(stderr, "usage: floor routes|pods COUNT DEVICE, watch CAUSE COUNT, or "
				"plugin BRIDGE\n");
	return count ? 0 : 2;
}

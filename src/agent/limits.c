/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "limits.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "poplin/base/file.h"
#include "poplin/base/mem.h"

/* A table that is more than half full of our peers has little room for the rest of the node. */
#define ROOM 2

/* The number in a file, or -1. */
static long read_number(const struct limits_input *in, const char *path)
{
	auto_buf struct buf text = BUF_INIT;
	char full[PATH_MAX];

	if (snprintf(full, sizeof(full), "%s/%s", in->sysctl, path) >= (int)sizeof(full) ||
	    file_read(full, 64, &text, NULL) < 0 || text.len == 0)
		return -1;
	return strtol(text.data, NULL, 10);
}

/* A new entry is refused where the table holds gc_thresh3 already (neigh_alloc, neighbour.c). */
static void look_at_neighbours(const struct limits_input *in, char ret[static LIMIT_TEXT_MAX])
{
	const char *path = in->family == AF_INET ? "net/ipv4/neigh/default/gc_thresh3"
						 : "net/ipv6/neigh/default/gc_thresh3";
	long most = read_number(in, path);

	if (most < 0 || (size_t)most >= ROOM * in->peers)
		return;
	(void)snprintf(ret, LIMIT_TEXT_MAX,
		       "%s is %ld with %zu other nodes: when the neighbour table is full, packets "
		       "to some of them are lost; set it to %zu or more",
		       path, most, in->peers, ROOM * in->peers);
}

static void look_at_ipv6_routes(const struct limits_input *in, char ret[static LIMIT_TEXT_MAX])
{
	static const char path[] = "net/ipv6/route/max_size";
	long most = in->family == AF_INET6 ? read_number(in, path) : -1;

	if (most < 0 || (size_t)most >= ROOM * in->peers)
		return;
	(void)snprintf(ret, LIMIT_TEXT_MAX,
		       "%s is %ld with %zu other nodes: older kernels refuse further routes; set "
		       "it to %zu or more",
		       path, most, in->peers, ROOM * in->peers);
}

/* The larger of the two settings counts (IN_DEV_RPFILTER, inetdevice.h); 1 is strict. */
static void look_at_rp_filter(const struct limits_input *in, char ret[static LIMIT_TEXT_MAX])
{
	char path[128];
	long all, own;

	if (in->family != AF_INET)
		return;
	(void)snprintf(path, sizeof(path), "net/ipv4/conf/%s/rp_filter", in->interface);
	all = read_number(in, "net/ipv4/conf/all/rp_filter");
	own = read_number(in, path);
	if ((all > own ? all : own) != 1)
		return;
	(void)snprintf(ret, LIMIT_TEXT_MAX,
		       "%s is 1 (strict): packets of another node's pods are dropped while the "
		       "route back to them is missing or leads out elsewhere; set it to 2 (loose)",
		       all > own ? "net/ipv4/conf/all/rp_filter" : path);
}

void limits_look(const struct limits_input *in, struct limits *ret)
{
	*ret = (struct limits){ 0 };
	look_at_neighbours(in, ret->text[LIMIT_NEIGHBOURS]);
	look_at_ipv6_routes(in, ret->text[LIMIT_IPV6_ROUTES]);
	look_at_rp_filter(in, ret->text[LIMIT_RP_FILTER]);
}

const char *limit_name(enum limit limit)
{
	static const char *const names[] = {
#define LIMIT_NAME(limit, name) [LIMIT_##limit] = name,
		LIMIT_TABLE(LIMIT_NAME)
#undef LIMIT_NAME
	};

	return names[limit];
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "leftovers.h"

#include <errno.h>

#include "poplin/ipam/ipam.h"

struct search {
	const struct network *network;
	const struct prefix *own;
	struct leftovers *ret;
};

bool leftovers_have(const struct leftovers *l, const struct prefix *subnet)
{
	for (unsigned i = 0; i < l->nsubnets; i++)
		if (prefix_cmp(&l->subnets[i], subnet) == 0)
			return true;
	return false;
}

static int look_at_pod(const struct addr *addr, const char *container, const char *interface,
		       void *arg)
{
	const struct search *search = arg;
	struct leftovers *found = search->ret;
	struct prefix subnet = { .addr = *addr, .len = search->network->node_len };
	uint32_t index;

	subnet = prefix_canonical(&subnet);
	if (prefix_cmp(&subnet, search->own) == 0) {
		found->own++;
		return 0;
	}
	if (!network_index(search->network, &subnet, &index))
		return 0;
	found->pods++;
	if (!leftovers_have(found, &subnet) && found->nsubnets < LEFTOVERS_MAX)
		found->subnets[found->nsubnets++] = subnet;
	return 0;
}

int leftovers_find(const char *ipam_dir, const struct network *network, const struct prefix *own,
		   struct leftovers *ret, struct err *err)
{
	struct leftovers found = { .nsubnets = 0 };
	struct search search = { .network = network, .own = own, .ret = &found };
	int r = ipam_foreach(ipam_dir, look_at_pod, &search, err);

	if (r < 0 && r != -ENOENT)
		return r;
	*ret = found;
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/network.h"

#include <errno.h>

#define MARGIN_MAX 24

int network_init(struct network *ret, const struct prefix *pods, unsigned margin, struct err *err)
{
	unsigned bits = addr_bits(&pods->addr);
	unsigned len = pods->len + margin;
	char text[PREFIX_TEXT_MAX];

	if (bits == 0)
		return err_set(err, -EINVAL, "the pod network has no address");
	if (margin > MARGIN_MAX)
		return err_set(err, -EINVAL, "a margin of %u bits is more than %u", margin,
			       MARGIN_MAX);
	if (len > bits - 2)
		return err_set(
			err, -EINVAL,
			"%s and %u more bits make node subnets of /%u, too small for a gateway "
			"and a pod: at most /%u",
			prefix_format(pods, text), margin, len, bits - 2);
	*ret = (struct network){ .pods = *pods, .node_len = (uint8_t)len };
	return 0;
}

uint32_t network_subnets(const struct network *n)
{
	return UINT32_C(1) << (n->node_len - n->pods.len);
}

/*
 * The index as an amount of addresses can exceed 64 bits (IPv6), so it is put in place byte by
 * byte: its lowest bit is the last one of the node length.
 */
struct prefix network_subnet(const struct network *n, uint32_t index)
{
	struct prefix p = { .addr = n->pods.addr, .len = n->node_len };

	for (unsigned bit = n->node_len; index; index >>= 1, bit--)
		if (index & 1)
			p.addr.bytes[(bit - 1) / 8] |= (uint8_t)(0x80 >> ((bit - 1) % 8));
	return p;
}

bool network_index(const struct network *n, const struct prefix *p, uint32_t *ret)
{
	struct prefix canonical = prefix_canonical(p);
	uint32_t index = 0;

	if (p->len != n->node_len || !prefix_contains(&n->pods, p) ||
	    addr_cmp(&canonical.addr, &p->addr) != 0)
		return false;
	for (unsigned bit = n->pods.len; bit < n->node_len; bit++)
		index = index << 1 | (p->addr.bytes[bit / 8] >> (7 - bit % 8) & 1);
	*ret = index;
	return true;
}

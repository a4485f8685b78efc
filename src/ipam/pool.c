/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "poplin/ipam/ipam.h"
#include "pool.h"

static bool is_set(const struct addr *a)
{
	return a->family != AF_UNSPEC;
}

static bool between(const struct addr *first, const struct addr *last, const struct addr *a)
{
	return a->family == first->family && addr_cmp(first, a) <= 0 && addr_cmp(a, last) <= 0;
}

static bool overlap(const struct ipam_range *a, const struct ipam_range *b)
{
	return between(&a->first, &a->last, &b->first) || between(&b->first, &b->last, &a->first);
}

int ipam_range_complete(struct ipam_range *range, struct err *err)
{
	char subnet[PREFIX_TEXT_MAX], first[ADDR_TEXT_MAX], last[ADDR_TEXT_MAX];
	struct addr end = prefix_last(&range->subnet);

	prefix_format(&range->subnet, subnet);
	if (range->subnet.len + 2U > addr_bits(&range->subnet.addr))
		return err_set(err, -EINVAL, "subnet %s is too small for a gateway and a pod",
			       subnet);
	if (!is_set(&range->gateway))
		range->gateway = prefix_gateway(&range->subnet);
	if (!is_set(&range->first))
		range->first = prefix_gateway(&range->subnet);
	/* The last is IPv4's broadcast address. */
	if (!is_set(&range->last))
		range->last = range->subnet.addr.family == AF_INET ? addr_add(&end, -1) : end;
	if (!prefix_contains_addr(&range->subnet, &range->first) ||
	    !prefix_contains_addr(&range->subnet, &range->last))
		return err_set(err, -EINVAL, "the range from %s to %s is not of subnet %s",
			       addr_format(&range->first, first), addr_format(&range->last, last),
			       subnet);
	if (range->gateway.family != range->subnet.addr.family)
		return err_set(err, -EINVAL, "gateway %s is not of the family of subnet %s",
			       addr_format(&range->gateway, first), subnet);
	if (addr_cmp(&range->first, &range->last) > 0)
		return err_set(err, -EINVAL, "the range from %s to %s ends before it begins",
			       addr_format(&range->first, first), addr_format(&range->last, last));
	return 0;
}

int ipam_pool_add(struct ipam_pool *pool, const struct ipam_range *range, struct err *err)
{
	char a[PREFIX_TEXT_MAX], b[PREFIX_TEXT_MAX];

	if (pool->nranges == IPAM_RANGES_MAX || range->set >= IPAM_SETS_MAX)
		return err_set(err, -ENOSPC, "there are more than %u sets or %u ranges",
			       IPAM_SETS_MAX, IPAM_RANGES_MAX);
	prefix_format(&range->subnet, a);
	for (unsigned i = 0; i < pool->nranges; i++) {
		const struct ipam_range *other = &pool->ranges[i];

		prefix_format(&other->subnet, b);
		if (overlap(range, other))
			return err_set(err, -EINVAL, "the ranges of %s and %s overlap", b, a);
		if (other->set == range->set &&
		    other->subnet.addr.family != range->subnet.addr.family)
			return err_set(err, -EINVAL, "%s and %s are of one set, not of one family",
				       b, a);
	}
	pool->ranges[pool->nranges++] = *range;
	pool->nsets = range->set + 1;
	return 0;
}

int ipam_pool_add_hole(struct ipam_pool *pool, const struct ipam_hole *hole, struct err *err)
{
	char first[ADDR_TEXT_MAX], last[ADDR_TEXT_MAX];

	if (pool->nholes == IPAM_HOLES_MAX)
		return err_set(err, -ENOSPC, "there are more than %u", IPAM_HOLES_MAX);
	if (hole->first.family != hole->last.family || addr_cmp(&hole->first, &hole->last) > 0)
		return err_set(err, -EINVAL, "%s to %s is no range",
			       addr_format(&hole->first, first), addr_format(&hole->last, last));
	pool->holes[pool->nholes++] = *hole;
	return 0;
}

int ipam_pool_add_subnet(struct ipam_pool *pool, const struct prefix *subnet, struct err *err)
{
	struct ipam_range range = { .set = pool->nsets, .subnet = *subnet };
	int r = ipam_range_complete(&range, err);

	return r < 0 ? r : ipam_pool_add(pool, &range, err);
}

uint64_t ipam_capacity(const struct prefix *subnet)
{
	struct addr first = prefix_first(subnet), last = prefix_last(subnet);
	int64_t distance = addr_distance(&first, &last);
	/* The network address and the gateway; IPv4's broadcast address. */
	int64_t kept = subnet->addr.family == AF_INET ? 2 : 1;

	if (distance == INT64_MAX)
		return UINT64_MAX;
	return distance > kept ? (uint64_t)(distance - kept) : 0;
}

/* -- members --------------------------------------------------------------------- */

const struct ipam_range *pool_range_of(const struct ipam_pool *pool, const struct addr *a)
{
	for (unsigned i = 0; i < pool->nranges; i++)
		if (between(&pool->ranges[i].first, &pool->ranges[i].last, a))
			return &pool->ranges[i];
	return NULL;
}

const struct ipam_hole *pool_hole_of(const struct ipam_pool *pool, const struct addr *a)
{
	for (unsigned i = 0; i < pool->nholes; i++)
		if (between(&pool->holes[i].first, &pool->holes[i].last, a))
			return &pool->holes[i];
	return NULL;
}

/* -- places: the addresses of a set, numbered ------------------------------------- */

static unsigned ranges_of(const struct ipam_pool *pool, unsigned set)
{
	unsigned n = 0;

	for (unsigned i = 0; i < pool->nranges; i++)
		n += pool->ranges[i].set == set;
	return n;
}

/* How many of a range take part: an IPv6 subnet has more than any map could hold. */
static uint32_t places_of(const struct ipam_range *range, uint32_t max)
{
	int64_t distance = addr_distance(&range->first, &range->last);

	return distance < (int64_t)max ? (uint32_t)distance + 1 : max;
}

uint32_t pool_places(const struct ipam_pool *pool, unsigned set)
{
	uint32_t n = 0, max = POOL_PLACES_MAX / ranges_of(pool, set);

	for (unsigned i = 0; i < pool->nranges; i++)
		if (pool->ranges[i].set == set)
			n += places_of(&pool->ranges[i], max);
	return n;
}

struct addr pool_address_at(const struct ipam_pool *pool, unsigned set, uint32_t place)
{
	uint32_t max = POOL_PLACES_MAX / ranges_of(pool, set);

	for (unsigned i = 0; i < pool->nranges; i++) {
		uint32_t n = places_of(&pool->ranges[i], max);

		if (pool->ranges[i].set != set)
			continue;
		if (place < n)
			return addr_add(&pool->ranges[i].first, place);
		place -= n;
	}
	return (struct addr){ .family = AF_UNSPEC };
}

bool pool_place_of(const struct ipam_pool *pool, unsigned set, const struct addr *a, uint32_t *ret)
{
	uint32_t max = POOL_PLACES_MAX / ranges_of(pool, set), base = 0;

	for (unsigned i = 0; i < pool->nranges; i++) {
		const struct ipam_range *range = &pool->ranges[i];
		uint32_t n = places_of(range, max);

		if (range->set != set)
			continue;
		if (between(&range->first, &range->last, a)) {
			int64_t distance = addr_distance(&range->first, a);

			if (distance >= n)
				return false;
			*ret = base + (uint32_t)distance;
			return true;
		}
		base += n;
	}
	return false;
}

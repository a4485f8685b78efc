/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a pool's addresses are to the allocator. The addresses of a set are numbered from 0 on,
 * range after range ("places"); of very large ranges only the first ones take part, the others are
 * given on request. Threads: any; plain values.
 */
#ifndef POPLIN_IPAM_POOL_H
#define POPLIN_IPAM_POOL_H

#include "poplin/ipam/ipam.h"

#define POOL_PLACES_MAX (1U << 20)

/* NULL: the address is of no range, of no hole. */
const struct ipam_range *pool_range_of(const struct ipam_pool *pool, const struct addr *a);
const struct ipam_hole *pool_hole_of(const struct ipam_pool *pool, const struct addr *a);

uint32_t pool_places(const struct ipam_pool *pool, unsigned set);
struct addr pool_address_at(const struct ipam_pool *pool, unsigned set, uint32_t place);
bool pool_place_of(const struct ipam_pool *pool, unsigned set, const struct addr *a, uint32_t *ret);

#endif

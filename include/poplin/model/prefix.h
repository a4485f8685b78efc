/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IP addresses and prefixes, both families, in network byte order. Threads: any; plain values. */
#ifndef POPLIN_MODEL_PREFIX_H
#define POPLIN_MODEL_PREFIX_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "poplin/base/err.h"

struct addr {
	uint8_t family;	   /* AF_INET, AF_INET6; AF_UNSPEC: none */
	uint8_t bytes[16]; /* the first addr_size() count, the rest is zero */
};

struct prefix {
	struct addr addr; /* host bits are zero in a canonical prefix */
	uint8_t len;	  /* bits */
};

#define ADDR_TEXT_MAX	INET6_ADDRSTRLEN
#define PREFIX_TEXT_MAX (INET6_ADDRSTRLEN + 4)

size_t addr_size(const struct addr *a);	  /* bytes: 4, 16, or 0 */
unsigned addr_bits(const struct addr *a); /* 32, 128, or 0 */
int addr_parse(const char *text, struct addr *ret, struct err *err);
const char *addr_format(const struct addr *a, char ret[static ADDR_TEXT_MAX]); /* returns ret */
int addr_cmp(const struct addr *a, const struct addr *b); /* order of family, then of number */
/* Usable as a next hop: not unspecified, loopback, multicast, broadcast or (IPv4) of 0/8, 240/4. */
bool addr_is_unicast(const struct addr *a);
bool addr_is_link_local(const struct addr *a); /* 169.254/16, fe80::/10: not routed */
struct addr addr_from_ipv4(uint32_t host_order);
uint32_t addr_to_ipv4(const struct addr *a); /* host order; family must be AF_INET */
/* Adds n (which may be negative) to the address as a number; wraps at the end of the space. */
struct addr addr_add(const struct addr *a, int64_t n);
/* b - a, for addresses of one family; INT64_MAX or INT64_MIN where it does not fit. */
int64_t addr_distance(const struct addr *a, const struct addr *b);

/* "10.2.1.0/24"; -EINVAL when host bits are set or the length is missing or out of range. */
int prefix_parse(const char *text, struct prefix *ret, struct err *err);
/* "10.2.1.5/24": an address in a subnet, host bits kept. */
int prefix_parse_interface(const char *text, struct prefix *ret, struct err *err);
const char *prefix_format(const struct prefix *p,
			  char ret[static PREFIX_TEXT_MAX]);	/* returns ret */
int prefix_cmp(const struct prefix *a, const struct prefix *b); /* total order: addr, then len */
bool prefix_contains_addr(const struct prefix *p, const struct addr *a);
bool prefix_contains(const struct prefix *outer, const struct prefix *inner); /* or equal */
bool prefix_overlaps(const struct prefix *a, const struct prefix *b);
struct prefix prefix_canonical(const struct prefix *p); /* host bits cleared */
struct addr prefix_first(const struct prefix *p);	/* network address */
struct addr prefix_last(const struct prefix *p);	/* IPv4: broadcast address */
/* The gateway: first host of the subnet (network address + 1). */
struct addr prefix_gateway(const struct prefix *p);

#endif

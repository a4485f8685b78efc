/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/prefix.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Arithmetic is done on the address as one number, high byte first. */
typedef unsigned __int128 number;

static number to_number(const struct addr *a)
{
	number n = 0;

	for (size_t i = 0; i < addr_size(a); i++)
		n = n << 8 | a->bytes[i];
	return n;
}

static struct addr from_number(uint8_t family, number n)
{
	struct addr a = { .family = family };

	for (size_t i = addr_size(&a); i-- > 0; n >>= 8)
		a.bytes[i] = (uint8_t)n;
	return a;
}

/* The low `bits` bits. */
static number low_mask(unsigned bits)
{
	return bits >= 128 ? ~(number)0 : ((number)1 << bits) - 1;
}

static unsigned host_bits(const struct prefix *p)
{
	return addr_bits(&p->addr) - p->len;
}

size_t addr_size(const struct addr *a)
{
	return addr_bits(a) / 8;
}

unsigned addr_bits(const struct addr *a)
{
	if (a->family == AF_INET)
		return 32;
	return a->family == AF_INET6 ? 128 : 0;
}

int addr_parse(const char *text, struct addr *ret, struct err *err)
{
	struct addr a = { .family = strchr(text, ':') ? AF_INET6 : AF_INET };

	if (inet_pton(a.family, text, a.bytes) != 1)
		return err_set(err, -EINVAL, "'%s' is not an IP address", text);
	*ret = a;
	return 0;
}

const char *addr_format(const struct addr *a, char ret[static ADDR_TEXT_MAX])
{
	if (!inet_ntop(a->family, a->bytes, ret, ADDR_TEXT_MAX))
		strlcpy(ret, "none", ADDR_TEXT_MAX);
	return ret;
}

int addr_cmp(const struct addr *a, const struct addr *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(a->bytes, b->bytes, sizeof(a->bytes));
}

bool addr_is_unicast(const struct addr *a)
{
	static const uint8_t zero[15];

	switch (a->family) {
	case AF_INET:
		return a->bytes[0] != 0 && a->bytes[0] != 127 && a->bytes[0] < 224;
	case AF_INET6:
		/* Neither ff00::/8 nor ::, ::1. */
		return a->bytes[0] != 0xff &&
		       (memcmp(a->bytes, zero, sizeof(zero)) != 0 || a->bytes[15] > 1);
	default:
		return false;
	}
}

bool addr_is_link_local(const struct addr *a)
{
	if (a->family == AF_INET)
		return a->bytes[0] == 169 && a->bytes[1] == 254;
	return a->family == AF_INET6 && a->bytes[0] == 0xfe && (a->bytes[1] & 0xc0) == 0x80;
}

struct addr addr_from_ipv4(uint32_t host_order)
{
	return from_number(AF_INET, host_order);
}

uint32_t addr_to_ipv4(const struct addr *a)
{
	return (uint32_t)to_number(a);
}

struct addr addr_add(const struct addr *a, int64_t n)
{
	uint64_t amount = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
	number from = to_number(a);

	return from_number(a->family, n < 0 ? from - amount : from + amount);
}

int64_t addr_distance(const struct addr *a, const struct addr *b)
{
	number from = to_number(a), to = to_number(b);
	number distance = to >= from ? to - from : from - to;

	if (distance > INT64_MAX)
		return to >= from ? INT64_MAX : INT64_MIN;
	return to >= from ? (int64_t)distance : -(int64_t)distance;
}

/* Digits alone, no sign or blank: what strtoul() would let pass is refused. */
static bool parse_length(const char *text, unsigned max, uint8_t *ret)
{
	unsigned value = 0;

	if (!*text || strlen(text) > 3 || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (unsigned)(*text - '0');
	}
	if (value > max)
		return false;
	*ret = (uint8_t)value;
	return true;
}

int prefix_parse_interface(const char *text, struct prefix *ret, struct err *err)
{
	char address[ADDR_TEXT_MAX];
	const char *slash = strchr(text, '/');
	struct prefix p;

	if (!slash || (size_t)(slash - text) >= sizeof(address))
		return err_set(err, -EINVAL, "'%s' is not of the form address/length", text);
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	if (addr_parse(address, &p.addr, NULL) < 0)
		return err_set(err, -EINVAL, "'%s': '%s' is not an IP address", text, address);
	if (!parse_length(slash + 1, addr_bits(&p.addr), &p.len))
		return err_set(err, -EINVAL, "'%s': the length must be a number from 0 to %u", text,
			       addr_bits(&p.addr));
	*ret = p;
	return 0;
}

int prefix_parse(const char *text, struct prefix *ret, struct err *err)
{
	struct prefix p, canonical;
	char fixed[PREFIX_TEXT_MAX];
	int r = prefix_parse_interface(text, &p, err);

	if (r < 0)
		return r;
	canonical = prefix_canonical(&p);
	if (addr_cmp(&p.addr, &canonical.addr) != 0)
		return err_set(err, -EINVAL,
			       "'%s' has bits set behind its length; meant is perhaps %s", text,
			       prefix_format(&canonical, fixed));
	*ret = p;
	return 0;
}

const char *prefix_format(const struct prefix *p, char ret[static PREFIX_TEXT_MAX])
{
	char address[ADDR_TEXT_MAX];

	(void)snprintf(ret, PREFIX_TEXT_MAX, "%s/%u", addr_format(&p->addr, address),
		       (unsigned)p->len);
	return ret;
}

int prefix_cmp(const struct prefix *a, const struct prefix *b)
{
	int r = addr_cmp(&a->addr, &b->addr);

	if (r == 0 && a->len != b->len)
		r = a->len < b->len ? -1 : 1;
	return r;
}

bool prefix_contains_addr(const struct prefix *p, const struct addr *a)
{
	unsigned bits = host_bits(p);

	if (p->addr.family != a->family || addr_bits(a) == 0)
		return false;
	return ((to_number(&p->addr) ^ to_number(a)) & ~low_mask(bits) & low_mask(addr_bits(a))) ==
	       0;
}

bool prefix_contains(const struct prefix *outer, const struct prefix *inner)
{
	return outer->len <= inner->len && prefix_contains_addr(outer, &inner->addr);
}

bool prefix_overlaps(const struct prefix *a, const struct prefix *b)
{
	return prefix_contains(a, b) || prefix_contains(b, a);
}

struct prefix prefix_canonical(const struct prefix *p)
{
	return (struct prefix){ .addr = prefix_first(p), .len = p->len };
}

struct addr prefix_first(const struct prefix *p)
{
	return from_number(p->addr.family, to_number(&p->addr) & ~low_mask(host_bits(p)));
}

struct addr prefix_last(const struct prefix *p)
{
	return from_number(p->addr.family, to_number(&p->addr) | low_mask(host_bits(p)));
}

struct addr prefix_gateway(const struct prefix *p)
{
	struct addr first = prefix_first(p);

	return addr_add(&first, 1);
}

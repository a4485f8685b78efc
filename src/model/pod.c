/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/model/pod.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/hash.h"

#define LINK_DIGITS 12

void pod_link_name(const char *container, const char *interface, char ret[static 16])
{
	_Static_assert(sizeof(POD_LINK_PREFIX) + LINK_DIGITS <= 16, "fits into IFNAMSIZ");

	memcpy(ret, POD_LINK_PREFIX, sizeof(POD_LINK_PREFIX) - 1);
	hash_hex(ret + sizeof(POD_LINK_PREFIX) - 1, LINK_DIGITS + 1, container, interface, NULL);
}

uint32_t pod_link_group(const char *network)
{
	char digits[8]; /* 28 bits: ip(8) reads groups as signed numbers */

	hash_hex(digits, sizeof(digits), "network", network, NULL);
	return (uint32_t)strtoul(digits, NULL, 16) | 1;
}

void pod_mac_bytes(const struct addr *address, uint8_t ret[static 4])
{
	char text[ADDR_TEXT_MAX], digits[9];
	uint32_t hash;

	if (address->family == AF_INET) {
		memcpy(ret, address->bytes, 4);
		return;
	}
	hash_hex(digits, sizeof(digits), "mac", addr_format(address, text), NULL);
	hash = htonl((uint32_t)strtoul(digits, NULL, 16));
	memcpy(ret, &hash, 4);
}

static void mac_of(uint8_t second, const struct addr *address, uint8_t ret[static 6])
{
	ret[0] = 0x02; /* locally administered */
	ret[1] = second;
	pod_mac_bytes(address, ret + 2);
}

void pod_mac(const struct addr *address, uint8_t ret[static 6])
{
	mac_of(0x70, address, ret);
}

void pod_host_mac(const struct addr *address, uint8_t ret[static 6])
{
	mac_of(0x71, address, ret);
}

void pod_gateway_mac(const struct addr *gateway, uint8_t ret[static 6])
{
	mac_of(0x72, gateway, ret);
}

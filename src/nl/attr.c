/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attr.h"

#include <errno.h>
#include <string.h>

int attr_get_addr(const struct nlattr *attr, uint8_t family, struct addr *ret)
{
	struct addr a = { .family = family };

	if (!attr || addr_size(&a) == 0 || (size_t)nla_len(attr) != addr_size(&a))
		return -EINVAL;
	memcpy(a.bytes, nla_data(attr), addr_size(&a));
	*ret = a;
	return 0;
}

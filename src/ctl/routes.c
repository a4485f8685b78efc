/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>

#include "poplin/base/mem.h"

#include "commands.h"
#include "output.h"

static const struct output_column columns[] = {
	{ "DESTINATION", "{destination}" },
	{ "VIA", "{via}" },
	{ "NODE", "{node}" },
	{ "STATE", "{state}" },
	{ "TRIES", "{tries}" },
	{ "RETRY(S)", "{next_try_s}" },
	{ "REASON", "{reason}" },
};

int command_routes(const json_t *root, FILE *out)
{
	const json_t *rows = json_object_get(root, "routes");

	if (!json_is_array(rows))
		return -EPROTO;
	return output_table(out, columns, countof(columns), rows);
}

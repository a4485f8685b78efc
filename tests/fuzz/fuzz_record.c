/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A record as somebody may have written it into the store: what is read is written and read alike. */
#include "fuzz.h"
#include "poplin/model/record.h"

static void check_same(const struct record *a, const struct record *b)
{
	MUST(a->nsubnets == b->nsubnets && a->backend == b->backend);
	MUST(addr_cmp(&a->address, &b->address) == 0);
	MUST(strcmp(a->machine, b->machine) == 0);
	for (unsigned i = 0; i < a->nsubnets; i++)
		MUST(prefix_cmp(&a->subnets[i], &b->subnets[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct record record, again;
	char text[RECORD_BYTES_MAX];
	struct err err = ERR_INIT;
	struct network network;
	struct prefix pods;
	int r = record_parse((const char *)data, len, &record, &err);

	if (r < 0) {
		MUST(err.text[0]);
		return 0;
	}
	MUST(record.nsubnets >= 1 && record.nsubnets <= RECORD_SUBNETS_MAX);
	MUST(prefix_parse("10.2.0.0/16", &pods, NULL) == 0);
	MUST(network_init(&network, &pods, 8, NULL) == 0);
	r = record_validate(&record, &network, NULL, NULL, &err);
	MUST(r == 0 || err.text[0]);
	/* A bare record has no address, and no form but the one that it came in. */
	if (record.address.family == AF_UNSPEC)
		return 0;
	MUST(record_format(&record, text, sizeof(text), NULL) == 0);
	MUST(record_parse(text, strlen(text), &again, NULL) == 0);
	check_same(&record, &again);
	return 0;
}

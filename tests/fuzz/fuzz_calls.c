/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Claims, renewals, releases and lists, with and without a login, answered by the fuzzer. The first
 * byte says which; answers follow as fake_http.h says.
 */
#include <fcntl.h>

#include "fake_http.h"
#include "fuzz.h"

#define MACHINE "0123456789abcdef0123456789abcdef"

static struct network network;
static char password_file[] = "/tmp/poplin-fuzz-XXXXXX";

/* Once; the file goes with the last of its descriptors. */
static void prepare(void)
{
	struct prefix pods;
	int fd;

	if (network.node_len)
		return;
	MUST(prefix_parse("10.2.0.0/24", &pods, NULL) == 0);
	MUST(network_init(&network, &pods, 4, NULL) == 0);
	fd = mkstemp(password_file);
	MUST(fd >= 0 && write(fd, "secret\n", 7) == 7);
	close(fd);
}

static void claim(struct store *s, bool preferred, bool only)
{
	struct record record = { .backend = BACKEND_HOST_GW };
	struct store_claim_request req = {
		.node = "n1",
		.network = &network,
		.record = &record,
		.ttl_s = 60,
	};
	struct store_claim ret = { .ttl_s = 0 };
	struct err err = ERR_INIT;
	struct prefix subnet;
	int r;

	MUST(addr_parse("192.0.2.1", &record.address, NULL) == 0);
	strlcpy(record.machine, MACHINE, sizeof(record.machine));
	MUST(prefix_parse("10.2.0.16/28", &subnet, NULL) == 0);
	req.preferred = preferred ? &subnet : NULL;
	r = store_claim(s, &req, only, &ret, &err);
	check_failure(r, &err);
	if (r < 0)
		return;
	/* Whatever etcd says: a subnet of this network, under a lease that lives. */
	uint32_t index;

	MUST(network_index(&network, &ret.subnet, &index));
	MUST(ret.lease && ret.ttl_s > 0 && ret.sent_boot_ns > 0);
	MUST(!only || prefix_cmp(&ret.subnet, &subnet) == 0 || !preferred);
}

static void renew(struct store *s)
{
	struct store_claim c = { .lease = 7, .ttl_s = 60 };
	struct err err = ERR_INIT;
	int r = store_renew(s, &c, &err);

	check_failure(r, &err);
	MUST(c.lease == 7 && c.ttl_s > 0);
}

static void release(struct store *s)
{
	struct err err = ERR_INIT;
	struct prefix subnet;

	check_failure(store_release(s, "n1", MACHINE, &subnet, &err), &err);
}

static int on_change(const struct store_change *change, void *arg, struct err *err)
{
	MUST(change->node && change->value);
	return 0;
}

static void list(struct store *s)
{
	const struct store_handler handler = { .on_change = on_change };
	struct err err = ERR_INIT;

	check_failure(store_list(s, &handler, &err), &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct store_access access = { .endpoints = "127.0.0.1,127.0.0.2" };
	struct store *s;

	prepare();
	if (len == 0)
		return 0;
	if (data[0] & 8) {
		access.user = "poplin";
		access.password_file = password_file;
	}
	s = fuzz_store(&access);
	fake_http_set(data + 1, len - 1, 1);
	switch (data[0] & 7) {
	case 0:
		claim(s, false, false);
		break;
	case 1:
		claim(s, true, false);
		break;
	case 2:
		claim(s, true, true);
		break;
	case 3:
		renew(s);
		break;
	case 4:
		release(s);
		break;
	default:
		list(s);
		break;
	}
	store_close(s);
	return 0;
}

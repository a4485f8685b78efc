/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent finds at a start that somebody may have written: the snapshot, with a right sum or
 * not, the node's state and the wish to drain it, and the cluster's settings in etcd. The first byte
 * says which.
 */
#include <fcntl.h>
#include <unistd.h>

#include "agent/snapshot.h"
#include "fake_http.h"
#include "fuzz.h"
#include "poplin/base/hash.h"
#include "poplin/model/drain.h"
#include "poplin/model/nodestate.h"
#include "store/base64.h"

static char folder[] = "/tmp/poplin-fuzz-XXXXXX";
static struct network network;

static void end(void)
{
	static const char *const files[] = { SNAPSHOT_FILE, NODESTATE_FILE, DRAIN_FILE };
	char path[64];

	for (size_t i = 0; i < countof(files); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", folder, files[i]);
		(void)unlink(path);
	}
	(void)rmdir(folder);
}

static void prepare(void)
{
	struct prefix pods;

	if (network.node_len)
		return;
	MUST(prefix_parse("10.2.0.0/16", &pods, NULL) == 0);
	MUST(network_init(&network, &pods, 8, NULL) == 0);
	MUST(mkdtemp(folder));
	MUST(atexit(end) == 0);
}

static void leave(const char *name, const void *data, size_t len)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	MUST(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	close(fd);
}

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	MUST(!gone);
}

static int count_peer(const struct peer_view *peer, void *arg)
{
	size_t *count = arg;

	MUST(node_name_valid(peer->node) && peer->nsubnets > 0);
	(*count)++;
	return 0;
}

static void restore(void)
{
	const struct peers_config config = { .network = network, .node = "me", .on_key = on_key };
	struct snapshot_config from = {
		.state_dir = folder,
		.node = "me",
		.machine = "m",
		.prefix = "/p",
		.network = network,
	};
	struct snapshot_restored restored = { .nodes = 0 };
	struct err err = ERR_INIT;
	size_t count = 0;
	int r;

	MUST(peers_new(&from.peers, &config, NULL) == 0);
	r = snapshot_restore(&from, &restored, &err);
	MUST(r == 0 || (r == -EINVAL && err.text[0]));
	MUST(peers_foreach(from.peers, count_peer, &count) == 0);
	/* All of it or nothing; a name may stand there twice. */
	MUST(r == 0 ? count <= restored.nodes && !restored.nodes == !count : count == 0);
	peers_free(from.peers);
}

static void restore_with_sum(const uint8_t *data, size_t len)
{
	auto_buf struct buf b = BUF_INIT;
	char sum[65];

	if (memchr(data, '\0', len) || len == 0 || data[len - 1] != '\n')
		return;
	MUST(buf_add(&b, data, len) == 0);
	hash_hex(sum, sizeof(sum), b.data, NULL);
	MUST(buf_printf(&b, "sha256 %s\n", sum) >= 0);
	leave(SNAPSHOT_FILE, b.data, b.len);
	restore();
}

static void read_state(void)
{
	struct nodestate state, again;
	struct err err = ERR_INIT;
	int r = nodestate_read(folder, &state, &err);

	if (r < 0) {
		MUST(err.text[0]);
		return;
	}
	(void)nodestate_check(&state, &err);
	MUST(node_name_valid(state.node));
	if (nodestate_write(folder, &state, NULL) < 0)
		return; /* that boot is no UTF-8 */
	MUST(nodestate_read(folder, &again, NULL) == 0);
	MUST(strcmp(again.node, state.node) == 0 && strcmp(again.boot, state.boot) == 0);
	MUST(prefix_cmp(&again.subnet, &state.subnet) == 0);
	MUST(again.lease_deadline_ns == state.lease_deadline_ns);
	MUST(again.fence == state.fence && again.drained == state.drained);
}

static void read_wish(size_t len)
{
	bool wanted = false, force = false;
	struct err err = ERR_INIT;
	int r = drain_read(folder, &wanted, &force, &err);

	MUST(r == 0 ? wanted : r == -EFBIG && err.text[0]);
	MUST(len <= 64 || r < 0);
}

/* A claim reads the settings first; nothing comes after them. */
static void read_settings(const uint8_t *data, size_t len)
{
	struct record record = { .backend = BACKEND_HOST_GW, .machine = "m" };
	const struct store_claim_request req = {
		.node = "me",
		.network = &network,
		.record = &record,
		.ttl_s = 60,
	};
	const struct store_access access = { .endpoints = "127.0.0.1" };
	auto_buf struct buf value = BUF_INIT;
	auto_buf struct buf answer = BUF_INIT;
	struct store *s = fuzz_store(&access);
	struct err err = ERR_INIT;
	struct store_claim ret;
	int r;

	MUST(base64_encode(data, len, &value) == 0 && buf_adds(&value, "") == 0);
	MUST(buf_printf(&answer,
			"{\"header\":{\"revision\":\"9\"},\"kvs\":[{\"key\":\"eA==\","
			"\"mod_revision\":\"7\",\"value\":\"%s\"}]}",
			value.data) >= 0);
	fake_http_set((const uint8_t *)answer.data, answer.len, 1);
	r = store_claim(s, &req, false, &ret, &err);
	MUST(r < 0);
	check_failure(r, &err);
	/* Agreed: the next request is cut off. */
	MUST(r == -EPROTO || r == -EDOM || r == -ECONNRESET);
	store_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	prepare();
	if (len == 0)
		return 0;
	switch (*data++ % 5) {
	case 0:
		restore_with_sum(data, len - 1);
		break;
	case 1:
		leave(SNAPSHOT_FILE, data, len - 1);
		restore();
		break;
	case 2:
		leave(NODESTATE_FILE, data, len - 1);
		read_state();
		break;
	case 3:
		leave(DRAIN_FILE, data, len - 1);
		read_wish(len - 1);
		break;
	default:
		read_settings(data, len - 1);
		break;
	}
	return 0;
}

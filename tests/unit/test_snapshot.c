/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The snapshot of the nodes: what is written is read again, and anything else is refused whole. */
#include "unit.h"

#include "agent/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "poplin/base/file.h"
#include "poplin/base/hash.h"
#include "poplin/base/log.h"

#define HEAD "poplin snapshot 1\nn1 machine /poplin/nodes 10.2.0.0/16 24 "

static char dir[64], path[96];
static struct network network;
static struct peers *peers;

static void on_key(const struct key *key, int64_t event_ns, bool gone, void *arg)
{
	(void)key, (void)event_ns, (void)gone, (void)arg;
}

static struct peers *new_peers(void)
{
	const struct peers_config config = { .network = network, .node = "n1", .on_key = on_key };
	struct peers *ret;

	assert_int_equal(peers_new(&ret, &config, NULL), 0);
	return ret;
}

static int setup(void **state)
{
	struct prefix pods;

	(void)state;
	log_set_level(LOG_ERROR);
	strlcpy(dir, "/tmp/poplin-test-snapshot-XXXXXX", sizeof(dir));
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/" SNAPSHOT_FILE, dir);
	assert_int_equal(prefix_parse("10.2.0.0/16", &pods, NULL), 0);
	assert_int_equal(network_init(&network, &pods, 8, NULL), 0);
	peers = new_peers();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	peers_free(peers);
	return file_remove_tree(dir, NULL);
}

static struct snapshot_config config_of(struct peers *p)
{
	return (struct snapshot_config){
		.state_dir = dir,
		.node = "n1",
		.machine = "machine",
		.prefix = "/poplin/nodes",
		.network = network,
		.peers = p,
	};
}

static void apply(struct peers *p, const char *node, uint64_t order, const char *value)
{
	const struct store_change change = {
		.node = node,
		.value = value,
		.len = value ? strlen(value) : 0,
		.order = order,
	};

	assert_int_equal(peers_apply(p, &change, NULL), 0);
}

#define RECORD(subnets, address)                                                                   \
	"{\"version\":1,\"subnets\":[" subnets "],\"address\":\"" address                          \
	"\",\"backend\":{\"type\":\"host-gw\"},\"machine\":\"x\"}"

static void apply_all(struct peers *p)
{
	peers_begin_sync(p);
	apply(p, "n1", 11, RECORD("\"10.2.1.0/24\"", "192.168.0.11"));
	apply(p, "n2", 12, RECORD("\"10.2.2.0/24\",\"10.2.3.0/24\"", "192.168.0.12"));
	apply(p, "bare.example", 13, "10.2.4.0/24");
	apply(p, "clash", 14, RECORD("\"10.2.2.0/24\"", "192.168.0.14"));
	apply(p, "garbage", 15, "{");
	apply(p, "no name", 16, RECORD("\"10.2.6.0/24\"", "192.168.0.16"));
	peers_end_sync(p);
}

/* Until it is written: when it stops, it writes what is new. */
static void write_snapshot(struct peers *p)
{
	const struct snapshot_config config = config_of(p);
	struct snapshot *s;

	assert_int_equal(snapshot_start(&s, &config, NULL), 0);
	snapshot_touch(s);
	snapshot_stop(s);
}

static int restore(const struct snapshot_config *config, struct snapshot_restored *ret,
		   struct err *err)
{
	*ret = (struct snapshot_restored){ .nodes = 4711 };
	*err = ERR_INIT;
	return snapshot_restore(config, ret, err);
}

static int count_one(const struct peer_view *peer, void *arg)
{
	size_t *count = arg;

	(void)peer;
	(*count)++;
	return 0;
}

static size_t count(struct peers *p)
{
	size_t n = 0;

	assert_int_equal(peers_foreach(p, count_one, &n), 0);
	return n;
}

/* None of it is used, and it says why. */
static void check_refused(const struct snapshot_config *config, const char *why)
{
	struct snapshot_restored restored;
	struct err err;

	assert_int_equal(restore(config, &restored, &err), -EINVAL);
	assert_non_null(strstr(err.text, path));
	if (!strstr(err.text, why))
		fail_msg("'%s' says nothing of '%s'", err.text, why);
	assert_int_equal(restored.nodes, 4711);
	assert_int_equal(count(config->peers), 0);
}

static void put(const void *data, size_t len)
{
	assert_int_equal(file_write_atomic(path, 0600, data, len, NULL), 0);
}

/* With the right sum. */
static void put_text(const char *head, const char *rest)
{
	auto_buf struct buf b = BUF_INIT;
	char sum[65];

	assert_int_equal(buf_printf(&b, "%s%s", head, rest), 0);
	hash_hex(sum, sizeof(sum), b.data, NULL);
	assert_int_equal(buf_printf(&b, "sha256 %s\n", sum), 0);
	put(b.data, b.len);
}

/* -- what is written ------------------------------------------------------------ */

static int compare_peer(const struct peer_view *peer, void *arg)
{
	auto_buf struct buf line = BUF_INIT;
	char text[PREFIX_TEXT_MAX];

	assert_int_equal(buf_printf(&line, "%" PRIu64 " %s %s", peer->order, peer->node,
				    peer->bare ? "-" : addr_format(&peer->address, text)),
			 0);
	for (unsigned i = 0; i < peer->nsubnets; i++)
		assert_int_equal(buf_printf(&line, " %s", prefix_format(&peer->subnets[i], text)),
				 0);
	return buf_printf(arg, "%s %s\n", line.data, peer_state_name(peer->state));
}

static void what_was_known_is_known_again(void **state)
{
	auto_(peers_free) struct peers *again = new_peers();
	const struct snapshot_config config = config_of(again);
	auto_buf struct buf known = BUF_INIT;
	struct snapshot_restored restored;
	char text[PREFIX_TEXT_MAX];
	struct err err;
	struct addr gateway;
	struct prefix subnet;

	(void)state;
	apply_all(peers);
	write_snapshot(peers);
	assert_int_equal(restore(&config, &restored, &err), 0);
	assert_int_equal(restored.nodes, 4);
	assert_string_equal(prefix_format(&restored.own, text), "10.2.1.0/24");
	assert_true(restored.real_ns > 0);
	assert_int_equal(peers_foreach(again, compare_peer, &known), 0);
	assert_string_equal(known.data, "13 bare.example - 10.2.4.0/24 unresolved\n"
					"14 clash 192.168.0.14 10.2.2.0/24 conflict\n"
					"11 n1 192.168.0.11 10.2.1.0/24 own\n"
					"12 n2 192.168.0.12 10.2.2.0/24 10.2.3.0/24 ok\n");
	assert_int_equal(prefix_parse("10.2.3.0/24", &subnet, NULL), 0);
	assert_true(peers_lookup(again, &subnet, &gateway));
	/* That is no list: nothing counts as gone by it. */
	assert_false(peers_complete(again));
}

static void nothing_is_written_before_a_list_is_complete(void **state)
{
	(void)state;
	put("old", 3);
	peers_begin_sync(peers);
	apply(peers, "n2", 12, "10.2.2.0/24");
	write_snapshot(peers);
	assert_true(file_matches(path, 0600, "old", 3));
}

static void what_did_not_change_is_not_written_again(void **state)
{
	const struct snapshot_config config = config_of(peers);
	struct stat before, after;
	struct snapshot *s;

	(void)state;
	apply_all(peers);
	assert_int_equal(snapshot_start(&s, &config, NULL), 0);
	snapshot_touch(s);
	while (stat(path, &before) < 0)
		assert_int_equal(usleep(1000), 0);
	apply(peers, "another", 17, "{"); /* it has no effect, and is not in it */
	snapshot_touch(s);
	snapshot_stop(s);
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	assert_int_equal(after.st_mode & 07777, 0600);
}

/* -- what is read ----------------------------------------------------------------- */

static void none_is_told_apart_from_a_wrong_one(void **state)
{
	const struct snapshot_config config = config_of(peers);
	struct snapshot_restored restored;
	struct err err;

	(void)state;
	assert_int_equal(restore(&config, &restored, &err), -ENOENT);
	put("", 0);
	check_refused(&config, "empty");
}

static void one_cut_off_or_with_a_wrong_byte_is_refused_whole(void **state)
{
	auto_(peers_free) struct peers *again = new_peers();
	const struct snapshot_config config = config_of(again);
	auto_buf struct buf good = BUF_INIT;

	(void)state;
	apply_all(peers);
	write_snapshot(peers);
	assert_int_equal(file_read(path, 65536, &good, NULL), 0);
	for (size_t len = 1; len < good.len; len++) {
		put(good.data, len);
		check_refused(&config, "");
	}
	for (size_t i = 0; i < good.len; i++) {
		char right = good.data[i];

		good.data[i] = (char)(right ^ 4);
		put(good.data, good.len);
		check_refused(&config, "");
		good.data[i] = '\0';
		put(good.data, good.len);
		check_refused(&config, "");
		good.data[i] = right;
	}
}

static void one_of_another_node_cluster_or_network_is_refused(void **state)
{
	auto_(peers_free) struct peers *again = new_peers();
	struct snapshot_config config = config_of(again);
	struct prefix pods;

	(void)state;
	apply_all(peers);
	write_snapshot(peers);
	config.node = "n2";
	check_refused(&config, "another node");
	config.node = "n1";
	config.machine = "clone";
	check_refused(&config, "another node");
	config.machine = "machine";
	config.prefix = "/other/nodes";
	check_refused(&config, "another node, cluster or network");
	config.prefix = "/poplin/nodes";
	assert_int_equal(prefix_parse("10.2.0.0/16", &pods, NULL), 0);
	assert_int_equal(network_init(&config.network, &pods, 9, NULL), 0);
	check_refused(&config, "network");
}

/* Its sum is right: another version of the agent wrote it, or a fault in this one. */
static void a_line_that_is_wrong_lets_none_count(void **state)
{
	const struct snapshot_config config = config_of(peers);
	static const char good[] = "12 n2 192.168.0.12 10.2.2.0/24\n";
	static const char *const wrong[] = {
		"13",
		"13 n3",
		"13 n3 192.168.0.13",
		"13 n3 192.168.0.13 ",
		"13 n3 192.168.0.13  10.2.3.0/24",
		"13 n3 192.168.0 10.2.3.0/24",
		"13 n3 192.168.0.13 10.2.3.0",
		"13 n3 192.168.0.13 10.2.3.0/24 10.2.4.0/24 10.2.5.0/24 10.2.6.0/24 10.2.7.0/24",
		"x n3 192.168.0.13 10.2.3.0/24",
		" n3 192.168.0.13 10.2.3.0/24",
		"-1 n3 192.168.0.13 10.2.3.0/24",
		"99999999999999999999 n3 192.168.0.13 10.2.3.0/24",
		"13 n_3 192.168.0.13 10.2.3.0/24",
		"",
	};
	auto_buf struct buf b = BUF_INIT;
	struct snapshot_restored restored;
	struct err err;

	(void)state;
	for (size_t i = 0; i < countof(wrong); i++) {
		buf_reset(&b);
		assert_int_equal(buf_printf(&b, "%s%s\n%s", good, wrong[i], good), 0);
		put_text(HEAD "1700000000\n", b.data);
		check_refused(&config, "");
	}
	buf_reset(&b);
	assert_int_equal(buf_printf(&b, "%s13 %0900d 192.168.0.13 10.2.3.0/24\n", good, 0), 0);
	put_text(HEAD "1700000000\n", b.data);
	check_refused(&config, "too long");
	put_text(HEAD "1700000000\n", good);
	assert_int_equal(restore(&config, &restored, &err), 0);
	assert_int_equal(restored.nodes, 1);
	assert_int_equal(restored.own.addr.family, AF_UNSPEC);
	assert_int_equal(restored.real_ns / 1000000000, 1700000000);
}

static void a_head_that_is_wrong_is_refused(void **state)
{
	const struct snapshot_config config = config_of(peers);
	static const char *const wrong[] = {
		"poplin snapshot 2\nn1 machine /poplin/nodes 10.2.0.0/16 24 1700000000\n",
		"poplin snapshot 1\n",
		"poplin snapshot 1\n\n",
		HEAD "\n",
		HEAD "soon\n",
		HEAD "-5\n",
		HEAD "9223372036854775807\n",
	};

	(void)state;
	for (size_t i = 0; i < countof(wrong); i++) {
		put_text(wrong[i], "12 n2 192.168.0.12 10.2.2.0/24\n");
		check_refused(&config, "it ");
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_known_is_known_again),
		TEST(nothing_is_written_before_a_list_is_complete),
		TEST(what_did_not_change_is_not_written_again),
		TEST(none_is_told_apart_from_a_wrong_one),
		TEST(one_cut_off_or_with_a_wrong_byte_is_refused_whole),
		TEST(one_of_another_node_cluster_or_network_is_refused),
		TEST(a_line_that_is_wrong_lets_none_count),
		TEST(a_head_that_is_wrong_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A real etcd for the tests of the store: started on free ports over a directory of its own, and
 * gone with the test program, however that ends. POPLIN_ETCD names another one than that in PATH. Threads: the main thread.
 */
#ifndef POPLIN_TESTS_ETCD_SERVER_H
#define POPLIN_TESTS_ETCD_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "poplin/http/http.h"
#include "poplin/store/store.h"
#include "store/etcd.h"
#include "unit.h"

#define SHOULD_WORK(call, err)                                                                     \
	do {                                                                                       \
		int r_ = (call);                                                                   \
		if (r_ != 0)                                                                       \
			fail_msg("%s: %d: %s", #call, r_, (err)->text);                            \
	} while (0)

struct etcd_server {
	pid_t pid;
	char dir[64];
	uint16_t client_port, peer_port;
	char endpoint[64];
};

static struct etcd_server server;
static bool no_etcd; /* on this machine */

static inline void sleep_ms(long ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

/* A socket on a port of 127.0.0.1 that the kernel picks. */
static inline int bind_any(uint16_t *ret_port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(at);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
	*ret_port = ntohs(at.sin_port);
	return fd;
}

static inline void run_etcd(void)
{
	char clients[64], peers[64], cluster[80], data[80], log[80];
	const char *program;
	int fd;

	/* For the child: it ends with its parent, and writes to a file. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)snprintf(clients, sizeof(clients), "http://127.0.0.1:%u", server.client_port);
	(void)snprintf(peers, sizeof(peers), "http://127.0.0.1:%u", server.peer_port);
	(void)snprintf(cluster, sizeof(cluster), "t=%s", peers);
	(void)snprintf(data, sizeof(data), "%s/data", server.dir);
	(void)snprintf(log, sizeof(log), "%s/log", server.dir);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(126);
	program = getenv("POPLIN_ETCD");
	program = program && *program ? program : "etcd";
	execlp(program, "etcd", "--name", "t", "--data-dir", data, "--listen-client-urls", clients,
	       "--advertise-client-urls", clients, "--listen-peer-urls", peers,
	       "--initial-advertise-peer-urls", peers, "--initial-cluster", cluster, NULL);
	_exit(127);
}

/* The test is skipped when there is no etcd: to be called before a thread is started. */
static inline struct store *open_store(const char *prefix, const char *endpoints)
{
	char counter[ETCD_KEY_MAX];
	const struct store_config config = {
		.access = { .endpoints = endpoints ? endpoints : server.endpoint },
		.prefix = prefix,
		.counter_key = counter,
	};
	struct err err = ERR_INIT;
	struct store *s = NULL;

	if (no_etcd)
		skip();
	(void)snprintf(counter, sizeof(counter), "%s-counter", prefix);
	SHOULD_WORK(store_open(&s, &config, &err), &err);
	return s;
}

static inline int ignore_change(const struct store_change *change, void *arg, struct err *err)
{
	(void)change, (void)arg, (void)err;
	return 0;
}

/* False: there is no etcd on this machine. */
static inline bool etcd_start(void)
{
	const struct store_handler handler = { .on_change = ignore_change };
	struct err err = ERR_INIT;
	struct store *s;
	int status;

	server.pid = fork();
	assert_true(server.pid >= 0);
	if (server.pid == 0)
		run_etcd();
	s = open_store("/started", NULL);
	for (int i = 0; i < 600; i++) {
		if (waitpid(server.pid, &status, WNOHANG) == server.pid) {
			server.pid = 0;
			store_close(s);
			if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
				return false;
			fail_msg("etcd ended with status %#x", status);
		}
		if (store_list(s, &handler, &err) == 0) {
			store_close(s);
			return true;
		}
		sleep_ms(50);
	}
	fail_msg("etcd does not answer: %s", err.text);
	return false;
}

static inline void etcd_stop(void)
{
	if (server.pid <= 0)
		return;
	(void)kill(server.pid, SIGKILL);
	(void)waitpid(server.pid, NULL, 0);
	server.pid = 0;
}

static inline int etcd_setup(void **state)
{
	int client, peer;

	(void)state;
	assert_int_equal(http_global_init(NULL), 0);
	(void)signal(SIGPIPE, SIG_IGN);
	client = bind_any(&server.client_port);
	peer = bind_any(&server.peer_port);
	close(client);
	close(peer);
	strlcpy(server.dir, "/tmp/poplin-test-etcd-XXXXXX", sizeof(server.dir));
	assert_non_null(mkdtemp(server.dir));
	(void)snprintf(server.endpoint, sizeof(server.endpoint), "127.0.0.1:%u",
		       server.client_port);
	no_etcd = !etcd_start();
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int etcd_teardown(void **state)
{
	(void)state;
	etcd_stop();
	return nftw(server.dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* A prefix of its own for each test. */
static inline int prefix_setup(void **state)
{
	static unsigned count;
	static char prefix[64];

	(void)snprintf(prefix, sizeof(prefix), "/test%u/nodes", ++count);
	*state = prefix;
	return 0;
}

/* Does what others do to the store: one key, one value; a value of NULL deletes. */
static inline void set_key(struct store *s, const char *key, const char *value)
{
	auto_(json_decref) json_t *body = json_pack("{so}", "key", etcd_string(key));
	auto_(json_decref) json_t *answer = NULL;
	struct err err = ERR_INIT;

	assert_non_null(body);
	if (value)
		json_object_set_new(body, "value", etcd_string(value));
	SHOULD_WORK(etcd_call(s, STORE_PUT, value ? "/v3/kv/put" : "/v3/kv/deleterange", body,
			      &answer, &err),
		    &err);
}

static inline void set_record(struct store *s, const char *node, const char *value)
{
	char key[ETCD_KEY_MAX];

	(void)snprintf(key, sizeof(key), "%s/%s", s->prefix, node);
	set_key(s, key, value);
}

/* False: there is no such key. */
__attribute__((format(printf, 3, 4))) static inline bool
get_key(struct store *s, struct etcd_kv *ret, const char *fmt, ...)
{
	char key[ETCD_KEY_MAX];
	struct err err = ERR_INIT;
	bool found = false;
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(key, sizeof(key), fmt, args);
	va_end(args);
	SHOULD_WORK(etcd_get(s, key, ret, &found, &err), &err);
	return found;
}

#endif

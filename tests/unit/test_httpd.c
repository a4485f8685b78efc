/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The HTTP server, asked by real requests on a free port. */
#include "unit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/httpd.h"
#include "client.h"
#include "poplin/base/buf.h"
#include "poplin/base/mem.h"

static struct httpd *server;
static _Atomic unsigned calls;
#define BIG_LEN ((size_t)16 * 1024 * 1024) /* more than the kernel takes in for a socket */

static int handle_text(struct httpd_reply *reply, void *arg)
{
	atomic_fetch_add(&calls, 1);
	return buf_adds(&reply->body, arg);
}

static int handle_unready(struct httpd_reply *reply, void *arg)
{
	reply->status = 503;
	return buf_adds(&reply->body, "not yet\n");
}

static int handle_json(struct httpd_reply *reply, void *arg)
{
	reply->type = "application/json";
	return buf_adds(&reply->body, "{}\n");
}

static int handle_empty(struct httpd_reply *reply, void *arg)
{
	return 0;
}

static int handle_failure(struct httpd_reply *reply, void *arg)
{
	buf_adds(&reply->body, "half an ans");
	return -ENOMEM;
}

static int handle_big(struct httpd_reply *reply, void *arg)
{
	char piece[1024];

	memset(piece, 'x', sizeof(piece));
	for (size_t i = 0; i < BIG_LEN / sizeof(piece); i++)
		if (buf_add(&reply->body, piece, sizeof(piece)) < 0)
			return -ENOMEM;
	return 0;
}

static const struct httpd_path paths[] = {
	{ "/text", handle_text, "a text" },
	{ "/unready", handle_unready, "a 503" },
	{ "/json", handle_json, "JSON" },
	{ "/empty", handle_empty, "nothing" },
	{ "/failure", handle_failure, "a fault" },
	{ "/big", handle_big, "much" },
	{ NULL, NULL, NULL },
};

static int setup(void **state)
{
	struct err err = ERR_INIT;
	char expected[64];

	atomic_store(&calls, 0);
	assert_int_equal(httpd_start(&server, "127.0.0.1:0", paths, (void *)"hello", &err), 0);
	assert_int_not_equal(httpd_port(server), 0);
	snprintf(expected, sizeof(expected), "127.0.0.1:%u", httpd_port(server));
	assert_string_equal(httpd_address(server), expected);
	return 0;
}

static int teardown(void **state)
{
	httpd_stop(server);
	server = NULL;
	return 0;
}

static void ask(const char *method, const char *path, const char *rest, struct buf *ret)
{
	client_ask(httpd_port(server), method, path, rest, ret);
}

static int dial(void)
{
	return client_dial(httpd_port(server));
}

static void test_answers(void **state)
{
	auto_buf struct buf answer = BUF_INIT;

	ask("GET", "/text", NULL, &answer);
	client_assert_status(&answer, 200);
	assert_string_equal(client_body(&answer), "hello");
	assert_non_null(strstr(answer.data, "Content-Type: text/plain; charset=utf-8\r\n"));
	assert_non_null(strstr(answer.data, "Content-Length: 5\r\n"));
	ask("GET", "/text?query=1", NULL, &answer);
	assert_string_equal(client_body(&answer), "hello");
	ask("GET", "/json", NULL, &answer);
	assert_non_null(strstr(answer.data, "Content-Type: application/json\r\n"));
	ask("GET", "/unready", NULL, &answer);
	client_assert_status(&answer, 503);
	assert_string_equal(client_body(&answer), "not yet\n");
	ask("GET", "/empty", NULL, &answer);
	client_assert_status(&answer, 200);
	assert_string_equal(client_body(&answer), "");
	ask("GET", "/", NULL, &answer);
	assert_non_null(strstr(client_body(&answer), "/unready         a 503\n"));
}

static void test_head(void **state)
{
	auto_buf struct buf answer = BUF_INIT;

	ask("HEAD", "/text", NULL, &answer);
	client_assert_status(&answer, 200);
	assert_non_null(strstr(answer.data, "Content-Length: 5\r\n"));
	assert_string_equal(client_body(&answer), "");
}

static void test_refusals(void **state)
{
	static const char *const wrong[] = { "/nothing", "/text/",    "//text",
					     "/TEXT",	 "/text/../", "/%2e%2e/" };
	static const char *const methods[] = { "PUT", "DELETE", "OPTIONS", "FOO" };
	auto_buf struct buf answer = BUF_INIT;

	for (size_t i = 0; i < countof(wrong); i++) {
		ask("GET", wrong[i], NULL, &answer);
		client_assert_status(&answer, 404);
	}
	for (size_t i = 0; i < countof(methods); i++) {
		ask(methods[i], "/text", NULL, &answer);
		client_assert_status(&answer, 405);
		assert_non_null(strstr(answer.data, "Allow: GET, HEAD\r\n"));
	}
	ask("POST", "/text", "Content-Length: 4\r\n\r\nbody", &answer);
	client_assert_status(&answer, 405);
	/* A body with GET, which may never end, is not waited for. */
	client_ask(httpd_port(server), "GET", "/text", "Content-Length: 999999999\r\n\r\nbody",
		   &answer);
	assert_true(answer.len == 0 || strncmp(answer.data, "HTTP/1.1 200", 12) != 0);
	assert_int_equal(atomic_load(&calls), 0);
	ask("GET", "/failure", NULL, &answer);
	client_assert_status(&answer, 500);
	assert_null(strstr(answer.data, "half"));
}

static void test_garbage(void **state)
{
	auto_buf struct buf answer = BUF_INIT;
	char line[8192];
	int fd = dial();

	client_say(fd, "\x16\x03\x01 this is no HTTP\r\n\r\n");
	client_hear(fd, &answer);
	/* Headers beyond the connection's memory. */
	fd = dial();
	client_say(fd, "GET /text HTTP/1.1\r\nHost: x\r\n");
	memset(line, 'a', sizeof(line));
	for (int i = 0; i < 8; i++) {
		char header[16];

		snprintf(header, sizeof(header), "X-%d: ", i);
		send(fd, header, strlen(header), MSG_NOSIGNAL);
		send(fd, line, sizeof(line), MSG_NOSIGNAL);
		send(fd, "\r\n", 2, MSG_NOSIGNAL);
	}
	client_hear(fd, &answer);
	/* Still there. */
	ask("GET", "/text", NULL, &answer);
	client_assert_status(&answer, 200);
}

static void test_kept_connection(void **state)
{
	auto_buf struct buf answer = BUF_INIT;
	int fd = dial();

	client_say(fd, "GET /text HTTP/1.1\r\nHost: x\r\n\r\n"
		       "GET /text HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	client_hear(fd, &answer);
	client_assert_status(&answer, 200);
	assert_int_equal(atomic_load(&calls), 2);
}

static void test_big(void **state)
{
	auto_buf struct buf answer = BUF_INIT;

	ask("GET", "/big", NULL, &answer);
	client_assert_status(&answer, 200);
	assert_int_equal(strlen(client_body(&answer)), BIG_LEN);
}

/* Clients that ask for much and read nothing must not pile up answers in memory. */
static void test_slow_readers(void **state)
{
	enum { CLIENTS = 8 };
	auto_buf struct buf answer = BUF_INIT;
	unsigned refused = 0, served = 0;
	int fds[CLIENTS];

	for (int i = 0; i < CLIENTS; i++) {
		fds[i] = dial();
		client_say(fds[i], "GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	}
	for (int i = 0; i < CLIENTS; i++) {
		char start[16] = "";

		assert_int_equal(recv(fds[i], start, 12, MSG_PEEK | MSG_WAITALL), 12);
		if (strcmp(start, "HTTP/1.1 503") == 0)
			refused++;
		else if (strcmp(start, "HTTP/1.1 200") == 0)
			served++;
	}
	assert_int_equal(served + refused, CLIENTS);
	assert_int_equal(served, 1);
	for (int i = 0; i < CLIENTS; i++)
		close(fds[i]);
	/* Their answers are given up with them. */
	for (int i = 0; i < 100; i++) {
		ask("GET", "/big", NULL, &answer);
		if (strncmp(answer.data, "HTTP/1.1 200", 12) == 0)
			return;
		usleep(10000);
	}
	fail_msg("no answer after the slow clients went");
}

/* A server stops whatever its clients do. */
static void test_stop_with_clients(void **state)
{
	int idle = dial(), reading = dial();

	client_say(reading, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
	teardown(state);
	close(idle);
	close(reading);
}

static void test_start_failures(void **state)
{
	struct httpd *second = NULL;
	struct err err = ERR_INIT;

	assert_int_equal(httpd_start(&second, httpd_address(server), paths, NULL, &err),
			 -EADDRINUSE);
	assert_non_null(strstr(err.text, httpd_address(server)));
	assert_int_equal(httpd_start(&second, "192.0.2.1:0", paths, NULL, &err), -EADDRNOTAVAIL);
	assert_int_equal(httpd_start(&second, "nonsense", paths, NULL, &err), -EINVAL);
	assert_null(second);
	httpd_stop(NULL);
}

static void test_ipv6(void **state)
{
	struct httpd *second = NULL;
	struct err err = ERR_INIT;
	int r = httpd_start(&second, "[::1]:0", paths, (void *)"six", &err);
	char expected[64];

	if (r == -EADDRNOTAVAIL || r == -EAFNOSUPPORT)
		skip(); /* a machine without IPv6 */
	assert_int_equal(r, 0);
	snprintf(expected, sizeof(expected), "[::1]:%u", httpd_port(second));
	assert_string_equal(httpd_address(second), expected);
	httpd_stop(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_head, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_big, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_readers, setup, teardown),
		cmocka_unit_test_setup(test_stop_with_clients, setup),
		cmocka_unit_test_setup_teardown(test_start_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ipv6, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

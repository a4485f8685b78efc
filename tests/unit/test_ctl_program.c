/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program poplinctl itself, against a server of ours. Runs where the programs were built. */
#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/httpd.h"
#include "poplin/base/buf.h"
#include "poplin/base/mem.h"

static struct httpd *server;
static struct buf output; /* of the last run, both streams */
static char config[] = "/tmp/poplin-ctl-XXXXXX";

static const char pods_json[] = "{\"pods\":[{\"address\":\"10.2.1.2\",\"container\":\"a\\u001bb\","
				"\"interface\":\"eth0\",\"link\":\"pop0\"}]}\n";

static int handle_pods(struct httpd_reply *reply, void *arg)
{
	return buf_adds(&reply->body, pods_json);
}

static int handle_peers(struct httpd_reply *reply, void *arg)
{
	return buf_adds(&reply->body, "{\"peers\":"); /* cut off */
}

static int handle_routes(struct httpd_reply *reply, void *arg)
{
	return buf_adds(&reply->body, "{\"other\":[]}");
}

static const struct httpd_path paths[] = {
	{ "/status/pods", handle_pods, "" },
	{ "/status/peers", handle_peers, "" },
	{ "/status/routes", handle_routes, "" },
	{ NULL, NULL, NULL },
};

static int setup(void **state)
{
	struct err err = ERR_INIT;
	int fd = mkstemp(config);

	unsetenv("METRICS_ADDRESS");
	return fd < 0 || close(fd) < 0 ||
	       httpd_start(&server, "127.0.0.1:0", paths, NULL, &err) < 0;
}

static int teardown(void **state)
{
	httpd_stop(server);
	buf_done(&output);
	return unlink(config);
}

/* Runs poplinctl and returns its exit status. */
static int run(const char *arguments)
{
	char command[512], piece[512];
	size_t n;
	FILE *in;
	int status;

	snprintf(command, sizeof(command), "./poplinctl %s 2>&1", arguments);
	buf_reset(&output);
	in = popen(command, "r");
	assert_non_null(in);
	while ((n = fread(piece, 1, sizeof(piece), in)) > 0)
		assert_int_equal(buf_add(&output, piece, n), 0);
	assert_int_equal(buf_add(&output, "", 0), 0);
	status = pclose(in);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int run_at(const char *arguments)
{
	char all[256];

	snprintf(all, sizeof(all), "--address %s %s", httpd_address(server), arguments);
	return run(all);
}

static void assert_said(const char *text)
{
	if (!strstr(output.data, text))
		fail_msg("'%s' not in: %s", text, output.data);
}

static void write_config(const char *text)
{
	FILE *out = fopen(config, "w");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

static void test_answers(void **state)
{
	assert_int_equal(run_at("pods"), 0);
	assert_string_equal(output.data, "ADDRESS   INTERFACE  LINK  CONTAINER\n"
					 "10.2.1.2  eth0       pop0  a\\x1bb\n");
	assert_int_equal(run_at("pods --json"), 0);
	assert_string_equal(output.data, pods_json);
	assert_int_equal(run_at("-j pods"), 0);
	assert_string_equal(output.data, pods_json);
}

static void test_bad_answers(void **state)
{
	assert_int_equal(run_at("peers"), 1);
	assert_said("not JSON");
	assert_int_equal(run_at("--json peers"), 1);
	assert_int_equal(run_at("routes"), 1);
	assert_said("lacks what it should have");
	assert_int_equal(run_at("status"), 1);
	assert_said("HTTP status 404");
	/* A full disk, or a reader that went. */
	assert_int_equal(run_at("pods >/dev/full"), 1);
}

static void test_address(void **state)
{
	char text[256], address[64];

	snprintf(address, sizeof(address), "%s", httpd_address(server));
	setenv("METRICS_ADDRESS", address, 1);
	assert_int_equal(run("pods"), 0);
	setenv("METRICS_ADDRESS", "127.0.0.1:1", 1);
	assert_int_equal(run("pods"), 1);
	assert_int_equal(run_at("pods"), 0); /* --address wins */
	setenv("METRICS_ADDRESS", "127.0.0.1:0", 1);
	assert_int_equal(run("pods"), 2);
	assert_said("--address");
	unsetenv("METRICS_ADDRESS");

	snprintf(text, sizeof(text), "LEASE_TTL=9\nMETRICS_ADDRESS='0.0.0.0:%u'\n",
		 httpd_port(server));
	write_config(text);
	snprintf(text, sizeof(text), "--config %s pods", config);
	assert_int_equal(run(text), 0);
	write_config("METRICS_ADDRESS=nonsense\n");
	assert_int_equal(run(text), 2);
	assert_said(":1: METRICS_ADDRESS='nonsense': not HOST:PORT");
	assert_int_equal(run("--config /nonexistent/poplin.conf pods"), 2);
	assert_said("/nonexistent/poplin.conf");
}

static void test_unreachable(void **state)
{
	assert_int_equal(run("--address 127.0.0.1:1 status"), 1);
	assert_said("127.0.0.1:1");
	assert_said("Is poplind running");
	/* No proxy stands between us and this node. */
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	assert_int_equal(run_at("pods"), 0);
	unsetenv("http_proxy");
}

static void test_usage(void **state)
{
	static const char *const wrong[] = { "",
					     "nothing",
					     "pods peers",
					     "--nothing pods",
					     "--address",
					     "--address x pods",
					     "--address 127.0.0.1:99/../ pods",
					     "--address user@host:1 pods",
					     "--address :1 pods" };

	for (size_t i = 0; i < countof(wrong); i++) {
		if (run(wrong[i]) != 2)
			fail_msg("'%s' is no usage error: %s", wrong[i], output.data);
		assert_said("poplinctl");
	}
	assert_int_equal(run("--help"), 0);
	assert_said("status");
	assert_said("peers");
	assert_said("routes");
	assert_said("pods");
	assert_int_equal(run("--version"), 0);
	assert_string_equal(output.data, "poplinctl " PACKAGE_VERSION "\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers), cmocka_unit_test(test_bad_answers),
		cmocka_unit_test(test_address), cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_usage),
	};

	if (access("./poplinctl", X_OK) < 0) {
		fprintf(stderr, "./poplinctl is not here\n");
		return 99;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}

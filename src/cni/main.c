/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poplin, the CNI plugin: finds the verb, reads what was asked, tells the error. */
#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cni.h"
#include "poplin/base/buf.h"
#include "poplin/base/clock.h"
#include "poplin/model/podlog.h"

#define STDIN_MAX ((size_t)1024 * 1024)

enum need { NEED_CONTAINER = 1, NEED_NETNS = 2, NEED_INTERFACE = 4 };

/* Which variables are required: section 2 of the specification, "CNI operations". */
static const struct verb {
	const char *name;
	int (*run)(const struct request *req, struct err *err);
	unsigned needs;
	enum cni_version since;
	enum podlog_command log;
} verbs[] = {
	{ "ADD", verb_add, NEED_CONTAINER | NEED_NETNS | NEED_INTERFACE, CNI_0_1_0, PODLOG_ADD },
	{ "DEL", verb_del, NEED_CONTAINER | NEED_INTERFACE, CNI_0_1_0, PODLOG_DEL },
	{ "CHECK", verb_check, NEED_CONTAINER | NEED_NETNS | NEED_INTERFACE, CNI_0_4_0,
	  PODLOG_CHECK },
	{ "STATUS", verb_status, 0, CNI_1_1_0, PODLOG_STATUS },
	{ "GC", verb_gc, 0, CNI_1_1_0, PODLOG_GC },
};

/* -- input -------------------------------------------------------------------- */

static int read_stdin(struct buf *ret, struct err *err)
{
	char chunk[8192];
	ssize_t n;

	while ((n = read(STDIN_FILENO, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, CNI_IO_FAILURE, "read the configuration: %s",
				       strerror(errno));
		if ((size_t)n > STDIN_MAX - ret->len)
			return err_set(err, CNI_DECODE_FAILURE,
				       "the configuration is longer than %zu bytes", STDIN_MAX);
		if (buf_add(ret, chunk, (size_t)n) < 0)
			return err_set(err, CNI_IO_FAILURE, "out of memory");
	}
	return buf_add(ret, "", 0) < 0 ? err_set(err, CNI_IO_FAILURE, "out of memory") : 0;
}

static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

/* The specification's form of a container id; '/' and ':' would spoil the names made of it. */
static bool is_container_id(const char *text)
{
	if (!isalnum((unsigned char)*text) || strlen(text) > 200)
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("_.-", *text))
			return false;
	return true;
}

/* What the kernel takes (dev_valid_name, net/core/dev.c) and JSON can carry. */
static bool is_interface(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len >= IF_NAMESIZE || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	for (; *text; text++)
		if (*text == '/' || *text == ':' || !isgraph((unsigned char)*text))
			return false;
	return true;
}

/* A result names the sandbox, and JSON has no other text. */
static bool is_utf8(const char *text)
{
	json_t *json = json_string(text);

	json_decref(json);
	return json != NULL;
}

static int read_environment(const struct verb *verb, struct request *req, struct err *err)
{
	req->owner.container = variable("CNI_CONTAINERID");
	req->owner.interface = variable("CNI_IFNAME");
	req->netns = variable("CNI_NETNS");
	req->args = variable("CNI_ARGS");
	if ((verb->needs & NEED_CONTAINER) && !is_container_id(req->owner.container))
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_CONTAINERID '%.64s' is missing or not a container id",
			       req->owner.container);
	if ((verb->needs & NEED_INTERFACE) && !is_interface(req->owner.interface))
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_IFNAME '%.64s' is missing or not an interface's name",
			       req->owner.interface);
	if ((verb->needs & NEED_NETNS) && !req->netns[0])
		return err_set(err, CNI_INVALID_ENVIRONMENT, "CNI_NETNS is missing");
	if ((verb->needs & NEED_NETNS) && !is_utf8(req->netns))
		return err_set(err, CNI_INVALID_ENVIRONMENT, "CNI_NETNS '%s' is not UTF-8",
			       req->netns);
	return 0;
}

/* -- output -------------------------------------------------------------------- */

static void print_json(json_t *json)
{
	if (json)
		(void)json_dumpf(json, stdout, JSON_INDENT(2));
	(void)fputc('\n', stdout);
	json_decref(json);
}

/* Bytes of the UTF-8 character that text begins with; 0: it begins with none. */
static size_t character_length(const char *text)
{
	size_t max = strnlen(text, 4);

	for (size_t n = 1; n <= max; n++) {
		json_t *json = json_stringn(text, n);

		json_decref(json);
		if (json)
			return n;
	}
	return 0;
}

/* The text may quote bytes that are no UTF-8, or end amid a character: JSON would refuse it all. */
static int print_error(enum cni_version version, int code, const struct err *err)
{
	char text[ERR_TEXT_MAX];
	size_t length;

	strlcpy(text, err->text, sizeof(text));
	for (char *c = text; *c; c += length) {
		length = character_length(c);
		if (length)
			continue;
		*c = '?';
		length = 1;
	}
	print_json(json_pack("{ss si ss}", "cniVersion", cni_version_names[version], "code", code,
			     "msg", text));
	return EXIT_FAILURE;
}

/* VERSION answers whatever the configuration is, in its version if that is spoken. */
static int print_versions(const struct buf *input)
{
	enum cni_version version = CNI_VERSIONS - 1;
	json_t *json = json_loadb(input->data, input->len, 0, NULL);
	const char *asked = json_string_value(json_object_get(json, "cniVersion"));
	json_t *list = json_array();

	if (asked)
		(void)cni_version_parse(asked, &version);
	for (size_t i = 0; i < CNI_VERSIONS; i++)
		(void)json_array_append_new(list, json_string(cni_version_names[i]));
	print_json(json_pack("{ss so}", "cniVersion", cni_version_names[version],
			     "supportedVersions", list));
	json_decref(json);
	return EXIT_SUCCESS;
}

/* For the agent's metrics; without an agent nobody counts. */
static void tell_agent(const struct verb *verb, const struct netconf *conf, int result,
		       int64_t started_ns)
{
	const struct podlog_entry entry = {
		.command = verb->log,
		.failed = result != 0,
		.duration_ns = clock_ns() - started_ns,
	};

	if (conf->state_dir[0])
		podlog_append(conf->state_dir, &entry);
}

static int run(const struct verb *verb, const struct buf *input, enum cni_version *version,
	       struct err *err)
{
	struct request req = { .netns = "" };
	int64_t started_ns = clock_ns();
	/* The configuration first: errors are told in its version. */
	int r = netconf_parse(input->data, input->len, &req.conf, version, err);

	if (r == 0)
		r = read_environment(verb, &req, err);
	if (r == 0 && req.conf.version < verb->since)
		r = err_set(err, CNI_INCOMPATIBLE_VERSION, "%s came with CNI version %s, not %s",
			    verb->name, cni_version_names[verb->since],
			    cni_version_names[req.conf.version]);
	if (r == 0)
		r = verb->run(&req, err);
	tell_agent(verb, &req.conf, r, started_ns);
	netconf_done(&req.conf);
	return r;
}

static int print_usage(void)
{
	fprintf(stderr,
		"poplin %s: a CNI plugin, run by a container runtime with CNI_COMMAND set and the\n"
		"network configuration on standard input. See poplin(8).\n",
		PACKAGE_VERSION);
	return EXIT_FAILURE;
}

int main(void)
{
	enum cni_version version = CNI_VERSIONS - 1;
	const char *command = getenv("CNI_COMMAND");
	auto_buf struct buf input = BUF_INIT;
	const struct verb *verb = NULL;
	struct err err = ERR_INIT;
	int r;

	if (!command)
		return print_usage();
	/* A runtime that went away: writing the result then fails, and ADD takes all back. */
	(void)signal(SIGPIPE, SIG_IGN);
	r = read_stdin(&input, &err);
	if (r)
		return print_error(version, r, &err);
	if (strcmp(command, "VERSION") == 0)
		return print_versions(&input);
	for (size_t i = 0; i < countof(verbs); i++)
		if (strcmp(command, verbs[i].name) == 0)
			verb = &verbs[i];
	if (!verb)
		r = err_set(&err, CNI_INVALID_ENVIRONMENT, "CNI_COMMAND '%.32s' is not known",
			    command);
	else
		r = run(verb, &input, &version, &err);
	return r ? print_error(version, r, &err) : EXIT_SUCCESS;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poplin, the CNI plugin: finds the verb, reads what was asked, tells the error. */
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

/* What an error is told in. */
struct answer {
	const char *command;
	enum cni_version version;
	char network[CNI_NAME_MAX];
};

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

/* Texts may quote bytes that are no UTF-8, or end amid a character: JSON would refuse it all. */
static void make_utf8(char *text)
{
	size_t length;

	for (char *c = text; *c; c += length) {
		length = character_length(c);
		if (length)
			continue;
		*c = '?';
		length = 1;
	}
}

static const char *code_meaning(int code)
{
	static const struct {
		int code;
		const char *meaning;
	} codes[] = {
		{ CNI_INCOMPATIBLE_VERSION, "incompatible version of the specification" },
		{ CNI_UNSUPPORTED_FIELD, "unsupported field of the network configuration" },
		{ CNI_UNKNOWN_CONTAINER, "the container is unknown" },
		{ CNI_INVALID_ENVIRONMENT, "invalid environment variable" },
		{ CNI_IO_FAILURE, "failure of input or output" },
		{ CNI_DECODE_FAILURE, "content that cannot be decoded" },
		{ CNI_INVALID_CONFIG, "invalid network configuration" },
		{ CNI_TRY_AGAIN_LATER, "not possible now: try again later" },
		{ CNI_NOT_AVAILABLE, "no pod can be attached now" },
		{ CNI_LIMITED_CONNECTIVITY,
		  "no pod can be attached now, and those that are may have no network" },
		{ CNI_NO_ADDRESS, "no address can be given" },
		{ CNI_KERNEL_REFUSED, "the kernel refused a link, an address or a route" },
		{ CNI_NOT_AS_EXPECTED, "the attachment is not as it was made" },
		{ CNI_ALREADY_ATTACHED, "the interface is attached already" },
	};

	for (size_t i = 0; i < countof(codes); i++)
		if (codes[i].code == code)
			return codes[i].meaning;
	return "failure of another plugin";
}

static int print_error(const struct answer *answer, int code, const struct err *err)
{
	char msg[ERR_TEXT_MAX], details[ERR_TEXT_MAX];

	strlcpy(msg, err->text, sizeof(msg));
	(void)snprintf(
		details, sizeof(details),
		"CNI_COMMAND=%.32s CNI_CONTAINERID=%.240s CNI_IFNAME=%.16s, network '%s': %s",
		answer->command, environment_get("CNI_CONTAINERID"), environment_get("CNI_IFNAME"),
		answer->network, code_meaning(code));
	make_utf8(msg);
	make_utf8(details);
	print_json(json_pack("{ss si ss ss}", "cniVersion", cni_version_names[answer->version],
			     "code", code, "msg", msg, "details", details));
	return EXIT_FAILURE;
}

/* Of the form of a version, spoken or not: VERSION says back what it was told. */
static bool is_version(const char *text)
{
	return text && *text && strlen(text) < 32 && strspn(text, "0123456789.") == strlen(text);
}

static int print_versions(const struct buf *input)
{
	json_t *json = json_loadb(input->data, input->len, 0, NULL);
	const char *asked = json_string_value(netconf_get(json, "cniVersion"));
	json_t *list = json_array();

	for (size_t i = 0; i < CNI_VERSIONS; i++)
		(void)json_array_append_new(list, json_string(cni_version_names[i]));
	print_json(json_pack("{ss so}", "cniVersion",
			     is_version(asked) ? asked : cni_version_names[CNI_VERSIONS - 1],
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

static int run(const struct verb *verb, const struct buf *input, int64_t started_ns,
	       struct answer *answer, struct err *err)
{
	struct request req = {
		.netns = "",
		.started_ns = started_ns,
		.text = input->data,
		.text_len = input->len,
	};
	int64_t began_ns = clock_ns();
	/* The configuration first: errors are told in its version. */
	int r = netconf_parse(input->data, input->len, &req.conf, &answer->version, err);

	strlcpy(answer->network, req.conf.name, sizeof(answer->network));
	if (r == 0)
		r = environment_read(verb->needs, &req, err);
	if (r == 0 && req.conf.version < verb->since)
		r = err_set(err, CNI_INCOMPATIBLE_VERSION, "%s came with CNI version %s, not %s",
			    verb->name, cni_version_names[verb->since],
			    cni_version_names[req.conf.version]);
	if (r == 0)
		r = verb->run(&req, err);
	tell_agent(verb, &req.conf, r, began_ns);
	netconf_done(&req.conf);
	return r;
}

/* Somebody looks what this is; a runtime that forgot the variable reads the error. */
static int print_usage(const struct answer *answer)
{
	struct err err = ERR_INIT;

	fprintf(stderr,
		"poplin %s: a CNI plugin, run by a container runtime with CNI_COMMAND set and the\n"
		"network configuration on standard input. See poplin(8).\n",
		PACKAGE_VERSION);
	err_set(&err, CNI_INVALID_ENVIRONMENT, "CNI_COMMAND is missing");
	return print_error(answer, CNI_INVALID_ENVIRONMENT, &err);
}

int main(void)
{
	int64_t started_ns = clock_real_ns();
	struct answer answer = { environment_get("CNI_COMMAND"), CNI_VERSIONS - 1, "" };
	auto_buf struct buf input = BUF_INIT;
	const struct verb *verb = NULL;
	struct err err = ERR_INIT;
	int r;

	if (!answer.command[0])
		return print_usage(&answer);
	/* A runtime that went away: writing the result then fails, and ADD takes all back. */
	(void)signal(SIGPIPE, SIG_IGN);
	r = read_stdin(&input, &err);
	if (r)
		return print_error(&answer, r, &err);
	if (strcmp(answer.command, "VERSION") == 0)
		return print_versions(&input);
	for (size_t i = 0; i < countof(verbs); i++)
		if (strcmp(answer.command, verbs[i].name) == 0)
			verb = &verbs[i];
	if (!verb)
		r = err_set(&err, CNI_INVALID_ENVIRONMENT, "CNI_COMMAND '%.32s' is not known",
			    answer.command);
	else
		r = run(verb, &input, started_ns, &answer, &err);
	return r ? print_error(&answer, r, &err) : EXIT_SUCCESS;
}

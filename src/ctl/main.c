/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poplinctl: look inside the agent of this node. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/envfile.h"
#include "poplin/base/mem.h"
#include "poplin/http/http.h"
#include "poplin/model/defaults.h"

#include "commands.h"

#define ADDRESS_VARIABLE "METRICS_ADDRESS"
#define STATE_VARIABLE	 "STATE_DIR"
#define ADDRESS_MAX	 64
#define TIMEOUT_MS	 10000

enum { EXIT_USAGE = 2 };

/* Either shows what the agent answers for path, or does something. */
static const struct command {
	const char *name;
	const char *path;
	int (*print)(const json_t *root, FILE *out);
	int (*act)(const struct ctl *ctl, struct err *err);
	const char *help;
} commands[] = {
	{ "status", "/status", command_status, NULL, "this node: lease, store, bridge, numbers" },
	{ "peers", "/status/peers", command_peers, NULL,
	  "the other nodes and what was made of them" },
	{ "routes", "/status/routes", command_routes, NULL, "routes to the other nodes' pods" },
	{ "pods", "/status/pods", command_pods, NULL, "addresses held by this node's pods" },
	{ "release", "/status", NULL, command_release, "drain this node: give its subnet back" },
	{ "resume", "/status", NULL, command_resume, "let a drained node claim a subnet again" },
};

struct options {
	char address[ADDRESS_MAX];
	const char *config; /* NULL: the default file, which may be missing */
	char state_dir[PATH_MAX];
	bool json, force;
	const struct command *command;
};

static void usage(FILE *out)
{
	fprintf(out, "Usage: poplinctl [OPTION]... COMMAND\n"
		     "Looks inside the poplin agent of this node, and drains the node.\n\n"
		     "Commands:\n");
	for (size_t i = 0; i < countof(commands); i++)
		fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
	fprintf(out,
		"\nOptions:\n"
		"  -a, --address HOST:PORT  where the agent listens\n"
		"  -c, --config FILE        file to look settings up in\n"
		"                           [" DEFAULT_CONFIG_FILE "]\n"
		"  -f, --force              release though pods hold addresses\n"
		"  -j, --json               print the agent's JSON\n"
		"  -h, --help               print this\n"
		"  -V, --version            print the version\n\n"
		"Without --address: " ADDRESS_VARIABLE " of the environment, then of the file,\n"
		"then " DEFAULT_METRICS_ADDRESS ". release and resume write in " STATE_VARIABLE
		", which is\n"
		"looked up likewise [" DEFAULT_STATE_DIR "].\n");
}

static int complain(const char *text)
{
	fprintf(stderr, "poplinctl: %s\n", text);
	return EXIT_FAILURE;
}

/* -- the agent's address --------------------------------------------------- */

/* Only what can stand in HOST:PORT: the rest of the URL is ours. */
static int address_set(const char *text, char ret[static ADDRESS_MAX], struct err *err)
{
	const char *colon = strrchr(text, ':');

	if (strlen(text) >= ADDRESS_MAX || !colon || colon == text)
		return err_set(err, -EINVAL, "not HOST:PORT");
	for (const char *c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr(".:-[]%_", *c))
			return err_set(err, -EINVAL, "not HOST:PORT");
	if (strspn(colon + 1, "0123456789") != strlen(colon + 1) || colon[1] == '\0')
		return err_set(err, -EINVAL, "not HOST:PORT");
	if (strtoul(colon + 1, NULL, 10) == 0)
		return err_set(err, -EINVAL,
			       "with port 0 only the agent's log tells the port; use --address");
	/* What listens everywhere is best asked on this very node. */
	if (strncmp(text, "0.0.0.0:", 8) == 0)
		snprintf(ret, ADDRESS_MAX, "127.0.0.1%s", colon);
	else if (strncmp(text, "[::]:", 5) == 0)
		snprintf(ret, ADDRESS_MAX, "[::1]%s", colon);
	else
		snprintf(ret, ADDRESS_MAX, "%s", text);
	return 0;
}

struct lookup {
	const char *file;
	char *address; /* of ADDRESS_MAX bytes */
};

static int on_setting(const char *name, const char *value, unsigned line, void *arg,
		      struct err *err)
{
	const struct lookup *lookup = arg;

	if (strcmp(name, ADDRESS_VARIABLE) != 0)
		return 0;
	lookup->address[0] = '\0';
	if (*value && address_set(value, lookup->address, err) < 0)
		return err_wrap(err, -EINVAL, "%s:%u: %s='%.100s'", lookup->file, line,
				ADDRESS_VARIABLE, value);
	return 0;
}

static int address_find(const char *config, char ret[static ADDRESS_MAX], struct err *err)
{
	const char *text = getenv(ADDRESS_VARIABLE);
	struct lookup lookup = { config ? config : DEFAULT_CONFIG_FILE, ret };
	int r;

	if (text && *text) {
		r = address_set(text, ret, err);
		return r < 0 ? err_wrap(err, r, "%s='%.100s' of the environment", ADDRESS_VARIABLE,
					text)
			     : 0;
	}
	r = envfile_read(lookup.file, on_setting, &lookup, err);
	/* The default file may be missing, and may be none of a common user's business. */
	if (r < 0 && (config || (r != -ENOENT && r != -EACCES)))
		return r;
	if (ret[0] == '\0')
		snprintf(ret, ADDRESS_MAX, "%s", DEFAULT_METRICS_ADDRESS);
	return 0;
}

/* -- the agent's folder ---------------------------------------------------- */

static int on_state_dir(const char *name, const char *value, unsigned line, void *arg,
			struct err *err)
{
	if (strcmp(name, STATE_VARIABLE) == 0)
		strlcpy(arg, value, PATH_MAX);
	return 0;
}

static int state_dir_find(const char *config, char ret[static PATH_MAX], struct err *err)
{
	const char *text = getenv(STATE_VARIABLE);
	const char *file = config ? config : DEFAULT_CONFIG_FILE;
	int r;

	if (text && *text) {
		strlcpy(ret, text, PATH_MAX);
		return 0;
	}
	r = envfile_read(file, on_state_dir, ret, err);
	if (r < 0 && (config || r != -ENOENT))
		return err_wrap(err, r, "%s", file);
	if (ret[0] == '\0')
		strlcpy(ret, DEFAULT_STATE_DIR, PATH_MAX);
	return 0;
}

/* -- the question ---------------------------------------------------------- */

static int fetch(const struct options *o, struct http_response *ret, struct err *err)
{
	auto_(http_free) struct http *http = NULL;
	char url[ADDRESS_MAX + 64];
	struct http_request request = { .url = url, .timeout_ms = TIMEOUT_MS };
	int r;

	snprintf(url, sizeof(url), "http://%s%s", o->address, o->command->path);
	r = http_global_init(err);
	if (r < 0)
		return r;
	r = http_new(&http, err);
	if (r < 0)
		return r;
	r = http_perform(http, &request, ret, err);
	if (r < 0)
		return r;
	if (ret->status != 200)
		return err_set(err, -EPROTO, "HTTP status %ld%s", ret->status,
			       ret->status == 404 ? ": is this poplin's port?" : "");
	return 0;
}

static int print(const struct options *o, const struct buf *body)
{
	json_error_t why;
	json_t *root;
	int r;

	root = json_loadb(body->data ? body->data : "", body->len, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return complain("the answer is not JSON: is this poplin's port?");
	if (o->json) {
		fwrite(body->data, 1, body->len, stdout);
		r = 0;
	} else {
		r = o->command->print(root, stdout);
	}
	json_decref(root);
	if (r == -EPROTO)
		return complain(
			"the answer lacks what it should have: an agent of another version?");
	if (r < 0)
		return complain(strerror(-r));
	if (fflush(stdout) != 0 || ferror(stdout))
		return complain("cannot write the output");
	return EXIT_SUCCESS;
}

/* -- what is more than a question ------------------------------------------ */

static int ask(void *arg, json_t **ret, struct err *err)
{
	struct http_response response = { .status = 0, .body = BUF_INIT };
	int r = fetch(arg, &response, err);

	if (r == 0) {
		*ret = json_loadb(response.body.data ? response.body.data : "", response.body.len,
				  JSON_REJECT_DUPLICATES, NULL);
		if (!*ret)
			r = err_set(err, -EPROTO, "the answer is not JSON: is this poplin's port?");
	}
	buf_done(&response.body);
	return r;
}

static int act(struct options *o)
{
	const struct ctl ctl = {
		.ask = ask,
		.arg = o,
		.state_dir = o->state_dir,
		.force = o->force,
	};
	struct err err = ERR_INIT;

	if (state_dir_find(o->config, o->state_dir, &err) < 0) {
		complain(err.text);
		return EXIT_USAGE;
	}
	return o->command->act(&ctl, &err) < 0 ? complain(err.text) : EXIT_SUCCESS;
}

/* -- command line ---------------------------------------------------------- */

/* Returns 0, or the exit status + 1 when the program ends here. */
static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "address", required_argument, NULL, 'a' },
		{ "config", required_argument, NULL, 'c' },
		{ "force", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	struct err err = ERR_INIT;
	int c;

	while ((c = getopt_long(argc, argv, "a:c:fjhV", longs, NULL)) != -1) {
		switch (c) {
		case 'a':
			if (address_set(optarg, o->address, &err) == 0)
				break;
			fprintf(stderr, "poplinctl: --address '%.100s': %s\n", optarg, err.text);
			return EXIT_USAGE + 1;
		case 'c':
			o->config = optarg;
			break;
		case 'f':
			o->force = true;
			break;
		case 'j':
			o->json = true;
			break;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS + 1;
		case 'V':
			printf("poplinctl %s\n", PACKAGE_VERSION);
			return EXIT_SUCCESS + 1;
		default:
			usage(stderr);
			return EXIT_USAGE + 1;
		}
	}
	for (size_t i = 0; optind + 1 == argc && i < countof(commands); i++)
		if (strcmp(argv[optind], commands[i].name) == 0)
			o->command = &commands[i];
	if (o->command)
		return 0;
	if (optind < argc)
		fprintf(stderr, "poplinctl: %s '%s'\n",
			optind + 1 < argc ? "one command at a time, not" : "no such command:",
			argv[optind + 1 < argc ? optind + 1 : optind]);
	usage(stderr);
	return EXIT_USAGE + 1;
}

int main(int argc, char **argv)
{
	struct options options = { .address = "" };
	struct http_response response = { .status = 0, .body = BUF_INIT };
	struct err err = ERR_INIT;
	int r = parse(argc, argv, &options);

	if (r != 0)
		return r - 1;
	if (options.address[0] == '\0' && address_find(options.config, options.address, &err) < 0) {
		complain(err.text);
		return EXIT_USAGE;
	}
	if (options.command->act)
		return act(&options);
	if (fetch(&options, &response, &err) < 0) {
		fprintf(stderr,
			"poplinctl: no good answer from the agent at %s: %s\n"
			"Is poplind running, and is this its " ADDRESS_VARIABLE "?\n",
			options.address, err.text);
		r = EXIT_FAILURE;
	} else {
		r = print(&options, &response.body);
	}
	buf_done(&response.body);
	return r;
}

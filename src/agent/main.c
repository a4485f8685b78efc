/* SPDX-License-Identifier: GPL-2.0-or-later */
/* poplind: the command line. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "agent.h"
#include "instance.h"
#include "maintain.h"
#include "poplin/base/log.h"
#include "poplin/http/http.h"
#include "settings.h"

enum exit_status { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_WRONG = 2 };

struct options {
	const char *config; /* NULL: the default file, if there is one */
	bool check, release, force, cleanup;
};

static void usage(FILE *out)
{
	fprintf(out, "Usage: poplind [OPTION]...\n"
		     "The pod network agent of a Kubernetes node.\n"
		     "\n"
		     "  --config FILE   settings, as NAME=value lines [" DEFAULT_CONFIG_FILE "]\n"
		     "  --check-config  check the settings, print them, and exit\n"
		     "  --release       give this node's subnet back, and exit\n"
		     "  --force         with --release: though pods hold addresses\n"
		     "  --cleanup       remove everything of poplin's from this node, and exit\n"
		     "  -h, --help      print this text and exit\n"
		     "  -V, --version   print the version and exit\n"
		     "\n"
		     "Settings come from the environment, then from the file, then from here:\n");
	settings_usage(out);
}

/* Returns true to go on, or false with *ret_status to exit with. */
static bool parse_options(int argc, char **argv, struct options *ret, int *ret_status)
{
	enum { CONFIG = 1, CHECK, RELEASE, FORCE, CLEANUP };
	static const struct option table[] = {
		{ "config", required_argument, NULL, CONFIG },
		{ "check-config", no_argument, NULL, CHECK },
		{ "release", no_argument, NULL, RELEASE },
		{ "force", no_argument, NULL, FORCE },
		{ "cleanup", no_argument, NULL, CLEANUP },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	*ret_status = EXIT_FINE;
	while ((option = getopt_long(argc, argv, "hV", table, NULL)) != -1) {
		switch (option) {
		case CONFIG:
			ret->config = optarg;
			break;
		case CHECK:
			ret->check = true;
			break;
		case RELEASE:
			ret->release = true;
			break;
		case FORCE:
			ret->force = true;
			break;
		case CLEANUP:
			ret->cleanup = true;
			break;
		case 'h':
			usage(stdout);
			return false;
		case 'V':
			printf("poplind %s\n", PACKAGE_VERSION);
			return false;
		default: /* getopt_long() has said why */
			*ret_status = EXIT_WRONG;
			return false;
		}
	}
	if (ret->check && (ret->release || ret->cleanup)) {
		fprintf(stderr, "poplind: --check-config stands alone (poplind --help)\n");
		*ret_status = EXIT_WRONG;
		return false;
	}
	if (ret->force && !ret->release) {
		fprintf(stderr, "poplind: --force goes with --release (poplind --help)\n");
		*ret_status = EXIT_WRONG;
		return false;
	}
	if (optind == argc)
		return true;
	fprintf(stderr, "poplind: unexpected argument '%s' (poplind --help)\n", argv[optind]);
	*ret_status = EXIT_WRONG;
	return false;
}

/* Until the settings are known it is not known either how, and whether, to log. */
static void keep_warning(const char *text, void *arg)
{
	(void)buf_add(arg, text, strlen(text) + 1);
}

static void log_warnings(const struct buf *warnings)
{
	for (size_t i = 0; i < warnings->len; i += strlen(warnings->data + i) + 1)
		log_warn("%s", warnings->data + i);
}

static int fail(const struct err *err)
{
	log_error("%s", err->text);
	return EXIT_FAILED;
}

static int maintain(const struct options *options, const struct settings *s)
{
	auto_close int lock = -1;
	struct err err = ERR_INIT;
	int status = EXIT_FINE;

	lock = instance_lock(s->state_dir, &err);
	if (lock < 0)
		return fail(&err);
	/* A refusal comes before anything is removed: afterwards no pod is left to be counted. */
	if (options->cleanup && options->release && !options->force && maintain_close(s, &err) < 0)
		return fail(&err);
	if (options->cleanup && maintain_cleanup(s, &err) < 0)
		status = EXIT_FAILED; /* told already */
	if (options->release && maintain_release(s, options->force, &err) < 0)
		status = fail(&err);
	return status;
}

int main(int argc, char **argv)
{
	struct options options = { .config = NULL };
	auto_buf struct buf warnings = BUF_INIT;
	const char *config;
	static struct settings settings;
	struct err err = ERR_INIT;
	int status;

	if (!parse_options(argc, argv, &options, &status))
		return status;
	if (http_global_init(&err) < 0)
		return fail(&err);
	config = options.config ? options.config : DEFAULT_CONFIG_FILE;
	if (settings_load(&settings, config, options.config != NULL, keep_warning, &warnings,
			  &err) < 0) {
		for (size_t i = 0; i < warnings.len; i += strlen(warnings.data + i) + 1)
			fprintf(stderr, "poplind: %s\n", warnings.data + i);
		fprintf(stderr, "poplind: %s\n", err.text);
		return EXIT_WRONG;
	}
	if (options.check) {
		log_warnings(&warnings);
		settings_print(&settings, stdout);
		return EXIT_FINE;
	}
	log_set_level(settings.log_level);
	log_set_format(settings.log_format);
	log_warnings(&warnings);
	if (options.release || options.cleanup)
		return maintain(&options, &settings);
	status = agent_run(&settings, config, options.config != NULL, &err);
	if (status == 0)
		return EXIT_FINE;
	(void)fail(&err);
	/* Another try will not help: the settings are not those of the cluster. */
	return status == -EDOM ? EXIT_WRONG : EXIT_FAILED;
}

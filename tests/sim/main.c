/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulator's command line, and the commands on its standard input. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/http/http.h"
#include "sim.h"

static void usage(FILE *out)
{
	fprintf(out,
		"Usage: sim [OPTION]...\n"
		"Plays many nodes against an etcd, with the agent's own code for claims and leases.\n"
		"\n"
		"  --etcd HOSTS      as ETCD_HOST [127.0.0.1:2379]\n"
		"  --prefix KEY      as ETCD_PREFIX [/poplin/nodes]\n"
		"  --counter KEY     as ETCD_COUNTER_KEY [/poplin/counter]\n"
		"  --subnet PREFIX   as IP_SUBNET [10.0.0.0/8]\n"
		"  --margin BITS     as IP_SUBNET_MARGIN [16]\n"
		"  --ttl SECONDS     as LEASE_TTL [120]\n"
		"  --resync SECONDS  as RESYNC_INTERVAL, of agents [300]\n"
		"  --address IP      of the first node; the others follow [172.30.64.0]\n"
		"  --name PREFIX     of the nodes' names [sim-]\n"
		"  --nodes N         nodes at the start: a record and a lease each [0]\n"
		"  --share N         so many nodes have one lease and are put in bulk: each has its own\n"
		"                    subnet from the end of the network, whoever holds it; they leave\n"
		"                    or die together [1]\n"
		"  --agents N        besides, whole agents but for the kernel: poplind's lease and\n"
		"                    watcher, a thread each [0]\n"
		"  --threads N       that play the nodes, with a connection each [4]\n"
		"  --help            print this text and exit\n"
		"\n"
		"It says \"ready\" when all are there. Then it takes commands, a line each, and\n"
		"answers when they are done:\n"
		"\n"
		"  join N     N more nodes\n"
		"  change N   N nodes get another address\n"
		"  leave N    N nodes give their subnets back\n"
		"  die N      N nodes renew no more; their records go when the leases run out\n"
		"  count      how many live, and what happened so far\n"
		"  quit       end; all records stay until their leases run out\n"
		"\n"
		"After the end of its input it goes on until SIGTERM or SIGINT.\n");
}

void sim_node(const struct sim *sim, unsigned number, char name[static NODE_NAME_TEXT_MAX],
	      struct record *ret)
{
	snprintf(name, NODE_NAME_TEXT_MAX, "%s%05u", sim->prefix, number);
	*ret = (struct record){ .address = addr_add(&sim->address, number) };
	snprintf(ret->machine, sizeof(ret->machine), "%032x", number);
}

void sim_complain(const char *what, const struct err *err)
{
	fprintf(stderr, "sim: %s: %s\n", what, err->text);
}

struct options {
	struct sim sim;
	const char *subnet, *address;
	unsigned margin, nodes, agents;
};

/* A number of 1 to max, or 0 with a word of complaint. */
static unsigned number(const char *name, const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text >= '0' && *text <= '9' && *end == '\0' && n > 0 && n <= max)
		return (unsigned)n;
	fprintf(stderr, "sim: %s '%s': a number from 1 to %u is wanted\n", name, text, max);
	return 0;
}

enum {
	ETCD = 1,
	PREFIX,
	COUNTER,
	SUBNET,
	MARGIN,
	TTL,
	RESYNC,
	ADDRESS,
	NAME,
	NODES,
	SHARE,
	AGENTS,
	THREADS,
	HELP
};

static const struct option table[] = {
	{ "etcd", required_argument, NULL, ETCD },
	{ "prefix", required_argument, NULL, PREFIX },
	{ "counter", required_argument, NULL, COUNTER },
	{ "subnet", required_argument, NULL, SUBNET },
	{ "margin", required_argument, NULL, MARGIN },
	{ "ttl", required_argument, NULL, TTL },
	{ "resync", required_argument, NULL, RESYNC },
	{ "address", required_argument, NULL, ADDRESS },
	{ "name", required_argument, NULL, NAME },
	{ "nodes", required_argument, NULL, NODES },
	{ "share", required_argument, NULL, SHARE },
	{ "agents", required_argument, NULL, AGENTS },
	{ "threads", required_argument, NULL, THREADS },
	{ "help", no_argument, NULL, HELP },
	{ NULL, 0, NULL, 0 },
};

/* False: the option is wrong, and that was told. */
static bool take_option(struct options *o, int option)
{
	switch (option) {
	case ETCD:
		o->sim.store.access.endpoints = optarg;
		return true;
	case PREFIX:
		o->sim.store.prefix = optarg;
		return true;
	case COUNTER:
		o->sim.store.counter_key = optarg;
		return true;
	case SUBNET:
		o->subnet = optarg;
		return true;
	case MARGIN:
		return (o->margin = number("--margin", optarg, 24));
	case TTL:
		return (o->sim.ttl_s = number("--ttl", optarg, 86400));
	case RESYNC:
		return (o->sim.resync_interval_s = number("--resync", optarg, 86400));
	case ADDRESS:
		o->address = optarg;
		return true;
	case NAME:
		o->sim.prefix = optarg;
		return true;
	case NODES:
		return (o->nodes = number("--nodes", optarg, 999999));
	case SHARE:
		return (o->sim.share = number("--share", optarg, 100000));
	case AGENTS:
		return (o->agents = number("--agents", optarg, 10000));
	case THREADS:
		return (o->sim.threads = number("--threads", optarg, 256));
	default: /* getopt_long() has said why */
		return false;
	}
}

/* True to go on; otherwise *ret_status to exit with. */
static bool parse_options(int argc, char **argv, struct options *o, int *ret_status)
{
	struct prefix pods;
	struct err err = ERR_INIT;
	int option;

	*ret_status = 2;
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (option == HELP) {
			usage(stdout);
			*ret_status = 0;
			return false;
		}
		if (!take_option(o, option))
			return false;
	}
	if (optind < argc) {
		fprintf(stderr, "sim: unexpected argument '%s' (sim --help)\n", argv[optind]);
		return false;
	}
	if (prefix_parse(o->subnet, &pods, &err) == 0 &&
	    network_init(&o->sim.network, &pods, o->margin, &err) == 0 &&
	    addr_parse(o->address, &o->sim.address, &err) == 0)
		return true;
	sim_complain("options", &err);
	return false;
}

/* -- commands ----------------------------------------------------------------------- */

static void count(struct nodes *n)
{
	struct nodes_count c;

	nodes_count(n, &c);
	printf("count: %u living, %llu renewals, %llu failures\n", c.living,
	       (unsigned long long)c.renewals, (unsigned long long)c.failures);
}

/* False: quit. */
static bool obey(struct nodes *n, const char *line)
{
	int64_t start = clock_ns();
	struct err err = ERR_INIT;
	char verb[16] = "";
	unsigned many = 0, met = 0;

	if (sscanf(line, "%15s %u", verb, &many) < 1)
		return true;
	if (strcmp(verb, "quit") == 0)
		return false;
	if (strcmp(verb, "count") == 0) {
		count(n);
		return true;
	}
	if (strcmp(verb, "join") == 0 && many) {
		if (nodes_join(n, many, &err) == 0)
			met = many;
		else
			sim_complain(verb, &err);
	} else if (strcmp(verb, "change") == 0 && many) {
		met = nodes_change(n, many);
	} else if (strcmp(verb, "leave") == 0 && many) {
		met = nodes_leave(n, many);
	} else if (strcmp(verb, "die") == 0 && many) {
		met = nodes_die(n, many);
	} else {
		printf("%s: not understood (sim --help)\n", verb);
		return true;
	}
	nodes_wait(n);
	printf("%s: %u nodes in %.3f s\n", verb, met, (double)(clock_ns() - start) / NS_PER_S);
	return true;
}

/* Waits for a signal, or for input if that is there yet. True: input. */
static bool wait_input(int signals, bool input)
{
	struct pollfd fds[] = { { .fd = signals, .events = POLLIN },
				{ .fd = input ? STDIN_FILENO : -1, .events = POLLIN } };

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	return !fds[0].revents;
}

static void serve(struct nodes *n, int signals)
{
	char line[256];
	bool input = true;

	setvbuf(stdin, NULL, _IONBF, 0); /* so that poll() sees what is left to read */
	while (wait_input(signals, input)) {
		input = fgets(line, sizeof(line), stdin) != NULL;
		if (input && !obey(n, line))
			return;
	}
}

static int run(const struct options *o, int signals, struct err *err)
{
	int64_t start = clock_ns();
	struct agents *agents = NULL;
	struct nodes *nodes;
	int r = nodes_start(&nodes, &o->sim, err);

	if (r < 0)
		return r;
	if (o->nodes)
		r = nodes_join(nodes, o->nodes, err);
	if (r == 0 && o->agents)
		r = agents_start(&agents, &o->sim, o->agents, err);
	if (r == 0) {
		nodes_wait(nodes);
		if (agents)
			agents_wait(agents);
		printf("ready in %.3f s\n", (double)(clock_ns() - start) / NS_PER_S);
		serve(nodes, signals);
	}
	if (agents)
		agents_stop(agents);
	nodes_stop(nodes);
	return r;
}

int main(int argc, char **argv)
{
	struct options o = {
		.sim = { .store = { .access = { .endpoints = "127.0.0.1:2379" },
				    .prefix = "/poplin/nodes",
				    .counter_key = "/poplin/counter" },
			 .ttl_s = 120,
			 .resync_interval_s = 300,
			 .threads = 4,
			 .share = 1,
			 .prefix = "sim-" },
		.subnet = "10.0.0.0/8",
		.margin = 16,
		.address = "172.30.64.0",
	};
	struct err err = ERR_INIT;
	struct rlimit files;
	sigset_t set;
	int status;

	if (!parse_options(argc, argv, &o, &status))
		return status;
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_ERROR);
	/* Agents have two connections each. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (http_global_init(&err) < 0 || run(&o, signalfd(-1, &set, SFD_CLOEXEC), &err) < 0) {
		sim_complain("cannot start", &err);
		return 1;
	}
	return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starts CNI plugins as a container runtime does, and times them.
 *
 *	spawn COMMAND PARALLEL CONFIG PROGRAM [ARGUMENT...] <PODS
 *
 * For each line of standard input, a pod's name, PROGRAM is run with CNI_COMMAND=COMMAND,
 * CNI_CONTAINERID=<pod>, CNI_IFNAME=eth0, CNI_NETNS=/run/netns/<pod>, the file CONFIG on its
 * standard input and a pipe for its result; PARALLEL of them at a time. For each one line is
 * printed: microseconds from before its start to after its end, and its peak memory in KiB. The
 * last line has the microseconds of all. A plugin that fails ends it, with the plugin's own words.
 *
 * In C, small and statically linked: vfork(2) from a large process counts that process's memory,
 * and an interpreter's own work is longer than what is measured here.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PARALLEL_MAX 256
#define POD_MAX	     128

struct run {
	pid_t pid; /* 0: free */
	int result;
	double started;
	char pod[POD_MAX];
};

static struct run runs[PARALLEL_MAX];
static const char *command, *config;
static char **program;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void start(struct run *run)
{
	static char variables[6][POD_MAX + 64];
	char *env[7] = { 0 };
	posix_spawn_file_actions_t actions;
	int pipes[2];

	snprintf(variables[0], sizeof(variables[0]), "CNI_COMMAND=%s", command);
	snprintf(variables[1], sizeof(variables[1]), "CNI_CONTAINERID=%s", run->pod);
	snprintf(variables[2], sizeof(variables[2]), "CNI_IFNAME=eth0");
	snprintf(variables[3], sizeof(variables[3]), "CNI_NETNS=/run/netns/%s", run->pod);
	snprintf(variables[4], sizeof(variables[4]), "CNI_PATH=/usr/lib/cni");
	snprintf(variables[5], sizeof(variables[5]), "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
	for (int i = 0; i < 6; i++)
		env[i] = variables[i];
	if (pipe2(pipes, O_CLOEXEC) < 0)
		die("pipe");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, config, O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, pipes[1], 1);
	run->started = now_us();
	errno = posix_spawn(&run->pid, program[0], &actions, NULL, program, env);
	if (errno)
		die(program[0]);
	posix_spawn_file_actions_destroy(&actions);
	close(pipes[1]);
	run->result = pipes[0];
}

static void finish(void)
{
	struct rusage usage;
	int status;
	pid_t pid = wait4(-1, &status, 0, &usage);
	double end = now_us();
	char text[4096];

	if (pid < 0)
		die("wait");
	for (struct run *run = runs; run < runs + PARALLEL_MAX; run++) {
		if (run->pid != pid)
			continue;
		if (status) {
			ssize_t n = read(run->result, text, sizeof(text));

			fprintf(stderr, "%s of %s: status %d: %.*s\n", command, run->pod, status,
				n > 0 ? (int)n : 0, text);
			exit(1);
		}
		printf("%.1f %ld\n", end - run->started, usage.ru_maxrss);
		close(run->result);
		run->pid = 0;
		return;
	}
}

static struct run *free_run(int parallel)
{
	for (int i = 0; i < parallel; i++)
		if (!runs[i].pid)
			return &runs[i];
	return NULL;
}

int main(int argc, char **argv)
{
	int parallel = argc > 4 ? atoi(argv[2]) : 0, busy = 0;
	char line[POD_MAX];
	double start_all;

	if (parallel < 1 || parallel > PARALLEL_MAX) {
		fprintf(stderr, "usage: spawn COMMAND PARALLEL CONFIG PROGRAM [ARGUMENT...]\n");
		return 2;
	}
	command = argv[1];
	config = argv[3];
	program = argv + 4;
	start_all = now_us();
	while (fgets(line, sizeof(line), stdin)) {
		struct run *run = free_run(parallel);

		if (!run) {
			finish();
			busy--;
			run = free_run(parallel);
		}
		line[strcspn(line, "\n")] = '\0';
		memcpy(run->pod, line, sizeof(line));
		start(run);
		busy++;
	}
	for (; busy; busy--)
		finish();
	printf("%.1f\n", now_us() - start_all);
	return 0;
}

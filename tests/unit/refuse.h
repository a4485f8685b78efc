/* SPDX-License-Identifier: GPL-2.0-or-later */
/* System calls that fail, as on a disk that is full or broken: in a child, for there is no way back. */
#ifndef POPLIN_TESTS_REFUSE_H
#define POPLIN_TESTS_REFUSE_H

#include "unit.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* From now on this call gives this error to the calling process. False: the kernel has no filters. */
static inline bool refuse_call(unsigned number, unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	const struct sock_fprog program = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#define REFUSE_NO_FILTER 255

/*
 * What fn answers, from 0 to 254, where the call gives the error. A child of the test: no assertions
 * in fn. One that runs for 20 seconds is killed, and the test fails.
 */
static inline int with_refused(unsigned number, unsigned error, int (*fn)(void *arg), void *arg)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		(void)alarm(20);
		_exit(refuse_call(number, error) ? fn(arg) : REFUSE_NO_FILTER);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), REFUSE_NO_FILTER);
	return WEXITSTATUS(status);
}

#endif

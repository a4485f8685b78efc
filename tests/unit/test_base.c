/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors, buffers, hashes, backoff, threads and locks. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "poplin/base/buf.h"
#include "poplin/base/clock.h"
#include "poplin/base/err.h"
#include "poplin/base/hash.h"
#include "poplin/base/thread.h"
#include "unit.h"

static void errors_tell_their_story_from_outside_in(void **state)
{
	struct err err = ERR_INIT;

	assert_int_equal(err_errno(&err, -ENETUNREACH, "route %s", "10.2.7.0/24"), -ENETUNREACH);
	assert_string_equal(err.text, "route 10.2.7.0/24: Network is unreachable");
	assert_int_equal(err_wrap(&err, -ENETUNREACH, "peer '%s'", "n7"), -ENETUNREACH);
	assert_string_equal(err.text, "peer 'n7': route 10.2.7.0/24: Network is unreachable");
	assert_int_equal(err_set(NULL, -EINVAL, "nobody asks"), -EINVAL);
	assert_int_equal(err_wrap(NULL, -EINVAL, "nobody asks"), -EINVAL);
}

static void an_error_too_long_is_cut(void **state)
{
	struct err err = ERR_INIT;

	for (int i = 0; i < 100; i++)
		err_wrap(&err, -EIO, "a layer of no interest");
	assert_int_equal(strlen(err.text), ERR_TEXT_MAX - 1);
}

static void a_buffer_grows_and_stays_terminated(void **state)
{
	struct buf b = BUF_INIT;

	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_printf(&b, "%d,", i), 0);
	assert_int_equal(strlen(b.data), b.len);
	assert_memory_equal(b.data, "0,1,2,", 6);
	assert_int_equal(buf_add(&b, "x", SIZE_MAX), -ENOMEM);
	buf_done(&b);
	assert_null(b.data);
}

static void hashes_tell_strings_apart(void **state)
{
	char a[13], b[13], full[65];

	hash_hex(a, sizeof(a), "ab", "c", NULL);
	hash_hex(b, sizeof(b), "a", "bc", NULL);
	assert_string_not_equal(a, b);
	hash_hex(full, sizeof(full), "ab", "c", NULL);
	assert_memory_equal(a, full, 12);
	/* printf 'ab\0c\0' | sha256sum */
	assert_string_equal(full,
			    "629c2f14f654f026086f2aefe1855533d0897f49df86a19073be17b237361b09");
}

static void backoff_doubles_up_to_its_limit_and_is_spread(void **state)
{
	int64_t lowest = INT64_MAX, highest = 0;

	for (unsigned attempt = 1; attempt < 100; attempt++) {
		int64_t full = attempt < 7 ? NS_PER_S << (attempt - 1) : 60 * NS_PER_S;
		int64_t delay = backoff_ns(attempt, NS_PER_S, 60 * NS_PER_S);

		assert_in_range(delay, full / 2, full);
	}
	for (int i = 0; i < 1000; i++) {
		int64_t delay = backoff_ns(1, NS_PER_S, NS_PER_S);

		lowest = delay < lowest ? delay : lowest;
		highest = delay > highest ? delay : highest;
		assert_in_range(jitter_ns(NS_PER_S, 10), NS_PER_S * 9 / 10, NS_PER_S * 11 / 10);
	}
	assert_true(highest - lowest > NS_PER_S / 4);
	assert_in_range(backoff_ns(UINT32_MAX, NS_PER_S, INT64_MAX / 4), INT64_MAX / 8,
			INT64_MAX / 4);
}

struct shared {
	struct mutex lock;
	struct cond changed;
	int turn;
	int event;
	char name[16];
};

static void *take_turns(void *arg)
{
	struct shared *s = arg;

	strcpy(s->name, thread_name());
	for (int i = 0; i < 100; i++) {
		mutex_hold(&s->lock);
		while (s->turn % 2 == 0)
			cond_wait(&s->changed, &s->lock);
		s->turn++;
		cond_signal(&s->changed);
	}
	event_ring(s->event);
	return NULL;
}

static void threads_take_turns_and_ring(void **state)
{
	struct shared s = { .event = event_open() };
	struct pollfd poll_fd = { .fd = s.event, .events = POLLIN };
	struct thread t = { .started = false };

	mutex_init(&s.lock, LOCK_LEAF);
	cond_init(&s.changed);
	assert_int_equal(thread_start(&t, "turns", take_turns, &s), 0);
	for (int i = 0; i < 100; i++) {
		mutex_hold(&s.lock);
		s.turn++;
		cond_signal(&s.changed);
		while (s.turn % 2 == 1)
			cond_wait(&s.changed, &s.lock);
	}
	assert_int_equal(poll(&poll_fd, 1, 10000), 1);
	event_ring(s.event);
	event_clear(s.event);
	assert_int_equal(poll(&poll_fd, 1, 0), 0);
	thread_join(&t);
	thread_join(&t); /* of a thread that is not running: nothing */
	assert_int_equal(s.turn, 200);
	assert_string_equal(s.name, "turns");
	cond_done(&s.changed);
	mutex_done(&s.lock);
	close(s.event);
}

static void a_wait_ends_at_its_deadline(void **state)
{
	struct mutex lock;
	struct cond never;
	int64_t start = clock_ns();

	mutex_init(&lock, LOCK_LEAF);
	cond_init(&never);
	mutex_lock(&lock);
	assert_false(cond_wait_until(&never, &lock, start + 20 * NS_PER_MS));
	assert_true(clock_ns() - start >= 20 * NS_PER_MS);
	assert_false(cond_wait_until(&never, &lock, -1));
	mutex_assert_held(&lock);
	mutex_unlock(&lock);
	cond_done(&never);
	mutex_done(&lock);
}

#ifdef POPLIN_DEBUG
/* In a child, which the assertion ends. */
static void locks_out_of_rank_are_a_bug_that_is_caught(void **state)
{
	struct mutex upper, lower;
	pid_t child;
	int status;

	mutex_init(&upper, LOCK_PEERS);
	mutex_init(&lower, LOCK_QUEUE);
	mutex_lock(&upper);
	mutex_lock(&lower);
	mutex_unlock(&lower);
	mutex_unlock(&upper);
	child = fork();
	if (child == 0) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		mutex_lock(&lower);
		mutex_lock(&upper);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
	mutex_done(&lower);
	mutex_done(&upper);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_tell_their_story_from_outside_in),
		cmocka_unit_test(an_error_too_long_is_cut),
		cmocka_unit_test(a_buffer_grows_and_stays_terminated),
		cmocka_unit_test(hashes_tell_strings_apart),
		cmocka_unit_test(backoff_doubles_up_to_its_limit_and_is_spread),
		cmocka_unit_test(threads_take_turns_and_ring),
		cmocka_unit_test(a_wait_ends_at_its_deadline),
#ifdef POPLIN_DEBUG
		cmocka_unit_test(locks_out_of_rank_are_a_bug_that_is_caught),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

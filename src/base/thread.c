/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/thread.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

static _Thread_local char name_of_thread[16] = "main";

#ifdef POPLIN_DEBUG
/* The ranks that this thread holds, one bit each. */
static _Thread_local unsigned held_ranks;

static void rank_take(struct mutex *m)
{
	unsigned bit = 1U << m->rank;

	/* Nothing of this rank or of one further down may be held already. */
	assert((held_ranks & ~(bit - 1)) == 0);
	held_ranks |= bit;
}

static void owner_set(struct mutex *m)
{
	m->owner = pthread_self();
	m->held = true;
}

static void owner_clear(struct mutex *m)
{
	mutex_assert_held(m);
	m->held = false;
}

static void rank_drop(enum lock_rank rank)
{
	held_ranks &= ~(1U << rank);
}
#else
static void rank_take(struct mutex *m)
{
}
static void owner_set(struct mutex *m)
{
}
static void owner_clear(struct mutex *m)
{
}
static void rank_drop(enum lock_rank rank)
{
}
#endif

/* pthread calls on valid objects fail only for bugs of ours; going on would corrupt state. */
static void must(int r)
{
	if (r != 0)
		abort();
}

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	must(pthread_mutex_init(&m->mutex, NULL));
	m->rank = rank;
#ifdef POPLIN_DEBUG
	m->held = false;
#endif
}

void mutex_done(struct mutex *m)
{
	must(pthread_mutex_destroy(&m->mutex));
}

void mutex_lock(struct mutex *m)
{
	rank_take(m);
	must(pthread_mutex_lock(&m->mutex));
	owner_set(m);
}

void mutex_unlock(struct mutex *m)
{
	enum lock_rank rank = m->rank; /* once unlocked, another thread may free m */

	owner_clear(m);
	must(pthread_mutex_unlock(&m->mutex));
	rank_drop(rank);
}

void mutex_assert_held(const struct mutex *m)
{
#ifdef POPLIN_DEBUG
	assert(m->held && pthread_equal(m->owner, pthread_self()));
#endif
}

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(&c->cond, &attr));
	must(pthread_condattr_destroy(&attr));
}

void cond_done(struct cond *c)
{
	must(pthread_cond_destroy(&c->cond));
}

void cond_signal(struct cond *c)
{
	must(pthread_cond_signal(&c->cond));
}

void cond_broadcast(struct cond *c)
{
	must(pthread_cond_broadcast(&c->cond));
}

void cond_wait(struct cond *c, struct mutex *m)
{
	owner_clear(m);
	must(pthread_cond_wait(&c->cond, &m->mutex));
	owner_set(m);
}

bool cond_wait_until(struct cond *c, struct mutex *m, int64_t deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};
	int r;

	if (deadline_ns < 0)
		ts = (struct timespec){ 0 };
	owner_clear(m);
	r = pthread_cond_timedwait(&c->cond, &m->mutex, &ts);
	owner_set(m);
	if (r != ETIMEDOUT)
		must(r);
	return r == 0;
}

struct start {
	void *(*run)(void *);
	void *arg;
	char name[16];
};

static void *thread_main(void *arg)
{
	struct start start = *(struct start *)arg;

	free(arg);
	strlcpy(name_of_thread, start.name, sizeof(name_of_thread));
	(void)pthread_setname_np(pthread_self(), start.name);
	return start.run(start.arg);
}

int thread_start(struct thread *t, const char *name, void *(*run)(void *), void *arg)
{
	struct start *start = malloc(sizeof(*start));
	int r;

	if (!start)
		return -ENOMEM;
	*start = (struct start){ .run = run, .arg = arg };
	strlcpy(start->name, name, sizeof(start->name));
	r = pthread_create(&t->id, NULL, thread_main, start);
	if (r != 0) {
		free(start);
		return -r;
	}
	t->started = true;
	return 0;
}

void thread_join(struct thread *t)
{
	if (!t->started)
		return;
	must(pthread_join(t->id, NULL));
	t->started = false;
}

const char *thread_name(void)
{
	return name_of_thread;
}

int event_open(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void event_ring(int fd)
{
	uint64_t one = 1;
	ssize_t n;

	/* EAGAIN means the counter is full: it is readable, which is all that is asked for. */
	do
		n = write(fd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

void event_clear(int fd)
{
	uint64_t count;
	ssize_t n;

	do
		n = read(fd, &count, sizeof(count));
	while (n < 0 && errno == EINTR);
}

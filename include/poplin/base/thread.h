/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads and ranked locks.
 *
 * Every lock of the project stands in LOCK_TABLE, in the order in which locks
 * may be taken: a thread that holds a lock may only take one further down. Debug builds
 * (--enable-debug) assert that order, and that functions ending in _locked
 * hold what they need. No lock is held across I/O.
 */
#ifndef POPLIN_BASE_THREAD_H
#define POPLIN_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define LOCK_TABLE(X)                                                                              \
	X(AGENT, "agent: what the threads told the main thread")                                   \
	X(LEASE, "lease: the claim and what was asked of it")                                      \
	X(WATCHER, "watcher: endpoints and stop")                                                  \
	X(PEERS, "peers: the desired state")                                                       \
	X(SNAPSHOT, "snapshot: whether there is something to write")                               \
	X(RESOLVER, "resolver: names to look up")                                                  \
	X(FIB, "fib: what the kernel has of ours")                                                 \
	X(QUEUE, "work queue: keys")                                                               \
	X(STORE, "store: its endpoints")                                                           \
	X(LEAF, "tests and locks that never nest")

enum lock_rank {
#define LOCK_ENUM(name, text) LOCK_##name,
	LOCK_TABLE(LOCK_ENUM)
#undef LOCK_ENUM
		LOCK_RANKS
};

struct mutex {
	pthread_mutex_t mutex;
	enum lock_rank rank;
#ifdef POPLIN_DEBUG
	_Atomic(pthread_t) owner;
	_Atomic bool held;
#endif
};

struct cond {
	pthread_cond_t cond; /* on CLOCK_MONOTONIC */
};

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
void mutex_assert_held(const struct mutex *m);

void cond_init(struct cond *c);
void cond_done(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m);
/* Waits until signalled or clock_ns() reaches deadline_ns. False: the deadline came. */
bool cond_wait_until(struct cond *c, struct mutex *m, int64_t deadline_ns);

static inline void mutex_unlock_cleanup(struct mutex *const *m)
{
	if (*m)
		mutex_unlock(*m);
}
/* Holds the lock until the end of the scope. */
#define mutex_hold(m)                                                                              \
	struct mutex *const held_ __attribute__((cleanup(mutex_unlock_cleanup), unused)) =         \
		(mutex_lock(m), (m))

struct thread {
	pthread_t id;
	bool started;
};

/* The name (15 characters at most) shows in logs, ps and gdb. Returns 0 or a negative errno. */
int thread_start(struct thread *t, const char *name, void *(*run)(void *), void *arg);
/* Waits for the end of the thread; does nothing if it was never started. */
void thread_join(struct thread *t);
const char *thread_name(void); /* of the calling thread; static storage of that thread */

/*
 * An eventfd that one thread waits on and any thread may ring; it stays
 * readable until cleared. The stop path of threads that poll.
 */
int event_open(void); /* file descriptor, or negative errno */
void event_ring(int fd);
void event_clear(int fd);

#endif

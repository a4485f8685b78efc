/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clocks and backoff. Threads: any. */
#ifndef POPLIN_BASE_CLOCK_H
#define POPLIN_BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S  INT64_C(1000000000)

int64_t clock_ns(void);	       /* CLOCK_MONOTONIC */
int64_t clock_thread_ns(void); /* CPU time of the calling thread */
int64_t clock_boot_ns(void);   /* CLOCK_BOOTTIME: runs through suspend, shared by processes */
int64_t clock_real_ns(void);   /* CLOCK_REALTIME, for people */

/*
 * Delay before try number `attempt` (from 1): min doubled each time up to max,
 * then spread over [1/2, 1] of itself so that many who failed together do not
 * come back together.
 */
int64_t backoff_ns(unsigned attempt, int64_t min_ns, int64_t max_ns);

/*
 * Work that events ask for, kept to a share of the thread: after each piece a pause of so many times
 * the CPU time that it took. Some may be done ahead, so that few events wait for no pause.
 */
struct pace {
	int64_t paid_ns; /* when the pieces so far have had their pauses; 0: there was none yet */
};
#define PACE_FACTOR   10 /* a tenth of a core at most */
#define PACE_AHEAD_NS NS_PER_S

/* Work that took work_ns has just ended: when the next piece may begin, by clock_ns(). */
int64_t pace_next_ns(struct pace *p, int64_t work_ns);

/* A value spread evenly over base ± percent %. */
int64_t jitter_ns(int64_t base_ns, unsigned percent);

#endif

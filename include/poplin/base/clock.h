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

/* A value spread evenly over base ± percent %. */
int64_t jitter_ns(int64_t base_ns, unsigned percent);

#endif

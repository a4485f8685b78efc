/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/base/clock.h"

#include <stdlib.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
	struct timespec ts;

	(void)clock_gettime(id, &ts); /* cannot fail for the clocks below */
	return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clock_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_thread_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

int64_t clock_boot_ns(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

int64_t clock_real_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

/* Evenly spread over [0, limit]; libbsd's generator needs no seed and no lock of ours. */
static int64_t random_up_to(int64_t limit)
{
	uint64_t r;

	if (limit <= 0)
		return 0;
	arc4random_buf(&r, sizeof(r));
	return (int64_t)(r % ((uint64_t)limit + 1));
}

int64_t backoff_ns(unsigned attempt, int64_t min_ns, int64_t max_ns)
{
	int64_t delay = min_ns;

	for (unsigned i = 1; i < attempt && delay < max_ns; i++)
		delay = delay > max_ns / 2 ? max_ns : delay * 2;
	if (delay > max_ns)
		delay = max_ns;
	return delay - delay / 2 + random_up_to(delay / 2);
}

int64_t jitter_ns(int64_t base_ns, unsigned percent)
{
	int64_t spread = base_ns / 100 * (int64_t)percent;

	return base_ns - spread + random_up_to(2 * spread);
}

int64_t pace_next_ns(struct pace *p, int64_t work_ns)
{
	int64_t now = clock_ns();

	if (p->paid_ns < now)
		p->paid_ns = now;
	p->paid_ns += PACE_FACTOR * work_ns;
	return p->paid_ns - PACE_AHEAD_NS;
}

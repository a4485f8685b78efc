/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the model tests share: random numbers that a failure can be repeated with, and how many
 * schedules are run (POPLIN_SCHEDULES in the environment, for long runs).
 */
#ifndef POPLIN_TESTS_UNIT_SCHEDULE_H
#define POPLIN_TESTS_UNIT_SCHEDULE_H

#include <stdint.h>
#include <stdlib.h>

struct dice {
	uint64_t state;
};

/* xorshift64* (Vigna, 2016): good enough to choose, and the same everywhere. */
static inline unsigned roll(struct dice *d, unsigned sides)
{
	d->state ^= d->state >> 12;
	d->state ^= d->state << 25;
	d->state ^= d->state >> 27;
	return (unsigned)(d->state * 0x2545f4914f6cdd1d >> 33) % sides;
}

static inline struct dice dice_of(unsigned schedule, unsigned thread)
{
	return (struct dice){ 0x9e3779b97f4a7c15 * (schedule + 1ULL) + 0x1d8af * (thread + 1ULL) };
}

static inline unsigned schedules(unsigned usual)
{
	const char *text = getenv("POPLIN_SCHEDULES");

	return text ? (unsigned)atoi(text) : usual;
}

#endif

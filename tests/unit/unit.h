/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every unit test includes: cmocka wants these headers before its own. */
#ifndef POPLIN_TESTS_UNIT_H
#define POPLIN_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#endif

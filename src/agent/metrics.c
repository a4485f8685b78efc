/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

#include "metrics.h"

/* -- label sets ------------------------------------------------------------ */

/* Label values are constants of ours (or libc's names of errors): none needs escaping. */
static const char *const renewal_values[] = { "ok", "error", "lost" };
static const char *const result_values[] = { "ok", "error" };
static const char *const family_values[] = { "ipv4", "ipv6" };
static const char *const op_values[] = { "add", "replace", "delete" };
static const char *const drift_values[] = { "route", "nexthop", "bridge", "file" };
static const char *const restart_values[] = { "cut", "idle", "stale", "reload", "compare" };
static const char *const command_values[] = { "ADD", "DEL", "CHECK", "GC", "STATUS" };

static_assert(countof(renewal_values) == METRIC_RESULTS, "a value for each");
static_assert(countof(result_values) == METRIC_LOST, "ok and error");
static_assert(countof(family_values) == METRIC_FAMILIES, "a value for each");
static_assert(countof(op_values) == METRIC_OPS, "a value for each");
static_assert(countof(drift_values) == METRIC_DRIFTS, "a value for each");
static_assert(countof(command_values) == PODLOG_COMMANDS, "a value for each");
static_assert(countof(restart_values) == METRIC_RESTARTS, "a value for each");

static const char *errno_value(unsigned i)
{
	return i == 0 ? "other" : strerrorname_np((int)i);
}

static const char *store_op_value(unsigned i)
{
	return store_op_name((enum store_op)i);
}

static const char *limit_value(unsigned i)
{
	return limit_name((enum limit)i);
}

/* X(set, size, label name, values, function for the values, leave out zeros) */
#define LABEL_TABLE(X)                                                                             \
	X(NONE, 1, NULL, NULL, NULL, false)                                                        \
	X(RENEWAL, METRIC_RESULTS, "result", renewal_values, NULL, false)                          \
	X(RESULT, METRIC_LOST, "result", result_values, NULL, false)                               \
	X(FAMILY, METRIC_FAMILIES, "family", family_values, NULL, false)                           \
	X(OP, METRIC_OPS, "op", op_values, NULL, false)                                            \
	X(DRIFT, METRIC_DRIFTS, "kind", drift_values, NULL, false)                                 \
	X(RESTART, METRIC_RESTARTS, "reason", restart_values, NULL, false)                         \
	X(LIMIT, LIMITS, "limit", NULL, limit_value, false)                                        \
	X(COMMAND, PODLOG_COMMANDS, "command", command_values, NULL, false)                        \
	X(STORE_OP, STORE_OPS, "op", NULL, store_op_value, false)                                  \
	X(ERRNO, METRIC_ERRNOS, "errno", NULL, errno_value, true)

enum {
#define LABEL_SIZE(set, size, ...) SIZE_##set = size,
	LABEL_TABLE(LABEL_SIZE)
#undef LABEL_SIZE
};

struct label_set {
	const char *name;
	unsigned size;
	const char *const *values;
	const char *(*value)(unsigned i); /* where values is NULL */
	bool sparse;			  /* series that never counted are not written */
};

enum label {
#define LABEL_ENUM(set, ...) LABEL_##set,
	LABEL_TABLE(LABEL_ENUM)
#undef LABEL_ENUM
};

static const struct label_set label_sets[] = {
#define LABEL_ROW(set, size, name, values, value, sparse) { name, size, values, value, sparse },
	LABEL_TABLE(LABEL_ROW)
#undef LABEL_ROW
};

static const char *label_value(const struct label_set *set, unsigned i)
{
	return set->values ? set->values[i] : set->value(i);
}

/* -- cells ----------------------------------------------------------------- */

static const struct {
	int64_t ns;
	const char *text; /* the same in seconds */
} bounds[] = {
	{ 100 * NS_PER_MS / 1000, "0.0001" },
	{ 250 * NS_PER_MS / 1000, "0.00025" },
	{ 500 * NS_PER_MS / 1000, "0.0005" },
	{ 1 * NS_PER_MS, "0.001" },
	{ 2500 * NS_PER_MS / 1000, "0.0025" },
	{ 5 * NS_PER_MS, "0.005" },
	{ 10 * NS_PER_MS, "0.01" },
	{ 25 * NS_PER_MS, "0.025" },
	{ 50 * NS_PER_MS, "0.05" },
	{ 100 * NS_PER_MS, "0.1" },
	{ 250 * NS_PER_MS, "0.25" },
	{ 500 * NS_PER_MS, "0.5" },
	{ 1 * NS_PER_S, "1" },
	{ 2500 * NS_PER_MS, "2.5" },
	{ 5 * NS_PER_S, "5" },
	{ 10 * NS_PER_S, "10" },
	{ 30 * NS_PER_S, "30" },
	{ 60 * NS_PER_S, "60" },
};

enum kind { COUNTER, GAUGE, GAUGE_NS, HISTOGRAM };

enum {
	SPAN_COUNTER = 1,
	SPAN_GAUGE = 1,
	SPAN_GAUGE_NS = 1,
	SPAN_HISTOGRAM = (int)countof(bounds) + 2, /* one per bound, one beyond all, the sum */
};
#define HISTOGRAM_SUM (countof(bounds) + 1)

/* Each metric's first cell; _LAST makes the next metric start behind it. */
enum {
#define METRIC_CELL(id, kind, name, label1, label2, help)                                          \
	CELL_##id, CELL_##id##_LAST = CELL_##id + SPAN_##kind * SIZE_##label1 * SIZE_##label2 - 1,
	METRIC_TABLE(METRIC_CELL)
#undef METRIC_CELL
		CELLS
};

struct metric_row {
	const char *name;
	const char *help;
	enum kind kind;
	unsigned cell;
	unsigned span;
	const struct label_set *label1, *label2;
};

static const struct metric_row rows[] = {
#define METRIC_ROW(id, kind, name, label1, label2, help)                                           \
	{ name,                                                                                    \
	  help,                                                                                    \
	  kind,                                                                                    \
	  CELL_##id,                                                                               \
	  SPAN_##kind,                                                                             \
	  &label_sets[LABEL_##label1],                                                             \
	  &label_sets[LABEL_##label2] },
	METRIC_TABLE(METRIC_ROW)
#undef METRIC_ROW
};
static_assert(countof(rows) == METRICS, "a row for each metric");

/*
 * Gauges are kept as two's complement. Relaxed order: nothing is concluded from one about another.
 */
static _Atomic uint64_t cells[CELLS];

static unsigned cell_of(const struct metric_row *row, unsigned label1, unsigned label2)
{
	assert(label1 < row->label1->size && label2 < row->label2->size);
	return row->cell + (label1 * row->label2->size + label2) * row->span;
}

void metric_add(enum metric m, unsigned label1, unsigned label2, uint64_t n)
{
	assert(rows[m].kind == COUNTER);
	atomic_fetch_add_explicit(&cells[cell_of(&rows[m], label1, label2)], n,
				  memory_order_relaxed);
}

void metric_set(enum metric m, unsigned label1, int64_t value)
{
	assert(rows[m].kind == GAUGE || rows[m].kind == GAUGE_NS);
	atomic_store_explicit(&cells[cell_of(&rows[m], label1, 0)], (uint64_t)value,
			      memory_order_relaxed);
}

void metric_observe(enum metric m, unsigned label1, int64_t duration_ns)
{
	unsigned cell = cell_of(&rows[m], label1, 0), i = 0;

	assert(rows[m].kind == HISTOGRAM);
	if (duration_ns < 0)
		duration_ns = 0;
	while (i < countof(bounds) && duration_ns > bounds[i].ns)
		i++;
	atomic_fetch_add_explicit(&cells[cell + i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&cells[cell + HISTOGRAM_SUM], (uint64_t)duration_ns,
				  memory_order_relaxed);
}

void metric_netlink_error(int code)
{
	unsigned i = code < 0 && code > -METRIC_ERRNOS ? (unsigned)-code : 0;

	metric_inc_label(METRIC_NETLINK_ERRORS, errno_value(i) ? i : 0);
}

void metric_observe_store(enum store_op op, int result, int64_t duration_ns, void *arg)
{
	enum metric_result label = result < 0 ? METRIC_ERROR : METRIC_OK;

	(void)arg;
	metric_inc_labels(METRIC_ETCD_REQUESTS, op, label);
	metric_observe(METRIC_ETCD_REQUEST_DURATION, op, duration_ns);
}

static uint64_t cell_get(unsigned cell)
{
	return atomic_load_explicit(&cells[cell], memory_order_relaxed);
}

int64_t metric_get(enum metric m, unsigned label1, unsigned label2)
{
	unsigned cell = cell_of(&rows[m], label1, label2);
	uint64_t sum = 0;

	if (rows[m].kind != HISTOGRAM)
		return (int64_t)cell_get(cell);
	for (unsigned i = 0; i <= countof(bounds); i++)
		sum += cell_get(cell + i);
	return (int64_t)sum;
}

void metrics_reset(void)
{
	for (unsigned i = 0; i < CELLS; i++)
		atomic_store_explicit(&cells[i], 0, memory_order_relaxed);
}

/* -- text format ----------------------------------------------------------- */

/* The first failure stays: 120 lines of checks for the one thing that can go wrong tell nothing. */
struct writer {
	struct buf *b;
	int error;
};

static void put(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void put(struct writer *w, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	if (w->error < 0)
		return;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	assert(n >= 0 && (size_t)n < sizeof(text)); /* all constants and numbers */
	w->error = buf_add(w->b, text, (size_t)n);
}

static void put_seconds(struct writer *w, int64_t ns)
{
	if (ns < 0)
		ns = 0;
	put(w, " %" PRId64 ".%09" PRId64 "\n", ns / NS_PER_S, ns % NS_PER_S);
}

/* poplin_name<suffix>{label1="..",label2="..",le=".."}, without what is not there */
static void put_series(struct writer *w, const struct metric_row *row, const char *suffix,
		       unsigned i1, unsigned i2, const char *le)
{
	const char *separator = "{";

	put(w, "poplin_%s%s", row->name, suffix);
	if (row->label1->name) {
		put(w, "%s%s=\"%s\"", separator, row->label1->name, label_value(row->label1, i1));
		separator = ",";
	}
	if (row->label2->name) {
		put(w, "%s%s=\"%s\"", separator, row->label2->name, label_value(row->label2, i2));
		separator = ",";
	}
	if (le) {
		put(w, "%sle=\"%s\"", separator, le);
		separator = ",";
	}
	if (*separator == ',')
		put(w, "}");
}

static void put_histogram(struct writer *w, const struct metric_row *row, unsigned i1, unsigned i2,
			  unsigned cell)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < countof(bounds); i++) {
		count += cell_get(cell + i);
		put_series(w, row, "_bucket", i1, i2, bounds[i].text);
		put(w, " %" PRIu64 "\n", count);
	}
	count += cell_get(cell + countof(bounds));
	put_series(w, row, "_bucket", i1, i2, "+Inf");
	put(w, " %" PRIu64 "\n", count);
	put_series(w, row, "_sum", i1, i2, NULL);
	put_seconds(w, (int64_t)cell_get(cell + HISTOGRAM_SUM));
	put_series(w, row, "_count", i1, i2, NULL);
	put(w, " %" PRIu64 "\n", count);
}

static void put_value(struct writer *w, const struct metric_row *row, unsigned i1, unsigned i2)
{
	unsigned cell = cell_of(row, i1, i2);

	if (row->label1->sparse && cell_get(cell) == 0)
		return;
	switch (row->kind) {
	case COUNTER:
		put_series(w, row, "", i1, i2, NULL);
		put(w, " %" PRIu64 "\n", cell_get(cell));
		break;
	case GAUGE:
		put_series(w, row, "", i1, i2, NULL);
		put(w, " %" PRId64 "\n", (int64_t)cell_get(cell));
		break;
	case GAUGE_NS:
		put_series(w, row, "", i1, i2, NULL);
		put_seconds(w, (int64_t)cell_get(cell));
		break;
	case HISTOGRAM:
		put_histogram(w, row, i1, i2, cell);
		break;
	}
}

static const char *kind_name(enum kind kind)
{
	switch (kind) {
	case COUNTER:
		return "counter";
	case GAUGE:
	case GAUGE_NS:
		return "gauge";
	case HISTOGRAM:
		return "histogram";
	}
	return "untyped";
}

int metrics_write(struct buf *b)
{
	struct writer w = { .b = b, .error = 0 };

	put(&w, "# HELP poplin_build_info The running version.\n# TYPE poplin_build_info gauge\n"
		"poplin_build_info{version=\"" PACKAGE_VERSION "\"} 1\n");
	for (unsigned m = 0; m < METRICS; m++) {
		const struct metric_row *row = &rows[m];

		put(&w, "# HELP poplin_%s %s\n# TYPE poplin_%s %s\n", row->name, row->help,
		    row->name, kind_name(row->kind));
		for (unsigned i1 = 0; i1 < row->label1->size; i1++)
			for (unsigned i2 = 0; i2 < row->label2->size; i2++)
				put_value(&w, row, i1, i2);
	}
	return w.error;
}

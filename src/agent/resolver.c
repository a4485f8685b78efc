/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. getaddrinfo() may block for as long as the administrator's resolv.conf says,
 * and there is no way to interrupt it; the agent must stop within two seconds all the same. So the
 * state is shared by count: the stop waits a moment for the thread, and otherwise leaves it its
 * share. A thread that comes back later finds itself stopped, tells nobody, and frees what is left.
 *
 * All records may be bare, as those of the Python agent are, so names are in two trees: by name, and
 * by when each is due.
 */
#include "resolver.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"
#include "poplin/base/tree.h"

#define RETRY_MIN_NS	 (5 * NS_PER_S)
#define RETRY_MAX_NS	 (60 * NS_PER_S)
#define LOOK_AGAIN_NS	 (300 * NS_PER_S)
#define STOP_PATIENCE_NS NS_PER_S

struct name {
	RB_ENTRY(name) by_text, by_due;
	int64_t due_ns;
	unsigned failures;
	bool asked;	     /* wanted (again) since the look-up that runs began */
	struct addr address; /* the last one that was found */
	char text[];
};

RB_HEAD(text_tree, name);
RB_HEAD(due_tree, name);

struct resolver {
	int family;
	resolver_fn *fn;
	void *arg;
	struct mutex lock;
	struct cond wake;
	struct cond ended;
	/* Under lock. */
	struct text_tree names;
	struct due_tree due; /* the same names */
	bool stop;
	bool running;	/* the thread has its share */
	bool abandoned; /* the thread has the last share */
};

static int text_cmp(const struct name *a, const struct name *b)
{
	return strcmp(a->text, b->text);
}

static int due_cmp(const struct name *a, const struct name *b)
{
	if (a->due_ns != b->due_ns)
		return a->due_ns < b->due_ns ? -1 : 1;
	return text_cmp(a, b);
}

TREE_GENERATE(text_tree, name, by_text, text_cmp)
TREE_GENERATE(due_tree, name, by_due, due_cmp)

static void remove_locked(struct resolver *r, struct name *name)
{
	RB_REMOVE(text_tree, &r->names, name);
	RB_REMOVE(due_tree, &r->due, name);
	free(name);
}

static void resolver_free(struct resolver *r)
{
	struct name *name, *next;

	RB_FOREACH_SAFE(name, text_tree, &r->names, next)
	remove_locked(r, name);
	cond_done(&r->wake);
	cond_done(&r->ended);
	mutex_done(&r->lock);
	free(r);
}

/* The first address of the family, or AF_UNSPEC. */
static struct addr look_up(const char *text, int family)
{
	const struct addrinfo hints = { .ai_family = family, .ai_socktype = SOCK_STREAM };
	struct addr address = { .family = AF_UNSPEC };
	struct addrinfo *list;

	if (getaddrinfo(text, NULL, &hints, &list) != 0)
		return address;
	if (list->ai_family == AF_INET) {
		address.family = AF_INET;
		memcpy(address.bytes, &((struct sockaddr_in *)(void *)list->ai_addr)->sin_addr, 4);
	} else if (list->ai_family == AF_INET6) {
		address.family = AF_INET6;
		memcpy(address.bytes, &((struct sockaddr_in6 *)(void *)list->ai_addr)->sin6_addr,
		       16);
	}
	freeaddrinfo(list);
	return address;
}

/* RB_FIND() would need a whole name with this text. */
static struct name *find_locked(struct resolver *r, const char *text)
{
	struct name *name = RB_ROOT(&r->names);
	int order;

	while (name && (order = strcmp(text, name->text)) != 0)
		name = order < 0 ? RB_LEFT(name, by_text) : RB_RIGHT(name, by_text);
	return name;
}

static void set_due_locked(struct resolver *r, struct name *name, int64_t due_ns)
{
	RB_REMOVE(due_tree, &r->due, name);
	name->due_ns = due_ns;
	RB_INSERT(due_tree, &r->due, name);
}

/* Waits for a name that is due and copies it. False: stop. */
static bool wait_for_name(struct resolver *r, char *ret, size_t size)
{
	struct name *name;

	mutex_hold(&r->lock);
	for (;;) {
		name = RB_MIN(due_tree, &r->due);

		if (r->stop)
			return false;
		if (!name)
			cond_wait(&r->wake, &r->lock);
		else if (name->due_ns > clock_ns())
			(void)cond_wait_until(&r->wake, &r->lock, name->due_ns);
		else
			break;
	}
	name->asked = false;
	return strlcpy(ret, name->text, size) < size;
}

/* Takes the answer down, and says which address holds now. False: stop. */
static bool note_answer(struct resolver *r, const char *text, struct addr *address)
{
	bool known = address->family != AF_UNSPEC;
	struct name *name;
	int64_t wait_ns;

	mutex_hold(&r->lock);
	name = find_locked(r, text);
	name->failures = known ? 0 : name->failures + 1;
	wait_ns = known ? jitter_ns(LOOK_AGAIN_NS, 10)
			: backoff_ns(name->failures, RETRY_MIN_NS, RETRY_MAX_NS);
	set_due_locked(r, name, clock_ns() + wait_ns);
	if (known)
		name->address = *address;
	*address = name->address;
	return !r->stop;
}

/* Nobody wants it, unless it was asked for while we were told so. */
static void drop(struct resolver *r, const char *text)
{
	struct name *name;

	mutex_hold(&r->lock);
	name = find_locked(r, text);
	if (name->asked)
		return;
	remove_locked(r, name);
}

static void *run(void *arg)
{
	struct resolver *r = arg;
	char text[256];
	bool abandoned;

	while (wait_for_name(r, text, sizeof(text))) {
		struct addr address = look_up(text, r->family);

		if (address.family == AF_UNSPEC)
			log_limited(LOG_WARN, "the node's name has no address" KV("node", "%s"),
				    text);
		if (note_answer(r, text, &address) && !r->fn(text, &address, r->arg))
			drop(r, text);
	}
	mutex_lock(&r->lock);
	r->running = false;
	abandoned = r->abandoned;
	cond_signal(&r->ended);
	mutex_unlock(&r->lock);
	if (abandoned)
		resolver_free(r);
	return NULL;
}

void resolver_want(struct resolver *r, const char *node)
{
	size_t len = strlen(node) + 1;
	struct name *name;

	mutex_hold(&r->lock);
	name = find_locked(r, node);
	if (!name) {
		name = calloc(1, sizeof(*name) + len);
		if (!name) {
			log_limited(LOG_ERROR, "out of memory, a name is not looked up");
			return;
		}
		memcpy(name->text, node, len);
		RB_INSERT(text_tree, &r->names, name);
		RB_INSERT(due_tree, &r->due, name);
	}
	name->asked = true;
	set_due_locked(r, name, 0);
	cond_signal(&r->wake);
}

int resolver_start(struct resolver **ret, int family, resolver_fn *fn, void *arg, struct err *err)
{
	struct resolver *r = calloc(1, sizeof(*r));
	struct thread thread;
	int code;

	if (!r)
		return err_errno(err, -ENOMEM, "resolver");
	r->family = family;
	r->fn = fn;
	r->arg = arg;
	r->running = true;
	mutex_init(&r->lock, LOCK_RESOLVER);
	cond_init(&r->wake);
	cond_init(&r->ended);
	RB_INIT(&r->names);
	RB_INIT(&r->due);
	code = thread_start(&thread, "resolver", run, r);
	if (code < 0) {
		resolver_free(r);
		return err_errno(err, code, "start the resolver thread");
	}
	(void)pthread_detach(thread.id); /* it ends in its own time */
	*ret = r;
	return 0;
}

void resolver_stop(struct resolver *r)
{
	int64_t until = clock_ns() + STOP_PATIENCE_NS;
	bool running;

	mutex_lock(&r->lock);
	r->stop = true;
	cond_signal(&r->wake);
	while (r->running && cond_wait_until(&r->ended, &r->lock, until))
		;
	running = r->abandoned = r->running;
	mutex_unlock(&r->lock);
	if (!running)
		resolver_free(r);
}

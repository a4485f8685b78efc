/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory of operation. getaddrinfo() may block for as long as the administrator's resolv.conf says,
 * and there is no way to interrupt it; the agent must stop within two seconds all the same. So the
 * state is shared by count: the stop waits a moment for the thread, and otherwise leaves it its
 * share. A thread that comes back later finds itself stopped, tells nobody, and frees what is left.
 *
 * Names are few (bare records are those of the Python agent), so a list that is walked will do.
 */
#include "resolver.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "poplin/base/clock.h"
#include "poplin/base/log.h"
#include "poplin/base/thread.h"

#define RETRY_MIN_NS	 (5 * NS_PER_S)
#define RETRY_MAX_NS	 (60 * NS_PER_S)
#define LOOK_AGAIN_NS	 (300 * NS_PER_S)
#define STOP_PATIENCE_NS NS_PER_S

struct name {
	SLIST_ENTRY(name) in_list;
	int64_t due_ns;
	unsigned failures;
	bool asked;	     /* wanted (again) since the look-up that runs began */
	struct addr address; /* the last one that was found */
	char text[];
};

struct resolver {
	int family;
	resolver_fn *fn;
	void *arg;
	struct mutex lock;
	struct cond wake;
	struct cond ended;
	/* Under lock. */
	SLIST_HEAD(name_list, name) names;
	bool stop;
	bool running;	/* the thread has its share */
	bool abandoned; /* the thread has the last share */
};

static void resolver_free(struct resolver *r)
{
	struct name *name;

	while ((name = SLIST_FIRST(&r->names))) {
		SLIST_REMOVE_HEAD(&r->names, in_list);
		free(name);
	}
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

/* The name that is due first, or NULL. */
static struct name *next_locked(struct resolver *r)
{
	struct name *name, *first = NULL;

	SLIST_FOREACH (name, &r->names, in_list)
		if (!first || name->due_ns < first->due_ns)
			first = name;
	return first;
}

static struct name *find_locked(struct resolver *r, const char *text)
{
	struct name *name;

	SLIST_FOREACH (name, &r->names, in_list)
		if (strcmp(name->text, text) == 0)
			return name;
	return NULL;
}

/* Waits for a name that is due and copies it. False: stop. */
static bool wait_for_name(struct resolver *r, char *ret, size_t size)
{
	struct name *name;

	mutex_hold(&r->lock);
	for (;;) {
		name = next_locked(r);

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

	mutex_hold(&r->lock);
	name = find_locked(r, text);
	name->failures = known ? 0 : name->failures + 1;
	name->due_ns =
		clock_ns() + (known ? jitter_ns(LOOK_AGAIN_NS, 10)
				    : backoff_ns(name->failures, RETRY_MIN_NS, RETRY_MAX_NS));
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
	SLIST_REMOVE(&r->names, name, name, in_list);
	free(name);
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
		SLIST_INSERT_HEAD(&r->names, name, in_list);
	}
	name->asked = true;
	name->due_ns = 0;
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
	SLIST_INIT(&r->names);
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

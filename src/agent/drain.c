/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "drain.h"

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "poplin/base/log.h"
#include "poplin/base/mem.h"
#include "poplin/model/drain.h"
#include "poplin/model/nodestate.h"

int drain_open(struct drain *d, const char *state_dir, struct err *err)
{
	auto_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0)
		return err_errno(err, -errno, "inotify");
	if (inotify_add_watch(fd, state_dir,
			      IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE | IN_MOVED_FROM) < 0)
		return err_errno(err, -errno, "%s: watch", state_dir);
	d->state_dir = state_dir;
	d->fd = TAKE_FD(fd);
	return 0;
}

void drain_close(struct drain *d)
{
	mem_close_cleanup(&d->fd);
	d->fd = -1;
}

bool drain_noticed(struct drain *d)
{
	_Alignas(struct inotify_event) char events[4096];
	bool noticed = false;
	ssize_t n;

	while ((n = read(d->fd, events, sizeof(events))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *event = (const void *)(events + at);

			if ((event->mask & IN_Q_OVERFLOW) ||
			    (event->len && strcmp(event->name, DRAIN_FILE) == 0))
				noticed = true;
			at += (ssize_t)(sizeof(*event) + event->len);
		}
	}
	return noticed;
}

static bool wanted(struct drain *d)
{
	struct err err = ERR_INIT;
	bool there, force;

	if (drain_read(d->state_dir, &there, &force, &err) < 0) {
		log_error("cannot read whether this node is to be drained, what was asked for "
			  "stands" KV("error", "%s"),
			  err.text);
		return d->asked;
	}
	d->force = force;
	return there;
}

bool drain_at_start(struct drain *d)
{
	struct nodestate before;

	/* What stands where the file cannot be read. */
	d->asked = nodestate_read(d->state_dir, &before, NULL) == 0 && before.drained;
	d->asked = wanted(d);
	return d->asked;
}

void drain_follow(struct drain *d, struct lease *l)
{
	bool there = wanted(d);
	struct lease_status lease;
	struct err err = ERR_INIT;

	lease_get(l, &lease);
	if (d->asked && there && lease.drain == LEASE_KEPT) {
		/* Refused: that ends the wish, or it would come true when nobody expects it. */
		if (drain_remove(d->state_dir, &err) < 0)
			log_error("cannot take the wish to drain away" KV("error", "%s"), err.text);
		d->asked = false;
	} else if (d->asked != there) {
		d->asked = there;
		log_info("%s",
			 there ? "this node is to be drained" : "this node is to serve again");
		lease_drain(l, there);
	}
}

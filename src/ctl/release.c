/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Draining. The wish is a file in STATE_DIR (model/drain.h); what became of it is asked over HTTP,
 * as everything else. So the agent's port stays one that only tells.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "poplin/base/clock.h"
#include "poplin/base/mem.h"
#include "poplin/model/drain.h"

#include "commands.h"

#define WAIT_NS	  (30 * NS_PER_S)
#define PAUSE_NS  (100 * NS_PER_MS)
#define STATE_MAX 16

DEFINE_AUTO(json_t *, json_decref)

static int ask_drain(const struct ctl *ctl, char state[static STATE_MAX], struct err *why,
		     struct err *err)
{
	auto_(json_decref) json_t *root = NULL;
	const char *text, *reason = NULL;
	int r = ctl->ask(ctl->arg, &root, err);

	if (r < 0)
		return err_wrap(err, r,
				"no good answer from the agent (where none runs, 'poplind "
				"--release' gives the subnet back)");
	if (json_unpack(root, "{s{ss s?s}}", "drain", "state", &text, "reason", &reason) < 0 &&
	    json_unpack(root, "{s{ss}}", "drain", "state", &text) < 0)
		return err_set(err, -EPROTO,
			       "the agent's answer does not tell of draining: is it "
			       "of another version?");
	strlcpy(state, text, STATE_MAX);
	(void)err_set(why, 0, "%s", reason ? reason : "no reason is known");
	return 0;
}

static void pause_a_little(void)
{
	const struct timespec t = { .tv_nsec = PAUSE_NS };

	(void)nanosleep(&t, NULL);
}

/* 1: go on waiting. */
static int judge_release(const struct ctl *ctl, char state[static STATE_MAX], struct err *why,
			 struct err *err)
{
	bool wanted = false, force;
	int r;

	if (strcmp(state, "drained") == 0) {
		puts("drained: the subnet is given back; 'poplinctl resume' ends that");
		return 0;
	}
	r = drain_read(ctl->state_dir, &wanted, &force, err);
	if (r < 0 || wanted)
		return r < 0 ? r : 1;
	/* The agent took the wish away. It said why before it did, but perhaps after we asked. */
	r = ask_drain(ctl, state, why, err);
	if (r < 0)
		return r;
	return err_set(err, -EBUSY, "refused: %s%s", why->text, ctl->force ? "" : " (see --force)");
}

int command_release(const struct ctl *ctl, struct err *err)
{
	int64_t until = clock_ns() + WAIT_NS;
	struct err why = ERR_INIT;
	char state[STATE_MAX];
	int r = ask_drain(ctl, state, &why, err);

	if (r < 0)
		return r;
	r = drain_write(ctl->state_dir, ctl->force, err);
	if (r < 0)
		return err_wrap(err, r,
				"cannot write to the agent's STATE_DIR (root can, and --config "
				"names the file that says where it is)");
	do {
		pause_a_little();
		r = ask_drain(ctl, state, &why, err);
		if (r == 0)
			r = judge_release(ctl, state, &why, err);
		if (r <= 0)
			return r;
	} while (clock_ns() < until);
	return err_set(err, -ETIMEDOUT, "not drained yet (%s); the agent goes on trying", why.text);
}

int command_resume(const struct ctl *ctl, struct err *err)
{
	int64_t until = clock_ns() + WAIT_NS;
	struct err why = ERR_INIT;
	char state[STATE_MAX];
	int r = drain_remove(ctl->state_dir, err);

	while (r == 0) {
		r = ask_drain(ctl, state, &why, err);
		if (r == 0 && strcmp(state, "drained") != 0 && strcmp(state, "waiting") != 0) {
			puts("this node serves pods");
			return 0;
		}
		if (r == 0 && clock_ns() >= until)
			r = err_set(err, -ETIMEDOUT,
				    "the agent does not serve yet: see 'poplinctl "
				    "status'");
		pause_a_little();
	}
	return r;
}

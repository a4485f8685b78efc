/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk that fails, processes that die, many at once. */
#include "ipam_folder.h"
#include "refuse.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* -- a disk that fails ----------------------------------------------------------------- */

/* A disk that takes no write to the map: the search goes on behind what it could not mark. */
static void test_map_cannot_be_written(void **state)
{
	static const char zeros[16];
	const struct fixture *f = *state;
	struct asking more = asking(f, "10.2.1.0/29", "more");
	char path[256], text[ADDR_TEXT_MAX];
	struct addr a;
	int fd;

	assert_given(f, "10.2.1.0/29", "a", "10.2.1.2");
	assert_given(f, "10.2.1.0/29", "b", "10.2.1.3");
	map_path(f, path, sizeof(path));
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	/* All seems free, whether the search begins there or has to wrap. */
	for (int next = 4; next >= 0; next--) {
		assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 8), sizeof(zeros));
		assert_int_equal(pwrite(fd, &(char){ (char)next }, 1, 8), 1);
		assert_int_equal(with_refused(SYS_pwrite64, EIO, allocate_one, &more), 0);
		assert_int_equal(lookup(f, "more", &a), 1);
		release(f, "more");
	}
	assert_string_equal(addr_format(&a, text), "10.2.1.4");
	for (unsigned i = 4; i <= 6; i++) {
		(void)snprintf(text, sizeof(text), "c%u", i);
		assert_int_equal(allocate(f, "10.2.1.0/29", NULL, text, text, NULL), 0);
	}
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 8), sizeof(zeros));
	assert_int_equal(with_refused(SYS_pwrite64, EIO, allocate_one, &more), EIO);
	assert_int_equal(close(fd), 0);
	assert_int_equal(count_complete(f), 5);
}

static int release_one(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_release(&ask->pool, &ask->owner, NULL);
}

static int ask_whether_reserved(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_is_reserved(&ask->pool, &ask->owner, NULL) & 0xff;
}

static int list_all(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach(ask->pool.dir, count_one, &n, NULL);
}

static int list_attachments(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach_attachment(ask->pool.dir, count_one, &n, NULL);
}

static int list_reserved(void *arg)
{
	const struct asking *ask = arg;
	unsigned n = 0;

	return -ipam_foreach_reserved(&ask->pool, count_one, &n, NULL);
}

static int release_orphans(void *arg)
{
	const struct asking *ask = arg;

	return -ipam_release_orphans(ask->pool.dir, NULL);
}

/* The disk does not list a folder: that is an error, and not an empty folder. */
static void test_folder_cannot_be_listed(void **state)
{
	static const struct {
		const char *what;
		int (*fn)(void *arg);
	} cases[] = {
		{ "allocate", allocate_one },
		{ "release", release_one },
		{ "is reserved", ask_whether_reserved },
		{ "addresses", list_all },
		{ "attachments", list_attachments },
		{ "reservations", list_reserved },
		{ "orphans", release_orphans },
	};
	const struct fixture *f = *state;
	struct asking old = asking(f, "10.2.1.0/24", "old");
	struct addr held[IPAM_SETS_MAX];

	strlcpy(old.pool.reservations, f->dir, sizeof(old.pool.reservations));
	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
	reserve(f, "10.2.1.3", "old\r\neth0");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int r = with_refused(SYS_getdents64, EIO, cases[i].fn, &old);

		if (r != EIO)
			fail_msg("%s: %s", cases[i].what, strerror(r));
	}
	assert_int_equal(ipam_lookup(&old.pool, &old.owner, held, NULL), 1);
	assert_int_equal(ipam_release(&old.pool, &old.owner, NULL), 0);
}

/* -- processes that died ------------------------------------------------------------- */

/* Killed between the two links: the attachment alone. It holds nothing, and any verb clears it. */
static void test_half_made(void **state)
{
	const struct fixture *f = *state;
	struct addr a;

	assert_given(f, "10.2.1.0/24", "first", "10.2.1.2");
	release(f, "first");
	make_link(f, "attachments", "a:eth0", "10.2.1.3");
	make_link(f, "attachments", "b:eth0", "10.2.1.3");
	assert_int_equal(lookup(f, "a", &a), -ENOENT);
	assert_int_equal(count_complete(f), 0);
	assert_int_equal(count_attachments(f), 2); /* GC finds them */
	assert_given(f, "10.2.1.0/24", "c", "10.2.1.3");
	/* What the halves name is another's by now, and stays so. */
	release(f, "a");
	assert_given(f, "10.2.1.0/24", "b", "10.2.1.4");
	assert_int_equal(lookup(f, "c", &a), 1);
	assert_int_equal(count_complete(f), 2);
	assert_int_equal(count_attachments(f), 2);
}

/* Killed while the folders were made. */
static void test_half_made_folders(void **state)
{
	const struct fixture *f = *state;
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/attachments", f->dir);
	assert_int_equal(file_make_dirs(path, NULL), 0);
	assert_int_equal(count_attachments(f), 0);
	release(f, "a");
	assert_given(f, "10.2.1.0/24", "a", "10.2.1.2");
}

/* -- many at once ----------------------------------------------------------------------- */

#define PROCESSES 8
#define ROUNDS	  12

static void reap(const pid_t *pids, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		int status = 0;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

/* A child of the test: no assertions, they would run on in the parent's place. */
static int allocate_many(const struct ipam_pool *pool, unsigned process)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		char name[32];
		const struct ipam_owner owner = { .container = name, .interface = "eth0" };
		struct ipam_address a[IPAM_SETS_MAX];

		(void)snprintf(name, sizeof(name), "p%u-%u", process, i);
		if (ipam_allocate(pool, NULL, 0, &owner, a, NULL) < 0)
			return 1;
		/* Every third goes away and comes back, amid the others. */
		if (i % 3 == 0 && (ipam_release(pool, &owner, NULL) < 0 ||
				   ipam_allocate(pool, NULL, 0, &owner, a, NULL) < 0))
			return 2;
	}
	return 0;
}

static int check_unique(const struct addr *addr, const char *container, const char *interface,
			void *arg)
{
	bool *seen = arg;
	uint32_t host = addr_to_ipv4(addr) & 0xff;

	assert_in_range(host, 2, 254);
	assert_false(seen[host]);
	seen[host] = true;
	return 0;
}

static void allocate_side_by_side(const struct ipam_pool *pool)
{
	pid_t pids[PROCESSES];

	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0)
			_exit(allocate_many(pool, i));
	}
	reap(pids, PROCESSES);
}

static void test_concurrent(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/24");
	bool seen[256] = { false };

	allocate_side_by_side(&pool);
	assert_int_equal(count_complete(f), PROCESSES * ROUNDS);
	assert_int_equal(count_attachments(f), PROCESSES * ROUNDS);
	/* By attachment: two that name one address would show here, and one of them not above. */
	assert_int_equal(ipam_foreach_attachment(f->dir, check_unique, seen, NULL), 0);
}

/* The first allocations on a node: all make the folders and the map at the same time. */
static void test_race_for_folders(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/24");

	for (unsigned round = 0; round < 40; round++) {
		allocate_side_by_side(&pool);
		assert_int_equal(count_complete(f), PROCESSES * ROUNDS);
		assert_int_equal(file_remove_tree(f->dir, NULL), 0);
	}
}

/* All race for the last address: one gets it. */
static void test_race_for_one(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/30");
	pid_t pids[PROCESSES];
	unsigned winners = 0;

	for (unsigned i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			char name[16];
			const struct ipam_owner owner = { .container = name, .interface = "eth0" };
			struct ipam_address a[IPAM_SETS_MAX];
			int r;

			(void)snprintf(name, sizeof(name), "p%u", i);
			r = ipam_allocate(&pool, NULL, 0, &owner, a, NULL);
			_exit(r == 0 ? 10 : r == -EADDRNOTAVAIL ? 11 : 12);
		}
	}
	for (unsigned i = 0; i < PROCESSES; i++) {
		int status = 0;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status));
		assert_in_range(WEXITSTATUS(status), 10, 11);
		winners += WEXITSTATUS(status) == 10;
	}
	assert_int_equal(winners, 1);
	assert_int_equal(count_attachments(f), 1);
}

/* Killed at any moment: whatever is left goes with a release, and the lock with the process. */
static void test_killed(void **state)
{
	const struct fixture *f = *state;
	const struct ipam_pool pool = pool_of(f, "10.2.1.0/28");
	const struct ipam_owner owner = { .container = "victim", .interface = "eth0" };

	for (unsigned i = 0; i < 60; i++) {
		struct timespec delay = { .tv_nsec = 1000L * (i * 37 % 1500) };
		pid_t pid = fork();

		assert_true(pid >= 0);
		while (pid == 0) {
			struct ipam_address a[IPAM_SETS_MAX];

			(void)ipam_allocate(&pool, NULL, 0, &owner, a, NULL);
			(void)ipam_release(&pool, &owner, NULL);
		}
		(void)nanosleep(&delay, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		release(f, "victim");
		assert_int_equal(count_attachments(f), 0);
		assert_int_equal(count_complete(f), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_map_cannot_be_written),
		TEST(test_folder_cannot_be_listed),
		TEST(test_half_made),
		TEST(test_half_made_folders),
		TEST(test_concurrent),
		TEST(test_race_for_folders),
		TEST(test_race_for_one),
		TEST(test_killed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

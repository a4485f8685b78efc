/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The folder of pods' addresses as somebody may have left it: links, files and folders of any name
 * and content before the first call, and maps of any bytes at any time, since these are only hints.
 * Whatever lies there, no two owners get one address, and what was given is found and freed.
 *
 * An input is a row of deeds: a byte that says which, a byte that says whose or where, and for what
 * is written a length and as many bytes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "poplin/base/file.h"
#include "poplin/base/mem.h"
#include "poplin/ipam/ipam.h"

#define OWNERS	  8
#define DEEDS_MAX 64

struct input {
	const uint8_t *data;
	size_t len;
};

struct state {
	struct ipam_pool pool;
	int dir;
	bool given[OWNERS];
	struct addr address[OWNERS];
};

static uint8_t next(struct input *in)
{
	if (!in->len)
		return 0;
	in->len--;
	return *in->data++;
}

/* A length and as many bytes, as a text that ends at the first NUL. */
static size_t next_text(struct input *in, char ret[static 256])
{
	size_t n = next(in);

	if (n > in->len)
		n = in->len;
	memcpy(ret, in->data, n);
	ret[n] = '\0';
	in->data += n;
	in->len -= n;
	return n;
}

static struct ipam_owner owner_of(unsigned who)
{
	static const char *const containers[OWNERS] = { "a", "b", "c", "d", "e", "f", "g", "h" };

	return (struct ipam_owner){ .container = containers[who], .interface = "eth0" };
}

/* -- what somebody left ---------------------------------------------------------------- */

/* where: an address's number, or any name that the text begins with. */
static void leave(const struct state *s, const char *folder, uint8_t where, const char *text)
{
	char path[600];
	int fd;

	if (strcmp(folder, "addresses") == 0 && where < 16)
		(void)snprintf(path, sizeof(path), "%s/10.2.1.%u", folder, where);
	else if (where < OWNERS)
		(void)snprintf(path, sizeof(path), "%s/%s:eth0", folder, owner_of(where).container);
	else
		(void)snprintf(path, sizeof(path), "%s/%.*s", folder, (int)strcspn(text, "/ "),
			       text);
	if (where & 0x40)
		(void)mkdirat(s->dir, path, 0700);
	else if (!(where & 0x20))
		(void)symlinkat(text, s->dir, path);
	else if ((fd = openat(s->dir, path, O_WRONLY | O_CREAT | O_EXCL, 0600)) >= 0)
		close(fd);
}

/* The plugin host-local's file of an address. */
static void reserve(const struct state *s, uint8_t where, const char *text, size_t len)
{
	auto_close int fd = -1;
	char name[32];

	(void)snprintf(name, sizeof(name), "10.2.1.%u", where % 16);
	fd = openat(s->dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	(void)!write(fd, text, len);
}

/* Overwritten in part, cut off, or replaced by a link, a folder or nothing. */
static void spoil_map(int folder, const char *name, uint8_t where, const char *data, size_t len)
{
	auto_close int fd = openat(folder, name, O_WRONLY | O_NOFOLLOW);

	if (where < 0x80) {
		(void)!pwrite(fd, data, len, where & 0x3f);
	} else if (where < 0xc0) {
		(void)!ftruncate(fd, where & 0x3f);
	} else if (unlinkat(folder, name, 0) == 0) {
		if (where & 1)
			(void)symlinkat(data, folder, name);
		else if (where & 2)
			(void)mkdirat(folder, name, 0700);
	}
}

static void spoil_maps(const struct state *s, uint8_t where, const char *data, size_t len)
{
	int folder = openat(s->dir, "maps", O_RDONLY | O_DIRECTORY);
	DIR *list = folder < 0 ? NULL : fdopendir(folder);
	const struct dirent *entry;

	MUST(list);
	while ((entry = readdir(list)))
		if (entry->d_name[0] != '.')
			spoil_map(folder, entry->d_name, where, data, len);
	closedir(list);
}

/* -- deeds ------------------------------------------------------------------------------- */

static void check_free_of_others(const struct state *s, unsigned who, const struct addr *a)
{
	for (unsigned i = 0; i < OWNERS; i++)
		MUST(i == who || !s->given[i] || addr_cmp(&s->address[i], a) != 0);
}

/* Whoever is told that all is held finds something at each address. */
static void check_full(const struct state *s)
{
	struct addr a = s->pool.ranges[0].first;
	char holder[IPAM_HOLDER_MAX];

	for (;; a = addr_add(&a, 1)) {
		MUST(addr_cmp(&a, &s->pool.ranges[0].gateway) == 0 ||
		     ipam_holder(&s->pool, &a, holder, NULL) > 0);
		if (addr_cmp(&a, &s->pool.ranges[0].last) == 0)
			return;
	}
}

static void allocate(struct state *s, unsigned who, const struct addr *wanted)
{
	const struct ipam_owner owner = owner_of(who);
	struct ipam_address got[IPAM_SETS_MAX];
	struct addr found[IPAM_SETS_MAX];
	struct err err = ERR_INIT;
	int r = ipam_allocate(&s->pool, wanted, wanted != NULL, &owner, got, &err);

	MUST(r <= 0);
	MUST(r == 0 || err.text[0]);
	if (s->given[who])
		MUST(r == -EEXIST || r == -EINVAL);
	if (r == -EADDRNOTAVAIL)
		check_full(s);
	if (r < 0)
		return;
	MUST(addr_cmp(&got[0].address.addr, &s->pool.ranges[0].first) >= 0 &&
	     addr_cmp(&got[0].address.addr, &s->pool.ranges[0].last) <= 0);
	MUST(addr_cmp(&got[0].address.addr, &s->pool.ranges[0].gateway) != 0);
	MUST(!wanted || addr_cmp(&got[0].address.addr, wanted) == 0);
	check_free_of_others(s, who, &got[0].address.addr);
	MUST(ipam_lookup(&s->pool, &owner, found, NULL) == 1);
	MUST(addr_cmp(&found[0], &got[0].address.addr) == 0);
	s->given[who] = true;
	s->address[who] = got[0].address.addr;
}

static void release(struct state *s, unsigned who)
{
	const struct ipam_owner owner = owner_of(who);
	struct addr found[IPAM_SETS_MAX];
	struct err err = ERR_INIT;
	uint64_t number;
	int r = ipam_release(&s->pool, &owner, &err);

	MUST(r == 0 || err.text[0]);
	MUST(r == 0 || !s->given[who]);
	if (r == 0)
		MUST(ipam_lookup(&s->pool, &owner, found, NULL) == -ENOENT &&
		     !ipam_attachment(s->pool.dir, &owner, &number));
	s->given[who] = false;
}

static int look(const struct addr *addr, const char *container, const char *interface, void *arg)
{
	MUST(container && interface);
	return 0;
}

static void look_around(const struct state *s)
{
	struct addr found[IPAM_SETS_MAX];
	struct err err = ERR_INIT;

	(void)ipam_foreach(s->pool.dir, look, NULL, &err);
	(void)ipam_foreach_attachment(s->pool.dir, look, NULL, &err);
	MUST(ipam_release_orphans(s->pool.dir, &err) >= 0 || err.text[0]);
	(void)ipam_has_free(&s->pool, &err);
	for (unsigned i = 0; i < OWNERS; i++) {
		const struct ipam_owner owner = owner_of(i);

		if (!s->given[i])
			continue;
		MUST(ipam_lookup(&s->pool, &owner, found, NULL) == 1);
		MUST(addr_cmp(&found[0], &s->address[i]) == 0);
	}
}

/* Links may be left only before the first call; afterwards they are changed under a lock. */
static bool step(struct state *s, struct input *in, bool *begun)
{
	uint8_t deed = next(in) % 8, where = next(in);
	char text[256] = "";
	size_t n;
	struct addr wanted = addr_add(&s->pool.ranges[0].subnet.addr, where % 16);

	*begun = *begun || deed < 4;
	switch (deed) {
	case 0:
		allocate(s, where % OWNERS, NULL);
		break;
	case 1:
		allocate(s, (where >> 4) % OWNERS, &wanted);
		break;
	case 2:
		release(s, where % OWNERS);
		break;
	case 3:
		look_around(s);
		break;
	case 4:
		n = next_text(in, text);
		spoil_maps(s, where, text, n);
		break;
	case 7:
		n = next_text(in, text);
		if (!*begun)
			reserve(s, where, text, n);
		break;
	default:
		(void)next_text(in, text);
		if (!*begun)
			leave(s, deed == 5 ? "addresses" : "attachments", where, text);
		break;
	}
	return in->len > 0;
}

/* On a tmpfs, as the state is. */
static const char *home(void)
{
	static char path[64] = "/dev/shm/poplin-fuzz-ipam.XXXXXX";
	static bool made;

	MUST(made || mkdtemp(path));
	made = true;
	return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const char *const folders[] = { "addresses", "attachments", "maps" };
	struct input in = { data, len };
	struct state s = { .dir = -1 };
	struct prefix subnet;
	bool begun = false;

	MUST(prefix_parse("10.2.1.0/28", &subnet, NULL) == 0);
	MUST(ipam_pool_add_subnet(&s.pool, &subnet, NULL) == 0);
	strlcpy(s.pool.dir, home(), sizeof(s.pool.dir));
	strlcpy(s.pool.reservations, s.pool.dir, sizeof(s.pool.reservations));
	MUST(mkdir(s.pool.dir, 0700) == 0 || errno == EEXIST);
	s.dir = open(s.pool.dir, O_RDONLY | O_DIRECTORY);
	MUST(s.dir >= 0);
	for (size_t i = 0; i < countof(folders); i++)
		MUST(mkdirat(s.dir, folders[i], 0700) == 0);
	for (unsigned i = 0; i < DEEDS_MAX && step(&s, &in, &begun); i++)
		;
	close(s.dir);
	MUST(file_remove_tree(s.pool.dir, NULL) == 0);
	return 0;
}

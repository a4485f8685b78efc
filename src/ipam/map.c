/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hostlocal.h"
#include "poplin/base/buf.h"
#include "poplin/base/hash.h"

#define WORD	  64U
#define CHUNK	  512U /* words read at a time: 4 KiB */
#define MAGIC	  0x31706d70706f70ULL
#define NAME_SIZE 33 /* 32 digits */

struct header {
	uint64_t magic;
	uint64_t next; /* the place where the next search begins */
};

static size_t words_of(uint32_t places)
{
	return (places + WORD - 1) / WORD;
}

static off_t offset_of(size_t word)
{
	return (off_t)(sizeof(struct header) + word * sizeof(uint64_t));
}

/* What decides where each place is, and which are never free. */
static int describe(const struct ipam_pool *pool, unsigned set, struct buf *ret)
{
	char a[ADDR_TEXT_MAX], b[ADDR_TEXT_MAX], c[ADDR_TEXT_MAX];
	int r = buf_adds(ret, "ranges");

	for (unsigned i = 0; i < pool->nranges && r == 0; i++) {
		const struct ipam_range *range = &pool->ranges[i];

		if (range->set == set)
			r = buf_printf(ret, " %s-%s/%s", addr_format(&range->first, a),
				       addr_format(&range->last, b),
				       addr_format(&range->gateway, c));
	}
	for (unsigned i = 0; i < pool->nholes && r == 0; i++)
		r = buf_printf(ret, " !%s-%s", addr_format(&pool->holes[i].first, a),
			       addr_format(&pool->holes[i].last, b));
	return r;
}

/* -- making ------------------------------------------------------------------------- */

static void take(uint64_t *words, uint32_t place)
{
	words[place / WORD] |= 1ULL << (place % WORD);
}

/* The places of a range that lie in a hole. */
static void take_hole(const struct map *map, const struct ipam_range *range,
		      const struct ipam_hole *hole, uint64_t *words)
{
	const struct addr *first =
		addr_cmp(&hole->first, &range->first) > 0 ? &hole->first : &range->first;
	const struct addr *last =
		addr_cmp(&hole->last, &range->last) < 0 ? &hole->last : &range->last;
	int64_t distance = addr_distance(first, last);
	uint32_t place;

	if (hole->first.family != range->first.family || distance < 0 ||
	    !pool_place_of(map->pool, map->set, first, &place))
		return;
	for (int64_t i = 0; i <= distance && place + i < map->places; i++)
		take(words, place + (uint32_t)i);
}

/* Gateways and holes are never found by the search. */
static void take_kept(const struct map *map, uint64_t *words)
{
	const struct ipam_pool *pool = map->pool;
	uint32_t place;

	for (unsigned i = 0; i < pool->nranges; i++) {
		if (pool->ranges[i].set != map->set)
			continue;
		if (pool_place_of(pool, map->set, &pool->ranges[i].gateway, &place))
			take(words, place);
		for (unsigned k = 0; k < pool->nholes; k++)
			take_hole(map, &pool->ranges[i], &pool->holes[k], words);
	}
}

struct taking {
	const struct map *map;
	uint64_t *words;
	uint64_t held;
};

static int take_address(const struct addr *a, const char *holder, void *arg)
{
	struct taking *t = arg;
	uint32_t place;

	if (pool_place_of(t->map->pool, t->map->set, a, &place)) {
		take(t->words, place);
		t->held++;
	}
	return 0;
}

static int take_held(const struct map *map, uint64_t *words, uint64_t *ret_held)
{
	struct taking t = { .map = map, .words = words };
	const struct dirent *entry;
	struct addr a;
	DIR *list;
	int r = ledger_list(map->ledger, "addresses", &list);

	if (r == 0) {
		while ((r = ledger_next(list, &entry)) > 0)
			if (addr_parse(entry->d_name, &a, NULL) == 0)
				(void)take_address(&a, NULL, &t);
		closedir(list);
	}
	if (r == 0 || r == -ENOENT)
		r = hostlocal_foreach(map->ledger, take_address, &t, NULL);
	*ret_held = t.held;
	return r;
}

/* Where the search of the layout before this one stood; it is not needed any more. */
static uint32_t old_next(const struct map *map)
{
	char text[ADDR_TEXT_MAX];
	struct addr a;
	uint32_t place;

	if (ledger_read_link(map->ledger->dir, "last", text, sizeof(text)) < 0 ||
	    addr_parse(text, &a, NULL) < 0 || !pool_place_of(map->pool, map->set, &a, &place))
		return 0;
	(void)ledger_remove_link(map->ledger->dir, "last");
	return (place + 1) % map->places;
}

static bool write_at(int fd, const void *data, size_t len, off_t offset)
{
	return pwrite(fd, data, len, offset) == (ssize_t)len;
}

/* All that is taken, from the links; *ret is to be freed. Negative errno. */
static int compute(const struct map *map, uint64_t **ret, uint64_t *ret_held)
{
	size_t n = words_of(map->places);
	auto_free uint64_t *words = calloc(n, sizeof(*words));
	int r;

	if (!words)
		return -ENOMEM;
	take_kept(map, words);
	r = take_held(map, words, ret_held);
	if (r < 0)
		return r;
	for (uint32_t place = map->places; place < n * WORD; place++)
		take(words, place);
	*ret = words;
	words = NULL;
	return 0;
}

static void start_search(struct map *map, uint32_t from)
{
	map->next = map->at = from;
	map->wrapped = false;
}

int map_rebuild(struct map *map)
{
	const struct header header = { .magic = MAGIC, .next = map->next };
	auto_free uint64_t *words = NULL;
	size_t size = words_of(map->places) * sizeof(*words);
	int r = compute(map, &words, &map->held);

	if (r < 0)
		return r;
	map->fresh = true;
	start_search(map, map->next);
	errno = ENOSPC; /* what a short write means */
	/* The header last: without it the rest counts for nothing. */
	if (ftruncate(map->fd, 0) < 0 || !write_at(map->fd, words, size, offset_of(0)) ||
	    !write_at(map->fd, &header, sizeof(header), 0))
		return -errno;
	return 0;
}

static int open_file(struct map *map, int flags)
{
	auto_buf struct buf text = BUF_INIT;
	char name[NAME_SIZE], path[NAME_SIZE + 8];

	if (describe(map->pool, map->set, &text) < 0)
		return -ENOMEM;
	hash_hex(name, sizeof(name), text.data, NULL);
	(void)snprintf(path, sizeof(path), "maps/%s", name);
	flags |= O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	map->fd = openat(map->ledger->dir, path, flags, 0600);
	/* The layout before this one had no maps; or another process is just making the folders. */
	if (map->fd < 0 && errno == ENOENT && (flags & O_CREAT) &&
	    (mkdirat(map->ledger->dir, "maps", 0755) == 0 || errno == EEXIST))
		map->fd = openat(map->ledger->dir, path, flags, 0600);
	return map->fd < 0 ? -errno : 0;
}

/* Whether the file is a map of as many places, with map->next read from it. */
static bool is_whole(struct map *map)
{
	struct header header;
	struct stat st;

	if (fstat(map->fd, &st) < 0 || st.st_size != offset_of(words_of(map->places)) ||
	    pread(map->fd, &header, sizeof(header), 0) != sizeof(header) || header.magic != MAGIC ||
	    header.next >= map->places)
		return false;
	start_search(map, (uint32_t)header.next);
	return true;
}

static struct map closed(const struct ipam_pool *pool, const struct ledger *ledger, unsigned set)
{
	return (struct map){
		.pool = pool,
		.ledger = ledger,
		.set = set,
		.places = pool_places(pool, set),
		.fd = -1,
	};
}

int map_open(struct map *map, const struct ipam_pool *pool, const struct ledger *ledger,
	     unsigned set)
{
	int r;

	*map = closed(pool, ledger, set);
	r = open_file(map, O_CREAT);
	if (r < 0 || is_whole(map))
		return r;
	map->next = old_next(map);
	return map_rebuild(map);
}

void map_open_existing(struct map *map, const struct ipam_pool *pool, const struct ledger *ledger,
		       unsigned set)
{
	*map = closed(pool, ledger, set);
	if (open_file(map, 0) == 0 && !is_whole(map))
		map_close(map);
}

void map_close(struct map *map)
{
	mem_close_cleanup(&map->fd);
	map->fd = -1;
}

/* -- searching ------------------------------------------------------------------------ */

/* From place `from` to the end of the map. */
static bool search(const struct map *map, uint32_t from, uint32_t *ret)
{
	size_t n = words_of(map->places), base = from / WORD;
	uint64_t words[CHUNK];
	uint64_t before = (1ULL << (from % WORD)) - 1; /* of the first word: behind us */

	while (base < n) {
		size_t count = n - base < CHUNK ? n - base : CHUNK;

		if (pread(map->fd, words, count * sizeof(*words), offset_of(base)) !=
		    (ssize_t)(count * sizeof(*words)))
			return false;
		words[0] |= before;
		before = 0;
		for (size_t i = 0; i < count; i++) {
			if (words[i] == UINT64_MAX)
				continue;
			*ret = (uint32_t)((base + i) * WORD) + (uint32_t)__builtin_ctzll(~words[i]);
			return *ret < map->places;
		}
		base += count;
	}
	return false;
}

bool map_next_free(struct map *map, uint32_t *ret)
{
	bool found = search(map, map->at, ret);

	if (!found && !map->wrapped && map->next) {
		map->wrapped = true;
		found = search(map, 0, ret);
	}
	if (!found || (map->wrapped && *ret >= map->next))
		return false;
	map->at = *ret + 1;
	return true;
}

bool map_has_free(struct map *map, uint64_t *ret_held)
{
	auto_free uint64_t *words = NULL;
	uint32_t place;

	*ret_held = 0;
	if (map->fd >= 0 && map_next_free(map, &place))
		return true;
	if (compute(map, &words, ret_held) < 0)
		return true; /* who cannot tell does not say that it is full */
	for (size_t i = 0; i < words_of(map->places); i++)
		if (words[i] != UINT64_MAX)
			return true;
	return false;
}

void map_mark(const struct map *map, uint32_t place, bool taken)
{
	off_t offset = offset_of(place / WORD);
	uint64_t bit = 1ULL << (place % WORD), word;

	if (map->fd < 0 || pread(map->fd, &word, sizeof(word), offset) != sizeof(word))
		return;
	word = taken ? word | bit : word & ~bit;
	(void)write_at(map->fd, &word, sizeof(word), offset);
}

void map_move_behind(struct map *map, uint32_t place)
{
	const struct header header = { .magic = MAGIC, .next = (place + 1) % map->places };

	map->next = (uint32_t)header.next;
	(void)write_at(map->fd, &header, sizeof(header), 0);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of a set: which places (pool.h) are taken, and where to search next. Only a hint
 * (poplin/ipam/ipam.h): a mark that cannot be written is left out.
 * Threads: the holder of the ledger's lock.
 */
#ifndef POPLIN_IPAM_MAP_H
#define POPLIN_IPAM_MAP_H

#include "pool.h"
#include "ledger.h"

struct map {
	const struct ipam_pool *pool;
	const struct ledger *ledger;
	unsigned set;
	uint32_t places;
	int fd;	       /* -1: there is no map */
	uint32_t next; /* where the next search begins */
	uint32_t at;   /* the search: behind what it told of last */
	bool wrapped;  /* the search: it went on from place 0 */
	bool fresh;    /* made from the links just now */
	uint64_t held; /* fresh: how many places are held */
};

/* Opens the map, making it where it is missing or spoilt. Negative errno: it cannot be written. */
int map_open(struct map *map, const struct ipam_pool *pool, const struct ledger *ledger,
	     unsigned set);
/* Opens it if it is there and whole. */
void map_open_existing(struct map *map, const struct ipam_pool *pool, const struct ledger *ledger,
		       unsigned set);
void map_close(struct map *map);
#define auto_map __attribute__((cleanup(map_close)))
/* Makes it anew from the links. */
int map_rebuild(struct map *map);

/*
 * The next place that seems free. Each is told of once, whether or not it is marked meanwhile; anew
 * after map_rebuild(). False: there seems to be none that was not told of.
 */
bool map_next_free(struct map *map, uint32_t *ret);
/* Whether there is one, after a look at the links where there seems to be none. */
bool map_has_free(struct map *map, uint64_t *ret_held);
void map_mark(const struct map *map, uint32_t place, bool taken);
/* The search goes on behind this place. */
void map_move_behind(struct map *map, uint32_t place);

#endif

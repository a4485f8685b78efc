/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A list, and a watch whose bytes come in pieces: nothing of what is told may depend on where they
 * are cut. The first byte is the size of a piece; answers follow as fake_http.h says.
 */
#include "fake_http.h"
#include "fuzz.h"
#include "poplin/base/buf.h"

#define WATCHES 3

struct seen {
	struct buf text;
	unsigned batches, connects;
};

static int on_change(const struct store_change *change, void *arg, struct err *err)
{
	struct seen *seen = arg;

	MUST(change->node);
	MUST(buf_printf(&seen->text, "%s %zu %llu:", change->node, change->len,
			(unsigned long long)change->order) == 0);
	if (change->value)
		MUST(buf_add(&seen->text, change->value, change->len) == 0);
	return 0;
}

static void on_batch(void *arg)
{
	((struct seen *)arg)->batches++;
}

static void on_connected(void *arg)
{
	((struct seen *)arg)->connects++;
}

static void play(const uint8_t *data, size_t len, size_t piece, struct seen *seen)
{
	const struct store_access access = { .endpoints = "127.0.0.1" };
	const struct store_handler handler = {
		.on_change = on_change,
		.on_batch = on_batch,
		.on_connected = on_connected,
		.arg = seen,
	};
	struct store *s = fuzz_store(&access);
	struct err err = ERR_INIT;
	int r;

	fake_http_set(data, len, piece);
	r = store_list(s, &handler, &err);
	check_failure(r, &err);
	for (int i = 0; r == 0 && i < WATCHES; i++) {
		err = ERR_INIT;
		r = store_watch(s, &handler, 0, &err);
		MUST(r < 0);
		check_failure(r, &err);
		MUST(buf_printf(&seen->text, "\n%d\n", r) == 0);
		r = r == -ESTALE ? r : 0;
	}
	store_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct seen pieces = { .batches = 0 }, whole = { .batches = 0 };

	if (len == 0)
		return 0;
	play(data + 1, len - 1, data[0], &pieces);
	play(data + 1, len - 1, len, &whole);
	MUST(pieces.batches == whole.batches && pieces.connects == whole.connects);
	MUST(pieces.text.len == whole.text.len &&
	     (pieces.text.len == 0 ||
	      memcmp(pieces.text.data, whole.text.data, whole.text.len) == 0));
	buf_done(&pieces.text);
	buf_done(&whole.text);
	return 0;
}

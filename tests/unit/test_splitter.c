/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What etcd's gateway sends: Base64, a stream of objects, endpoints to ask. */
#include <errno.h>
#include <string.h>

#include "poplin/base/buf.h"
#include "poplin/store/store.h"
#include "store/base64.h"
#include "store/etcd.h"
#include "store/splitter.h"
#include "unit.h"

static void base64_both_ways(void **state)
{
	/* RFC 4648, section 10. */
	static const char *const pairs[][2] = {
		{ "", "" },
		{ "f", "Zg==" },
		{ "fo", "Zm8=" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg==" },
		{ "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" },
	};

	for (size_t i = 0; i < countof(pairs); i++) {
		auto_buf struct buf text = BUF_INIT;
		auto_buf struct buf data = BUF_INIT;

		assert_int_equal(base64_encode(pairs[i][0], strlen(pairs[i][0]), &text), 0);
		assert_string_equal(text.data, pairs[i][1]);
		assert_int_equal(base64_decode(pairs[i][1], &data), 0);
		assert_string_equal(data.data, pairs[i][0]);
	}
}

static void base64_of_every_byte(void **state)
{
	auto_buf struct buf text = BUF_INIT;
	auto_buf struct buf data = BUF_INIT;
	unsigned char all[256];

	for (int i = 0; i < 256; i++)
		all[i] = (unsigned char)i;
	assert_int_equal(base64_encode(all, sizeof(all), &text), 0);
	assert_int_equal(base64_decode(text.data, &data), 0);
	assert_int_equal(data.len, sizeof(all));
	assert_memory_equal(data.data, all, sizeof(all));
}

static void what_is_no_base64_is_refused_and_nothing_appended(void **state)
{
	static const char *const bad[] = { "Z",	       "Zg=",	"Zg",	  "Zm9v ",
					   "Zm 9v===", "Zm9_",	"=AAA",	  "Z===",
					   "Zg==Zg==", "Zm9vY", "Zm9v\n", "\xc3\xb6==" };
	auto_buf struct buf data = BUF_INIT;

	assert_int_equal(buf_adds(&data, "kept"), 0);
	for (size_t i = 0; i < countof(bad); i++) {
		assert_int_equal(base64_decode(bad[i], &data), -EINVAL);
		assert_string_equal(data.data, "kept");
	}
}

static int collect(const char *text, size_t len, void *arg, struct err *err)
{
	assert_int_equal(strlen(text), len);
	if (strcmp(text, "{\"stop\":1}") == 0)
		return err_set(err, -ECANCELED, "stop");
	return buf_printf(arg, "<%s>", text);
}

static const char stream[] =
	"{\"a\":1}\n{\"b\":{\"c\":[{},{\"d\":\"}]{\\\"\\\\\"}]}}{}\r\n \t{\"\\\\\":\"{\"}\n";
static const char objects[] = "<{\"a\":1}><{\"b\":{\"c\":[{},{\"d\":\"}]{\\\"\\\\\"}]}}><{}>"
			      "<{\"\\\\\":\"{\"}>";

static void a_stream_is_cut_into_objects_wherever_the_pieces_end(void **state)
{
	for (size_t piece = 1; piece <= sizeof(stream); piece++) {
		auto_buf struct buf seen = BUF_INIT;
		struct splitter s = SPLITTER_INIT(1000, collect, &seen);

		for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
			size_t left = sizeof(stream) - 1 - at;

			assert_int_equal(
				splitter_feed(&s, stream + at, left < piece ? left : piece, NULL),
				0);
		}
		assert_string_equal(seen.data, objects);
		splitter_done(&s);
	}
}

static void a_stream_that_is_none_is_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
	} bad[] = {
		{ "x", -EPROTO },
		{ "[1]", -EPROTO },
		{ "{}]", -EPROTO },
		{ "{} \"a\"", -EPROTO },
		{ "{\"0123456789\":1}", -EFBIG },
		{ "<html>", -EPROTO },
		{ "{}{\"stop\":1}{}", -ECANCELED },
	};

	for (size_t i = 0; i < countof(bad); i++) {
		auto_buf struct buf seen = BUF_INIT;
		struct splitter s = SPLITTER_INIT(12, collect, &seen);
		struct err err = ERR_INIT;

		assert_int_equal(splitter_feed(&s, bad[i].text, strlen(bad[i].text), &err),
				 bad[i].code);
		assert_true(err.text[0]);
		splitter_done(&s);
	}
}

static void assert_endpoints(const char *text, const char *expected)
{
	struct endpoints *list = calloc(1, sizeof(*list));
	auto_buf struct buf seen = BUF_INIT;

	assert_non_null(list);
	assert_int_equal(endpoints_parse(text, "http", list, NULL), 0);
	for (unsigned i = 0; i < list->count; i++)
		assert_int_equal(buf_printf(&seen, "%s ", list->urls[i]), 0);
	assert_string_equal(seen.data, expected);
	free(list);
}

static void endpoints(void **state)
{
	assert_endpoints("127.0.0.1", "http://127.0.0.1:2379 ");
	assert_endpoints("etcd-1:4001, etcd-2", "http://etcd-1:4001 http://etcd-2:2379 ");
	assert_endpoints("https://etcd.example.net:443/", "https://etcd.example.net:443 ");
	assert_endpoints("[fd00::1]:2379,[fd00::2],fd00::3",
			 "http://[fd00::1]:2379 http://[fd00::2]:2379 http://[fd00::3]:2379 ");
}

static void what_is_no_endpoint_is_refused(void **state)
{
	static const char *const bad[] = {
		"",	      ",",	    "a,,b",
		"a b",	      "ftp://a",    "http://a/path",
		"a:b:c",      "a:99999",    "http://a?x=1",
		"http://u@a", "http://[",   "a:port",
		"http://a#f", "$(reboot) ",
	};
	struct err err = ERR_INIT;

	for (size_t i = 0; i < countof(bad); i++) {
		err.text[0] = '\0';
		if (store_endpoints_check(bad[i], &err) != -EINVAL)
			fail_msg("'%s' was accepted", bad[i]);
		assert_true(err.text[0]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_both_ways),
		cmocka_unit_test(base64_of_every_byte),
		cmocka_unit_test(what_is_no_base64_is_refused_and_nothing_appended),
		cmocka_unit_test(a_stream_is_cut_into_objects_wherever_the_pieces_end),
		cmocka_unit_test(a_stream_that_is_none_is_refused),
		cmocka_unit_test(endpoints),
		cmocka_unit_test(what_is_no_endpoint_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fake_http.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "poplin/http/http.h"

static const long fake_status[] = { 200, 400, 401, 403, 404, 421, 500, 503 };
#define CUT_OFF ('0' + countof(fake_status))

static const uint8_t *input;
static size_t left, piece_size;

struct http {
	bool cancelled;
};

void fake_http_set(const uint8_t *data, size_t len, size_t piece)
{
	input = data;
	left = len;
	piece_size = piece ? piece : 1;
}

int http_global_init(struct err *err)
{
	return 0;
}

int http_new(struct http **ret, struct err *err)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void http_free(struct http *h)
{
	free(h);
}

void http_cancel(struct http *h)
{
	h->cancelled = true;
}

void http_rearm(struct http *h)
{
	h->cancelled = false;
}

int http_set_tls(struct http *h, const struct http_tls *tls)
{
	return 0;
}

int http_tls_check(const struct http_tls *tls, struct err *err)
{
	return 0;
}

void http_reconnect(struct http *h)
{
}

void http_prefetch(struct http *h, const struct http_request *req, struct http_response *ret)
{
}

/* Takes one answer off the input. */
static const uint8_t *next_answer(size_t *ret_len)
{
	const uint8_t *answer = input, *end = memchr(input, '\0', left);
	size_t len = end ? (size_t)(end - input) : left, skip = end ? len + 1 : len;

	input += skip;
	left -= skip;
	*ret_len = len;
	return answer;
}

static int stream(const struct http_request *req, const uint8_t *data, size_t len, struct err *err)
{
	int r = 0;

	while (r == 0 && len) {
		size_t n = len < piece_size ? len : piece_size;

		r = req->on_data((const char *)data, n, req->arg, err);
		data += n;
		len -= n;
	}
	return r == 0 && req->on_idle ? req->on_idle(req->arg, err) : r;
}

int http_perform(struct http *h, const struct http_request *req, struct http_response *ret,
		 struct err *err)
{
	const uint8_t *data;
	size_t len;

	buf_reset(&ret->body);
	ret->status = 0;
	if (h->cancelled)
		return err_set(err, -ECANCELED, "cancelled");
	if (left == 0)
		return err_set(err, -ECONNRESET, "cut off");
	data = next_answer(&len);
	ret->status = 200;
	if (len && data[0] == CUT_OFF)
		return err_set(err, -ECONNRESET, "cut off");
	if (len && data[0] >= '0' && data[0] < CUT_OFF) {
		ret->status = fake_status[data[0] - '0'];
		data++;
		len--;
	}
	if (req->on_data && ret->status == 200)
		return stream(req, data, len, err);
	if (req->body_max && len > req->body_max)
		return err_set(err, -EFBIG, "too long");
	return buf_add(&ret->body, data, len);
}

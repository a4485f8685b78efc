/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A name and a password are exchanged for a token, which every later request carries. etcd's simple
 * tokens are forgotten when a member restarts or five minutes after their last use, signed ones
 * (JWT) have an end; either way a request is then refused, and that is the only sign. So a token is
 * used until it is refused, and a refused request is sent once more after a new login. The password
 * is read from its file for each login: it may have changed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "etcd.h"
#include "poplin/base/clock.h"
#include "poplin/base/file.h"

#define PASSWORD_MAX 4096
#define NO_USERS_NS  (5 * 60 * NS_PER_S)

/* The file's one line; what follows the first newline is not part of it. */
int etcd_password(const char *path, struct buf *ret, struct err *err)
{
	int r = file_read(path, PASSWORD_MAX, ret, err);
	size_t len;

	if (r < 0)
		return err_wrap(err, r, "password");
	len = strcspn(ret->data ? ret->data : "", "\r\n");
	if (len == 0)
		return err_set(err, -EINVAL, "the password file '%s' holds no password", path);
	ret->data[len] = '\0';
	ret->len = len;
	return 0;
}

void etcd_forget_token(struct store *s)
{
	free(s->token);
	s->token = NULL;
	s->login_ns = 0;
}

/* One that would break the header is none. */
static int keep_token(struct store *s, const char *token, struct err *err)
{
	auto_buf struct buf header = BUF_INIT;

	if (!token || !token[0])
		return err_set(err, -EPROTO, "etcd: a login without a token");
	for (const char *c = token; *c; c++)
		if (*c < ' ' || *c > '~')
			return err_set(err, -EPROTO, "etcd: a token with odd characters");
	if (buf_printf(&header, "Authorization: %s", token) < 0)
		return err_errno(err, -ENOMEM, "login");
	s->token = header.data;
	header = BUF_INIT;
	return 0;
}

static int ask_for_token(struct store *s, const char *url, const char *text, struct err *err)
{
	const struct http_request request = {
		.url = url,
		.body = text,
		.timeout_ms = etcd_timeout_ms(s),
		.body_max = 65536,
	};
	auto_(json_decref) json_t *answer = NULL;
	int r = http_perform(s->http, &request, &s->response, err);

	if (r == 0)
		r = etcd_answer(url, &s->response, &answer, err);
	if (r == 0)
		return keep_token(s, json_string_value(etcd_field(answer, "token")), err);
	/* As etcd's own clients do: users may be made known here before they are demanded there. */
	if (r == -EPROTO && s->response.body.data &&
	    strstr(s->response.body.data, "authentication is not enabled")) {
		s->login_ns = clock_ns() + NO_USERS_NS;
		return 0;
	}
	return r == ETCD_NO_TOKEN ? err_wrap(err, -EACCES, "log in to etcd") : r;
}

/* -EINVAL: user or password are not UTF-8. */
static int login_text(const char *user, const struct buf *password, struct buf *ret)
{
	auto_(json_decref) json_t *body =
		json_pack("{ss ss}", "name", user, "password", password->data);
	size_t len = body ? json_dumpb(body, NULL, 0, JSON_COMPACT) : 0;

	ret->data = len ? malloc(len + 1) : NULL;
	if (ret->data) {
		ret->size = len + 1;
		ret->len = json_dumpb(body, ret->data, len, JSON_COMPACT);
		ret->data[ret->len] = '\0';
	}
	if (body) /* jansson's own copy */
		explicit_bzero((void *)json_string_value(json_object_get(body, "password")),
			       password->len);
	return ret->data ? 0 : len ? -ENOMEM : -EINVAL;
}

int etcd_login(struct store *s, const char *endpoint, struct err *err)
{
	auto_secret struct buf password = BUF_INIT;
	auto_secret struct buf text = BUF_INIT;
	char url[ETCD_URL_MAX + 64];
	int64_t start = clock_ns();
	int r;

	if (s->token || !s->access->user[0] || start < s->login_ns)
		return 0;
	r = etcd_password(s->access->password_file, &password, err);
	if (r < 0)
		return r == -ENOMEM ? r : err_wrap(err, -EACCES, "log in to etcd");
	r = login_text(s->access->user, &password, &text);
	if (r == -EINVAL)
		return err_set(err, -EACCES, "log in to etcd: user and password must be UTF-8");
	if (r < 0)
		return err_errno(err, r, "log in to etcd");
	(void)snprintf(url, sizeof(url), "%s/v3/auth/authenticate", endpoint);
	r = ask_for_token(s, url, text.data, err);
	if (s->observe && r != -ECANCELED)
		s->observe(STORE_LOGIN, r, clock_ns() - start, s->observe_arg);
	return r;
}

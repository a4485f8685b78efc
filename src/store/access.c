/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <string.h>

#include "etcd.h"
#include "poplin/base/file.h"

static const char *text_or_empty(const char *text)
{
	return text ? text : "";
}

static bool given(const char *text)
{
	return text && text[0];
}

static bool has_tls(const struct store_access *from)
{
	return given(from->ca_file) || given(from->cert_file) || given(from->key_file);
}

/* Nodes that start or lose a member together spread over the others. */
static void shuffle(struct endpoints *e)
{
	for (unsigned i = e->count; i > 1; i--) {
		unsigned j = arc4random_uniform(i);
		char url[ETCD_URL_MAX];

		memcpy(url, e->urls[i - 1], sizeof(url));
		memmove(e->urls[i - 1], e->urls[j], sizeof(url));
		memcpy(e->urls[j], url, sizeof(url));
	}
}

/* Whoever gives TLS files wants no plain text, not even by a slip. */
static int refuse_plain(const struct endpoints *e, struct err *err)
{
	for (unsigned i = 0; i < e->count; i++)
		if (strncmp(e->urls[i], "https:", 6) != 0)
			return err_set(err, -EINVAL,
				       "%s would be spoken to in plain text though there are TLS "
				       "files: write https://, or leave them out",
				       e->urls[i]);
	return 0;
}

static int check_pairs(const struct store_access *from, struct err *err)
{
	if (given(from->cert_file) != given(from->key_file))
		return err_set(err, -EINVAL, "%s",
			       given(from->cert_file) ? "ETCD_CERT_FILE needs ETCD_KEY_FILE"
						      : "ETCD_KEY_FILE needs ETCD_CERT_FILE");
	if (given(from->user) != given(from->password_file))
		return err_set(err, -EINVAL, "%s",
			       given(from->user) ? "ETCD_USER needs ETCD_PASSWORD_FILE"
						 : "ETCD_PASSWORD_FILE needs ETCD_USER");
	return 0;
}

int access_new(struct access **ret, const struct store_access *from, struct err *err)
{
	auto_(access_free) struct access *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_errno(err, -ENOMEM, "store");
	r = endpoints_parse(text_or_empty(from->endpoints), has_tls(from) ? "https" : "http",
			    &a->endpoints, err);
	if (r == 0)
		r = check_pairs(from, err);
	if (r == 0 && has_tls(from))
		r = refuse_plain(&a->endpoints, err);
	if (r < 0)
		return r;
	shuffle(&a->endpoints);
	a->ca_file = strdup(text_or_empty(from->ca_file));
	a->cert_file = strdup(text_or_empty(from->cert_file));
	a->key_file = strdup(text_or_empty(from->key_file));
	a->user = strdup(text_or_empty(from->user));
	a->password_file = strdup(text_or_empty(from->password_file));
	if (!a->ca_file || !a->cert_file || !a->key_file || !a->user || !a->password_file)
		return err_errno(err, -ENOMEM, "store");
	*ret = TAKE(a);
	return 0;
}

void access_free(struct access *a)
{
	free(a->ca_file);
	free(a->cert_file);
	free(a->key_file);
	free(a->user);
	free(a->password_file);
	free(a);
}

int store_access_check(const struct store_access *access, struct err *err)
{
	auto_(access_free) struct access *a = NULL;
	auto_secret struct buf password = BUF_INIT;
	int r = access_new(&a, access, err);

	if (r < 0)
		return r;
	if (has_tls(access)) {
		const struct http_tls tls = { a->ca_file, a->cert_file, a->key_file };

		r = http_tls_check(&tls, err);
	}
	if (r == 0 && a->password_file[0])
		r = etcd_password(a->password_file, &password, err);
	return r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etcd.h"

#define DEFAULT_PORT "2379"

DEFINE_AUTO(CURLU *, curl_url_cleanup)

static void url_free(char **text)
{
	curl_free(*text);
}

/* "host", "host:port", "[v6]", "[v6]:port", or a bare IPv6 address: all get the scheme. */
static int make_url(const char *text, const char *scheme, char *ret, size_t size, struct err *err)
{
	const char *colon = strchr(text, ':');
	bool url = strstr(text, "://") != NULL;
	bool bare_v6 = !url && colon && strchr(colon + 1, ':') && text[0] != '[';
	int n;

	if (url)
		n = snprintf(ret, size, "%s", text);
	else
		n = snprintf(ret, size, bare_v6 ? "%s://[%s]" : "%s://%s", scheme, text);
	return n < 0 || (size_t)n >= size ? err_set(err, -EINVAL, "'%s' is too long", text) : 0;
}

static bool part_is(CURLU *url, CURLUPart part, const char *allowed)
{
	__attribute__((cleanup(url_free))) char *text = NULL;

	return curl_url_get(url, part, &text, 0) != CURLUE_OK || strcmp(text, allowed) == 0;
}

/* Judges by libcurl's own reading, so that it cannot be misread later. */
static int parse_one(const char *text, const char *default_scheme, char ret[static ETCD_URL_MAX],
		     struct err *err)
{
	__attribute__((cleanup(url_free))) char *scheme = NULL, *host = NULL, *port = NULL;
	auto_(curl_url_cleanup) CURLU *url = curl_url();
	char given[ETCD_URL_MAX];
	int n, r;

	if (!url)
		return err_errno(err, -ENOMEM, "'%s'", text);
	for (const char *c = text; *c; c++)
		if (!isgraph((unsigned char)*c))
			return err_set(err, -EINVAL, "'%s' holds a blank or a control character",
				       text);
	r = make_url(text, default_scheme, given, sizeof(given), err);
	if (r < 0)
		return r;
	if (curl_url_set(url, CURLUPART_URL, given, 0) != CURLUE_OK ||
	    curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		return err_set(err, -EINVAL, "'%s' is neither host, host:port nor a URL", text);
	if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)
		return err_set(err, -EINVAL, "'%s': only http and https are spoken", text);
	if (!part_is(url, CURLUPART_PATH, "/") || !part_is(url, CURLUPART_QUERY, "") ||
	    !part_is(url, CURLUPART_FRAGMENT, "") || !part_is(url, CURLUPART_USER, ""))
		return err_set(err, -EINVAL, "'%s': nothing may stand beside host and port", text);
	(void)curl_url_get(url, CURLUPART_PORT, &port, 0);
	if (port && strtoul(port, NULL, 10) == 0)
		return err_set(err, -EINVAL, "'%s': there is no port 0", text);
	n = snprintf(ret, ETCD_URL_MAX, "%s://%s:%s", scheme, host, port ? port : DEFAULT_PORT);
	return n >= ETCD_URL_MAX ? err_set(err, -EINVAL, "'%s' is too long", text) : 0;
}

int endpoints_parse(const char *text, const char *scheme, struct endpoints *ret, struct err *err)
{
	auto_free char *copy = strdup(text);
	auto_free struct endpoints *list = calloc(1, sizeof(*list));
	char *rest = copy, *item;

	if (!copy || !list)
		return err_errno(err, -ENOMEM, "endpoints");
	while ((item = strsep(&rest, ","))) {
		size_t len;
		int r;

		item += strspn(item, " \t");
		len = strlen(item);
		while (len && isspace((unsigned char)item[len - 1]))
			item[--len] = '\0';
		if (len == 0)
			return err_set(err, -EINVAL, "'%s' holds an empty endpoint", text);
		if (list->count == ETCD_ENDPOINTS_MAX)
			return err_set(err, -EINVAL, "more than %d endpoints", ETCD_ENDPOINTS_MAX);
		r = parse_one(item, scheme, list->urls[list->count], err);
		if (r < 0)
			return r;
		list->count++;
	}
	*ret = *list;
	return 0;
}

int store_endpoints_check(const char *endpoints, struct err *err)
{
	auto_free struct endpoints *list = calloc(1, sizeof(*list));

	return list ? endpoints_parse(endpoints, "http", list, err)
		    : err_errno(err, -ENOMEM, "endpoints");
}

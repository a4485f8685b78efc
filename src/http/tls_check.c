/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libcurl reads the files only when a connection is being made, and nothing else of it tells
 * whether they are any good. So a connection is made: to a socket of our own, which answers what no
 * TLS server does. If the handshake gets as far as that answer, the files were read and fit
 * together. This needs no TLS library beside libcurl's, whichever that is.
 */
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_private.h"
#include "poplin/base/clock.h"
#include "poplin/base/mem.h"

#define CHECK_NS (5 * NS_PER_S)

DEFINE_AUTO(CURL *, curl_easy_cleanup)

static void multi_cleanup(CURLM **multi)
{
	if (*multi)
		(void)curl_multi_cleanup(*multi);
}

static int listen_locally(char *ret_url, size_t size, struct err *err)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t len = sizeof(at);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) < 0)
		return err_errno(err, -errno, "a socket on the loopback interface");
	(void)snprintf(ret_url, size, "https://127.0.0.1:%u", ntohs(at.sin_port));
	return TAKE_FD(fd);
}

static void answer_nonsense(int listener, int *connection)
{
	static const char nonsense[] = "no TLS here\n";

	if (*connection >= 0)
		return;
	*connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (*connection >= 0)
		(void)!write(*connection, nonsense, sizeof(nonsense) - 1);
}

static CURLcode shake_hands(CURLM *multi, int listener)
{
	int64_t end = clock_ns() + CHECK_NS;
	auto_close int connection = -1;
	int running = 1, left;
	const CURLMsg *msg;

	while (clock_ns() < end) {
		if (curl_multi_perform(multi, &running) != CURLM_OK)
			return CURLE_OUT_OF_MEMORY;
		msg = curl_multi_info_read(multi, &left);
		if (msg)
			return msg->data.result;
		answer_nonsense(listener, &connection);
		if (curl_multi_poll(multi, NULL, 0, connection < 0 ? 1 : 100, NULL) != CURLM_OK)
			return CURLE_OUT_OF_MEMORY;
	}
	return CURLE_OPERATION_TIMEDOUT;
}

/* The file that is at fault, as far as that can be told. */
static int explain(const struct http_tls *tls, CURLcode code, const char *text, struct err *err)
{
	switch ((int)code) {
	case CURLE_SSL_CONNECT_ERROR: /* our nonsense was read: the files are good */
		return 0;
	case CURLE_OUT_OF_MEMORY:
		return err_errno(err, -ENOMEM, "TLS");
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_COULDNT_CONNECT:
		return err_set(err, -EAGAIN, "the TLS files cannot be tried: %s", text);
	case CURLE_SSL_CACERT_BADFILE:
		return err_set(err, -EINVAL, "CA certificates '%s': %s", tls->ca_file, text);
	default:
		return err_set(err, -EINVAL, "certificate '%s' with key '%s': %s", tls->cert_file,
			       tls->key_file, text);
	}
}

/* libcurl's own words on files that cannot be opened are of little help. */
static int check_readable(const char *what, const char *path, struct err *err)
{
	auto_(fclose) FILE *file = NULL;

	if (!path[0])
		return 0;
	file = fopen(path, "re");
	if (!file || fgetc(file) == EOF)
		return err_errno(err, file && !errno ? -ENODATA : -errno, "%s '%s'", what, path);
	return 0;
}

int http_tls_check(const struct http_tls *tls, struct err *err)
{
	auto_(curl_easy_cleanup) CURL *easy = NULL;
	__attribute__((cleanup(multi_cleanup))) CURLM *multi = NULL;
	char url[64], text[CURL_ERROR_SIZE] = "";
	auto_close int listener = -1;
	CURLcode code;
	int r;

	errno = 0;
	r = check_readable("CA certificates", tls->ca_file, err);
	if (r == 0)
		r = check_readable("certificate", tls->cert_file, err);
	if (r == 0)
		r = check_readable("key", tls->key_file, err);
	if (r < 0)
		return r;
	listener = listen_locally(url, sizeof(url), err);
	if (listener < 0)
		return listener;
	easy = curl_easy_init();
	multi = curl_multi_init();
	if (!easy || !multi || curl_easy_setopt(easy, CURLOPT_URL, url) != CURLE_OK ||
	    http_use_tls(easy, tls) < 0)
		return err_errno(err, -ENOMEM, "TLS");
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, text);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	if (curl_multi_add_handle(multi, easy) != CURLM_OK)
		return err_errno(err, -ENOMEM, "TLS");
	code = shake_hands(multi, listener);
	(void)curl_multi_remove_handle(multi, easy);
	return explain(tls, code, text[0] ? text : curl_easy_strerror(code), err);
}

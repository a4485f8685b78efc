/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of src/http share. Threads: as http.h says. */
#ifndef POPLIN_HTTP_HTTP_PRIVATE_H
#define POPLIN_HTTP_HTTP_PRIVATE_H

#include <curl/curl.h>

#include "poplin/http/http.h"

/* Sets the files of a handle, for the connections that it makes from now on. -ENOMEM. */
int http_use_tls(CURL *easy, const struct http_tls *tls);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an answer means: etcd's own errors, and those of whatever else may answer at that place. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "etcd.h"

#define SHOWN 120 /* of an answer that makes no sense */

/* gRPC's status codes (https://grpc.io/docs/guides/status-codes/) that mean something to us. */
enum grpc_code {
	GRPC_CANCELLED = 1,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNAVAILABLE = 14,
	GRPC_UNAUTHENTICATED = 16,
};

/*
 * Where the code does not tell enough, the words do (etcd: api/v3rpc/rpctypes/error.go). The end of
 * a watch has nothing but words.
 */
static const struct {
	const char *words;
	int error;
} meanings[] = {
	{ "authentication failed", -EACCES },
	{ "permission denied", -EACCES },
	{ "invalid auth token", ETCD_NO_TOKEN },
	{ "revision of auth store is old", ETCD_NO_TOKEN },
	{ "user name is empty", ETCD_NO_TOKEN },
	{ "user name not found", ETCD_NO_TOKEN },
	{ "mvcc: required revision has been compacted", -ESTALE },
};

static int code_to_errno(int64_t code)
{
	switch (code) {
	case GRPC_CANCELLED:
	case GRPC_DEADLINE_EXCEEDED:
	case GRPC_RESOURCE_EXHAUSTED:
	case GRPC_UNAVAILABLE:
		return -EAGAIN;
	case GRPC_NOT_FOUND:
		return -ENOENT;
	case GRPC_PERMISSION_DENIED:
		return -EACCES;
	case GRPC_UNAUTHENTICATED:
		return ETCD_NO_TOKEN;
	case GRPC_OUT_OF_RANGE: /* the revision was compacted, or is not there yet */
		return -ESTALE;
	default:
		return -EPROTO;
	}
}

int etcd_error_text(const char *what, int64_t code, const char *text, struct err *err)
{
	int error = code_to_errno(code);

	for (size_t i = 0; i < countof(meanings); i++)
		if (strstr(text, meanings[i].words)) {
			error = meanings[i].error;
			break;
		}
	return err_set(err, error, "%s: etcd: %.200s", what, text);
}

int etcd_error(const char *what, const json_t *answer, struct err *err)
{
	const json_t *error = json_object_get(answer, "error");
	/* In streams the fields are one level further down. */
	const json_t *fields = json_is_object(error) ? error : answer;
	const char *text = json_string_value(json_object_get(fields, "message"));
	int64_t code = etcd_int(fields, "grpc_code");

	if (!code)
		code = etcd_int(fields, "code");
	if (!text)
		text = json_is_string(error) ? json_string_value(error) : "an error without a text";
	return etcd_error_text(what, code, text, err);
}

/* What to do about answers that others than etcd's gateway give. */
static const struct {
	long status;
	const char *words;
	const char *advice;
} remedies[] = {
	{ 421, "",
	  "etcd does not serve under this host name: name it in etcd's --host-whitelist, or write the "
	  "address into ETCD_HOST" },
	{ 400, "HTTP request to an HTTPS server",
	  "TLS is spoken there: write https:// into "
	  "ETCD_HOST" },
	{ 400, "CommonName of client",
	  "where etcd has users, the client's certificate must have no Common Name" },
};

static const char *find_advice(long status, const char *body)
{
	for (size_t i = 0; i < countof(remedies); i++)
		if (remedies[i].status == status && strstr(body, remedies[i].words))
			return remedies[i].advice;
	return NULL;
}

/* A proxy or another program may answer there; 5xx is said to pass. */
static int foreign_answer(const char *what, const struct http_response *response, struct err *err)
{
	const char *body = response->body.data ? response->body.data : "";
	const char *advice = find_advice(response->status, body);
	char shown[SHOWN + 1];

	if (advice)
		return err_set(err, -EPROTO, "%s: HTTP status %ld: %s", what, response->status,
			       advice);
	strlcpy(shown, body, sizeof(shown));
	shown[strcspn(shown, "\r\n")] = '\0';
	return err_set(err, response->status / 100 == 5 ? -EAGAIN : -EPROTO,
		       "%s: HTTP status %ld and no answer of etcd: %s", what, response->status,
		       shown);
}

int etcd_answer(const char *what, const struct http_response *response, json_t **ret,
		struct err *err)
{
	auto_(json_decref) json_t *answer = NULL;
	json_error_t why;

	answer = json_loadb(response->body.data ? response->body.data : "", response->body.len, 0,
			    &why);
	if (response->status == 200 && json_is_object(answer) &&
	    !json_object_get(answer, "error")) {
		*ret = TAKE(answer);
		return 0;
	}
	/* From 3.6 on there is no "error" beside "code" and "message". */
	if (json_object_get(answer, "error") || json_object_get(answer, "code"))
		return etcd_error(what, answer, err);
	return foreign_answer(what, response, err);
}

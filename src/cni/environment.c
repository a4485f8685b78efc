/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The variables of a runtime: section 2 of the specification, "Parameters". */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cni.h"

#define CONTAINER_ID_MAX 239 /* with an interface's name a file's name (poplin/ipam/ipam.h) */

const char *environment_get(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

/* The specification's form of a container id; '/' and ':' would spoil the names made of it. */
static bool is_container_id(const char *text)
{
	if (!isalnum((unsigned char)*text) || strlen(text) > CONTAINER_ID_MAX)
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("_.-", *text))
			return false;
	return true;
}

/* A result names both, and JSON has no other text. */
static bool is_utf8(const char *text)
{
	json_t *json = json_string(text);

	json_decref(json);
	return json != NULL;
}

bool is_interface_name(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len >= IF_NAMESIZE || strcmp(text, ".") == 0 || strcmp(text, "..") == 0 ||
	    !is_utf8(text))
		return false;
	for (; *text; text++)
		if (*text == '/' || *text == ':' || *text == '%' ||
		    ((unsigned char)*text < 0x80 && !isgraph((unsigned char)*text)))
			return false;
	return true;
}

int environment_read(unsigned needs, struct request *req, struct err *err)
{
	req->owner.container = environment_get("CNI_CONTAINERID");
	req->owner.interface = environment_get("CNI_IFNAME");
	req->netns = environment_get("CNI_NETNS");
	req->args = environment_get("CNI_ARGS");
	if ((needs & NEED_CONTAINER) && !is_container_id(req->owner.container))
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_CONTAINERID '%.64s' is missing or not a container id",
			       req->owner.container);
	if ((needs & NEED_INTERFACE) && !is_interface_name(req->owner.interface))
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_IFNAME '%.64s' is missing or not an interface's name",
			       req->owner.interface);
	if ((needs & NEED_NETNS) && !req->netns[0])
		return err_set(err, CNI_INVALID_ENVIRONMENT, "CNI_NETNS is missing");
	if ((needs & NEED_NETNS) && !is_utf8(req->netns))
		return err_set(err, CNI_INVALID_ENVIRONMENT, "CNI_NETNS '%s' is not UTF-8",
			       req->netns);
	return 0;
}

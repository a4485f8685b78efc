/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A runtime's variables, a line each: container id, interface, namespace, arguments. */
#include <unistd.h>

#include "cni/cni.h"
#include "fuzz.h"

static const char *const names[] = { "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS" };

static void check_owner(const struct ipam_owner *owner)
{
	MUST(owner->container[0] && !strpbrk(owner->container, "/: \n"));
	MUST(owner->interface[0] && !strpbrk(owner->interface, "/: \t"));
	MUST(strlen(owner->container) + 1 + strlen(owner->interface) < IPAM_HOLDER_MAX);
	MUST(strlen(owner->interface) < IF_NAMESIZE && strcmp(owner->interface, "..") != 0);
}

static void check_failure_of(int r, const struct err *err)
{
	MUST(r == CNI_INVALID_ENVIRONMENT);
	MUST(err->text[0]);
}

static void read_all(void)
{
	struct request req = { .netns = "" };
	struct err err = ERR_INIT;
	struct wishes wishes;
	int r;

	r = environment_read(NEED_CONTAINER | NEED_NETNS | NEED_INTERFACE, &req, &err);
	if (r)
		check_failure_of(r, &err);
	else
		check_owner(&req.owner);
	err = ERR_INIT;
	r = wishes_read(&req, &wishes, &err);
	if (r)
		check_failure_of(r, &err);
	else
		MUST(wishes.naddresses <= IPAM_SETS_MAX &&
		     (!wishes.has_mac || !(wishes.mac[0] & 1)));
}

/* Not by setenv(), which keeps every value that there ever was. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	auto_free char *text = strndup((const char *)data, len);
	char *variables[countof(names) + 1] = { NULL }, **saved = environ;
	char *rest = text;

	MUST(text);
	for (size_t i = 0; i < countof(names) && rest; i++)
		MUST(asprintf(&variables[i], "%s=%s", names[i], strsep(&rest, "\n")) > 0);
	environ = variables;
	read_all();
	environ = saved;
	for (size_t i = 0; i < countof(names); i++)
		free(variables[i]);
	return 0;
}

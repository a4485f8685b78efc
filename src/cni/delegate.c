/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "delegate.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "poplin/base/buf.h"

#define OUTPUT_MAX ((size_t)1024 * 1024)

DEFINE_AUTO(json_t *, json_decref)

/* -- running --------------------------------------------------------------------------- */

static int find(const char *type, char ret[static PATH_MAX], struct err *err)
{
	const char *dirs = getenv("CNI_PATH");
	auto_free char *copy = strdup(dirs ? dirs : "");
	char *rest = copy, *dir;

	if (!copy)
		return err_set(err, CNI_IO_FAILURE, "out of memory");
	if (!*copy)
		return err_set(err, CNI_INVALID_ENVIRONMENT,
			       "CNI_PATH is missing, where plugin '%s' is to be found", type);
	while ((dir = strsep(&rest, ":")))
		if (*dir && snprintf(ret, PATH_MAX, "%s/%s", dir, type) < PATH_MAX &&
		    access(ret, X_OK) == 0)
			return 0;
	return err_set(err, CNI_INVALID_CONFIG,
		       "'type' of 'ipam' is '%s': there is no such plugin in CNI_PATH (%.200s)",
		       type, dirs);
}

/* The configuration as a file, so that nobody waits for anybody to read. */
static int open_input(const struct request *req, struct err *err)
{
	auto_close int fd = memfd_create("configuration", MFD_CLOEXEC);

	if (fd < 0 || write(fd, req->text, req->text_len) != (ssize_t)req->text_len ||
	    lseek(fd, 0, SEEK_SET) < 0)
		return err_errno(err, -errno, "configuration for a plugin");
	return TAKE_FD(fd);
}

/* In the child. The descriptors of others close by themselves; standard error is shared. */
static void execute(const char *path, const char *command, int input, int output)
{
	char *const argv[] = { (char *)path, NULL };

	if (dup2(input, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
	    setenv("CNI_COMMAND", command, 1) == 0) {
		(void)signal(SIGPIPE, SIG_DFL);
		(void)execv(path, argv);
	}
	_exit(127);
}

static int read_output(int fd, struct buf *ret)
{
	char chunk[8192];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if ((size_t)n > OUTPUT_MAX - ret->len)
			return -EFBIG;
		if (buf_add(ret, chunk, (size_t)n) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Its exit status, with what it wrote; a negative errno. */
static int run(const struct request *req, const char *path, const char *command, struct buf *ret,
	       struct err *err)
{
	auto_close int input = open_input(req, err);
	int ends[2], status, r;
	pid_t pid;

	if (input < 0)
		return input;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "pipe");
	/* The removal of a link leaves it ignored (unlink.c), and then there is nothing to wait for. */
	(void)signal(SIGCHLD, SIG_DFL);
	pid = fork();
	if (pid == 0)
		execute(path, command, input, ends[1]);
	r = pid < 0 ? -errno : 0;
	close(ends[1]);
	if (r == 0)
		r = read_output(ends[0], ret);
	close(ends[0]);
	if (pid > 0)
		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				return err_errno(err, -errno, "%s", path);
	if (r < 0)
		return err_errno(err, r, "%s", path);
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
		return err_set(err, -ENOEXEC, "%s could not be run or was killed", path);
	return WEXITSTATUS(status);
}

/* What the plugin says of its failure, as our own. */
static int take_error(const json_t *json, const char *type, int status, struct err *err)
{
	const char *msg = json_string_value(json_object_get(json, "msg"));
	const char *details = json_string_value(json_object_get(json, "details"));
	json_int_t code = json_integer_value(json_object_get(json, "code"));

	if (!msg)
		return err_set(err, CNI_IO_FAILURE,
			       "plugin '%s' failed with exit status %d and no error object", type,
			       status);
	err_set(err, 0, "plugin '%s': %.300s%s%.100s", type, msg, details && *details ? "; " : "",
		details ? details : "");
	return code > 0 && code < 10000 ? (int)code : CNI_IO_FAILURE;
}

int delegate_run(const struct request *req, const char *type, const char *command, json_t **ret,
		 struct err *err)
{
	auto_buf struct buf output = BUF_INIT;
	auto_(json_decref) json_t *json = NULL;
	char path[PATH_MAX];
	int r = find(type, path, err), status;

	if (r)
		return r;
	status = run(req, path, command, &output, err);
	if (status < 0)
		return CNI_IO_FAILURE;
	json = json_loadb(output.data ? output.data : "", output.len, 0, NULL);
	if (status > 0)
		return take_error(json, type, status, err);
	if (ret && !json_is_object(json))
		return err_set(err, CNI_DECODE_FAILURE, "plugin '%s': its result is no JSON object",
			       type);
	if (ret)
		*ret = TAKE(json);
	return 0;
}

/* -- reading --------------------------------------------------------------------------------- */

static int spoilt(const char *what, struct err *err)
{
	return err_wrap(err, CNI_DECODE_FAILURE, "the IPAM plugin's result has a bad %s", what);
}

static int read_address(const json_t *json, const char *key, struct given *ret, struct err *err)
{
	const char *address = json_string_value(json_object_get(json, key));
	const char *gateway = json_string_value(json_object_get(json, "gateway"));
	struct ipam_address *a = &ret->addresses[ret->naddresses];

	if (ret->naddresses == countof(ret->addresses))
		return err_set(err, CNI_DECODE_FAILURE,
			       "the IPAM plugin gave more than %d addresses", IPAM_SETS_MAX);
	*a = (struct ipam_address){ .gateway = { .family = AF_UNSPEC } };
	if (prefix_parse_interface(address ? address : "", &a->address, err) < 0)
		return spoilt("address", err);
	if (gateway && *gateway && addr_parse(gateway, &a->gateway, err) < 0)
		return spoilt("gateway", err);
	ret->naddresses++;
	return 0;
}

static int read_routes(const json_t *list, struct given *ret, struct err *err)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		/* One place of each family is kept for the default route. */
		if (ret->nroutes == NETCONF_ROUTES_MAX)
			return err_set(err, CNI_DECODE_FAILURE,
				       "the IPAM plugin gave more than %d routes",
				       NETCONF_ROUTES_MAX);
		if (netconf_parse_route(item, &ret->routes[ret->nroutes], err))
			return spoilt("route", err);
		ret->nroutes++;
	}
	return 0;
}

/* "ip4" and "ip6" of 0.1.0 and 0.2.0. */
static int read_pair(const json_t *result, struct given *ret, struct err *err)
{
	static const char *const keys[] = { "ip4", "ip6" };
	int r = 0;

	for (size_t i = 0; i < countof(keys) && r == 0; i++) {
		const json_t *one = json_object_get(result, keys[i]);

		if (!json_is_object(one))
			continue;
		r = read_address(one, "ip", ret, err);
		if (r == 0)
			r = read_routes(json_object_get(one, "routes"), ret, err);
	}
	return r;
}

int delegate_read(const json_t *result, struct given *ret, struct err *err)
{
	const json_t *ips = json_object_get(result, "ips"), *item;
	json_t *dns = json_object_get(result, "dns");
	int r = read_pair(result, ret, err);
	size_t i;

	json_array_foreach (ips, i, item) {
		if (r)
			return r;
		r = read_address(item, "address", ret, err);
	}
	if (r == 0)
		r = read_routes(json_object_get(result, "routes"), ret, err);
	if (r == 0 && !ret->naddresses)
		return err_set(err, CNI_DECODE_FAILURE, "the IPAM plugin gave no address");
	if (r == 0 && json_is_object(dns))
		ret->dns = json_incref(dns);
	return r;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "poplin/base/envfile.h"
#include "poplin/base/mem.h"
#include "poplin/store/store.h"

#include "chain.h"
#include "settings.h"
#include "settings_types.h"

#define SHOWN_MAX 128 /* of a value in a message, so that what is allowed fits behind it */

static const struct setting_row rows[] = {
#define SETTING_ROW(id, type, member, value, min, max, reloadable, help)                           \
	{ #id,                                                                                     \
	  TYPE_##type,                                                                             \
	  offsetof(struct settings, member),                                                       \
	  sizeof(((struct settings *)NULL)->member),                                               \
	  value,                                                                                   \
	  min,                                                                                     \
	  max,                                                                                     \
	  reloadable,                                                                              \
	  help },
	SETTING_TABLE(SETTING_ROW)
#undef SETTING_ROW
};
static_assert(countof(rows) == SETTINGS, "a row for each setting");

/* A member that its longest text would overflow does not compile; see also setting_parse(). */
#define SETTING_FITS(id, type, member, value, min, max, reloadable, help)                          \
	static_assert(TYPE_##type == TYPE_UINT || TYPE_##type == TYPE_MTU ||                       \
			      (max) < sizeof(((struct settings *)NULL)->member),                   \
		      #id " does not fit");
SETTING_TABLE(SETTING_FITS)
#undef SETTING_FITS

struct loader {
	struct settings *s;
	const char *file;
	settings_warn_fn *warn;
	void *arg;
	struct err wrong; /* the wrong value that was met last */
	unsigned nwrong;
};

static void *member_of(struct settings *s, unsigned id)
{
	return (char *)s + rows[id].offset;
}

static const void *member_of_const(const struct settings *s, unsigned id)
{
	return (const char *)s + rows[id].offset;
}

const char *setting_name(enum setting id)
{
	return rows[id].name;
}

const char *setting_default(enum setting id)
{
	return rows[id].value;
}

bool setting_reloadable(enum setting id)
{
	return rows[id].reloadable;
}

static void warn(const struct loader *l, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void warn(const struct loader *l, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;

	if (!l->warn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	l->warn(text, l->arg);
}

/* All of them are told: the last one as the error, those before it as warnings. */
static void note_wrong(struct loader *l, const struct err *why)
{
	if (l->nwrong++)
		warn(l, "%s", l->wrong.text);
	l->wrong = *why;
}

/* -- names ----------------------------------------------------------------- */

#define NAME_MAX_COMPARED 40

/* Edit distance (Levenshtein), letters in either case alike. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NAME_MAX_COMPARED + 1];
	size_t na = strlen(a), nb = strlen(b);

	if (na > NAME_MAX_COMPARED || nb > NAME_MAX_COMPARED)
		return NAME_MAX_COMPARED;
	for (unsigned j = 0; j <= nb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= nb; j++) {
			bool same = toupper((unsigned char)a[i - 1]) == b[j - 1];
			unsigned best = diagonal + (same ? 0 : 1);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[nb];
}

/* The setting that was probably meant, or SETTINGS. A third of the letters may be wrong. */
static unsigned nearest(const char *name)
{
	unsigned best = SETTINGS, least = (unsigned)(strlen(name) / 3) + 1;

	for (unsigned id = 0; id < SETTINGS; id++) {
		unsigned d = distance(name, rows[id].name);

		if (d < least) {
			least = d;
			best = id;
		}
	}
	return best;
}

static unsigned find(const char *name)
{
	unsigned id = 0;

	while (id < SETTINGS && strcmp(name, rows[id].name) != 0)
		id++;
	return id;
}

/* -- loading --------------------------------------------------------------- */

static const char *origin_text(const struct settings *s, unsigned id, char *ret, size_t size)
{
	switch (s->source[id].origin) {
	case SETTING_ORIGIN_DEFAULT:
		snprintf(ret, size, "the default");
		break;
	case SETTING_ORIGIN_FILE:
		snprintf(ret, size, "from %.*s:%u", SHOWN_MAX, s->file, s->source[id].line);
		break;
	case SETTING_ORIGIN_ENVIRONMENT:
		snprintf(ret, size, "from the environment");
		break;
	}
	return ret;
}

static int set(struct settings *s, unsigned id, const char *text, enum setting_origin origin,
	       unsigned line, struct err *err)
{
	const struct setting_row *row = &rows[id];
	char where[SHOWN_MAX + 64], allowed[SETTING_ALLOWED_MAX];
	struct err why = ERR_INIT;

	s->source[id].origin = origin;
	s->source[id].line = line;
	memset(member_of(s, id), 0, row->size);
	if (*text == '\0' || setting_parse(row, text, member_of(s, id), &why) == 0)
		return 0;
	return err_set(err, -EINVAL, "%s='%.*s%s' (%s): %.120s; allowed: %s", row->name, SHOWN_MAX,
		       text, strlen(text) > SHOWN_MAX ? "..." : "",
		       origin_text(s, id, where, sizeof(where)), why.text,
		       setting_allowed(row, allowed));
}

static int set_default(struct settings *s, unsigned id, struct err *err)
{
	return set(s, id, rows[id].value, SETTING_ORIGIN_DEFAULT, 0, err);
}

static const char *environment(unsigned id)
{
	const char *text = getenv(rows[id].name);

	return text && *text ? text : NULL;
}

static int on_line(const char *name, const char *value, unsigned line, void *arg, struct err *err)
{
	struct loader *l = arg;
	struct err why = ERR_INIT;
	unsigned id = find(name);

	if (id == SETTINGS) {
		id = nearest(name);
		warn(l, "%s:%u: %s is no setting of poplin%s%s%s, ignoring", l->file, line, name,
		     id < SETTINGS ? " (did you mean " : "", id < SETTINGS ? rows[id].name : "",
		     id < SETTINGS ? "?)" : "");
		return 0;
	}
	if (l->s->source[id].line > 0)
		warn(l, "%s:%u: %s was set in line %u already, the later line counts", l->file,
		     line, name, l->s->source[id].line);
	if (environment(id)) {
		l->s->source[id].line = line;
		return 0;
	}
	if (!*value)
		return set_default(l->s, id, err);
	if (set(l->s, id, value, SETTING_ORIGIN_FILE, line, &why) < 0)
		note_wrong(l, &why);
	return 0;
}

static void take_environment(struct loader *l)
{
	struct err why = ERR_INIT;

	for (unsigned id = 0; id < SETTINGS; id++) {
		const char *text = environment(id);

		if (text && set(l->s, id, text, SETTING_ORIGIN_ENVIRONMENT, 0, &why) < 0)
			note_wrong(l, &why);
	}
}

static int fill_node_name(struct settings *s, const struct loader *l, struct err *err)
{
	if (s->node_name[0] != '\0')
		return 0;
	if (gethostname(s->node_name, sizeof(s->node_name) - 1) < 0)
		return err_errno(err, -errno, "NODE_NAME (the default): cannot read the host name");
	if (!node_name_valid(s->node_name))
		return err_set(err, -EINVAL,
			       "NODE_NAME='%s' (the default, from the host name): not a node name; "
			       "set NODE_NAME",
			       s->node_name);
	if (strcmp(s->node_name, "localhost") == 0)
		warn(l, "the host name is 'localhost': no other node may be called so, better set "
			"NODE_NAME");
	return 0;
}

/* -- what must fit together ------------------------------------------------ */

/* "NAME='value' (from the environment)" */
static const char *describe(const struct settings *s, unsigned id, char *ret, size_t size)
{
	char value[SETTING_LIST_MAX], where[SHOWN_MAX + 64];

	setting_format(&rows[id], member_of_const(s, id), value, sizeof(value));
	snprintf(ret, size, "%s='%.*s' (%s)", rows[id].name, SHOWN_MAX, value,
		 origin_text(s, id, where, sizeof(where)));
	return ret;
}

static int refuse_pair(const struct settings *s, unsigned a, unsigned b, const char *why,
		       struct err *err)
{
	char first[2 * SHOWN_MAX + 96], second[2 * SHOWN_MAX + 96];

	return err_set(err, -EINVAL, "%s and %s: %s", describe(s, a, first, sizeof(first)),
		       describe(s, b, second, sizeof(second)), why);
}

static bool below(const char *key, const char *prefix, const char *suffix)
{
	size_t n = strlen(prefix), m = strlen(suffix);

	return strncmp(key, prefix, n) == 0 && strncmp(key + n, suffix, m) == 0 &&
	       (key[n + m] == '\0' || key[n + m] == '/');
}

static int check_network(struct settings *s, struct err *err)
{
	struct err why = ERR_INIT;

	if (network_init(&s->network, &s->pods, s->ip_subnet_margin, &why) < 0)
		return refuse_pair(s, SETTING_IP_SUBNET, SETTING_IP_SUBNET_MARGIN, why.text, err);
	if (s->node_address.family != AF_UNSPEC && s->node_address.family != s->pods.addr.family)
		return refuse_pair(s, SETTING_NODE_ADDRESS, SETTING_IP_SUBNET,
				   "both must be IPv4 or both IPv6", err);
	if (prefix_contains_addr(&s->pods, &s->node_address))
		return refuse_pair(s, SETTING_NODE_ADDRESS, SETTING_IP_SUBNET,
				   "a node's own address cannot lie in the pod network", err);
	if (s->pods.addr.family == AF_INET6 && s->mtu != 0 && s->mtu < 1280)
		return refuse_pair(s, SETTING_MTU, SETTING_IP_SUBNET,
				   "IPv6 needs an MTU of 1280 at least", err);
	return 0;
}

void settings_access(const struct settings *s, struct store_access *ret)
{
	*ret = (struct store_access){
		.endpoints = s->etcd_host,
		.ca_file = s->etcd_ca_file,
		.cert_file = s->etcd_cert_file,
		.key_file = s->etcd_key_file,
		.user = s->etcd_user,
		.password_file = s->etcd_password_file,
	};
}

bool settings_cni_list(const struct settings *s)
{
	const char *dot = strrchr(s->cni_config_location, '.');

	return dot && strcmp(dot, ".conflist") == 0;
}

static int check_store(struct settings *s, struct err *err)
{
	struct store_access access;
	int r;

	settings_access(s, &access);
	r = store_access_check(&access, err);
	return r < 0 ? err_wrap(err, r, "access to etcd") : 0;
}

static int check_chain(struct settings *s, struct err *err)
{
	json_t *plugins;

	if (s->cni_chain[0] && !settings_cni_list(s))
		return refuse_pair(s, SETTING_CNI_CHAIN, SETTING_CNI_CONFIG_LOCATION,
				   "only a .conflist has room for several plugins", err);
	if (chain_read(s->cni_chain, s->cni_type, &plugins, err) < 0)
		return err_wrap(err, -EINVAL, "CNI_CHAIN");
	json_decref(plugins);
	return 0;
}

static int check_names(struct settings *s, struct err *err)
{
	/* The prefix itself, a record below it, a subnet's or the settings' key beside it. */
	if (below(s->etcd_counter_key, s->etcd_prefix, "") ||
	    below(s->etcd_counter_key, s->etcd_prefix, "-subnets") ||
	    below(s->etcd_counter_key, s->etcd_prefix, "-network"))
		return refuse_pair(s, SETTING_ETCD_COUNTER_KEY, SETTING_ETCD_PREFIX,
				   "the counter cannot lie among the records", err);
	if (strcmp(s->bridge_name, s->node_interface) == 0)
		return refuse_pair(s, SETTING_BRIDGE_NAME, SETTING_NODE_INTERFACE,
				   "the bridge cannot be the interface to the other nodes", err);
	if (strcmp(s->cni_config_location, s->cni_plugin_location) == 0)
		return refuse_pair(s, SETTING_CNI_CONFIG_LOCATION, SETTING_CNI_PLUGIN_LOCATION,
				   "two files cannot have one path", err);
	return 0;
}

typedef int check_fn(struct settings *s, struct err *err);

static void check_together(struct loader *l)
{
	static check_fn *const checks[] = {
		check_names,
		check_network,
		check_chain,
		check_store,
	};
	struct err why = ERR_INIT;

	for (size_t i = 0; i < countof(checks); i++)
		if (checks[i](l->s, &why) < 0)
			note_wrong(l, &why);
}

/* Route protocol numbers in use: iproute2's rt_protos and the projects' own sources. */
static const struct {
	unsigned first, last;
	const char *who;
} protocols[] = {
	{ 5, 18, "the kernel's list of routing daemons" },
	{ 42, 42, "babeld" },
	{ 80, 80, "Calico" },
	{ 99, 99, "Open/R" },
	{ 186, 198, "FRRouting" },
};

/* A runtime starts no pod with a list of which one plugin is missing. */
static void remark_chain(const struct settings *s, const struct loader *l)
{
	char path[2 * SETTING_PATH_MAX];
	json_t *plugins, *plugin;
	size_t i;

	if (chain_read(s->cni_chain, s->cni_type, &plugins, NULL) < 0)
		return;
	json_array_foreach (plugins, i, plugin) {
		const char *slash = strrchr(s->cni_plugin_location, '/');

		snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - s->cni_plugin_location),
			 s->cni_plugin_location,
			 json_string_value(json_object_get(plugin, "type")));
		if (access(path, F_OK) < 0 && errno == ENOENT)
			warn(l, "CNI_CHAIN=%s: the plugin %s is not there", s->cni_chain, path);
	}
	json_decref(plugins);
}

static void remark_together(const struct settings *s, const struct loader *l)
{
	const char *base = strrchr(s->cni_plugin_location, '/') + 1;

	for (size_t i = 0; i < countof(protocols); i++)
		if (s->route_protocol >= protocols[i].first &&
		    s->route_protocol <= protocols[i].last)
			warn(l,
			     "ROUTE_PROTOCOL=%u is used by others (%s): routes of theirs would be "
			     "taken for ours and removed",
			     s->route_protocol, protocols[i].who);
	if (s->etcd_user[0] && strstr(s->etcd_host, "http://"))
		warn(l, "ETCD_USER: the password goes to etcd in plain text; use https in "
			"ETCD_HOST");
	if (strcmp(base, s->cni_type) != 0)
		warn(l,
		     "CNI_TYPE=%s is not the file name in CNI_PLUGIN_LOCATION=%s: the container "
		     "runtime will look for the plugin by CNI_TYPE",
		     s->cni_type, s->cni_plugin_location);
	remark_chain(s, l);
}

/* -- public ---------------------------------------------------------------- */

int settings_load(struct settings *ret, const char *file, bool required, settings_warn_fn *warn_fn,
		  void *arg, struct err *err)
{
	auto_free struct settings *s = calloc(1, sizeof(*s));
	struct loader l = { .s = s, .file = file, .warn = warn_fn, .arg = arg };
	int r;

	if (!s)
		return err_errno(err, -ENOMEM, "settings");
	snprintf(s->file, sizeof(s->file), "%s", file ? file : "");
	for (unsigned id = 0; id < SETTINGS; id++) {
		r = set_default(s, id, err);
		if (r < 0)
			return r;
	}
	if (file) {
		r = envfile_read(file, on_line, &l, err);
		if (r < 0 && l.nwrong)
			warn(&l, "%s", l.wrong.text);
		if (r < 0 && (r != -ENOENT || required))
			return r;
	}
	take_environment(&l);
	if (!l.nwrong) {
		r = fill_node_name(s, &l, err);
		if (r < 0)
			return r;
		check_together(&l);
	}
	if (l.nwrong)
		return err_set(err, -EINVAL, "%s", l.wrong.text);
	remark_together(s, &l);
	*ret = *s;
	return 0;
}

void settings_compare(const struct settings *running, const struct settings *loaded,
		      struct settings_diff *ret)
{
	struct settings_diff diff = { .any_reloadable = false };

	for (unsigned id = 0; id < SETTINGS; id++) {
		size_t len = strlen(diff.refused);

		if (memcmp(member_of_const(running, id), member_of_const(loaded, id),
			   rows[id].size) == 0)
			continue;
		diff.changed[id] = true;
		if (rows[id].reloadable)
			diff.any_reloadable = true;
		else
			snprintf(diff.refused + len, sizeof(diff.refused) - len, "%s%s",
				 len > 0 ? ", " : "", rows[id].name);
	}
	*ret = diff;
}

void settings_keep(const struct settings *running, struct settings *loaded)
{
	for (unsigned id = 0; id < SETTINGS; id++) {
		if (rows[id].reloadable)
			continue;
		memcpy(member_of(loaded, id), member_of_const(running, id), rows[id].size);
		loaded->source[id] = running->source[id];
	}
	loaded->network = running->network;
}

const char *settings_value(const struct settings *s, enum setting id,
			   char ret[static SETTING_LIST_MAX])
{
	setting_format(&rows[id], member_of_const(s, id), ret, SETTING_LIST_MAX);
	return ret;
}

/* " (that of the interface)": what the help says of a default that is no value; else "". */
static const char *meaning(unsigned id, const char *value, char *ret, size_t size)
{
	static const char mark[] = "(default: ";
	const char *at = strstr(rows[id].help, mark);

	snprintf(ret, size, "%s%s", *value || !at ? "" : " (",
		 *value || !at ? "" : at + strlen(mark));
	return ret;
}

void settings_print(const struct settings *s, FILE *out)
{
	char value[SETTING_LIST_MAX], where[SHOWN_MAX + 64], what[SHOWN_MAX];

	for (unsigned id = 0; id < SETTINGS; id++) {
		settings_value(s, id, value);
		fprintf(out, "# %s%s\n%s=%s\n", origin_text(s, id, where, sizeof(where)),
			meaning(id, value, what, sizeof(what)), rows[id].name, value);
	}
}

void settings_usage(FILE *out)
{
	char allowed[SETTING_ALLOWED_MAX];

	for (unsigned id = 0; id < SETTINGS; id++) {
		const struct setting_row *row = &rows[id];

		fprintf(out, "  %s=%s%s\n", row->name, row->value, row->reloadable ? " (R)" : "");
		fprintf(out, "      %c%s.\n", toupper((unsigned char)*row->help), row->help + 1);
		fprintf(out, "      Allowed: %s.\n", setting_allowed(row, allowed));
	}
	fprintf(out, "(R): a reload (SIGHUP) takes a new value over. All others need a restart.\n");
}

/* Text of a manual page: a line is 78 characters at most, broken at blanks. */
static void print_wrapped(FILE *out, const char *text)
{
	const size_t width = 78;

	while (strlen(text) > width) {
		size_t len = width;

		while (len > 0 && text[len] != ' ')
			len--;
		if (len == 0)
			break;
		fprintf(out, "%.*s\n", (int)len, text);
		text += len + 1;
	}
	fprintf(out, "%s\n", text);
}

void settings_mdoc(FILE *out)
{
	char allowed[SETTING_ALLOWED_MAX], line[512];

	for (unsigned id = 0; id < SETTINGS; id++) {
		const struct setting_row *row = &rows[id];

		fprintf(out, ".It Ev %s\n", row->name);
		snprintf(line, sizeof(line), "%c%s.", toupper((unsigned char)*row->help),
			 row->help + 1);
		print_wrapped(out, line);
		snprintf(line, sizeof(line), "Allowed: %s.", setting_allowed(row, allowed));
		print_wrapped(out, line);
		if (*row->value)
			fprintf(out, "Default:\n.Ql %s .\n", row->value);
		if (row->reloadable)
			fprintf(out, "Taken over by a reload.\n");
	}
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reload.h"

#include <errno.h>

#include "metrics.h"
#include "poplin/base/clock.h"
#include "poplin/base/log.h"

static int set_workers(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	return t->pool ? pool_set_workers(t->pool, s->route_workers, err) : 0;
}

static int set_lease_access(const struct reload_targets *t, const struct settings *s,
			    struct err *err)
{
	struct store_access access;

	settings_access(s, &access);
	return lease_set_access(t->lease, &access, err);
}

static int set_watcher_access(const struct reload_targets *t, const struct settings *s,
			      struct err *err)
{
	struct store_access access;

	settings_access(s, &access);
	return watcher_set_access(t->watcher, &access, err);
}

static int set_resync(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	watcher_set_resync_interval(t->watcher, s->resync_interval_s);
	return 0;
}

static int set_ttl(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	lease_set_ttl(t->lease, s->lease_ttl_s);
	return 0;
}

static int set_fence(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	lease_set_fence(t->lease, s->lease_fence);
	return 0;
}

static int set_log(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	log_set_level(s->log_level);
	log_set_format(s->log_format);
	return 0;
}

/* CNI_CONFIG_LOCATION may be another one in the file, but stays what it is. */
static int check_chain(const struct reload_targets *t, const struct settings *s, struct err *err)
{
	if (s->cni_chain[0] && !settings_cni_list(s))
		return err_set(
			err, -EINVAL,
			"CNI_CHAIN=%s: CNI_CONFIG_LOCATION=%s, of which only a restart takes "
			"another value, has no room for it",
			s->cni_chain, s->cni_config_location);
	return 0;
}

/* Those that can fail come first, and are taken back when a later one does. Each of
 * the settings of etcd sets all of them, which does no harm when several changed. */
#define ACCESS(name)                                                                               \
	{ SETTING_##name, set_lease_access },                                                      \
	{                                                                                          \
		SETTING_##name, set_watcher_access                                                 \
	}
static const struct {
	enum setting setting;
	int (*apply)(const struct reload_targets *t, const struct settings *s, struct err *err);
} steps[] = {
	{ SETTING_CNI_CHAIN, check_chain },
	{ SETTING_ROUTE_WORKERS, set_workers },
	ACCESS(ETCD_HOST),
	ACCESS(ETCD_CA_FILE),
	ACCESS(ETCD_CERT_FILE),
	ACCESS(ETCD_KEY_FILE),
	ACCESS(ETCD_USER),
	ACCESS(ETCD_PASSWORD_FILE),
	{ SETTING_RESYNC_INTERVAL, set_resync },
	{ SETTING_LEASE_TTL, set_ttl },
	{ SETTING_LEASE_FENCE, set_fence },
	{ SETTING_LOG_LEVEL, set_log },
	{ SETTING_LOG_FORMAT, set_log },
};

static int apply(const struct settings *running, const struct settings *loaded,
		 const struct settings_diff *diff, const struct reload_targets *targets,
		 struct err *err)
{
	for (size_t i = 0; i < countof(steps); i++) {
		int r;

		if (!diff->changed[steps[i].setting])
			continue;
		r = steps[i].apply(targets, loaded, err);
		if (r == 0)
			continue;
		while (i-- > 0)
			if (diff->changed[steps[i].setting])
				(void)steps[i].apply(targets, running, NULL);
		return r;
	}
	return 0;
}

static void warn(const char *text, void *arg)
{
	log_warn("%s", text);
}

static void log_changes(const struct settings *before, const struct settings *now,
			const struct settings_diff *diff)
{
	char from[SETTING_LIST_MAX], to[SETTING_LIST_MAX];

	for (enum setting id = 0; id < SETTINGS; id++)
		if (diff->changed[id])
			log_info("setting changed" KV("setting", "%s") KV("from", "%s")
					 KV("to", "%s"),
				 setting_name(id), settings_value(before, id, from),
				 settings_value(now, id, to));
}

static int load_and_apply(struct settings *running, const char *config, bool required,
			  const struct reload_targets *targets, struct err *err)
{
	struct settings loaded;
	struct settings_diff diff;
	int r;

	r = settings_load(&loaded, config, required, warn, NULL, err);
	if (r < 0)
		return r;
	settings_compare(running, &loaded, &diff);
	if (diff.refused[0])
		log_warn("these settings changed but need a restart" KV("settings", "%s"),
			 diff.refused);
	settings_keep(running, &loaded);
	settings_compare(running, &loaded, &diff); /* what is left can be applied */
	r = apply(running, &loaded, &diff, targets, err);
	if (r < 0)
		return r;
	log_changes(running, &loaded, &diff);
	*running = loaded;
	return 0;
}

int reload(struct settings *running, const char *config, bool required,
	   const struct reload_targets *targets, struct err *err)
{
	int r = load_and_apply(running, config, required, targets, err);

	metric_set(METRIC_RELOAD_OK, 0, r == 0);
	if (r == 0)
		metric_set(METRIC_RELOAD_TIME, 0, clock_real_ns());
	return r;
}

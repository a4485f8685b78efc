/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What poplind and poplinctl must agree on before they have met. Threads: any; constants. */
#ifndef POPLIN_MODEL_DEFAULTS_H
#define POPLIN_MODEL_DEFAULTS_H

#define DEFAULT_CONFIG_FILE	SYSCONFDIR "/poplin/poplin.conf" /* configure: /etc */
#define DEFAULT_METRICS_ADDRESS "127.0.0.1:9476"
#define DEFAULT_STATE_DIR	"/run/poplin"

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "spoof.h"

#include <errno.h>
#include <linux/netfilter_bridge.h>
#include <stdio.h>
#include <string.h>

#include "elements.h"
#include "poplin/model/pod.h"

#define CHAIN	   "prerouting"
#define MAC_FORMAT "%02hhx:%02hhx:%02hhx:%02hhx:%02hhx:%02hhx"
/* What nft(8) calls the types of a set, six bits for each part; only it reads them. */
#define TYPE_IFNAME 41
#define TYPE_ETHER  9

static const struct nft_table table = { NFPROTO_BRIDGE, "poplin_pods" };
static const struct nft_hook_point hook = { "filter", NF_BR_PRE_ROUTING, -300 /* dstnat */ };
static const struct pod_set guarded = { &table, "guarded", TYPE_IFNAME, IFNAMSIZ, false };
static const struct pod_set senders = { &table, "senders", TYPE_IFNAME << 6 | TYPE_ETHER,
					IFNAMSIZ + 8, false };

/* What one pod has in the two sets. */
struct guard {
	struct pod_element port, sender;
};

static void name_port(struct guard *g, const char *link)
{
	g->port = (struct pod_element){ .len = guarded.key_len };
	strlcpy((char *)g->port.key, link, IFNAMSIZ);
}

static void name_sender(struct guard *g, const uint8_t mac[static 6])
{
	g->sender = g->port;
	g->sender.len = senders.key_len;
	memcpy(g->sender.key + IFNAMSIZ, mac, 6);
	g->sender.comment[0] = '\0';
}

static struct guard guard_of(const struct ipam_owner *owner)
{
	char link[IFNAMSIZ];
	struct guard g;

	pod_link_name(owner->container, owner->interface, link);
	name_port(&g, link);
	return g;
}

/* Finds what there is of the pod. -ENOENT. */
static int find(struct netlink *nl, struct guard *g, struct err *err)
{
	uint8_t mac[6];
	int r = pod_element_get(nl, &guarded, &g->port, err);

	if (r < 0)
		return r;
	if (sscanf(g->port.comment, MAC_FORMAT, &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
		   &mac[5]) != 6)
		return err_set(err, -EINVAL, "set '%s' has %s with comment '%s', which is no MAC",
			       guarded.name, (const char *)g->port.key, g->port.comment);
	name_sender(g, mac);
	return 0;
}

/* -- adding --------------------------------------------------------------------------------- */

static struct nl_msg *drop_rule(void)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, &table, CHAIN);
	nft_expr_load_input(&rule);
	nft_expr_in_set(&rule, guarded.name, false);
	nft_expr_load_source_mac(&rule);
	nft_expr_in_set(&rule, senders.name, true);
	nft_expr_verdict(&rule, NF_DROP);
	return nft_rule_end(&rule);
}

static int make_table(struct netlink *nl, struct err *err)
{
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, nft_msg(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &table));
	nft_batch_take(batch, nft_base_chain_msg(&table, CHAIN, &hook));
	nft_batch_take(batch, pod_set_msg(&guarded));
	nft_batch_take(batch, pod_set_msg(&senders));
	nft_batch_take(batch, drop_rule());
	r = nft_batch_commit(nl, batch, err);
	/* The ADD of another pod was quicker. */
	return r == -EEXIST ? 0 : r;
}

/* Both elements, or none. */
static int add(struct netlink *nl, const struct guard *g, struct err *err)
{
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, pod_element_add_msg(&senders, &g->sender, NULL));
	nft_batch_take(batch, pod_element_add_msg(&guarded, &g->port, NULL));
	return nft_batch_commit(nl, batch, err);
}

/* The port last: as long as it is there the sender is found by it. */
static int delete_pair(struct netlink *nl, const struct guard *g, struct err *err)
{
	int r = pod_element_delete(nl, &senders, &g->sender, err);

	return r < 0 ? r : pod_element_delete(nl, &guarded, &g->port, err);
}

/* Without the port, which somebody else removed, only a search leads to the sender. */
static int remove_pod(struct netlink *nl, const struct netconf *conf,
		      const struct ipam_owner *owner, struct err *err)
{
	char comment[POD_COMMENT_MAX];
	struct pod_search search = { .comment = comment };
	struct guard g = guard_of(owner);
	int r = find(nl, &g, err);

	if (r == 0)
		return delete_pair(nl, &g, err);
	if (r != -ENOENT)
		return r;
	pod_comment(conf, owner, comment);
	r = pod_elements_find(nl, &senders, &search, err);
	for (size_t i = 0; i < search.nfound && r == 0; i++)
		r = pod_element_delete(nl, &senders, &search.found[i], err);
	pod_search_done(&search);
	return r;
}

int spoof_add(const struct netconf *conf, const struct ipam_owner *owner,
	      const uint8_t mac[static 6], struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct guard g = guard_of(owner);
	int r = nft_open(&nl, err);

	(void)snprintf(g.port.comment, sizeof(g.port.comment), MAC_FORMAT, mac[0], mac[1], mac[2],
		       mac[3], mac[4], mac[5]);
	name_sender(&g, mac);
	pod_comment(conf, owner, g.sender.comment);
	if (r == 0)
		r = add(nl, &g, err);
	if (r == -ENOENT) {
		r = make_table(nl, err);
		if (r == 0)
			r = add(nl, &g, err);
	}
	if (r == -EEXIST) {
		/* What an ADD left that was killed. */
		r = remove_pod(nl, conf, owner, err);
		if (r == 0)
			r = add(nl, &g, err);
	}
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'macspoofchk'") : 0;
}

/* -- removing, checking ------------------------------------------------------------------------ */

int spoof_remove(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
		 struct err *err)
{
	int r = remove_pod(nl, conf, owner, err);

	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'macspoofchk'") : 0;
}

int spoof_check(const struct netconf *conf, const struct ipam_owner *owner, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct guard g = guard_of(owner);
	int r = nft_open(&nl, err);

	if (r == 0)
		r = find(nl, &g, err);
	if (r == 0)
		r = pod_element_get(nl, &senders, &g.sender, err);
	if (r == -ENOENT)
		return err_set(err, CNI_NOT_AS_EXPECTED,
			       "'macspoofchk': nftables does not check what link %s sends",
			       (const char *)g.port.key);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'macspoofchk'") : 0;
}

int spoof_collect(const struct netconf *conf, struct collection *gc, struct err *err)
{
	struct pod_search search = { .network = conf->name, .gc = gc };
	auto_(netlink_close) struct netlink *nl = NULL;
	int r = nft_open(&nl, err);

	if (r == 0)
		r = pod_elements_find(nl, &senders, &search, err);
	for (size_t i = 0; i < search.nfound && r == 0; i++) {
		struct guard g = { .sender = search.found[i] };

		name_port(&g, (const char *)g.sender.key);
		r = delete_pair(nl, &g, err);
	}
	pod_search_done(&search);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'macspoofchk'") : 0;
}

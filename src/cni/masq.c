/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "masq.h"

#include <errno.h>
#include <netlink/attr.h>
#include <stdio.h>
#include <string.h>

#include "elements.h"

#define CHAIN	  "postrouting"
#define CHAIN_MAX (PREFIX_TEXT_MAX + 8)
/* What nft(8) calls the types of a map; only it reads them. */
#define TYPE_IPV4 7
#define TYPE_IPV6 8

static const struct nft_table table = { NFPROTO_INET, "poplin_pods" };
static const struct nft_hook_point hook = { "nat", NF_INET_POST_ROUTING, 100 /* srcnat */ };
static const struct pod_set maps[] = {
	{ &table, "pods4", TYPE_IPV4, 4, true },
	{ &table, "pods6", TYPE_IPV6, 16, true },
};

static const struct pod_set *map_of(int family)
{
	return &maps[family == AF_INET6];
}

static struct pod_element element_of(const struct addr *a)
{
	struct pod_element e = { .len = addr_size(a) };

	memcpy(e.key, a->bytes, e.len);
	return e;
}

/* The part that is not masqueraded: all pods of the cluster, where an agent says which they are. */
static struct prefix local_of(const struct netconf *conf, const struct prefix *address)
{
	return prefix_contains_addr(&conf->network, &address->addr) ? conf->network
								    : prefix_canonical(address);
}

static void chain_name(const struct prefix *local, char ret[static CHAIN_MAX])
{
	char text[PREFIX_TEXT_MAX];

	(void)snprintf(ret, CHAIN_MAX, "local_%s", prefix_format(local, text));
	/* What nft(8) takes in a name. */
	for (char *c = ret; *c; c++)
		if (*c == ':' || *c == '/')
			*c = '_';
}

/* -- adding --------------------------------------------------------------------------------- */

static struct nl_msg *look_up_rule(int family)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, &table, CHAIN);
	nft_expr_family(&rule, family);
	nft_expr_load_addr(&rule, family, true);
	nft_expr_map(&rule, map_of(family)->name);
	return nft_rule_end(&rule);
}

static struct nl_msg *return_rule(const char *chain, const struct prefix *to)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, &table, chain);
	nft_expr_family(&rule, to->addr.family);
	nft_expr_load_addr(&rule, to->addr.family, false);
	nft_expr_in_prefix(&rule, to);
	nft_expr_verdict(&rule, NFT_RETURN);
	return nft_rule_end(&rule);
}

static struct nl_msg *masquerade_rule(const char *chain)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, &table, chain);
	nft_expr_masquerade(&rule);
	return nft_rule_end(&rule);
}

static int make_table(struct netlink *nl, struct err *err)
{
	static const int families[] = { AF_INET, AF_INET6 };
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, nft_msg(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &table));
	nft_batch_take(batch, nft_base_chain_msg(&table, CHAIN, &hook));
	for (size_t i = 0; i < countof(families); i++) {
		nft_batch_take(batch, pod_set_msg(map_of(families[i])));
		nft_batch_take(batch, look_up_rule(families[i]));
	}
	r = nft_batch_commit(nl, batch, err);
	/* The ADD of another pod was quicker. */
	return r == -EEXIST ? 0 : r;
}

static int make_chain(struct netlink *nl, const struct prefix *local, struct err *err)
{
	static const struct prefix multicast[] = {
		{ .addr = { .family = AF_INET, .bytes = { 224 } }, .len = 4 },
		{ .addr = { .family = AF_INET6, .bytes = { 0xff } }, .len = 8 },
	};
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	char name[CHAIN_MAX];
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	chain_name(local, name);
	nft_batch_take(batch, nft_chain_msg(&table, name));
	nft_batch_take(batch, return_rule(name, local));
	nft_batch_take(batch, return_rule(name, &multicast[local->addr.family == AF_INET6]));
	nft_batch_take(batch, masquerade_rule(name));
	r = nft_batch_commit(nl, batch, err);
	return r == -EEXIST ? 0 : r;
}

static int add_element(struct netlink *nl, const struct addr *a, const char *chain,
		       const char *comment, struct err *err)
{
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	struct pod_element e = element_of(a);
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	strlcpy(e.comment, comment, sizeof(e.comment));
	nft_batch_take(batch, pod_element_add_msg(map_of(a->family), &e, chain));
	return nft_batch_commit(nl, batch, err);
}

static int delete_address(struct netlink *nl, const struct addr *a, struct err *err)
{
	const struct pod_element e = element_of(a);

	return pod_element_delete(nl, map_of(a->family), &e, err);
}

/* The table and the chain are there for all pods but the first. */
static int add_address(struct netlink *nl, const struct netconf *conf, const struct prefix *address,
		       const char *comment, struct err *err)
{
	struct prefix local = local_of(conf, address);
	char chain[CHAIN_MAX];
	int r;

	chain_name(&local, chain);
	r = add_element(nl, &address->addr, chain, comment, err);
	if (r == -ENOENT) {
		r = make_table(nl, err);
		if (r == 0)
			r = make_chain(nl, &local, err);
		if (r == 0)
			r = add_element(nl, &address->addr, chain, comment, err);
	}
	if (r == -EEXIST) {
		/* The address was free: this is left of a pod that had it. */
		r = delete_address(nl, &address->addr, err);
		if (r == 0)
			r = add_element(nl, &address->addr, chain, comment, err);
	}
	return r;
}

int masq_add(const struct netconf *conf, const struct ipam_owner *owner, const struct given *given,
	     struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	char comment[POD_COMMENT_MAX];
	int r = nft_open(&nl, err);

	pod_comment(conf, owner, comment);
	for (unsigned i = 0; i < given->naddresses && r == 0; i++)
		r = add_address(nl, conf, &given->addresses[i].address, comment, err);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

/* -- removing --------------------------------------------------------------------------------- */

/* All that fit the search, of one map. Without the table there is nothing. */
static int remove_found(struct netlink *nl, const struct pod_set *map, struct pod_search *search,
			struct err *err)
{
	int r = pod_elements_find(nl, map, search, err);

	for (size_t i = 0; i < search->nfound && r == 0; i++)
		r = pod_element_delete(nl, map, &search->found[i], err);
	return r;
}

static int remove_all(struct netlink *nl, struct pod_search *search, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < countof(maps) && r == 0; i++)
		r = remove_found(nl, &maps[i], search, err);
	pod_search_done(search);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

/* The addresses are known, and nobody else has them: there is nothing to be searched. */
static int remove_held(struct netlink *nl, const struct addr *held, int n, struct err *err)
{
	int r = 0;

	for (int i = 0; i < n && r == 0; i++)
		r = delete_address(nl, &held[i], err);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

int masq_remove(struct netlink *nl, const struct netconf *conf, const struct ipam_owner *owner,
		struct err *err)
{
	char comment[POD_COMMENT_MAX];
	struct pod_search search = { .comment = comment };
	struct addr held[IPAM_SETS_MAX];
	int n = -ENOENT;

	if (conf->ipam.kind == NETCONF_IPAM_OWN)
		n = ipam_lookup(&conf->ipam.pool, owner, held, err);
	if (n != -ENOENT)
		return n < 0 ? err_wrap(err, CNI_IO_FAILURE, "'ipMasq'")
			     : remove_held(nl, held, n, err);
	/* Another plugin's, or taken back (ipam_condemn()) before its rule was made. */
	pod_comment(conf, owner, comment);
	return remove_all(nl, &search, err);
}

int masq_collect(const struct netconf *conf, struct collection *gc, struct err *err)
{
	struct pod_search search = { .network = conf->name, .gc = gc };
	auto_(netlink_close) struct netlink *nl = NULL;

	if (nft_open(&nl, err) < 0)
		return err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'");
	return remove_all(nl, &search, err);
}

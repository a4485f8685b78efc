/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "masq.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netlink/attr.h>
#include <stdio.h>
#include <string.h>

#include "poplin/model/pod.h"
#include "poplin/nl/nft.h"

#define TABLE	    "poplin_pods"
#define CHAIN	    "postrouting"
#define PRIORITY    100 /* srcnat */
#define COMMENT_MAX (16 + CNI_NAME_MAX)
#define CHAIN_MAX   (PREFIX_TEXT_MAX + 8)
/* What nft(8) calls the types of a map; only it reads them. */
#define TYPE_IPV4 7
#define TYPE_IPV6 8

static const char *map_of(int family)
{
	return family == AF_INET ? "pods4" : "pods6";
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

static void comment_of(const struct netconf *conf, const struct ipam_owner *owner,
		       char ret[static COMMENT_MAX])
{
	char link[16];

	pod_link_name(owner->container, owner->interface, link);
	(void)snprintf(ret, COMMENT_MAX, "%s %s", link, conf->name);
}

/* -- messages ------------------------------------------------------------------------- */

static struct nl_msg *finish(struct nl_msg *msg, int failed)
{
	if (msg && failed) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

static int put_u32(struct nl_msg *msg, int type, uint32_t value)
{
	return nla_put_u32(msg, type, htonl(value));
}

static struct nl_msg *map_msg(int family)
{
	struct nl_msg *msg = nft_msg(NFT_MSG_NEWSET, NLM_F_CREATE, TABLE);

	return finish(msg, msg && (nla_put_string(msg, NFTA_SET_NAME, map_of(family)) < 0 ||
				   put_u32(msg, NFTA_SET_FLAGS, NFT_SET_MAP) < 0 ||
				   put_u32(msg, NFTA_SET_KEY_TYPE,
					   family == AF_INET ? TYPE_IPV4 : TYPE_IPV6) < 0 ||
				   put_u32(msg, NFTA_SET_KEY_LEN, family == AF_INET ? 4 : 16) < 0 ||
				   put_u32(msg, NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT) < 0 ||
				   put_u32(msg, NFTA_SET_ID, (uint32_t)family) < 0));
}

static struct nl_msg *chain_msg(const char *name, int flags)
{
	struct nl_msg *msg = nft_msg(NFT_MSG_NEWCHAIN, NLM_F_CREATE | flags, TABLE);

	return finish(msg, msg && nla_put_string(msg, NFTA_CHAIN_NAME, name) < 0);
}

static struct nl_msg *base_chain_msg(void)
{
	struct nl_msg *msg = chain_msg(CHAIN, NLM_F_EXCL);
	struct nlattr *hook = msg ? nla_nest_start(msg, NFTA_CHAIN_HOOK | NLA_F_NESTED) : NULL;

	if (!hook || put_u32(msg, NFTA_HOOK_HOOKNUM, NF_INET_POST_ROUTING) < 0 ||
	    put_u32(msg, NFTA_HOOK_PRIORITY, PRIORITY) < 0)
		return finish(msg, true);
	nla_nest_end(msg, hook);
	return finish(msg, nla_put_string(msg, NFTA_CHAIN_TYPE, "nat") < 0);
}

static struct nl_msg *look_up_rule(int family)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, TABLE, CHAIN);
	nft_expr_family(&rule, family);
	nft_expr_load_addr(&rule, family, true);
	nft_expr_map(&rule, map_of(family));
	return nft_rule_end(&rule);
}

static struct nl_msg *return_rule(const char *chain, const struct prefix *to)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, TABLE, chain);
	nft_expr_family(&rule, to->addr.family);
	nft_expr_load_addr(&rule, to->addr.family, false);
	nft_expr_in_prefix(&rule, to);
	nft_expr_verdict(&rule, NFT_RETURN);
	return nft_rule_end(&rule);
}

static struct nl_msg *masquerade_rule(const char *chain)
{
	struct nft_rule rule;

	nft_rule_begin(&rule, TABLE, chain);
	nft_expr_masquerade(&rule);
	return nft_rule_end(&rule);
}

/* The comment is for nft(8), in its own form: type 0, length, text with its NUL. */
static int put_comment(struct nl_msg *msg, const char *comment)
{
	uint8_t data[2 + COMMENT_MAX];
	size_t length = strlen(comment) + 1;

	data[0] = 0;
	data[1] = (uint8_t)length;
	memcpy(data + 2, comment, length);
	return nla_put(msg, NFTA_SET_ELEM_USERDATA, (int)length + 2, data);
}

static int put_key(struct nl_msg *msg, const struct addr *a)
{
	struct nlattr *key = nla_nest_start(msg, NFTA_SET_ELEM_KEY | NLA_F_NESTED);

	if (!key || nla_put(msg, NFTA_DATA_VALUE, (int)addr_size(a), a->bytes) < 0)
		return -ENOMEM;
	nla_nest_end(msg, key);
	return 0;
}

static int put_goto(struct nl_msg *msg, const char *chain)
{
	struct nlattr *data = nla_nest_start(msg, NFTA_SET_ELEM_DATA | NLA_F_NESTED), *verdict;

	verdict = data ? nla_nest_start(msg, NFTA_DATA_VERDICT | NLA_F_NESTED) : NULL;
	if (!verdict || put_u32(msg, NFTA_VERDICT_CODE, (uint32_t)NFT_GOTO) < 0 ||
	    nla_put_string(msg, NFTA_VERDICT_CHAIN, chain) < 0)
		return -ENOMEM;
	nla_nest_end(msg, verdict);
	nla_nest_end(msg, data);
	return 0;
}

/* chain and comment: NULL in a message that deletes. */
static struct nl_msg *element_msg(int type, const struct addr *a, const char *chain,
				  const char *comment)
{
	struct nl_msg *msg =
		nft_msg(type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE | NLM_F_EXCL : 0, TABLE);
	struct nlattr *list = NULL, *element = NULL;

	if (!msg || nla_put_string(msg, NFTA_SET_ELEM_LIST_SET, map_of(a->family)) < 0 ||
	    !(list = nla_nest_start(msg, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED)) ||
	    !(element = nla_nest_start(msg, NFTA_LIST_ELEM | NLA_F_NESTED)) ||
	    put_key(msg, a) < 0 || (chain && put_goto(msg, chain) < 0) ||
	    (comment && put_comment(msg, comment) < 0))
		return finish(msg, true);
	nla_nest_end(msg, element);
	nla_nest_end(msg, list);
	return msg;
}

/* -- adding --------------------------------------------------------------------------------- */

static int make_table(struct netlink *nl, struct err *err)
{
	static const int families[] = { AF_INET, AF_INET6 };
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, nft_msg(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, TABLE));
	nft_batch_take(batch, base_chain_msg());
	for (size_t i = 0; i < countof(families); i++) {
		nft_batch_take(batch, map_msg(families[i]));
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
	nft_batch_take(batch, chain_msg(name, NLM_F_EXCL));
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
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, element_msg(NFT_MSG_NEWSETELEM, a, chain, comment));
	return nft_batch_commit(nl, batch, err);
}

static int delete_element(struct netlink *nl, const struct addr *a, struct err *err)
{
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, element_msg(NFT_MSG_DELSETELEM, a, NULL, NULL));
	r = nft_batch_commit(nl, batch, err);
	return r == -ENOENT ? 0 : r;
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
		r = delete_element(nl, &address->addr, err);
		if (r == 0)
			r = add_element(nl, &address->addr, chain, comment, err);
	}
	return r;
}

int masq_add(const struct netconf *conf, const struct ipam_owner *owner, const struct given *given,
	     struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	char comment[COMMENT_MAX];
	int r = nft_open(&nl, err);

	comment_of(conf, owner, comment);
	for (unsigned i = 0; i < given->naddresses && r == 0; i++)
		r = add_address(nl, conf, &given->addresses[i].address, comment, err);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

/* -- removing --------------------------------------------------------------------------------- */

/* What to look for, and the addresses of what was found. */
struct search {
	const char *comment; /* of one attachment; NULL: */
	const char *network; /* those of this network, */
	const json_t *valid; /* but not of these links */
	int family;
	struct addr *found;
	size_t nfound, size;
};

static bool is_wanted(const struct search *s, const char *comment)
{
	const char *blank = strchr(comment, ' ');
	char link[16];

	if (s->comment)
		return strcmp(comment, s->comment) == 0;
	if (!blank || (size_t)(blank - comment) >= sizeof(link) ||
	    strcmp(blank + 1, s->network) != 0)
		return false;
	(void)snprintf(link, sizeof(link), "%.*s", (int)(blank - comment), comment);
	return !json_object_get(s->valid, link);
}

static int note(struct search *s, const void *bytes)
{
	struct addr a = { .family = (uint8_t)s->family };

	memcpy(a.bytes, bytes, addr_size(&a));
	if (s->nfound == s->size) {
		size_t size = s->size ? s->size * 2 : 16;
		struct addr *found = reallocarray(s->found, size, sizeof(*found));

		if (!found)
			return -ENOMEM;
		s->found = found;
		s->size = size;
	}
	s->found[s->nfound++] = a;
	return 0;
}

static int look_at_element(struct search *s, struct nlattr *element)
{
	struct nlattr *attrs[NFTA_SET_ELEM_MAX + 1], *key[NFTA_DATA_MAX + 1];
	const struct nlattr *data;
	const char *comment;
	int length;

	if (nla_parse_nested(attrs, NFTA_SET_ELEM_MAX, element, NULL) < 0 ||
	    !attrs[NFTA_SET_ELEM_KEY] || !attrs[NFTA_SET_ELEM_USERDATA] ||
	    nla_parse_nested(key, NFTA_DATA_MAX, attrs[NFTA_SET_ELEM_KEY], NULL) < 0 ||
	    !key[NFTA_DATA_VALUE] ||
	    nla_len(key[NFTA_DATA_VALUE]) != (s->family == AF_INET ? 4 : 16))
		return 0;
	data = attrs[NFTA_SET_ELEM_USERDATA];
	length = nla_len(data);
	comment = (const char *)nla_data(data) + 2;
	if (length < 3 || comment[length - 3] != '\0' || !is_wanted(s, comment))
		return 0;
	return note(s, nla_data(key[NFTA_DATA_VALUE]));
}

static int take_elements(const struct nlmsghdr *msg, void *arg)
{
	struct nlattr *attrs[NFTA_SET_ELEM_LIST_MAX + 1], *element;
	int left, r;

	if (nlmsg_parse((struct nlmsghdr *)msg, sizeof(struct nfgenmsg), attrs,
			NFTA_SET_ELEM_LIST_MAX, NULL) < 0 ||
	    !attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
		return 0;
	nla_for_each_nested (element, attrs[NFTA_SET_ELEM_LIST_ELEMENTS], left) {
		r = look_at_element(arg, element);
		if (r < 0)
			return r;
	}
	return 0;
}

static void forget_elements(void *arg)
{
	((struct search *)arg)->nfound = 0;
}

/* All that fit the search, of one family. Without the table there is nothing. */
static int remove_found(struct netlink *nl, struct search *s, struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *msg = nft_msg(NFT_MSG_GETSETELEM, 0, TABLE);
	int r;

	if (!msg || nla_put_string(msg, NFTA_SET_ELEM_LIST_SET, map_of(s->family)) < 0)
		return err_errno(err, -ENOMEM, "nftables");
	s->nfound = 0;
	r = netlink_dump(nl, msg, take_elements, forget_elements, s, err);
	if (r == -ENOENT)
		return 0;
	for (size_t i = 0; i < s->nfound && r == 0; i++)
		r = delete_element(nl, &s->found[i], err);
	return r;
}

static int remove_all(struct search *s, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	int r = nft_open(&nl, err);

	s->family = AF_INET;
	if (r == 0)
		r = remove_found(nl, s, err);
	s->family = AF_INET6;
	if (r == 0)
		r = remove_found(nl, s, err);
	free(s->found);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

/* The addresses are known, and nobody else has them: there is nothing to be searched. */
static int remove_held(const struct netconf *conf, const struct ipam_owner *owner, struct err *err)
{
	auto_(netlink_close) struct netlink *nl = NULL;
	struct addr held[IPAM_SETS_MAX];
	int n = ipam_lookup(conf->ipam.pool.dir, owner, held, NULL);
	int r = n > 0 ? nft_open(&nl, err) : 0;

	for (int i = 0; i < n && r == 0; i++)
		r = delete_element(nl, &held[i], err);
	return r < 0 ? err_wrap(err, CNI_KERNEL_REFUSED, "'ipMasq'") : 0;
}

int masq_remove(const struct netconf *conf, const struct ipam_owner *owner, struct err *err)
{
	char comment[COMMENT_MAX];
	struct search search = { .comment = comment };

	if (conf->ipam.kind == NETCONF_IPAM_OWN)
		return remove_held(conf, owner, err);
	comment_of(conf, owner, comment);
	return remove_all(&search, err);
}

int masq_collect(const struct netconf *conf, const json_t *valid_links, struct err *err)
{
	struct search search = { .network = conf->name, .valid = valid_links };

	return remove_all(&search, err);
}

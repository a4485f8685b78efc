/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "elements.h"

#include <errno.h>
#include <netlink/attr.h>
#include <stdio.h>
#include <string.h>

#include "poplin/model/pod.h"

void pod_comment(const struct netconf *conf, const struct ipam_owner *owner,
		 char ret[static POD_COMMENT_MAX])
{
	char link[16];

	pod_link_name(owner->container, owner->interface, link);
	(void)snprintf(ret, POD_COMMENT_MAX, "%s %s", link, conf->name);
}

/* -- messages ------------------------------------------------------------------------- */

struct nl_msg *pod_set_msg(const struct pod_set *set)
{
	struct nl_msg *msg = nft_msg(NFT_MSG_NEWSET, NLM_F_CREATE, set->table);

	return nft_finish(msg, msg && (nla_put_string(msg, NFTA_SET_NAME, set->name) < 0 ||
				       nft_put_u32(msg, NFTA_SET_FLAGS,
						   set->verdicts ? NFT_SET_MAP : 0) < 0 ||
				       nft_put_u32(msg, NFTA_SET_KEY_TYPE, set->key_type) < 0 ||
				       nft_put_u32(msg, NFTA_SET_KEY_LEN, set->key_len) < 0 ||
				       (set->verdicts && nft_put_u32(msg, NFTA_SET_DATA_TYPE,
								     NFT_DATA_VERDICT) < 0) ||
				       nft_put_u32(msg, NFTA_SET_ID, set->key_len) < 0));
}

/* The comment is for nft(8), in its own form: type 0, length, text with its NUL. */
static int put_comment(struct nl_msg *msg, const char *comment)
{
	uint8_t data[2 + POD_COMMENT_MAX];
	size_t length = strlen(comment) + 1;

	data[0] = 0;
	data[1] = (uint8_t)length;
	memcpy(data + 2, comment, length);
	return nla_put(msg, NFTA_SET_ELEM_USERDATA, (int)length + 2, data);
}

static int put_key(struct nl_msg *msg, const struct pod_element *e)
{
	struct nlattr *key = nla_nest_start(msg, NFTA_SET_ELEM_KEY | NLA_F_NESTED);

	if (!key || nla_put(msg, NFTA_DATA_VALUE, (int)e->len, e->key) < 0)
		return -ENOMEM;
	nla_nest_end(msg, key);
	return 0;
}

static int put_goto(struct nl_msg *msg, const char *chain)
{
	struct nlattr *data = nla_nest_start(msg, NFTA_SET_ELEM_DATA | NLA_F_NESTED), *verdict;

	verdict = data ? nla_nest_start(msg, NFTA_DATA_VERDICT | NLA_F_NESTED) : NULL;
	if (!verdict || nft_put_u32(msg, NFTA_VERDICT_CODE, (uint32_t)NFT_GOTO) < 0 ||
	    nla_put_string(msg, NFTA_VERDICT_CHAIN, chain) < 0)
		return -ENOMEM;
	nla_nest_end(msg, verdict);
	nla_nest_end(msg, data);
	return 0;
}

/* whole: with the chain and the comment, if it has them; otherwise the key alone. */
static struct nl_msg *element_msg(int type, int flags, const struct pod_set *set,
				  const struct pod_element *e, bool whole, const char *chain)
{
	struct nl_msg *msg = nft_msg(type, flags, set->table);
	struct nlattr *list = NULL, *element = NULL;

	if (!msg || nla_put_string(msg, NFTA_SET_ELEM_LIST_SET, set->name) < 0 ||
	    !(list = nla_nest_start(msg, NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED)) ||
	    !(element = nla_nest_start(msg, NFTA_LIST_ELEM | NLA_F_NESTED)) ||
	    put_key(msg, e) < 0 || (whole && chain && put_goto(msg, chain) < 0) ||
	    (whole && e->comment[0] && put_comment(msg, e->comment) < 0))
		return nft_finish(msg, true);
	nla_nest_end(msg, element);
	nla_nest_end(msg, list);
	return msg;
}

struct nl_msg *pod_element_add_msg(const struct pod_set *set, const struct pod_element *e,
				   const char *chain)
{
	return element_msg(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, set, e, true, chain);
}

int pod_element_delete(struct netlink *nl, const struct pod_set *set, const struct pod_element *e,
		       struct err *err)
{
	auto_(nft_batch_free) struct nft_batch *batch = NULL;
	int r = nft_batch_new(&batch, err);

	if (r < 0)
		return r;
	nft_batch_take(batch, element_msg(NFT_MSG_DELSETELEM, 0, set, e, false, NULL));
	r = nft_batch_commit(nl, batch, err);
	return r == -ENOENT ? 0 : r;
}

/* -- reading ---------------------------------------------------------------------------- */

struct walk {
	const struct pod_set *set;
	int (*fn)(const struct pod_element *e, void *arg);
	void *arg;
};

/* Those without a comment are not ours. */
static bool parse_element(const struct walk *walk, struct nlattr *attr, struct pod_element *ret)
{
	struct nlattr *attrs[NFTA_SET_ELEM_MAX + 1], *key[NFTA_DATA_MAX + 1];
	const struct nlattr *data;
	const char *comment;
	int length;

	if (nla_parse_nested(attrs, NFTA_SET_ELEM_MAX, attr, NULL) < 0 ||
	    !attrs[NFTA_SET_ELEM_KEY] || !attrs[NFTA_SET_ELEM_USERDATA] ||
	    nla_parse_nested(key, NFTA_DATA_MAX, attrs[NFTA_SET_ELEM_KEY], NULL) < 0 ||
	    !key[NFTA_DATA_VALUE] || nla_len(key[NFTA_DATA_VALUE]) != (int)walk->set->key_len)
		return false;
	data = attrs[NFTA_SET_ELEM_USERDATA];
	length = nla_len(data);
	comment = (const char *)nla_data(data) + 2;
	if (length < 3 || comment[length - 3] != '\0')
		return false;
	ret->len = walk->set->key_len;
	memcpy(ret->key, nla_data(key[NFTA_DATA_VALUE]), ret->len);
	return strlcpy(ret->comment, comment, sizeof(ret->comment)) < sizeof(ret->comment);
}

static int take_elements(const struct nlmsghdr *msg, void *arg)
{
	struct nlattr *attrs[NFTA_SET_ELEM_LIST_MAX + 1], *attr;
	const struct walk *walk = arg;
	struct pod_element e;
	int left, r = 0;

	if (nlmsg_parse((struct nlmsghdr *)msg, sizeof(struct nfgenmsg), attrs,
			NFTA_SET_ELEM_LIST_MAX, NULL) < 0 ||
	    !attrs[NFTA_SET_ELEM_LIST_ELEMENTS])
		return 0;
	nla_for_each_nested (attr, attrs[NFTA_SET_ELEM_LIST_ELEMENTS], left) {
		if (r == 0 && parse_element(walk, attr, &e))
			r = walk->fn(&e, walk->arg);
	}
	return r;
}

static int take_one(const struct pod_element *e, void *arg)
{
	*(struct pod_element *)arg = *e;
	return 0;
}

int pod_element_get(struct netlink *nl, const struct pod_set *set, struct pod_element *e,
		    struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *msg =
		element_msg(NFT_MSG_GETSETELEM, 0, set, e, false, NULL);
	struct walk walk = { .set = set, .fn = take_one, .arg = e };

	e->comment[0] = '\0';
	return msg ? netlink_get(nl, msg, take_elements, &walk, err)
		   : err_errno(err, -ENOMEM, "nftables");
}

/* -- searching ---------------------------------------------------------------------------- */

/* The link and the network that a comment names. False: it is not ours. */
static bool split_comment(const char *comment, char link[static 16], const char **network)
{
	const char *blank = strchr(comment, ' ');

	if (!blank || blank - comment >= 16)
		return false;
	(void)snprintf(link, 16, "%.*s", (int)(blank - comment), comment);
	*network = blank + 1;
	return true;
}

static bool is_wanted(const struct pod_search *s, const char *comment)
{
	const char *network;
	char link[16];

	if (s->comment)
		return strcmp(comment, s->comment) == 0;
	return split_comment(comment, link, &network) && strcmp(network, s->network) == 0;
}

static int note(const struct pod_element *e, void *arg)
{
	struct pod_search *s = arg;

	if (!is_wanted(s, e->comment))
		return 0;
	if (s->nfound == s->size) {
		size_t size = s->size ? s->size * 2 : 16;
		struct pod_element *found = reallocarray(s->found, size, sizeof(*found));

		if (!found)
			return -ENOMEM;
		s->found = found;
		s->size = size;
	}
	s->found[s->nfound++] = *e;
	return 0;
}

/* The dump begins anew. */
static void forget(void *arg)
{
	((struct pod_search *)((struct walk *)arg)->arg)->nfound = 0;
}

static int drop_valid(struct pod_search *s, struct err *err)
{
	const json_t *valid = gc_settle_links(s->gc, err);
	size_t kept = 0;

	if (!valid)
		return -EIO;
	for (size_t i = 0; i < s->nfound; i++) {
		const char *network;
		char link[16];

		if (split_comment(s->found[i].comment, link, &network) &&
		    !json_object_get(valid, link))
			s->found[kept++] = s->found[i];
	}
	s->nfound = kept;
	return 0;
}

int pod_elements_find(struct netlink *nl, const struct pod_set *set, struct pod_search *search,
		      struct err *err)
{
	auto_(nlmsg_free) struct nl_msg *msg = nft_msg(NFT_MSG_GETSETELEM, 0, set->table);
	struct walk walk = { .set = set, .fn = note, .arg = search };
	int r;

	if (!msg || nla_put_string(msg, NFTA_SET_ELEM_LIST_SET, set->name) < 0)
		return err_errno(err, -ENOMEM, "nftables");
	search->nfound = 0;
	r = netlink_dump(nl, msg, take_elements, forget, &walk, err);
	if (r == -ENOENT)
		r = 0;
	return r == 0 && search->gc ? drop_valid(search, err) : r;
}

void pod_search_done(struct pod_search *search)
{
	free(search->found);
	search->found = NULL;
	search->nfound = search->size = 0;
}

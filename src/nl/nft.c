/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "poplin/nl/nft.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <string.h>
#include <sys/socket.h>

#include "poplin/base/buf.h"
#include "poplin/base/clock.h"
#include "socket.h"

#define TIMEOUT_NS (5 * NS_PER_S)

int nft_open(struct netlink **ret, struct err *err)
{
	return netlink_open_protocol(ret, NETLINK_NETFILTER, err);
}

static struct nl_msg *message(int type, int flags, int family, int resource)
{
	const struct nfgenmsg body = {
		.nfgen_family = (uint8_t)family,
		.version = NFNETLINK_V0,
		.res_id = htons((uint16_t)resource),
	};
	struct nl_msg *msg = nlmsg_alloc_simple(type, flags);

	if (msg && nlmsg_append(msg, (void *)&body, sizeof(body), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

struct nl_msg *nft_msg(int type, int flags, const struct nft_table *table)
{
	struct nl_msg *msg = message((NFNL_SUBSYS_NFTABLES << 8) | type, flags, table->family, 0);

	/* The table's name is attribute 1 of every message. */
	if (msg && nla_put_string(msg, NFTA_TABLE_NAME, table->name) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

int nft_put_u32(struct nl_msg *msg, int type, uint32_t value)
{
	return nla_put_u32(msg, type, htonl(value));
}

struct nl_msg *nft_finish(struct nl_msg *msg, bool failed)
{
	if (msg && failed) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

struct nl_msg *nft_chain_msg(const struct nft_table *table, const char *name)
{
	struct nl_msg *msg = nft_msg(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, table);

	return nft_finish(msg, msg && nla_put_string(msg, NFTA_CHAIN_NAME, name) < 0);
}

struct nl_msg *nft_base_chain_msg(const struct nft_table *table, const char *name,
				  const struct nft_hook_point *where)
{
	struct nl_msg *msg = nft_chain_msg(table, name);
	struct nlattr *hook = msg ? nla_nest_start(msg, NFTA_CHAIN_HOOK | NLA_F_NESTED) : NULL;

	if (!hook || nft_put_u32(msg, NFTA_HOOK_HOOKNUM, where->hook) < 0 ||
	    nft_put_u32(msg, NFTA_HOOK_PRIORITY, (uint32_t)where->priority) < 0)
		return nft_finish(msg, true);
	nla_nest_end(msg, hook);
	return nft_finish(msg, nla_put_string(msg, NFTA_CHAIN_TYPE, where->type) < 0);
}

/* -- batches ---------------------------------------------------------------------- */

struct nft_batch {
	struct buf data;
	size_t last; /* offset of the last message */
	uint32_t count;
	bool failed;
};

int nft_batch_new(struct nft_batch **ret, struct err *err)
{
	struct nft_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return err_errno(err, -ENOMEM, "nftables batch");
	nft_batch_take(b, message(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	*ret = b;
	return 0;
}

void nft_batch_free(struct nft_batch *b)
{
	buf_done(&b->data);
	free(b);
}

void nft_batch_take(struct nft_batch *b, struct nl_msg *msg)
{
	size_t before = b->data.len;
	struct nlmsghdr *header;

	if (!msg) {
		b->failed = true;
		return;
	}
	header = nlmsg_hdr(msg);
	header->nlmsg_flags |= NLM_F_REQUEST;
	header->nlmsg_seq = ++b->count;
	if (buf_add(&b->data, header, NLMSG_ALIGN(header->nlmsg_len)) < 0)
		b->failed = true;
	else
		b->last = before;
	nlmsg_free(msg);
}

struct answers {
	uint32_t first, last; /* sequence numbers */
	int code;	      /* the first failure */
	bool done;
	struct err *err;
};

/* A failed message is told at once; a batch that was not even looked at, by its first message. */
static void take_answers(struct answers *a, const char *data, size_t len)
{
	const struct nlmsghdr *msg = (const void *)data;

	for (; NLMSG_OK(msg, len); msg = NLMSG_NEXT(msg, len)) {
		const struct nlmsgerr *e = NLMSG_DATA(msg);

		if (msg->nlmsg_type != NLMSG_ERROR || msg->nlmsg_seq < a->first ||
		    msg->nlmsg_seq > a->last)
			continue;
		if (e->error && !a->code)
			a->code = err_errno(a->err, e->error, "nftables");
		if (msg->nlmsg_seq == a->last || (msg->nlmsg_seq == a->first && e->error))
			a->done = true;
	}
}

/* The last message of the transaction is acknowledged also when another one failed. */
int nft_batch_commit(struct netlink *nl, struct nft_batch *b, struct err *err)
{
	int64_t deadline = clock_ns() + TIMEOUT_NS;
	struct nlmsghdr *last = (void *)(b->data.data + b->last);
	struct answers answers = { .first = 1, .last = b->count, .err = err };

	if (b->failed)
		return err_errno(err, -ENOMEM, "nftables batch");
	last->nlmsg_flags |= NLM_F_ACK;
	nft_batch_take(b, message(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	if (b->failed)
		return err_errno(err, -ENOMEM, "nftables batch");
	if (send(nl->fd, b->data.data, b->data.len, 0) != (ssize_t)b->data.len)
		return err_errno(err, -errno, "nftables: send");
	while (!answers.done) {
		ssize_t n;
		int r = socket_wait(nl->fd, deadline);

		if (r < 0)
			return err_errno(err, r, "nftables");
		n = socket_receive(nl->fd, nl->buffer, sizeof(nl->buffer), 0);
		if (n < 0)
			return err_errno(err, (int)n, "nftables: receive");
		take_answers(&answers, nl->buffer, (size_t)n);
	}
	return answers.code;
}

/* -- rules -------------------------------------------------------------------------- */

void nft_rule_begin(struct nft_rule *rule, const struct nft_table *table, const char *chain)
{
	rule->msg = nft_msg(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table);
	rule->expressions = NULL;
	if (rule->msg && nla_put_string(rule->msg, NFTA_RULE_CHAIN, chain) == 0)
		rule->expressions = nla_nest_start(rule->msg, NFTA_RULE_EXPRESSIONS | NLA_F_NESTED);
	rule->failed = !rule->expressions;
}

struct nl_msg *nft_rule_end(struct nft_rule *rule)
{
	if (!rule->failed) {
		nla_nest_end(rule->msg, rule->expressions);
		return TAKE(rule->msg);
	}
	nlmsg_free(rule->msg);
	rule->msg = NULL;
	return NULL;
}

static void put_u32(struct nft_rule *rule, int type, uint32_t value)
{
	if (!rule->failed && nla_put_u32(rule->msg, type, htonl(value)) < 0)
		rule->failed = true;
}

static struct nlattr *nest(struct nft_rule *rule, int type)
{
	struct nlattr *attr = rule->failed ? NULL : nla_nest_start(rule->msg, type | NLA_F_NESTED);

	if (!attr)
		rule->failed = true;
	return attr;
}

static void unnest(struct nft_rule *rule, struct nlattr *attr)
{
	if (!rule->failed)
		nla_nest_end(rule->msg, attr);
}

static void put_string(struct nft_rule *rule, int type, const char *text)
{
	if (!rule->failed && nla_put_string(rule->msg, type, text) < 0)
		rule->failed = true;
}

static void put_value(struct nft_rule *rule, int type, const void *data, size_t len)
{
	struct nlattr *value = nest(rule, type);

	if (!rule->failed && nla_put(rule->msg, NFTA_DATA_VALUE, (int)len, data) < 0)
		rule->failed = true;
	unnest(rule, value);
}

struct expression {
	struct nlattr *element, *data;
};

static struct expression begin(struct nft_rule *rule, const char *name)
{
	struct expression e;

	e.element = nest(rule, NFTA_LIST_ELEM);
	put_string(rule, NFTA_EXPR_NAME, name);
	e.data = nest(rule, NFTA_EXPR_DATA);
	return e;
}

static void end(struct nft_rule *rule, struct expression e)
{
	unnest(rule, e.data);
	unnest(rule, e.element);
}

static void compare(struct nft_rule *rule, const void *data, size_t len)
{
	struct expression e = begin(rule, "cmp");

	put_u32(rule, NFTA_CMP_SREG, NFT_REG_1);
	put_u32(rule, NFTA_CMP_OP, NFT_CMP_EQ);
	put_value(rule, NFTA_CMP_DATA, data, len);
	end(rule, e);
}

static void load_meta(struct nft_rule *rule, uint32_t key)
{
	struct expression e = begin(rule, "meta");

	put_u32(rule, NFTA_META_DREG, NFT_REG_1);
	put_u32(rule, NFTA_META_KEY, key);
	end(rule, e);
}

static void load_payload(struct nft_rule *rule, uint32_t reg, uint32_t base, uint32_t offset,
			 uint32_t size)
{
	struct expression e = begin(rule, "payload");

	put_u32(rule, NFTA_PAYLOAD_DREG, reg);
	put_u32(rule, NFTA_PAYLOAD_BASE, base);
	put_u32(rule, NFTA_PAYLOAD_OFFSET, offset);
	put_u32(rule, NFTA_PAYLOAD_LEN, size);
	end(rule, e);
}

void nft_expr_family(struct nft_rule *rule, int family)
{
	uint8_t protocol = family == AF_INET ? NFPROTO_IPV4 : NFPROTO_IPV6;

	load_meta(rule, NFT_META_NFPROTO);
	compare(rule, &protocol, sizeof(protocol));
}

/* Offsets of the addresses in the headers: RFC 791 3.1, RFC 8200 3. */
void nft_expr_load_addr(struct nft_rule *rule, int family, bool source)
{
	uint32_t size = family == AF_INET ? 4 : 16, first = family == AF_INET ? 12 : 8;

	load_payload(rule, NFT_REG_1, NFT_PAYLOAD_NETWORK_HEADER, first + (source ? 0 : size),
		     size);
}

void nft_expr_load_input(struct nft_rule *rule)
{
	load_meta(rule, NFT_META_IIFNAME);
}

/* The second address of a frame: IEEE 802.3, 3.1.1. */
void nft_expr_load_source_mac(struct nft_rule *rule)
{
	load_payload(rule, NFT_REG_2, NFT_PAYLOAD_LL_HEADER, 6, 6);
}

void nft_expr_in_prefix(struct nft_rule *rule, const struct prefix *prefix)
{
	static const uint8_t zero[16];
	size_t size = addr_size(&prefix->addr);
	struct expression e;
	uint8_t mask[16] = { 0 };

	for (unsigned bit = 0; bit < prefix->len; bit++)
		mask[bit / 8] = (uint8_t)(mask[bit / 8] | 0x80 >> bit % 8);
	e = begin(rule, "bitwise");
	put_u32(rule, NFTA_BITWISE_SREG, NFT_REG_1);
	put_u32(rule, NFTA_BITWISE_DREG, NFT_REG_1);
	put_u32(rule, NFTA_BITWISE_LEN, (uint32_t)size);
	put_value(rule, NFTA_BITWISE_MASK, mask, size);
	put_value(rule, NFTA_BITWISE_XOR, zero, size);
	end(rule, e);
	compare(rule, prefix->addr.bytes, size);
}

void nft_expr_map(struct nft_rule *rule, const char *map)
{
	struct expression e = begin(rule, "lookup");

	put_string(rule, NFTA_LOOKUP_SET, map);
	put_u32(rule, NFTA_LOOKUP_SREG, NFT_REG_1);
	put_u32(rule, NFTA_LOOKUP_DREG, NFT_REG_VERDICT);
	end(rule, e);
}

void nft_expr_in_set(struct nft_rule *rule, const char *set, bool inverted)
{
	struct expression e = begin(rule, "lookup");

	put_string(rule, NFTA_LOOKUP_SET, set);
	put_u32(rule, NFTA_LOOKUP_SREG, NFT_REG_1);
	if (inverted)
		put_u32(rule, NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
	end(rule, e);
}

void nft_expr_verdict(struct nft_rule *rule, int verdict)
{
	struct expression e = begin(rule, "immediate");
	struct nlattr *data, *inner;

	put_u32(rule, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	data = nest(rule, NFTA_IMMEDIATE_DATA);
	inner = nest(rule, NFTA_DATA_VERDICT);
	put_u32(rule, NFTA_VERDICT_CODE, (uint32_t)verdict);
	unnest(rule, inner);
	unnest(rule, data);
	end(rule, e);
}

void nft_expr_masquerade(struct nft_rule *rule)
{
	end(rule, begin(rule, "masq"));
}

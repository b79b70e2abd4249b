/*
 * guard - keeps packets for virtual addresses out that come by any other way
 * than the tunnels.
 *
 * Linux takes a packet for any of its addresses on any interface (the weak host
 * model, RFC 1122, section 3.3.4.2). So whoever shares a network with this
 * machine could send packets to its virtual addresses, as if from a peer, and
 * learn from what comes back, or does not, which connections there are inside
 * the tunnels (CVE-2019-14899). Reverse path filters do not help: there is none
 * for IPv6, and for IPv4 it is loose by default.
 *
 * One nftables table of ours, with rules for input:
 *
 *   iif != lo, iifname != q2q-*, ip6 daddr in our prefix   drop
 *   iif != lo, iifname != q2q-*, ip daddr ADDRESS          drop, for each own address
 *
 * The table belongs to the netlink socket (Linux 5.12), so that it ends with
 * the monitor, however that ends. An older kernel keeps it: it is replaced at the
 * next start, and hurts nobody meanwhile.
 */
#include "tun/tun.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#define TABLE        "q2q-tun"
#define CHAIN        "virtual"
#define PREFIX       "q2q-"
#define LOOPBACK     1      /* its index, always */
#define PRIORITY     (-300) /* before connection tracking, as "raw" is */
#define BATCH_BYTES  8192
#define ANSWER_BYTES 8192
#ifndef NFT_TABLE_F_OWNER
#define NFT_TABLE_F_OWNER 2
#endif

DEFINE_CLEANUP(struct nl_msg *, nlmsg_free)

struct batch {
	uint8_t bytes[BATCH_BYTES];
	size_t used_bytes;
	uint32_t seq;
	bool failed;
};

/* ---- messages --------------------------------------------------------------------------- */

static struct nl_msg *message_new(struct batch *b, uint16_t type, uint16_t flags, uint8_t family,
				  uint16_t resource)
{
	const struct nfgenmsg head = { .nfgen_family = family, .res_id = htons(resource) };
	struct nl_msg *const m = nlmsg_alloc_size(2048);

	if (!m || !nlmsg_put(m, NL_AUTO_PORT, ++b->seq, type, 0, NLM_F_REQUEST | flags) ||
	    nlmsg_append(m, (void *)(uintptr_t)&head, sizeof(head), NLMSG_ALIGNTO) < 0)
		b->failed = true;
	return m;
}

static void batch_add(struct batch *b, struct nl_msg *message)
{
	_cleanup_(nlmsg_freep) struct nl_msg *m = message;
	const struct nlmsghdr *const header = m ? nlmsg_hdr(m) : NULL;

	if (!m || b->failed || header->nlmsg_len > BATCH_BYTES - b->used_bytes) {
		b->failed = true;
		return;
	}
	memcpy(b->bytes + b->used_bytes, header, header->nlmsg_len);
	b->used_bytes += NLMSG_ALIGN(header->nlmsg_len);
}

static struct nl_msg *nft_message(struct batch *b, uint16_t type, uint16_t flags)
{
	return message_new(b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type), flags, NFPROTO_INET, 0);
}

static void mark(struct batch *b, uint16_t type)
{
	batch_add(b, message_new(b, type, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
}

static void put_u32(struct batch *b, struct nl_msg *m, int type, uint32_t value)
{
	b->failed |= !m || nla_put_u32(m, type, htonl(value)) < 0;
}

static void put_text(struct batch *b, struct nl_msg *m, int type, const char *text)
{
	b->failed |= !m || nla_put_string(m, type, text) < 0;
}

static struct nlattr *nest(struct batch *b, struct nl_msg *m, int type)
{
	struct nlattr *const a = m ? nla_nest_start(m, type | NLA_F_NESTED) : NULL;

	b->failed |= !a;
	return a;
}

static void nest_end(struct nl_msg *m, struct nlattr *a)
{
	if (m && a)
		nla_nest_end(m, a);
}

/* ---- expressions --------------------------------------------------------------------------- */

struct expression {
	struct nlattr *element, *data;
};

static struct expression expression_begin(struct batch *b, struct nl_msg *m, const char *name)
{
	struct expression e;

	e.element = nest(b, m, NFTA_LIST_ELEM);
	put_text(b, m, NFTA_EXPR_NAME, name);
	e.data = nest(b, m, NFTA_EXPR_DATA);
	return e;
}

static void expression_end(struct nl_msg *m, struct expression e)
{
	nest_end(m, e.data);
	nest_end(m, e.element);
}

static void load_meta(struct batch *b, struct nl_msg *m, uint32_t key)
{
	const struct expression e = expression_begin(b, m, "meta");

	put_u32(b, m, NFTA_META_KEY, key);
	put_u32(b, m, NFTA_META_DREG, NFT_REG_1);
	expression_end(m, e);
}

static void load_payload(struct batch *b, struct nl_msg *m, uint32_t offset, uint32_t n_bytes)
{
	const struct expression e = expression_begin(b, m, "payload");

	put_u32(b, m, NFTA_PAYLOAD_DREG, NFT_REG_1);
	put_u32(b, m, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
	put_u32(b, m, NFTA_PAYLOAD_OFFSET, offset);
	put_u32(b, m, NFTA_PAYLOAD_LEN, n_bytes);
	expression_end(m, e);
}

static void compare(struct batch *b, struct nl_msg *m, uint32_t how, const void *with,
		    size_t n_bytes)
{
	const struct expression e = expression_begin(b, m, "cmp");
	struct nlattr *data;

	put_u32(b, m, NFTA_CMP_SREG, NFT_REG_1);
	put_u32(b, m, NFTA_CMP_OP, how);
	data = nest(b, m, NFTA_CMP_DATA);
	b->failed |= !m || nla_put(m, NFTA_DATA_VALUE, (int)n_bytes, with) < 0;
	nest_end(m, data);
	expression_end(m, e);
}

static void count(struct batch *b, struct nl_msg *m)
{
	expression_end(m, expression_begin(b, m, "counter"));
}

static void drop(struct batch *b, struct nl_msg *m)
{
	const struct expression e = expression_begin(b, m, "immediate");
	struct nlattr *data, *verdict;

	put_u32(b, m, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
	data = nest(b, m, NFTA_IMMEDIATE_DATA);
	verdict = nest(b, m, NFTA_DATA_VERDICT);
	put_u32(b, m, NFTA_VERDICT_CODE, NF_DROP);
	nest_end(m, verdict);
	nest_end(m, data);
	expression_end(m, e);
}

/* ---- table, chain, rules --------------------------------------------------------------------- */

static void add_table(struct batch *b, const char *name, uint32_t flags, uint16_t how)
{
	struct nl_msg *const m = nft_message(b, NFT_MSG_NEWTABLE, how);

	put_text(b, m, NFTA_TABLE_NAME, name);
	put_u32(b, m, NFTA_TABLE_FLAGS, flags);
	batch_add(b, m);
}

static void delete_table(struct batch *b, const char *name)
{
	struct nl_msg *const m = nft_message(b, NFT_MSG_DELTABLE, 0);

	put_text(b, m, NFTA_TABLE_NAME, name);
	batch_add(b, m);
}

static void add_chain(struct batch *b, const char *table)
{
	struct nl_msg *const m = nft_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
	struct nlattr *hook;

	put_text(b, m, NFTA_CHAIN_TABLE, table);
	put_text(b, m, NFTA_CHAIN_NAME, CHAIN);
	put_text(b, m, NFTA_CHAIN_TYPE, "filter");
	hook = nest(b, m, NFTA_CHAIN_HOOK);
	put_u32(b, m, NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_IN);
	put_u32(b, m, NFTA_HOOK_PRIORITY, (uint32_t)PRIORITY);
	nest_end(m, hook);
	batch_add(b, m);
}

/* Drops what is for addresses that begin so, unless it comes from a tunnel or this machine. */
static void add_rule(struct batch *b, const char *table, uint8_t family, uint32_t offset,
		     const uint8_t *address, size_t n_bytes)
{
	struct nl_msg *const m = nft_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND);
	const uint32_t loopback = LOOPBACK;
	struct nlattr *list;

	put_text(b, m, NFTA_RULE_TABLE, table);
	put_text(b, m, NFTA_RULE_CHAIN, CHAIN);
	list = nest(b, m, NFTA_RULE_EXPRESSIONS);
	load_meta(b, m, NFT_META_NFPROTO);
	compare(b, m, NFT_CMP_EQ, &family, sizeof(family));
	load_payload(b, m, offset, (uint32_t)n_bytes);
	compare(b, m, NFT_CMP_EQ, address, n_bytes);
	load_meta(b, m, NFT_META_IIF);
	compare(b, m, NFT_CMP_NEQ, &loopback, sizeof(loopback));
	load_meta(b, m, NFT_META_IIFNAME);
	compare(b, m, NFT_CMP_NEQ, PREFIX, strlen(PREFIX));
	count(b, m);
	drop(b, m);
	nest_end(m, list);
	batch_add(b, m);
}

/* ---- the socket -------------------------------------------------------------------------------
 */

/* Reads what the kernel says to the batch: all of it holds, or nothing does. */
static int take_answers(int fd, uint32_t last_seq)
{
	union {
		struct nlmsghdr align;
		uint8_t bytes[ANSWER_BYTES];
	} in;
	int r = -ETIMEDOUT;

	for (;;) {
		const ssize_t n = recv(fd, in.bytes, sizeof(in.bytes), 0);
		int left = (int)n;

		if (n <= 0)
			return n < 0 && errno != EAGAIN ? -errno : r;
		for (const struct nlmsghdr *h = &in.align; nlmsg_ok(h, left);
		     h = nlmsg_next((struct nlmsghdr *)(uintptr_t)h, &left)) {
			const struct nlmsgerr *const said = nlmsg_data(h);

			if (h->nlmsg_type != NLMSG_ERROR ||
			    h->nlmsg_len < NLMSG_LENGTH(sizeof(*said)))
				continue;
			if (said->error < 0)
				return said->error;
			if (h->nlmsg_seq == last_seq)
				r = 0;
		}
		if (r == 0)
			return 0;
	}
}

/* The last message of the batch asks for an answer. */
static int batch_send(struct batch *b, int fd, size_t last_at)
{
	struct nlmsghdr last;

	if (b->failed)
		return -ENOMEM;
	memcpy(&last, b->bytes + last_at, sizeof(last));
	last.nlmsg_flags |= NLM_F_ACK;
	memcpy(b->bytes + last_at, &last, sizeof(last));
	mark(b, NFNL_MSG_BATCH_END);
	if (b->failed)
		return -ENOMEM;
	if (send(fd, b->bytes, b->used_bytes, 0) != (ssize_t)b->used_bytes)
		return -errno;
	return take_answers(fd, last.nlmsg_seq);
}

static int make_table(struct tun_guard *g, uint32_t flags)
{
	static const uint8_t prefix6[] = TUN_IP6_PREFIX;
	struct batch b = { .seq = g->seq };
	size_t last_at;

	mark(&b, NFNL_MSG_BATCH_BEGIN);
	if (!flags) {
		/* One that an earlier run left. */
		add_table(&b, g->table, 0, NLM_F_CREATE);
		delete_table(&b, g->table);
	}
	add_table(&b, g->table, flags, NLM_F_CREATE);
	add_chain(&b, g->table);
	last_at = b.used_bytes;
	add_rule(&b, g->table, NFPROTO_IPV6, 24, prefix6, sizeof(prefix6));
	g->seq = b.seq + 1;
	return batch_send(&b, g->fd, last_at);
}

int tun_guard_open(struct tun_guard *g, uint32_t number)
{
	const struct timeval limit = { .tv_sec = 1 };
	struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int r;

	*g = (struct tun_guard){ .fd = -1 };
	snprintf(g->table, sizeof(g->table), TABLE "-%u", (unsigned)number);
	g->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	if (g->fd < 0 || bind(g->fd, (struct sockaddr *)&any, sizeof(any)) < 0 ||
	    setsockopt(g->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0) {
		r = -errno;
	} else {
		r = make_table(g, NFT_TABLE_F_OWNER);
		if (r == -EINVAL || r == -EOPNOTSUPP) {
			snprintf(g->table, sizeof(g->table), TABLE);
			r = make_table(g, 0);
		}
	}
	g->open = r == 0;
	if (r)
		closep(&g->fd);
	return r;
}

int tun_guard_ip4(struct tun_guard *g, const uint8_t address[static 4])
{
	struct batch b = { .seq = g->seq };
	size_t last_at;
	int r;

	if (!g->open)
		return -EBADF;
	for (unsigned i = 0; i < g->n_known; i++)
		if (memcmp(g->known[i], address, 4) == 0)
			return 0;
	if (g->n_known == ARRAY_SIZE(g->known))
		return -ENOSPC;
	mark(&b, NFNL_MSG_BATCH_BEGIN);
	last_at = b.used_bytes;
	add_rule(&b, g->table, NFPROTO_IPV4, 16, address, 4);
	g->seq = b.seq + 1;
	r = batch_send(&b, g->fd, last_at);
	if (r == 0)
		memcpy(g->known[g->n_known++], address, 4);
	return r;
}

void tun_guard_close(struct tun_guard *g)
{
	if (g->open)
		closep(&g->fd);
	g->open = false;
}

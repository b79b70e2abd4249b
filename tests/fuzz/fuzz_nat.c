/*
 * An agent in the hands of a hostile caller's network: a little program of
 * operations, among them lists and datagrams as they come and datagrams with a
 * right MAC but any content. Checked: bounds, that no refused address is ever
 * sent to, and that an address which never answered gets no more than its budget.
 *
 * Each operation: op u8 | length u8 | bytes.
 */
#include "nat/nat.h"

#define ADDRESSES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static int quick_mac(const void *key, size_t key_bytes, const void *data, size_t n_bytes,
		     uint8_t out[32])
{
	const struct hash_seed seed = { *(const uint8_t *)key, key_bytes };
	const uint64_t hash = hash_bytes(&seed, data, n_bytes);

	for (size_t i = 0; i < 4; i++)
		memcpy(out + 8 * i, &hash, sizeof(hash));
	return 0;
}

enum op { OP_TIME, OP_LIST, OP_RAW, OP_SIGNED, OP_LOCAL, OP_SOCKET, OP_TELL, OP_COUNT };

struct run {
	struct nat_agent *agent;
	uint64_t now_us;
	struct endpoint from;
	bool any_answer; /* something signed went in: an address may have answered */
	struct {
		struct ip_address ip;
		unsigned round, n_sent;
	} sent[ADDRESSES_MAX];
	size_t n_sent;
};

static struct endpoint read_endpoint(struct reader *r)
{
	struct endpoint e = { 0 };

	e.ip.family = reader_u8(r) & 1 ? FAMILY_IPV6 : FAMILY_IPV4;
	e.port = reader_u16(r);
	for (size_t i = 0; i < (e.ip.family == FAMILY_IPV4 ? 4u : 16u); i++)
		e.ip.bytes[i] = reader_u8(r);
	return e;
}

static void count(struct run *run, const struct nat_send *send)
{
	const unsigned round = nat_agent_status(run->agent).round;
	size_t i = 0;

	assert(nat_endpoint_check(&send->to, false, NULL) == 0);
	assert(send->data_bytes == NAT_PROBE_BYTES);
	while (i < run->n_sent && !ip_equal(&run->sent[i].ip, &send->to.ip))
		i++;
	if (i == ADDRESSES_MAX)
		return;
	if (i == run->n_sent) {
		run->sent[i].ip = send->to.ip;
		run->sent[i].n_sent = 0;
		run->sent[i].round = round;
		run->n_sent++;
	}
	if (run->sent[i].round != round) {
		run->sent[i].round = round;
		run->sent[i].n_sent = 0;
	}
	run->sent[i].n_sent++;
	/* What is left of a round before may leave in the first moments of the next. */
	assert(run->any_answer || run->sent[i].n_sent <= 2 * NAT_BUDGET);
}

static void pump(struct run *run)
{
	uint8_t list[NAT_LIST_BYTES_MAX];
	struct nat_send send;
	struct nat_event e;

	nat_agent_tick(run->agent, run->now_us);
	for (int i = 0; i < NAT_EVENTS_MAX && nat_agent_next_event(run->agent, &e); i++)
		if (e.kind == NAT_EVENT_SIGNAL)
			assert(nat_agent_encode(run->agent, list, sizeof(list), run->now_us) > 0);
	for (int i = 0; nat_agent_output(run->agent, &send, run->now_us); i++) {
		assert(i < 1000);
		count(run, &send);
	}
}

static void op_tell(struct run *run, struct reader *r)
{
	switch (reader_u8(r) % 5) {
	case 0:
		nat_agent_gathered(run->agent, run->now_us);
		break;
	case 1:
		nat_agent_restart(run->agent, run->now_us);
		break;
	case 2:
		nat_agent_clear_local(run->agent);
		break;
	case 3:
		nat_agent_set_signal_delay(run->agent, reader_u32(r));
		break;
	default: {
		const uint8_t socket = reader_u8(r);
		const struct endpoint e = read_endpoint(r);

		nat_agent_path_lost(run->agent, socket, &e, run->now_us);
	}
	}
}

/* Content of the fuzzer's choice under the peer's MAC: what a hostile peer can send. */
static void op_signed(struct run *run, struct reader *r, size_t n_bytes)
{
	uint8_t data[NAT_PROBE_BYTES] = { 0 }, key[32], mac[32];
	const uint8_t session[NAT_KEY_BYTES] = { 0 };

	memcpy(data, r->data, min_size(n_bytes, 36));
	data[0] = (uint8_t)(0x80 | (data[0] & 3));
	memcpy(data + 1, nat_agent_local_tag(run->agent), NAT_TAG_BYTES);
	quick_mac(session, sizeof(session), "q2q-tun probe mac v1", 20, key);
	quick_mac(key, sizeof(key), data, 36, mac);
	memcpy(data + 36, mac, 16);
	run->any_answer = true;
	nat_agent_input(run->agent, 0, &run->from, data, sizeof(data), run->now_us);
}

static void op_local(struct run *run, struct reader *r)
{
	struct nat_candidate c = { .kind = (enum nat_candidate_kind)(1 + reader_u8(r) % 5) };

	c.socket = reader_u8(r) % 10;
	c.endpoint = read_endpoint(r);
	c.server = read_endpoint(r);
	if (c.kind == NAT_RELAY)
		c.endpoint = (struct endpoint){ 0 };
	nat_agent_add_local(run->agent, &c, run->now_us);
}

static void op_socket(struct run *run, struct reader *r)
{
	const uint8_t what = reader_u8(r), id = reader_u8(r) % 10;

	if (what & 1)
		nat_agent_add_socket(run->agent, id, what & 2, what & 4, run->now_us);
	else
		nat_agent_remove_socket(run->agent, id, run->now_us);
}

static void run_op(struct run *run, enum op op, const uint8_t *data, size_t n_bytes)
{
	struct reader r = reader_over(data, n_bytes);

	switch (op) {
	case OP_TIME:
		run->now_us += (uint64_t)reader_u16(&r) * 1000;
		run->from = read_endpoint(&r);
		break;
	case OP_LIST:
		nat_agent_input_list(run->agent, data, n_bytes, run->now_us);
		break;
	case OP_RAW:
		nat_agent_input(run->agent, 0, &run->from, data, n_bytes, run->now_us);
		break;
	case OP_SIGNED:
		op_signed(run, &r, n_bytes);
		break;
	case OP_LOCAL:
		op_local(run, &r);
		break;
	case OP_SOCKET:
		op_socket(run, &r);
		break;
	default:
		op_tell(run, &r);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	const struct nat_config config = { .mac = quick_mac };
	struct nat_pair_info pairs[NAT_PAIRS_MAX];
	struct reader r = reader_over(data, data_bytes);
	struct run run = { 0 };

	if (nat_agent_new(&config, 0, &run.agent) < 0)
		return 0;
	nat_agent_add_socket(run.agent, 0, true, true, 0);
	while (!r.failed && r.left_bytes) {
		const uint8_t op = reader_u8(&r);
		const size_t n_bytes = reader_u8(&r);
		const uint8_t *bytes = reader_bytes(&r, n_bytes);

		if (!bytes)
			break;
		run_op(&run, (enum op)(op % OP_COUNT), bytes, n_bytes);
		pump(&run);
	}
	assert(nat_agent_pairs(run.agent, pairs, NAT_PAIRS_MAX) <= NAT_PAIRS_MAX);
	nat_agent_free(run.agent);
	return 0;
}

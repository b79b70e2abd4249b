/*
 * Key phases. Both directions share one count: who receives the next phase
 * follows at once with what it sends. doc/ptcp.md, section 5.3.
 *
 * A failed open leaves garbage behind, so exactly one key is tried per packet:
 *
 *   phase bit is that of rx_phase            rx_phase
 *   else, number below rx_first_pn           rx_phase - 1, a late packet
 *   else                                     rx_phase + 1, the peer has moved on
 */
#include "ptcp/assoc.h"

#define FORGED_MAX (UINT64_C(1) << 36) /* the integrity limit of either AEAD is not near */

static int choose_phase(const struct keys *k, bool phase_bit, uint64_t pn, uint32_t *ret_phase)
{
	if (phase_bit == (k->rx_phase & 1))
		*ret_phase = k->rx_phase;
	else if (pn >= k->rx_first_pn)
		*ret_phase = k->rx_phase + 1;
	else if (k->rx_phase > 0)
		*ret_phase = k->rx_phase - 1;
	else
		return -EBADMSG;
	return 0;
}

/* The peer was heard in a new phase. */
static void advance(struct ptcp_assoc *a, uint32_t phase, uint64_t pn)
{
	struct keys *const k = &a->keys;

	k->rx_phase = phase;
	k->rx_first_pn = pn;
	k->changed_us = a->now_us;
	a->stats.key_updates++;
	if (k->tx_phase != phase) {
		k->tx_phase = phase;
		k->tx_first_pn = a->sent.next_pn;
		k->tx_confirmed = false;
	}
	if (a->config.crypto.next_phase(a->config.crypto.ctx, phase + 1) < 0)
		assoc_fail(a, PTCP_CLOSE_INTERNAL);
}

int keys_open(struct ptcp_assoc *a, bool phase_bit, uint64_t pn, const uint8_t *aad,
	      size_t aad_bytes, uint8_t *data, size_t data_bytes)
{
	struct keys *const k = &a->keys;
	uint32_t phase;
	int r = choose_phase(k, phase_bit, pn, &phase);

	if (r < 0)
		return r;
	r = a->config.crypto.open(a->config.crypto.ctx, PTCP_EPOCH_DATA, phase, pn, aad, aad_bytes,
				  data, data_bytes);
	if (r < 0) {
		if (++k->n_forged >= FORGED_MAX)
			assoc_fail(a, PTCP_CLOSE_KEYS_EXHAUSTED);
		return r;
	}
	if (phase == k->rx_phase)
		k->rx_first_pn = min_u64(k->rx_first_pn, pn);
	else if (phase == k->rx_phase + 1)
		advance(a, phase, pn);
	return 0;
}

static bool due(const struct ptcp_assoc *a)
{
	const struct keys *k = &a->keys;
	const uint64_t pto_us = a->active ? path_pto_us(a->active) : US_PER_S;

	/* One at a time, and old packets have had time to arrive. */
	if (k->tx_phase != k->rx_phase || !k->tx_confirmed ||
	    a->now_us < add_sat_u64(k->changed_us, 3 * pto_us))
		return false;
	return k->wanted || a->sent.next_pn - k->tx_first_pn >= a->config.key_update_packets ||
	       a->now_us >= add_sat_u64(k->changed_us, a->config.key_update_us);
}

void keys_before_seal(struct ptcp_assoc *a)
{
	struct keys *const k = &a->keys;

	if (a->sent.next_pn >= PACKET_PN_MAX) {
		assoc_fail(a, PTCP_CLOSE_KEYS_EXHAUSTED);
		return;
	}
	if (!due(a))
		return;
	k->tx_phase++;
	k->tx_first_pn = a->sent.next_pn;
	k->tx_confirmed = false;
	k->wanted = false;
	k->changed_us = a->now_us;
}

void keys_acked(struct ptcp_assoc *a, uint64_t pn)
{
	if (pn >= a->keys.tx_first_pn)
		a->keys.tx_confirmed = true;
}

int ptcp_assoc_update_keys(struct ptcp_assoc *a)
{
	if (a->state != PTCP_ESTABLISHED)
		return -ENOTCONN;
	a->keys.wanted = true;
	return 0;
}

/*
 * portmap - ask the gateway for a port that leads to ours: PCP (RFC 6887), and
 * where the gateway does not speak it, NAT-PMP (RFC 6886). Both are answered on
 * the same port, and a gateway that knows only the older one says so.
 *
 *	IDLE -> ASKING -- success --> MAPPED -- half of its life --> ASKING (a renewal)
 *	          |  ^                                                  |
 *	          |  +--- NAT-PMP, after PCP was refused or not heard   | no answer until its end
 *	          +---------> NONE <------------------------------------+
 */
#include "nat/internal.h"

#define PCP_VERSION        2
#define PCP_MAP            1
#define PCP_BYTES          60
#define PMP_VERSION        0
#define PMP_ADDRESS        0
#define PMP_MAP_UDP        1
#define ANSWER_BIT         0x80
#define RESULT_BAD_VERSION 1
#define PROTOCOL_UDP       17
#define LIFETIME_S         3600
#define LIFETIME_S_MIN     60 /* shorter ones are renewed no faster than as if they were this long */
#define LIFETIME_S_MAX     86400
#define TRIES              4
#define FIRST_WAIT_US      (250 * US_PER_MS) /* then doubling */
#define NONE_WAIT_US       (600 * US_PER_S)  /* before a gateway that said no is asked again */

static const uint8_t ipv4_mapped[12] = { [10] = 0xff, [11] = 0xff };

void nat_portmap_start(struct nat_portmap *m, const struct ip_address *local, uint16_t port,
		       const uint8_t nonce[static NAT_PORTMAP_NONCE_BYTES], uint64_t now_us)
{
	*m = (struct nat_portmap){ .state = NAT_PORTMAP_ASKING,
				   .local = *local,
				   .port = port,
				   .due_us = now_us,
				   .expires_us = NEVER_US,
				   .pcp = true };
	memcpy(m->nonce, nonce, sizeof(m->nonce));
}

/* ---- requests ------------------------------------------------------------------------- */

static void write_address(struct writer *w, const struct ip_address *ip)
{
	writer_bytes(w, ipv4_mapped, sizeof(ipv4_mapped));
	writer_bytes(w, ip->bytes, 4);
}

/* RFC 6887, sections 7.1 and 11.1. */
static void write_pcp(struct writer *w, const struct nat_portmap *m, uint32_t lifetime_s)
{
	static const uint8_t zero[3];

	writer_u8(w, PCP_VERSION);
	writer_u8(w, PCP_MAP);
	writer_u16(w, 0);
	writer_u32(w, lifetime_s);
	write_address(w, &m->local);
	writer_bytes(w, m->nonce, sizeof(m->nonce));
	writer_u8(w, PROTOCOL_UDP);
	writer_bytes(w, zero, sizeof(zero));
	writer_u16(w, m->port);
	writer_u16(w, lifetime_s && m->external.port ? m->external.port : m->port);
	write_address(w, &m->external.ip); /* zeros at first: any */
}

/* RFC 6886, sections 3.2 and 3.3. */
static void write_pmp(struct writer *w, const struct nat_portmap *m, uint32_t lifetime_s)
{
	const bool address = lifetime_s && m->external.ip.family == FAMILY_NONE;

	writer_u8(w, PMP_VERSION);
	writer_u8(w, address ? PMP_ADDRESS : PMP_MAP_UDP);
	if (address)
		return;
	writer_u16(w, 0);
	writer_u16(w, m->port);
	/* Deleting wants 0 here. */
	writer_u16(w, !lifetime_s ? 0 : m->external.port ? m->external.port : m->port);
	writer_u32(w, lifetime_s);
}

static size_t write_request(const struct nat_portmap *m, uint32_t lifetime_s,
			    uint8_t out[static NAT_PORTMAP_BYTES_MAX])
{
	struct writer w = writer_over(out, NAT_PORTMAP_BYTES_MAX);

	if (m->pcp)
		write_pcp(&w, m, lifetime_s);
	else
		write_pmp(&w, m, lifetime_s);
	return w.failed ? 0 : w.used_bytes;
}

size_t nat_portmap_output(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX],
			  uint64_t now_us)
{
	if (m->state != NAT_PORTMAP_ASKING || now_us < m->due_us || m->n_sent == TRIES)
		return 0;
	m->due_us = now_us + (FIRST_WAIT_US << m->n_sent++);
	return write_request(m, LIFETIME_S, out);
}

size_t nat_portmap_release(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX])
{
	const bool mapped = m->external.port != 0 && m->expires_us != NEVER_US;

	m->state = NAT_PORTMAP_IDLE;
	return mapped ? write_request(m, 0, out) : 0;
}

/* ---- what becomes of it ------------------------------------------------------------------ */

static void ask(struct nat_portmap *m, bool pcp, uint64_t now_us)
{
	m->state = NAT_PORTMAP_ASKING;
	m->pcp = pcp;
	m->n_sent = 0;
	m->due_us = now_us;
}

static void give_up(struct nat_portmap *m, const char *because, uint64_t now_us)
{
	m->state = NAT_PORTMAP_NONE;
	m->reason = because;
	m->external = (struct endpoint){ 0 };
	m->expires_us = NEVER_US;
	m->due_us = now_us + NONE_WAIT_US;
}

static void mapped(struct nat_portmap *m, uint32_t lifetime_s, uint64_t now_us)
{
	const uint64_t life_s = lifetime_s < LIFETIME_S_MIN   ? LIFETIME_S_MIN
				: lifetime_s > LIFETIME_S_MAX ? LIFETIME_S_MAX
							      : lifetime_s;

	m->state = NAT_PORTMAP_MAPPED;
	m->reason = NULL;
	m->expires_us = now_us + life_s * US_PER_S;
	m->due_us = now_us + life_s * US_PER_S / 2;
}

uint64_t nat_portmap_deadline_us(const struct nat_portmap *m)
{
	return m->state == NAT_PORTMAP_IDLE ? NEVER_US : m->due_us;
}

void nat_portmap_tick(struct nat_portmap *m, uint64_t now_us)
{
	if (m->state == NAT_PORTMAP_IDLE || now_us < m->due_us)
		return;
	if (m->state == NAT_PORTMAP_MAPPED)
		ask(m, m->pcp, now_us);
	else if (m->state == NAT_PORTMAP_NONE)
		ask(m, true, now_us);
	else if (m->n_sent < TRIES)
		return; /* output sends it */
	else if (m->expires_us != NEVER_US && now_us < m->expires_us)
		ask(m, m->pcp, now_us); /* a renewal that was not heard: the old one still holds */
	else if (m->pcp)
		ask(m, false, now_us);
	else
		give_up(m, "the gateway does not answer", now_us);
}

/* ---- answers ------------------------------------------------------------------------------ */

static int take_pcp(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	struct ip_address ip = { .family = FAMILY_IPV4 };
	uint8_t nonce[NAT_PORTMAP_NONCE_BYTES], prefix[12], protocol, result;
	uint16_t internal, external;
	uint32_t lifetime_s;

	reader_bytes(&r, 3);
	result = reader_u8(&r);
	lifetime_s = reader_u32(&r);
	reader_bytes(&r, 16); /* epoch, reserved */
	reader_copy(&r, nonce, sizeof(nonce));
	protocol = reader_u8(&r);
	reader_bytes(&r, 3);
	internal = reader_u16(&r);
	external = reader_u16(&r);
	reader_copy(&r, prefix, sizeof(prefix));
	reader_copy(&r, ip.bytes, 4);
	if (r.failed)
		return -EBADMSG;
	if (memcmp(nonce, m->nonce, sizeof(nonce)) != 0 || protocol != PROTOCOL_UDP ||
	    internal != m->port)
		return -EBADMSG;
	if (result != 0) {
		give_up(m, "the gateway refuses to map ports", now_us);
		return 0;
	}
	if (memcmp(prefix, ipv4_mapped, sizeof(prefix)) != 0 || external == 0 || lifetime_s == 0)
		return -EBADMSG;
	m->external = (struct endpoint){ .ip = ip, .port = external };
	mapped(m, lifetime_s, now_us);
	return 0;
}

static int take_pmp_address(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	struct ip_address ip = { .family = FAMILY_IPV4 };

	reader_bytes(&r, 4); /* epoch */
	reader_copy(&r, ip.bytes, 4);
	if (reader_finish(&r) < 0 || m->external.ip.family != FAMILY_NONE)
		return -EBADMSG;
	m->external.ip = ip;
	ask(m, false, now_us);
	return 0;
}

static int take_pmp_map(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	uint16_t internal, external;
	uint32_t lifetime_s;

	reader_bytes(&r, 4); /* epoch */
	internal = reader_u16(&r);
	external = reader_u16(&r);
	lifetime_s = reader_u32(&r);
	if (reader_finish(&r) < 0 || internal != m->port || external == 0 || lifetime_s == 0 ||
	    m->external.ip.family == FAMILY_NONE)
		return -EBADMSG;
	m->external.port = external;
	mapped(m, lifetime_s, now_us);
	return 0;
}

static int take_pmp(struct nat_portmap *m, uint8_t opcode, struct reader r, uint64_t now_us)
{
	uint16_t result;

	reader_bytes(&r, 2);
	result = reader_u16(&r);
	if (r.failed)
		return -EBADMSG;
	if (result != 0) {
		give_up(m, "the gateway refuses to map ports", now_us);
		return 0;
	}
	if (opcode == (ANSWER_BIT | PMP_ADDRESS))
		return take_pmp_address(m, r, now_us);
	return opcode == (ANSWER_BIT | PMP_MAP_UDP) ? take_pmp_map(m, r, now_us) : -EBADMSG;
}

int nat_portmap_input(struct nat_portmap *m, const uint8_t *data, size_t data_bytes,
		      uint64_t now_us)
{
	struct reader r = reader_over(data, data_bytes), peek = r;
	const uint8_t version = reader_u8(&peek), opcode = reader_u8(&peek);

	reader_u8(&peek);
	if (m->state != NAT_PORTMAP_ASKING || m->n_sent == 0 || data_bytes < 4)
		return -EBADMSG;
	if (!m->pcp)
		return version == PMP_VERSION ? take_pmp(m, opcode, r, now_us) : -EBADMSG;
	/* RFC 6887, section 9: an older gateway answers in its own version, a newer one names it.
	 */
	if (version == PMP_VERSION || reader_u8(&peek) == RESULT_BAD_VERSION) {
		ask(m, false, now_us);
		return 0;
	}
	if (version != PCP_VERSION || opcode != (ANSWER_BIT | PCP_MAP) || data_bytes < PCP_BYTES)
		return -EBADMSG;
	return take_pcp(m, r, now_us);
}

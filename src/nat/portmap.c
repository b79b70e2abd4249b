/*
 * portmap - ask the gateway for a port that leads to ours: by PCP (RFC 6887), where
 * that does not work by NAT-PMP (RFC 6886), and at last by UPnP. The first two are
 * answered on the same port, and a gateway that knows only the older one says so;
 * the third is a conversation that another process holds for us.
 *
 *	IDLE -> ASKING -- success --> MAPPED -- half of its life --> ASKING (a renewal)
 *	          |  ^                  ^                               |
 *	          |  +--- the next      +-- not heard: again after -----+
 *	          |       method            half of what is left        |
 *	          +---------> NONE <------------ the end of its life ---+
 *
 * A gateway that restarts forgets its mappings. It is found out by its clock, which every
 * answer and every announcement of its carries (RFC 6887, section 8.5).
 */
#include "nat/internal.h"

#define PCP_VERSION        2
#define PCP_ANNOUNCE       0
#define PCP_MAP            1
#define PCP_BYTES          60
#define PCP_HEADER_BYTES   24
#define PMP_VERSION        0
#define PMP_ADDRESS        0
#define PMP_MAP_UDP        1
#define ANSWER_BIT         0x80
#define RESULT_BAD_VERSION 1
#define PROTOCOL_UDP       17
#define TRIES              4
#define FIRST_WAIT_US      (250 * US_PER_MS) /* then doubling */
#define RENEW_WAIT_US_MIN  (4 * US_PER_S)    /* RFC 6887, section 11.2.1 */
#define NONE_WAIT_US       (600 * US_PER_S)  /* before a gateway that said no is asked again */
#define VAIN_MAX           3 /* the wait doubles no more; a mapping without an end is not believed */
#define IGD_WAIT_US        (60 * US_PER_S) /* whoever asks it has given up long before */
#define ANNOUNCE_WAIT_US   (10 * US_PER_S) /* announcements are heard no more often than that */
#define ANNOUNCE_DELAY_MS  2000            /* at most, so that not everybody renews at once */

static const uint8_t ipv4_mapped[12] = { [10] = 0xff, [11] = 0xff };

const char *nat_portmap_method_name(enum nat_portmap_method method)
{
	static const char *const names[] = {
		[NAT_PORTMAP_PCP] = "PCP",
		[NAT_PORTMAP_PMP] = "NAT-PMP",
		[NAT_PORTMAP_IGD] = "UPnP",
	};
	static_assert(ARRAY_SIZE(names) == NAT_PORTMAP_METHOD_COUNT, "a name for each method");

	return names[method];
}

static void ask(struct nat_portmap *m, enum nat_portmap_method method, uint64_t now_us)
{
	m->state = NAT_PORTMAP_ASKING;
	m->method = method;
	m->n_sent = 0;
	m->has_address = false; /* it may have changed */
	m->igd_waits = method == NAT_PORTMAP_IGD;
	m->due_us = now_us;
}

void nat_portmap_start(struct nat_portmap *m, const struct nat_portmap_config *config,
		       uint64_t now_us)
{
	*m = (struct nat_portmap){ .config = *config, .expires_us = NEVER_US };
	/* Not those of the conversations before this start. */
	memcpy(&m->igd_id, config->nonce, sizeof(m->igd_id));
	ask(m, NAT_PORTMAP_PCP, now_us);
}

/* ---- requests ------------------------------------------------------------------------- */

static bool is_mapped(const struct nat_portmap *m)
{
	return m->external.port != 0 && m->external.ip.family != FAMILY_NONE;
}

static uint16_t wished_port(const struct nat_portmap *m)
{
	return m->external.port ? m->external.port : m->config.port;
}

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
	write_address(w, &m->config.local);
	writer_bytes(w, m->config.nonce, sizeof(m->config.nonce));
	writer_u8(w, PROTOCOL_UDP);
	writer_bytes(w, zero, sizeof(zero));
	writer_u16(w, m->config.port);
	writer_u16(w, lifetime_s ? wished_port(m) : m->config.port);
	write_address(w, &m->external.ip); /* zeros at first: any */
}

/* RFC 6886, sections 3.2 and 3.3. */
static void write_pmp(struct writer *w, const struct nat_portmap *m, uint32_t lifetime_s)
{
	const bool address = lifetime_s && !m->has_address;

	writer_u8(w, PMP_VERSION);
	writer_u8(w, address ? PMP_ADDRESS : PMP_MAP_UDP);
	if (address)
		return;
	writer_u16(w, 0);
	writer_u16(w, m->config.port);
	writer_u16(w, lifetime_s ? wished_port(m) : 0); /* deleting wants 0 here */
	writer_u32(w, lifetime_s);
}

static size_t write_request(const struct nat_portmap *m, uint32_t lifetime_s,
			    uint8_t out[static NAT_PORTMAP_BYTES_MAX])
{
	struct writer w = writer_over(out, NAT_PORTMAP_BYTES_MAX);

	if (m->method == NAT_PORTMAP_PCP)
		write_pcp(&w, m, lifetime_s);
	else
		write_pmp(&w, m, lifetime_s);
	return w.failed ? 0 : w.used_bytes;
}

size_t nat_portmap_output(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX],
			  uint64_t now_us)
{
	if (m->state != NAT_PORTMAP_ASKING || m->method == NAT_PORTMAP_IGD || now_us < m->due_us ||
	    m->n_sent == TRIES)
		return 0;
	m->due_us = now_us + (FIRST_WAIT_US << m->n_sent++);
	return write_request(m, m->config.lifetime_s, out);
}

size_t nat_portmap_release(struct nat_portmap *m, uint8_t out[static NAT_PORTMAP_BYTES_MAX])
{
	/* Asked for, and the answer may be on its way. */
	const bool asked = m->state == NAT_PORTMAP_ASKING && m->n_sent > 0;
	const bool mapped = m->state != NAT_PORTMAP_IDLE && is_mapped(m);

	m->state = NAT_PORTMAP_IDLE;
	return (mapped || asked) && m->method != NAT_PORTMAP_IGD ? write_request(m, 0, out) : 0;
}

static void fill_igd(const struct nat_portmap *m, enum nat_igd_op op,
		     struct nat_igd_request *ret_request)
{
	*ret_request = (struct nat_igd_request){ .magic = NAT_IGD_REQUEST_MAGIC,
						 .id = m->igd_id,
						 .op = op,
						 .lifetime_s = m->config.lifetime_s,
						 .port = m->config.port,
						 .external_port = wished_port(m) };
	memcpy(ret_request->gateway, m->config.gateway.bytes, sizeof(ret_request->gateway));
	memcpy(ret_request->local, m->config.local.bytes, sizeof(ret_request->local));
}

bool nat_portmap_igd_output(struct nat_portmap *m, struct nat_igd_request *ret_request,
			    uint64_t now_us)
{
	if (m->state != NAT_PORTMAP_ASKING || !m->igd_waits)
		return false;
	m->igd_waits = false;
	m->igd_id++;
	m->n_sent = TRIES; /* it repeats by itself what must be repeated */
	m->due_us = now_us + IGD_WAIT_US;
	fill_igd(m, NAT_IGD_MAP, ret_request);
	return true;
}

bool nat_portmap_igd_release(struct nat_portmap *m, struct nat_igd_request *ret_request)
{
	/* Also one that was asked for and not answered yet: it may be there. */
	if (m->state == NAT_PORTMAP_IDLE || m->method != NAT_PORTMAP_IGD || m->igd_waits ||
	    (m->state != NAT_PORTMAP_ASKING && !is_mapped(m)))
		return false;
	m->igd_id++;
	fill_igd(m, NAT_IGD_UNMAP, ret_request);
	return true;
}

/* ---- what becomes of it ------------------------------------------------------------------ */

static void give_up(struct nat_portmap *m, const char *because, uint64_t now_us)
{
	m->state = NAT_PORTMAP_NONE;
	m->reason = because;
	m->external = (struct endpoint){ 0 };
	m->expires_us = NEVER_US;
	m->due_us = now_us + (NONE_WAIT_US << m->n_vain);
	if (m->n_vain < VAIN_MAX)
		m->n_vain++;
}

static const char *why_nothing(const struct nat_portmap *m)
{
	if (m->refused)
		return "the gateway refuses to map ports";
	return m->config.igd ? "the gateway answers neither PCP nor NAT-PMP nor UPnP"
			     : "the gateway answers neither PCP nor NAT-PMP";
}

static void try_next(struct nat_portmap *m, uint64_t now_us)
{
	m->external = (struct endpoint){ 0 };
	m->expires_us = NEVER_US;
	if (m->method == NAT_PORTMAP_PCP)
		ask(m, NAT_PORTMAP_PMP, now_us);
	else if (m->method == NAT_PORTMAP_PMP && m->config.igd)
		ask(m, NAT_PORTMAP_IGD, now_us);
	else
		give_up(m, why_nothing(m), now_us);
}

static void refuse(struct nat_portmap *m, uint64_t now_us)
{
	m->refused = true;
	try_next(m, now_us);
}

/* When what we have ends; one without an end is believed in for some vain questions. */
static bool still_holds(struct nat_portmap *m, uint64_t now_us, uint64_t *ret_left_us)
{
	if (!is_mapped(m))
		return false;
	*ret_left_us = NONE_WAIT_US;
	if (m->expires_us == NEVER_US)
		return m->n_vain++ < VAIN_MAX;
	*ret_left_us = m->expires_us - min_u64(now_us, m->expires_us);
	return *ret_left_us > 0;
}

/* Nobody answered. What we have holds until its end; then everything begins anew. */
static void unheard(struct nat_portmap *m, uint64_t now_us)
{
	uint64_t left_us;

	if (still_holds(m, now_us, &left_us)) {
		m->state = NAT_PORTMAP_MAPPED;
		m->due_us = now_us + max_u64(left_us / 2, RENEW_WAIT_US_MIN);
	} else if (is_mapped(m)) {
		m->external = (struct endpoint){ 0 };
		m->expires_us = NEVER_US;
		m->n_vain = 0;
		ask(m, NAT_PORTMAP_PCP, now_us);
	} else {
		try_next(m, now_us);
	}
}

/* lifetime_s 0: for ever; it is renewed all the same, for a gateway may lose it. */
static void mapped(struct nat_portmap *m, uint32_t lifetime_s, uint64_t now_us)
{
	uint64_t life_s = lifetime_s ? lifetime_s : m->config.lifetime_s;

	life_s = max_u64(life_s, NAT_PORTMAP_LIFETIME_S_MIN / 2);
	life_s = min_u64(life_s, NAT_PORTMAP_LIFETIME_S_MAX);
	m->state = NAT_PORTMAP_MAPPED;
	m->reason = NULL;
	m->refused = false;
	m->n_vain = 0;
	m->expires_us = lifetime_s ? now_us + life_s * US_PER_S : NEVER_US;
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
	if (m->state == NAT_PORTMAP_MAPPED) {
		ask(m, m->method, now_us);
	} else if (m->state == NAT_PORTMAP_NONE) {
		m->refused = false;
		ask(m, NAT_PORTMAP_PCP, now_us);
	} else if (m->n_sent == TRIES) {
		unheard(m, now_us);
	} /* else output sends it */
}

void nat_portmap_renew(struct nat_portmap *m, uint64_t now_us)
{
	m->n_vain = 0;
	if (m->state == NAT_PORTMAP_MAPPED || m->state == NAT_PORTMAP_NONE)
		m->due_us = now_us;
}

/* ---- the gateway's clock ------------------------------------------------------------------- */

/* RFC 6887, section 8.5: whether it went on as ours did. False: it began anew. */
static bool epoch_goes_on(const struct nat_portmap *m, uint32_t epoch_s, uint64_t now_us)
{
	const uint64_t client_s = (now_us - m->epoch_at_us) / US_PER_S;
	const uint64_t server_s = epoch_s > m->epoch_s ? epoch_s - m->epoch_s : 0;

	if ((uint64_t)epoch_s + 1 < m->epoch_s)
		return false;
	return client_s + 2 >= server_s - server_s / 16 && server_s + 2 >= client_s - client_s / 16;
}

/* False: the gateway has restarted since it was heard last. */
static bool note_epoch(struct nat_portmap *m, uint32_t epoch_s, uint64_t now_us)
{
	const bool goes_on = !m->has_epoch || epoch_goes_on(m, epoch_s, now_us);

	m->has_epoch = true;
	m->epoch_s = epoch_s;
	m->epoch_at_us = now_us;
	m->n_restarts += !goes_on;
	return goes_on;
}

int nat_portmap_announced(struct nat_portmap *m, const uint8_t *data, size_t data_bytes,
			  uint64_t now_us)
{
	struct reader r = reader_over(data, data_bytes);
	const uint8_t version = reader_u8(&r), opcode = reader_u8(&r);
	const uint16_t result = reader_u16(&r);
	uint64_t delay_us;
	uint32_t epoch_s;

	if (version == PCP_VERSION)
		reader_u32(&r); /* lifetime */
	epoch_s = reader_u32(&r);
	/* RFC 6887, section 14.1; RFC 6886, section 3.2.1. */
	if (r.failed || result != 0 ||
	    (version == PCP_VERSION
		     ? opcode != (ANSWER_BIT | PCP_ANNOUNCE) || data_bytes < PCP_HEADER_BYTES
		     : version != PMP_VERSION || opcode != (ANSWER_BIT | PMP_ADDRESS)))
		return -EBADMSG;
	if (m->state != NAT_PORTMAP_MAPPED && m->state != NAT_PORTMAP_NONE)
		return 0;
	if (m->announced_us && now_us - m->announced_us < ANNOUNCE_WAIT_US)
		return 0;
	if (m->state == NAT_PORTMAP_MAPPED && note_epoch(m, epoch_s, now_us))
		return 0;
	m->announced_us = now_us;
	delay_us = (m->config.nonce[0] * 256u + m->config.nonce[1]) % ANNOUNCE_DELAY_MS * US_PER_MS;
	m->due_us = min_u64(m->due_us, now_us + delay_us);
	return 0;
}

/* ---- answers ------------------------------------------------------------------------------ */

static int take_pcp(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	struct ip_address ip = { .family = FAMILY_IPV4 };
	uint8_t nonce[NAT_PORTMAP_NONCE_BYTES], prefix[12], protocol, result;
	uint16_t internal, external;
	uint32_t lifetime_s, epoch_s;

	reader_bytes(&r, 3);
	result = reader_u8(&r);
	lifetime_s = reader_u32(&r);
	epoch_s = reader_u32(&r);
	reader_bytes(&r, 12); /* reserved */
	reader_copy(&r, nonce, sizeof(nonce));
	protocol = reader_u8(&r);
	reader_bytes(&r, 3);
	internal = reader_u16(&r);
	external = reader_u16(&r);
	reader_copy(&r, prefix, sizeof(prefix));
	reader_copy(&r, ip.bytes, 4);
	if (r.failed)
		return -EBADMSG;
	if (memcmp(nonce, m->config.nonce, sizeof(nonce)) != 0 || protocol != PROTOCOL_UDP ||
	    internal != m->config.port)
		return -EBADMSG;
	if (result != 0) {
		refuse(m, now_us);
		return 0;
	}
	if (memcmp(prefix, ipv4_mapped, sizeof(prefix)) != 0 || external == 0 || lifetime_s == 0)
		return -EBADMSG;
	note_epoch(m, epoch_s, now_us);
	m->external = (struct endpoint){ .ip = ip, .port = external };
	mapped(m, lifetime_s, now_us);
	return 0;
}

static int take_pmp_address(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	struct ip_address ip = { .family = FAMILY_IPV4 };

	reader_bytes(&r, 4); /* epoch: the answer that follows has it too */
	reader_copy(&r, ip.bytes, 4);
	if (reader_finish(&r) < 0 || m->has_address)
		return -EBADMSG;
	ask(m, NAT_PORTMAP_PMP, now_us);
	m->external.ip = ip;
	m->has_address = true;
	return 0;
}

static int take_pmp_map(struct nat_portmap *m, struct reader r, uint64_t now_us)
{
	uint16_t internal, external;
	uint32_t lifetime_s, epoch_s;

	epoch_s = reader_u32(&r);
	internal = reader_u16(&r);
	external = reader_u16(&r);
	lifetime_s = reader_u32(&r);
	if (reader_finish(&r) < 0 || internal != m->config.port || external == 0 ||
	    lifetime_s == 0 || !m->has_address)
		return -EBADMSG;
	note_epoch(m, epoch_s, now_us);
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
		refuse(m, now_us);
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
	if (m->state != NAT_PORTMAP_ASKING || m->n_sent == 0 || m->method == NAT_PORTMAP_IGD ||
	    data_bytes < 4)
		return -EBADMSG;
	if (m->method == NAT_PORTMAP_PMP)
		return version == PMP_VERSION ? take_pmp(m, opcode, r, now_us) : -EBADMSG;
	/* RFC 6887, section 9: an older gateway answers in its own version, a newer one names it.
	 */
	if (version == PMP_VERSION || reader_u8(&peek) == RESULT_BAD_VERSION) {
		ask(m, NAT_PORTMAP_PMP, now_us);
		return 0;
	}
	if (version != PCP_VERSION || opcode != (ANSWER_BIT | PCP_MAP) || data_bytes < PCP_BYTES)
		return -EBADMSG;
	return take_pcp(m, r, now_us);
}

static int take_igd_mapping(struct nat_portmap *m, const struct nat_igd_answer *answer,
			    uint64_t now_us)
{
	if (answer->external_port == 0)
		return -EBADMSG;
	m->external = (struct endpoint){ .ip.family = FAMILY_IPV4, .port = answer->external_port };
	memcpy(m->external.ip.bytes, answer->external, sizeof(answer->external));
	mapped(m, answer->lifetime_s, now_us);
	return 0;
}

int nat_portmap_igd_input(struct nat_portmap *m, const struct nat_igd_answer *answer,
			  uint64_t now_us)
{
	if (answer->magic != NAT_IGD_ANSWER_MAGIC || answer->id != m->igd_id ||
	    m->state != NAT_PORTMAP_ASKING || m->method != NAT_PORTMAP_IGD || m->igd_waits)
		return -EBADMSG;
	switch (answer->result) {
	case NAT_IGD_DONE:
		return take_igd_mapping(m, answer, now_us);
	case NAT_IGD_SILENT:
		unheard(m, now_us);
		return 0;
	case NAT_IGD_REFUSED:
		refuse(m, now_us);
		return 0;
	case NAT_IGD_HIDDEN:
		give_up(m, "the gateway is behind a NAT itself", now_us);
		return 0;
	case NAT_IGD_BROKEN:
		if (is_mapped(m))
			unheard(m, now_us);
		else
			give_up(m, "the gateway's UPnP makes no sense", now_us);
		return 0;
	default:
		return -EBADMSG;
	}
}

/*
 * What a LAN may say when a gateway is searched for, and the client of PCP, NAT-PMP and UPnP in
 * the hands of a gateway. Checked: no description is asked for but at the gateway itself; what
 * is sent stays bounded, whatever is answered; what is told as our port is one.
 *
 * First byte even: an answer to a search. Odd: operations, op u8 | length u8 | bytes.
 */
#include "upnp/upnp.h"

#define SENDS_MAX 64 /* per minute: four for each of two methods, some for renewals */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static const struct ip_address gateway = { .family = FAMILY_IPV4, .bytes = { 192, 168, 1, 1 } };

static void search(const uint8_t *data, size_t data_bytes)
{
	char url[UPNP_URL_BYTES];
	const char *after;

	if (upnp_search_answer(data, data_bytes, &gateway, url) < 0)
		return;
	assert(strlen(url) < sizeof(url) && strncmp(url, "http://192.168.1.1", 18) == 0);
	after = url + 18;
	assert(*after == '\0' || *after == '/' || *after == ':');
	assert(*after != ':' || !memchr(after, '@', strcspn(after, "/")));
}

struct run {
	struct nat_portmap client;
	uint64_t now_us, minute;
	unsigned n_sent;
};

static void pump(struct run *run)
{
	uint8_t out[NAT_PORTMAP_BYTES_MAX];
	struct nat_igd_request request;

	nat_portmap_tick(&run->client, run->now_us);
	if (run->minute != run->now_us / (60 * US_PER_S)) {
		run->minute = run->now_us / (60 * US_PER_S);
		run->n_sent = 0;
	}
	for (int i = 0; nat_portmap_output(&run->client, out, run->now_us) > 0; i++) {
		assert(i < 1);
		run->n_sent++;
	}
	if (nat_portmap_igd_output(&run->client, &request, run->now_us)) {
		assert(request.magic == NAT_IGD_REQUEST_MAGIC && request.port == 40000);
		run->n_sent++;
	}
	assert(run->n_sent <= SENDS_MAX);
	assert(run->client.state != NAT_PORTMAP_MAPPED ||
	       (run->client.external.port && run->client.external.ip.family == FAMILY_IPV4));
	assert(run->client.state != NAT_PORTMAP_NONE ||
	       (run->client.reason && !run->client.external.port));
	assert(run->client.state == NAT_PORTMAP_IDLE ||
	       nat_portmap_deadline_us(&run->client) != NEVER_US);
}

static void operate(struct run *run, uint8_t op, const uint8_t *data, size_t n_bytes)
{
	struct nat_igd_answer answer = { 0 };
	struct reader r = reader_over(data, n_bytes);

	switch (op % 5) {
	case 0:
		/* In steps: deadlines that pass are acted upon. */
		for (unsigned n = reader_u16(&r) / 100; n > 0; n--) {
			run->now_us += 100 * US_PER_MS;
			pump(run);
		}
		return;
	case 1:
		nat_portmap_input(&run->client, data, n_bytes, run->now_us);
		break;
	case 2:
		nat_portmap_announced(&run->client, data, n_bytes, run->now_us);
		break;
	case 3:
		memcpy(&answer, data, min_size(n_bytes, sizeof(answer)));
		answer.magic = NAT_IGD_ANSWER_MAGIC;
		answer.id = run->client.igd_id;
		nat_portmap_igd_input(&run->client, &answer, run->now_us);
		break;
	default:
		/* What a network change costs is bounded by how often there is one. */
		run->n_sent = 0;
		nat_portmap_renew(&run->client, run->now_us);
	}
	pump(run);
}

static void converse(const uint8_t *data, size_t data_bytes)
{
	const struct nat_portmap_config config = { .gateway = gateway,
						   .local = { .family = FAMILY_IPV4,
							      .bytes = { 192, 168, 1, 2 } },
						   .port = 40000,
						   .lifetime_s = NAT_PORTMAP_LIFETIME_S,
						   .igd = true };
	struct reader r = reader_over(data, data_bytes);
	struct run run = { 0 };

	nat_portmap_start(&run.client, &config, 0);
	pump(&run);
	while (!r.failed && r.left_bytes) {
		const uint8_t op = reader_u8(&r);
		const size_t n_bytes = reader_u8(&r);
		const uint8_t *bytes = reader_bytes(&r, n_bytes);

		if (!bytes)
			break;
		operate(&run, op, bytes, n_bytes);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	if (data_bytes == 0)
		return 0;
	if (data[0] & 1)
		converse(data + 1, data_bytes - 1);
	else
		search(data + 1, data_bytes - 1);
	return 0;
}

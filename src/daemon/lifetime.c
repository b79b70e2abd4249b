/*
 * How far apart keepalives may be in this network: the search of nat.h (struct
 * nat_lifetime), with sockets of its own and the STUN server that answered first,
 * once for each family. What was found is remembered for the network, which is
 * known by its gateway and that one's hardware address.
 */
#include "daemon/internal.h"

#include "daemon/files.h"

#include <stdio.h>

#define NEIGHBOURS    "/proc/net/arp"
#define FILE_NAME     "networks"
#define MEMORY_MAX    32
#define BUFFER_BYTES  4096
#define NUMBER_OFFSET (STUN_TRANSACTION_BYTES - 4)

/* ---- which network this is ---- */

/* The gateway's line of NEIGHBOURS, "192.0.2.1 0x1 0x2 00:00:5e:00:53:01 * eth0". */
static bool hardware_address(const char *gateway, char *out, size_t out_bytes)
{
	FILE *file = fopen(NEIGHBOURS, "re");
	char line[256], ip[64], address[32];
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file))
		found = sscanf(line, "%63s %*s %*s %31s", ip, address) == 2 && !strcmp(ip, gateway);
	if (file)
		fclose(file);
	if (found)
		snprintf(out, out_bytes, "%s", address);
	return found;
}

/* "": it cannot be told from others, so nothing is remembered of it. */
static void network_name(char out[static LIFETIME_NETWORK_BYTES])
{
	char gateway[IP_TEXT_BYTES], hardware[32];
	struct ip_address ip;

	*out = '\0';
	if (!portmap_gateway(&ip))
		return;
	ip_format(&ip, gateway);
	if (hardware_address(gateway, hardware, sizeof(hardware)))
		snprintf(out, LIFETIME_NETWORK_BYTES, "%s %s", gateway, hardware);
}

/* ---- what is remembered ---- */

static const char *family_name(enum address_family family)
{
	return family == FAMILY_IPV6 ? "ipv6" : "ipv4";
}

static bool is_of(const json_t *one, const struct lifetime_search *s)
{
	const char *network = json_string_value(json_object_get(one, "network"));
	const char *family = json_string_value(json_object_get(one, "family"));

	return network && family && !strcmp(network, s->network) &&
	       !strcmp(family, family_name(s->family));
}

static json_t *load_memory(struct daemon *d, char path[static FILES_PATH_BYTES])
{
	json_t *file = NULL, *list;

	if (files_path(path, d->options->state_dir, NULL, FILE_NAME, ".json") ||
	    files_read_json(path, &file))
		return json_array();
	list = json_incref(json_object_get(file, "networks"));
	json_decref(file);
	if (json_is_array(list))
		return list;
	json_decref(list);
	return json_array();
}

static void recall(struct lifetime_search *s, uint64_t *ret_lives_us, uint64_t *ret_dies_us)
{
	char path[FILES_PATH_BYTES];
	json_t *list = load_memory(s->daemon, path);
	const json_t *one;
	size_t i;

	*ret_lives_us = 0;
	*ret_dies_us = NEVER_US;
	json_array_foreach (list, i, one) {
		const json_int_t lives = json_integer_value(json_object_get(one, "lives_us"));
		const json_int_t dies = json_integer_value(json_object_get(one, "dies_us"));

		if (!*s->network || !is_of(one, s) || lives <= 0)
			continue;
		*ret_lives_us = (uint64_t)lives;
		*ret_dies_us = dies > lives ? (uint64_t)dies : NEVER_US;
	}
	json_decref(list);
}

/* The newest is the last; the oldest goes. */
static void remember(struct lifetime_search *s)
{
	char path[FILES_PATH_BYTES];
	const uint64_t dies_us = s->search.dies_us;
	json_t *list, *file;

	if (!*s->network || s->search.lives_us == 0)
		return;
	list = load_memory(s->daemon, path);
	for (size_t i = json_array_size(list); i-- > 0;)
		if (is_of(json_array_get(list, i), s))
			json_array_remove(list, i);
	while (json_array_size(list) >= MEMORY_MAX)
		json_array_remove(list, 0);
	json_array_append_new(list, json_pack("{s:s,s:s,s:I,s:I}", "network", s->network, "family",
					      family_name(s->family), "lives_us",
					      (json_int_t)s->search.lives_us, "dies_us",
					      (json_int_t)(dies_us == NEVER_US ? 0 : dies_us)));
	file = json_pack("{s:i,s:o}", "v", 1, "networks", list);
	if (!file || files_write_json(path, file))
		log_warn("cannot remember how long this network's NAT remembers flows");
	json_decref(file);
}

/* ---- telling ---- */

uint64_t lifetime_interval_us(const struct daemon *d, enum address_family family)
{
	const struct lifetime_search *s = &d->lifetime.searches[family == FAMILY_IPV6];
	const uint64_t min_us = d->options->keepalive_min_s * US_PER_S;

	if (min_us == d->options->keepalive_max_s * US_PER_S)
		return min_us;
	if (s->search.state == NAT_LIFETIME_OFF && s->search.lives_us == 0)
		return 0;
	return s->started ? nat_lifetime_interval_us(&s->search) : 0;
}

static void tell(struct lifetime_search *s)
{
	const uint64_t interval_us = lifetime_interval_us(s->daemon, s->family);
	struct link *link;

	if (interval_us == s->told_us)
		return;
	s->told_us = interval_us;
	LIST_FOREACH (link, &s->daemon->links, entry) {
		session_set_keepalive(link_session(link), s->family, interval_us);
		links_pump(link);
	}
}

static void note_state(struct lifetime_search *s)
{
	const enum nat_lifetime_state state = s->search.state;

	if (state == s->noted)
		return;
	if (state == NAT_LIFETIME_FOUND) {
		log_info("%s: a silent flow is remembered here for %llu s; keepalives every "
			 "%llu s",
			 s->family == FAMILY_IPV6 ? "IPv6" : "IPv4",
			 (unsigned long long)(s->search.lives_us / US_PER_S),
			 (unsigned long long)(nat_lifetime_interval_us(&s->search) / US_PER_S));
		remember(s);
	} else if (state == NAT_LIFETIME_OFF) {
		log_info("%s: how long a silent flow is remembered here was not found: %s",
			 s->family == FAMILY_IPV6 ? "IPv6" : "IPv4", s->search.reason);
	}
	s->noted = state;
}

/* ---- questions and answers ---- */

static void move(struct lifetime_search *s, uint64_t now_us);

static void on_answer(struct lifetime_search *s, bool aged, const struct net_udp_packet *packet,
		      uint64_t now_us)
{
	struct stun_message m;
	struct reader number;

	if (!endpoint_equal(&packet->from, &s->server) ||
	    stun_decode(packet->data, min_size(packet->segment_bytes, packet->data_bytes), &m) ||
	    m.method != STUN_BINDING || (m.class != STUN_SUCCESS && m.class != STUN_ERROR) ||
	    memcmp(m.transaction, s->transaction, NUMBER_OFFSET) != 0)
		return;
	number = reader_over(m.transaction + NUMBER_OFFSET, sizeof(m.transaction) - NUMBER_OFFSET);
	nat_lifetime_input(&s->search, reader_u32(&number), aged,
			   m.class == STUN_SUCCESS ? m.mapped.port : 0, now_us);
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct lifetime_search *s = user;

	for (size_t i = 0; i < n_packets; i++)
		on_answer(s, udp == s->aged, &packets[i], now_us);
	/* The sockets may go, in one of which we are. */
	net_timer_arm(&s->timer, now_us);
}

static void close_sockets(struct lifetime_search *s)
{
	net_udp_free(s->aged);
	net_udp_free(s->asking);
	s->aged = s->asking = NULL;
}

static bool open_sockets(struct lifetime_search *s)
{
	const struct net_udp_config config = { .on_packets = on_packets,
					       .user = s,
					       .buffer_bytes = BUFFER_BYTES };

	close_sockets(s);
	return !net_udp_new(s->daemon->loop, &config, &s->aged) &&
	       !net_udp_new(s->daemon->loop, &config, &s->asking);
}

static void ask(struct lifetime_search *s, const struct nat_lifetime_ask *question)
{
	struct stun_message m = { .class = STUN_REQUEST,
				  .method = STUN_BINDING,
				  .response_port = question->answer_port,
				  .has_fingerprint = true };
	struct net_udp *udp = question->aged ? s->aged : s->asking;
	uint8_t request[STUN_MESSAGE_MAX_BYTES];
	struct net_udp_send send = { .to = s->server, .data = request };
	struct writer transaction = writer_over(m.transaction, sizeof(m.transaction));

	writer_bytes(&transaction, s->transaction, NUMBER_OFFSET);
	writer_u32(&transaction, question->number);
	send.data_bytes = stun_encode(&m, request, sizeof(request));
	if (udp && send.data_bytes > 0)
		(void)net_udp_send(udp, &send); /* lost: it is asked again */
}

static void move(struct lifetime_search *s, uint64_t now_us)
{
	struct nat_lifetime_ask question;

	nat_lifetime_tick(&s->search, now_us);
	while (nat_lifetime_output(&s->search, &question, now_us)) {
		if (question.fresh && !open_sockets(s))
			log_debug("no sockets to find out how long flows are remembered");
		ask(s, &question);
	}
	if (s->search.state == NAT_LIFETIME_FOUND || s->search.state == NAT_LIFETIME_OFF ||
	    s->search.state == NAT_LIFETIME_IDLE)
		close_sockets(s);
	note_state(s);
	tell(s);
	net_timer_arm(&s->timer, nat_lifetime_deadline_us(&s->search));
}

static void on_timer(void *user, uint64_t now_us)
{
	move(user, now_us);
}

/* ---- life ---- */

void lifetime_start(struct daemon *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(d->lifetime.searches); i++) {
		struct lifetime_search *s = &d->lifetime.searches[i];

		s->daemon = d;
		s->family = i ? FAMILY_IPV6 : FAMILY_IPV4;
		net_timer_init(&s->timer, d->loop, on_timer, s);
	}
}

static void end_search(struct lifetime_search *s)
{
	close_sockets(s);
	net_timer_disarm(&s->timer);
	s->started = false;
	s->noted = NAT_LIFETIME_IDLE;
}

void lifetime_stop(struct daemon *d)
{
	for (size_t i = 0; i < ARRAY_SIZE(d->lifetime.searches); i++)
		if (d->lifetime.searches[i].daemon)
			end_search(&d->lifetime.searches[i]);
}

/* What was true in the last network is not in this one; the next direct path begins anew. */
void lifetime_restart(struct daemon *d)
{
	lifetime_stop(d);
	for (size_t i = 0; i < ARRAY_SIZE(d->lifetime.searches); i++)
		tell(&d->lifetime.searches[i]);
}

static void begin(struct lifetime_search *s);

void lifetime_reload(struct daemon *d)
{
	struct session_status status;
	struct link *link;

	lifetime_restart(d);
	LIST_FOREACH (link, &d->links, entry) {
		session_get_status(link_session(link), &status);
		if (status.has_path && !status.relay && !status.same_lan)
			lifetime_path(link, status.remote.ip.family);
	}
}

static void begin(struct lifetime_search *s)
{
	const struct daemon_options *o = s->daemon->options;
	const uint64_t now_us = net_loop_now_us(s->daemon->loop);
	uint64_t lives_us, dies_us;

	if (s->started || o->keepalive_min_s == o->keepalive_max_s ||
	    !gather_server(s->daemon, s->family, &s->server) ||
	    crypto_random(s->transaction, sizeof(s->transaction)))
		return;
	network_name(s->network);
	recall(s, &lives_us, &dies_us);
	nat_lifetime_start(&s->search, lives_us, dies_us, o->keepalive_min_s * US_PER_S,
			   o->keepalive_max_s * US_PER_S, now_us);
	s->started = true;
	move(s, now_us);
}

void lifetime_path(struct link *link, enum address_family family)
{
	struct daemon *d = link->daemon;

	begin(&d->lifetime.searches[family == FAMILY_IPV6]);
	session_set_keepalive(link_session(link), family, lifetime_interval_us(d, family));
}

void lifetime_doubt(struct daemon *d, enum address_family family)
{
	struct lifetime_search *s = &d->lifetime.searches[family == FAMILY_IPV6];

	if (!s->started)
		return;
	nat_lifetime_doubt(&s->search, net_loop_now_us(d->loop));
	net_timer_arm(&s->timer, net_loop_now_us(d->loop));
}

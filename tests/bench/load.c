/*
 * load - plays the far ends of many tunnels: the server of the domain load.test
 * and its users p0 ... pN-1, for one daemon that is alice@load.test.
 *
 *   load serve PEERS STATE-DIR ADDRESS PORT   writes the state of alice's daemon, then plays
 *   load blast FIRST PEERS SECONDS MBIT       sends them UDP from alice's machine, MBIT/s in all
 *
 * Both ends are real: `serve` runs one session per peer, with its own certificate, all
 * in one process; the daemon under test is q2q-tund as it is installed. SIGUSR1 makes
 * `serve` print its figures as a line of JSON and count anew. Far ends answer pings.
 */
#include "base/base.h"
#include "net/net.h"
#include "q2q/q2q.h"
#include "session/session.h"
#include "tun/tun.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define DOMAIN       "load.test"
#define ALICE        "alice@" DOMAIN
#define PROTOCOL     "q2q-tun"
#define PEERS_MAX    1023
#define OUTPUT_MAX   64
#define SEGMENT      1400
#define SEGMENTS     40
#define DISCARD_PORT 9

struct load;

struct name {
	struct session_name name;
	bool entered;
	struct far_end *end;
	UT_hash_handle hh;
};

struct far_end {
	struct load *load;
	char address[64];
	struct crypto_key *key;
	struct crypto_cert *cert;
	struct crypto_tls_context *tls;
	struct session *session;
	struct name names[SESSION_NAMES_MAX];
	struct net_timer timer;
	struct net_soon pump;
	bool up;
	uint64_t n_frames, n_bytes;
};

struct load {
	struct net_loop *loop;
	struct net_udp *udp;
	struct endpoint local;
	struct net_q2q *driver;
	struct q2q_conn *conn;
	struct crypto_key *domain_key, *alice_key;
	struct crypto_cert *domain_cert, *alice_cert;
	struct crypto_tls_context *tls;
	struct session_scratch *scratch;
	struct ptcp_memory memory;
	struct hash_seed seed;
	struct name *index;
	struct far_end *ends;
	unsigned n_ends, n_up, n_inbound;
	uint64_t first_us, all_up_us, counted_us;
};

static _Noreturn void die(const char *what, int r)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(r < 0 ? -r : r));
	exit(1);
}

static void must(const char *what, int r)
{
	if (r != 0)
		die(what, r);
}

static int64_t wall_s(void)
{
	return (int64_t)time(NULL);
}

/* ---- identities, and the state directory of alice's daemon ---- */

static void issue(struct load *l, const char *address, struct crypto_key **key,
		  struct crypto_cert **cert)
{
	struct crypto_csr *csr;
	struct buffer der;

	buffer_init(&der, 4096, false);
	must("key", crypto_key_generate(CRYPTO_KEY_P256, key));
	must("request", crypto_csr_make(*key, address, &der));
	must("request", crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr));
	must("certificate",
	     crypto_cert_issue(l->domain_cert, l->domain_key, csr, address, wall_s(), 365, cert));
	crypto_csr_free(csr);
	buffer_fini(&der);
}

static struct crypto_tls_context *context(struct crypto_cert *cert, struct crypto_key *key,
					  bool tls13_only)
{
	const struct crypto_tls_config config = { .cert = cert,
						  .key = key,
						  .tls13_only = tls13_only };
	struct crypto_tls_context *c;

	must("TLS", crypto_tls_context_new(&config, &c));
	return c;
}

static void write_file(const char *dir, const char *folder, const char *name, const void *data,
		       size_t n_bytes)
{
	char path[1024];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, folder);
	if (mkdir(path, 0700) && errno != EEXIST)
		die(path, errno);
	snprintf(path, sizeof(path), "%s/%s/%s", dir, folder, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, n_bytes, f) != n_bytes || fclose(f))
		die(path, errno);
}

static void write_state(struct load *l, const char *dir)
{
	struct buffer pem;

	buffer_init(&pem, CRYPTO_PEM_MAX_BYTES, true);
	must("PEM", crypto_cert_to_pem(l->domain_cert, &pem));
	write_file(dir, "known-domains", DOMAIN ".pem", buffer_peek(&pem), buffer_used(&pem));
	buffer_consume(&pem, buffer_used(&pem));
	must("PEM", crypto_cert_to_pem(l->alice_cert, &pem));
	must("PEM", crypto_key_to_pem(l->alice_key, &pem));
	write_file(dir, "identities", ALICE ".pem", buffer_peek(&pem), buffer_used(&pem));
	buffer_fini(&pem);
	for (unsigned i = 0; i < l->n_ends; i++) {
		char name[96], text[512], hex[HEX_TEXT_BYTES(CRYPTO_HASH_BYTES)];

		hex_encode(crypto_cert_spki_hash(l->ends[i].cert), CRYPTO_HASH_BYTES, hex);
		snprintf(name, sizeof(name), "%s.json", l->ends[i].address);
		snprintf(text, sizeof(text),
			 "{\"spki\":\"%s\",\"pinned_at\":%lld,\"allowed\":true,\"wanted\":true}\n",
			 hex, (long long)wall_s());
		write_file(dir, "known-peers", name, text, strlen(text));
	}
}

/* ---- one far end ---- */

static unsigned hash_of(const struct load *l, const struct session_name *name)
{
	return (unsigned)hash_bytes(&l->seed, name, sizeof(*name));
}

static void index_update(struct far_end *e)
{
	struct session_name names[SESSION_NAMES_MAX];
	const size_t n = session_names(e->session, names);

	for (size_t i = 0; i < SESSION_NAMES_MAX; i++) {
		struct name *entry = &e->names[i];

		if (entry->entered && i < n && !memcmp(&entry->name, &names[i], sizeof(names[i])))
			continue;
		if (entry->entered)
			HASH_DELETE(hh, e->load->index, entry);
		entry->entered = i < n;
		if (!entry->entered)
			continue;
		entry->name = names[i];
		entry->end = e;
		HASH_ADD_BYHASHVALUE(hh, e->load->index, name, sizeof(entry->name),
				     hash_of(e->load, &names[i]), entry);
		if (!entry->hh.tbl)
			die("index", ENOMEM);
	}
}

static struct far_end *find(struct load *l, enum session_name_kind kind, const void *bytes,
			    size_t n_bytes)
{
	struct session_name name = { .kind = (uint8_t)kind };
	struct name *entry;

	memcpy(name.bytes, bytes, n_bytes);
	HASH_FIND_BYHASHVALUE(hh, l->index, &name, sizeof(name), hash_of(l, &name), entry);
	return entry ? entry->end : NULL;
}

/* An echo request becomes its answer; the sum changes by the type alone (RFC 1624). */
static bool make_answer(uint8_t *packet, size_t n_bytes)
{
	uint8_t swap[4];
	uint32_t sum;

	if (n_bytes < 28 || packet[0] != 0x45 || packet[9] != IPPROTO_ICMP || packet[20] != 8)
		return false;
	memcpy(swap, packet + 12, 4);
	memcpy(packet + 12, packet + 16, 4);
	memcpy(packet + 16, swap, 4);
	packet[20] = 0;
	sum = (uint32_t)(packet[22] << 8 | packet[23]) + 0x0800;
	sum = (sum & 0xffff) + (sum >> 16);
	packet[22] = (uint8_t)(sum >> 8);
	packet[23] = (uint8_t)sum;
	return true;
}

static void take_frame(struct far_end *e, const struct session_frame *frame, uint64_t now_us)
{
	uint8_t answer[2048], *room;

	e->n_frames++;
	e->n_bytes += frame->packet_bytes;
	if (frame->packet_bytes > sizeof(answer))
		return;
	memcpy(answer, frame->packet, frame->packet_bytes);
	if (!make_answer(answer, frame->packet_bytes) || session_tun_room(e->session, &room))
		return;
	memset(room, 0, TUN_VNET_BYTES);
	memcpy(room + TUN_VNET_BYTES, answer, frame->packet_bytes);
	session_tun_commit(e->session, TUN_VNET_BYTES + frame->packet_bytes, now_us);
}

static void tell(struct load *l, enum q2q_command command, const char *id, const void *body,
		 size_t n_bytes, uint64_t now_us)
{
	struct q2q_call call = { .command = command };

	if (!l->conn)
		return;
	call.signal.id = amp_text(id);
	call.signal.body = amp_value(body, n_bytes);
	q2q_conn_tell(l->conn, &call, now_us);
	net_q2q_pump(l->driver);
}

static void take_events(struct far_end *e, uint64_t now_us)
{
	struct load *l = e->load;
	struct session_event event;

	while (session_next_event(e->session, &event)) {
		if (event.type != SESSION_EVENT_STATE)
			continue;
		if ((event.state.to == SESSION_UP) == e->up)
			continue;
		e->up = !e->up;
		if (e->up)
			l->n_up++;
		else
			l->n_up--;
		if (l->n_up == l->n_ends)
			l->all_up_us = now_us;
	}
}

static void send_out(struct far_end *e, const struct session_send *out, uint64_t now_us)
{
	const struct net_udp_send send = {
		.to = out->to,
		.data = out->data,
		.data_bytes = out->n_bytes,
		.segment_bytes = out->segment_bytes,
		.ecn = out->ecn,
		.ttl = out->ttl,
	};

	if (out->relay)
		tell(e->load, Q2Q_RELAY, out->id, out->data, out->n_bytes, now_us);
	else if (net_udp_send(e->load->udp, &send) == -EMSGSIZE)
		session_too_big(e->session, out, now_us);
}

static void pump(void *user)
{
	struct far_end *e = user;
	const uint64_t now_us = net_loop_now_us(e->load->loop);
	struct session_signal_out signal;
	struct session_frame frame;
	struct session_send out;

	if (now_us >= session_deadline_us(e->session))
		session_tick(e->session, now_us);
	while (session_tun_next(e->session, &frame))
		take_frame(e, &frame, now_us);
	take_events(e, now_us);
	while (session_next_signal(e->session, &signal))
		tell(e->load, Q2Q_SIGNAL, signal.id, signal.body, signal.n_bytes, now_us);
	for (unsigned i = 0; i < OUTPUT_MAX; i++) {
		if (!session_output(e->session, &out, now_us))
			break;
		send_out(e, &out, now_us);
		if (i == OUTPUT_MAX - 1)
			net_soon_queue(&e->pump);
	}
	take_events(e, now_us);
	index_update(e);
	net_timer_arm(&e->timer, session_deadline_us(e->session));
}

static void on_timer(void *user, uint64_t now_us)
{
	(void)now_us;
	pump(user);
}

static int verify_alice(void *user, struct crypto_cert *cert)
{
	const struct load *l = user;

	return crypto_cert_verify(cert, l->domain_cert, ALICE, wall_s());
}

static int verify_peer(void *user, struct crypto_cert *cert)
{
	const struct far_end *e = user;

	return verify_alice(e->load, cert);
}

static int random_bytes(void *user, void *out, size_t n_bytes)
{
	(void)user;
	return crypto_random(out, n_bytes);
}

static void end_start(struct load *l, unsigned number)
{
	struct far_end *e = &l->ends[number];
	const uint64_t now_us = net_loop_now_us(l->loop);
	const struct nat_candidate host = { .kind = NAT_HOST, .endpoint = l->local };
	struct session_config config = {
		.scratch = l->scratch,
		.memory = &l->memory,
		.own_address = e->address,
		.peer_address = ALICE,
		.device = "load",
		.verify = verify_peer,
		.random_bytes = random_bytes,
		.user = e,
		.flow_seed = l->seed,
	};
	struct vip own, alice;

	e->load = l;
	config.tls = e->tls;
	config.own_key = e->key;
	must("address", vip_from_address(e->address, &own));
	must("address", vip_from_address(ALICE, &alice));
	memcpy(config.shown.own4, own.ip4, 4);
	memcpy(config.shown.own6, own.ip6, 16);
	memcpy(config.shown.peer4, alice.ip4, 4);
	memcpy(config.shown.peer6, alice.ip6, 16);
	must("session", session_new(&config, now_us, &e->session));
	session_set_device(e->session, &config.shown,
			   TUN_FEATURE_VNET | TUN_FEATURE_CSUM | TUN_FEATURE_TSO4 |
				   TUN_FEATURE_TSO6 | TUN_FEATURE_USO);
	must("socket", session_add_socket(e->session, 0, true, true, now_us));
	must("candidate", session_add_local(e->session, &host, now_us));
	net_timer_init(&e->timer, l->loop, on_timer, e);
	net_soon_init(&e->pump, l->loop, pump, e);
}

/* ---- UDP ---- */

static struct far_end *whose(struct load *l, const uint8_t *data, size_t n_bytes)
{
	if (n_bytes < 20)
		return NULL;
	if ((data[0] & 0xc0) == 0x80)
		return find(l, SESSION_NAME_TAG, data + 1, NAT_TAG_BYTES);
	return ptcp_is_packet(data, n_bytes)
		       ? find(l, SESSION_NAME_CID, ptcp_packet_cid(data), PTCP_CID_BYTES)
		       : NULL;
}

static void on_packets(void *user, struct net_udp *udp, struct net_udp_packet *packets,
		       size_t n_packets, uint64_t now_us)
{
	struct load *l = user;

	(void)udp;
	for (size_t i = 0; i < n_packets; i++) {
		struct net_udp_packet *p = &packets[i];

		for (size_t at = 0; at < p->data_bytes; at += p->segment_bytes) {
			const size_t n_bytes = min_size(p->segment_bytes, p->data_bytes - at);
			struct far_end *e = whose(l, p->data + at, n_bytes);

			if (!e)
				continue;
			session_input(e->session, 0, &p->from, p->data + at, n_bytes, p->ecn,
				      now_us);
			net_soon_queue(&e->pump);
		}
	}
}

/* ---- the server ---- */

static struct far_end *end_by_address(struct load *l, const struct q2q_address *address)
{
	unsigned number;

	if (sscanf(address->resource, "p%u", &number) != 1 || number >= l->n_ends)
		return NULL;
	return &l->ends[number];
}

static void on_inbound(struct load *l, const struct q2q_event *event, uint64_t now_us)
{
	struct far_end *e = end_by_address(l, &event->call.inbound.to);
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listener *entry = &answer.inbound.listeners.entries[0];
	struct session_inbound inbound = { .route = l, .peer_cert = l->alice_cert };
	char request[OFFER_ID_BYTES + 1] = "";
	struct session_reply reply;
	const uint8_t *der;
	size_t der_bytes;

	if (l->n_inbound++ == 0)
		l->first_us = now_us;
	if (event->call.inbound.request.n_bytes == OFFER_ID_BYTES)
		memcpy(request, event->call.inbound.request.data, OFFER_ID_BYTES);
	inbound.request = request;
	if (e && !session_inbound(e->session, &inbound, &reply, now_us)) {
		der = crypto_cert_der(e->cert, &der_bytes);
		answer.inbound.listeners.n = 1;
		entry->id = amp_text(reply.id);
		entry->methods = amp_value("", 0);
		entry->description = amp_text(PROTOCOL);
		entry->expires_s = wall_s() + 60;
		entry->expires_in_s = 60;
		entry->offer = amp_value(reply.offer, reply.offer_bytes);
		entry->certificate = amp_value(der, der_bytes);
		net_soon_queue(&e->pump);
		index_update(e);
	}
	q2q_conn_answer(l->conn, event->ask, &answer, now_us);
}

static void on_told(struct load *l, const struct q2q_event *event, uint64_t now_us)
{
	static uint8_t relay[SESSION_RELAY_BYTES_MAX];
	const struct amp_value *id = &event->call.signal.id, *body = &event->call.signal.body;
	char text[OFFER_ID_BYTES + 1] = "";
	struct far_end *e;

	if (id->n_bytes != OFFER_ID_BYTES || body->n_bytes > sizeof(relay))
		return;
	memcpy(text, id->data, OFFER_ID_BYTES);
	e = find(l, SESSION_NAME_ID, text, OFFER_ID_BYTES);
	if (!e)
		return;
	if (event->command == Q2Q_SIGNAL) {
		session_signal(e->session, text, body->data, body->n_bytes, now_us);
	} else {
		memcpy(relay, body->data, body->n_bytes);
		session_relay(e->session, text, relay, body->n_bytes, now_us);
	}
	net_soon_queue(&e->pump);
}

static void on_call(struct load *l, const struct q2q_event *event, uint64_t now_us)
{
	switch (event->command) {
	case Q2Q_SECURE:
		must("secure",
		     q2q_conn_accept_secure(l->conn, event->ask, l->tls, verify_alice, l, now_us));
		return;
	case Q2Q_LISTEN:
		q2q_conn_answer(l->conn, event->ask, NULL, now_us);
		return;
	case Q2Q_INBOUND:
		on_inbound(l, event, now_us);
		return;
	case Q2Q_SIGNAL:
	case Q2Q_RELAY:
		on_told(l, event, now_us);
		return;
	default:
		if (event->ask)
			q2q_conn_fail(l->conn, event->ask, Q2Q_ERROR_UNHANDLED, NULL, now_us);
		return;
	}
}

static void on_events(void *user, struct net_q2q *driver, struct q2q_conn *conn)
{
	struct load *l = user;
	const uint64_t now_us = net_loop_now_us(l->loop);
	struct q2q_event event;

	(void)driver;
	while (q2q_conn_next_event(conn, &event, now_us))
		if (event.kind == Q2Q_EVENT_CALL)
			on_call(l, &event, now_us);
}

static void on_closed(void *user, struct net_q2q *driver, int error)
{
	struct load *l = user;

	(void)error;
	net_q2q_free(driver);
	if (l->driver != driver)
		return;
	for (unsigned i = 0; i < l->n_ends; i++)
		session_route_lost(l->ends[i].session, l, net_loop_now_us(l->loop));
	l->driver = NULL;
	l->conn = NULL;
}

static void on_accepted(void *user, int fd, const struct endpoint *from)
{
	struct load *l = user;
	const struct q2q_conn_config conn_config = {
		.role = Q2Q_SERVER,
		.peer_ip = from->ip,
		.pending_max = 4096,
		.output_max_bytes = (size_t)64 << 20,
		.droppable_max_bytes = (size_t)32 << 20,
	};
	struct net_q2q_config config = {
		.fd = fd, .on_events = on_events, .on_closed = on_closed, .user = l
	};

	if (l->conn) {
		close(fd);
		return;
	}
	must("connection", q2q_conn_new(&conn_config, net_loop_now_us(l->loop), &config.conn));
	must("connection", net_q2q_new(l->loop, &config, &l->driver));
	l->conn = config.conn;
}

/* ---- figures ---- */

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void on_report(void *user, int signal_number)
{
	struct load *l = user;
	const uint64_t now_us = net_loop_now_us(l->loop);
	uint64_t bytes[PEERS_MAX], sum = 0, frames = 0;
	unsigned n = 0;

	(void)signal_number;
	for (unsigned i = 0; i < l->n_ends; i++) {
		struct far_end *e = &l->ends[i];

		if (e->n_bytes > 0)
			bytes[n++] = e->n_bytes;
		sum += e->n_bytes;
		frames += e->n_frames;
		e->n_bytes = e->n_frames = 0;
	}
	qsort(bytes, n, sizeof(bytes[0]), compare);
	printf("{\"peers\":%u,\"up\":%u,\"setup_us\":%llu,\"over_us\":%llu,\"active\":%u,"
	       "\"frames\":%llu,\"bytes\":%llu,\"least\":%llu,\"median\":%llu,\"most\":%llu}\n",
	       l->n_ends, l->n_up,
	       (unsigned long long)(l->all_up_us > l->first_us ? l->all_up_us - l->first_us : 0),
	       (unsigned long long)(now_us - l->counted_us), n, (unsigned long long)frames,
	       (unsigned long long)sum, (unsigned long long)(n ? bytes[0] : 0),
	       (unsigned long long)(n ? bytes[n / 2] : 0),
	       (unsigned long long)(n ? bytes[n - 1] : 0));
	fflush(stdout);
	l->counted_us = now_us;
}

static void on_end(void *user, int signal_number)
{
	struct load *l = user;

	(void)signal_number;
	net_loop_stop(l->loop);
}

static void make_identities(struct load *l)
{
	must("key", crypto_key_generate(CRYPTO_KEY_P256, &l->domain_key));
	must("certificate",
	     crypto_cert_make_domain(l->domain_key, DOMAIN, wall_s(), 365, &l->domain_cert));
	issue(l, ALICE, &l->alice_key, &l->alice_cert);
	l->tls = context(l->domain_cert, l->domain_key, false);
	for (unsigned i = 0; i < l->n_ends; i++) {
		struct far_end *e = &l->ends[i];

		snprintf(e->address, sizeof(e->address), "p%u@" DOMAIN, i);
		issue(l, e->address, &e->key, &e->cert);
		e->tls = context(e->cert, e->key, true);
	}
}

static void end_free(struct far_end *e)
{
	net_timer_disarm(&e->timer);
	net_soon_cancel(&e->pump);
	for (size_t i = 0; i < SESSION_NAMES_MAX; i++)
		if (e->names[i].entered)
			HASH_DELETE(hh, e->load->index, &e->names[i]);
	session_free(e->session);
	crypto_tls_context_unref(e->tls);
	crypto_cert_unref(e->cert);
	crypto_key_free(e->key);
}

static void finish(struct load *l, struct net_listener *listener)
{
	struct net_q2q *driver = l->driver;

	l->driver = NULL;
	l->conn = NULL;
	net_q2q_free(driver);
	for (unsigned i = 0; i < l->n_ends; i++)
		end_free(&l->ends[i]);
	net_listener_free(listener);
	net_udp_free(l->udp);
	net_loop_free(l->loop);
	session_scratch_free(l->scratch);
	crypto_tls_context_unref(l->tls);
	crypto_cert_unref(l->alice_cert);
	crypto_key_free(l->alice_key);
	crypto_cert_unref(l->domain_cert);
	crypto_key_free(l->domain_key);
	free(l->ends);
}

static int serve(unsigned n_ends, const char *state_dir, const char *address, const char *port)
{
	struct load load = { .n_ends = n_ends, .memory = { .limit_bytes = (size_t)512 << 20 } };
	struct load *l = &load;
	struct net_udp_config udp = { .on_packets = on_packets, .user = l };
	struct net_listener *listener;
	char text[128];

	snprintf(text, sizeof(text), "%s:%s", address, port);
	must(text, endpoint_parse(text, false, &l->local));
	l->ends = calloc(n_ends, sizeof(*l->ends));
	l->scratch = session_scratch_new();
	if (!l->ends || !l->scratch)
		die("memory", ENOMEM);
	must("random", crypto_random(&l->seed, sizeof(l->seed)));
	make_identities(l);
	write_state(l, state_dir);
	must("loop", net_loop_new(&l->loop));
	must("signal", net_loop_on_signal(l->loop, SIGUSR1, on_report, l));
	must("signal", net_loop_on_signal(l->loop, SIGTERM, on_end, l));
	udp.bind = l->local;
	must("UDP", net_udp_new(l->loop, &udp, &l->udp));
	must("TCP", net_listen_tcp(l->loop, &l->local, on_accepted, l, &listener));
	for (unsigned i = 0; i < n_ends; i++)
		end_start(l, i);
	l->counted_us = net_loop_now_us(l->loop);
	printf("{\"serving\":%u}\n", n_ends);
	fflush(stdout);
	must("loop", net_loop_run(l->loop));
	finish(l, listener);
	return 0;
}

/* ---- blast ---- */

static void blast_socket(unsigned number, int *ret_fd)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(DISCARD_PORT) };
	const int segment = SEGMENT;
	char address[64];
	struct vip vip;

	snprintf(address, sizeof(address), "p%u@" DOMAIN, number);
	must("address", vip_from_address(address, &vip));
	memcpy(&to.sin_addr, vip.ip4, 4);
	*ret_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*ret_fd < 0 || connect(*ret_fd, (const struct sockaddr *)&to, sizeof(to)) ||
	    setsockopt(*ret_fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
		die("socket", errno);
}

/* Round robin, at a steady rate; a device that is full is passed over. */
static int blast(unsigned first, unsigned n, unsigned seconds, unsigned mbit)
{
	static uint8_t data[SEGMENT * SEGMENTS];
	const uint64_t start_us = net_clock_us(),
		       gap_us = max_u64(sizeof(data) * 8 / max_u64(mbit, 1), 1);
	uint64_t due_us = start_us;
	int *fds = calloc(n, sizeof(*fds));

	if (!fds)
		die("memory", ENOMEM);
	for (unsigned i = 0; i < n; i++)
		blast_socket(first + i, &fds[i]);
	for (unsigned i = 0; due_us < start_us + seconds * US_PER_S; i = (i + 1) % n) {
		const uint64_t now_us = net_clock_us();

		if (now_us < due_us)
			usleep((useconds_t)(due_us - now_us));
		(void)!send(fds[i], data, sizeof(data), 0);
		due_us += gap_us;
	}
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
	free(fds);
	return 0;
}

static unsigned number_of(const char *text, unsigned max)
{
	const unsigned long n = strtoul(text, NULL, 10);

	if (n > max) {
		fprintf(stderr, "load: at most %u\n", max);
		exit(2);
	}
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	const struct rlimit files = { 4096, 4096 };

	setrlimit(RLIMIT_NOFILE, &files);
	if (argc == 6 && !strcmp(argv[1], "serve"))
		return serve(number_of(argv[2], PEERS_MAX), argv[3], argv[4], argv[5]);
	if (argc == 6 && !strcmp(argv[1], "blast"))
		return blast(number_of(argv[2], PEERS_MAX), number_of(argv[3], PEERS_MAX),
			     number_of(argv[4], 3600), number_of(argv[5], 100000));
	fprintf(stderr, "usage: load serve PEERS STATE-DIR ADDRESS PORT\n"
			"       load blast FIRST PEERS SECONDS MBIT\n");
	return 2;
}

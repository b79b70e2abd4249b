/*
 * A q2q connection on real sockets, for the interop tests: a small server of one domain, in
 * memory, or a client that goes once through everything. Loopback only.
 *
 *   amp_peer [--rsa] serve DOMAIN        prints "port N"
 *   amp_peer [--rsa] client DOMAIN PORT  prints "ok NAME" or "not ok NAME" for each step
 */
#include "q2q/q2q.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNS_MAX   32
#define ITEMS_MAX   64
#define STEP_WAIT_S 10

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * US_PER_S + (uint64_t)t.tv_nsec / 1000;
}

static void must(int result, const char *what)
{
	if (result >= 0)
		return;
	fprintf(stderr, "amp_peer: %s: %s\n", what, strerror(-result));
	exit(1);
}

/* ---- connections ------------------------------------------------------------------------- */

struct peer {
	int fd; /* -1: free */
	struct q2q_conn *conn;
	/* client: what the last events were */
	struct q2q_event last;
	struct q2q_failure failure; /* of the last error */
	unsigned n[Q2Q_EVENT_KIND_COUNT];
	uint64_t call;
	uint8_t kept[8192], kept_methods[1024];
	size_t kept_bytes, kept_methods_bytes;
};

static struct peer peers[CONNS_MAX];
static void (*on_event)(struct peer *p, struct q2q_event *event);

static struct peer *peer_new(int fd, enum q2q_role role)
{
	struct q2q_conn_config config = { .role = role };

	for (size_t i = 0; i < CONNS_MAX; i++) {
		struct peer *p = &peers[i];

		if (p->fd >= 0)
			continue;
		memset(p, 0, sizeof(*p));
		p->fd = fd;
		must(ip_parse("127.0.0.1", &config.peer_ip), "address");
		must(q2q_conn_new(&config, now_us(), &p->conn), "connection");
		must(fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0, "fcntl");
		return p;
	}
	close(fd);
	return NULL;
}

static void peer_free(struct peer *p)
{
	close(p->fd);
	q2q_conn_free(p->conn);
	p->conn = NULL;
	p->fd = -1;
}

static void peer_pump(struct peer *p)
{
	uint8_t bytes[16384];
	struct q2q_event event;
	size_t n;

	do {
		while (q2q_conn_next_event(p->conn, &event, now_us()))
			on_event(p, &event);
		/* Small and on loopback: what the kernel does not take at once is waited for. */
		while ((n = q2q_conn_output(p->conn, bytes, sizeof(bytes), now_us())) > 0)
			for (size_t at = 0; at < n;) {
				const ssize_t sent = send(p->fd, bytes + at, n - at, MSG_NOSIGNAL);
				struct pollfd writable = { .fd = p->fd, .events = POLLOUT };

				if (sent > 0)
					at += (size_t)sent;
				else if (sent < 0 && errno == EAGAIN)
					(void)poll(&writable, 1, 1000);
				else
					at = n;
			}
	} while (q2q_conn_next_event(p->conn, &event, now_us()) ? (on_event(p, &event), true)
								: false);
}

static void peer_read(struct peer *p)
{
	uint8_t bytes[16384];
	const ssize_t n = recv(p->fd, bytes, sizeof(bytes), 0);

	if (n > 0)
		must(q2q_conn_input(p->conn, bytes, (size_t)n, now_us()), "input");
	else if (n == 0 || errno != EAGAIN)
		q2q_conn_input_end(p->conn, now_us());
}

/* ---- certificates --------------------------------------------------------------------------- */

static enum crypto_key_kind kind = CRYPTO_KEY_P256;

static struct crypto_tls_context *context_of(struct crypto_key *key, struct crypto_cert *cert)
{
	const struct crypto_tls_config config = { .cert = cert, .key = key };
	struct crypto_tls_context *context;

	must(crypto_tls_context_new(&config, &context), "TLS context");
	return context;
}

static struct crypto_cert *pin; /* of the domain */

static int verify(void *user, struct crypto_cert *cert)
{
	(void)user;
	return crypto_cert_verify(cert, pin, NULL, (int64_t)time(NULL));
}

/* ---- server -------------------------------------------------------------------------------------
 */

static char domain[Q2Q_DOMAIN_MAX_BYTES + 1];
static struct crypto_key *domain_key;
static struct crypto_tls_context *domain_context;
static struct {
	char name[65], password[256];
} users[ITEMS_MAX];
static size_t n_users;
static struct {
	struct peer *peer;
	char address[Q2Q_ADDRESS_TEXT_BYTES], protocol[Q2Q_PROTOCOL_MAX_BYTES + 1];
} listeners[ITEMS_MAX];
static size_t n_listeners;
static struct {
	struct peer *requester;
	uint64_t ask;
} waiting[ITEMS_MAX];
static size_t n_waiting;
static struct {
	char id[64];
	enum q2q_inner inner;
} offers[ITEMS_MAX];
static size_t n_offers;

static void text_of(const struct amp_value *value, char *out, size_t out_bytes)
{
	snprintf(out, out_bytes, "%.*s", (int)value->n_bytes, (const char *)value->data);
}

static int find_user(const char *name)
{
	for (size_t i = 0; i < n_users; i++)
		if (strcmp(users[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void serve_identify(struct peer *p, const struct q2q_event *event)
{
	struct q2q_answer answer = { .command = Q2Q_IDENTIFY };
	size_t n;

	if (strcmp(event->call.identify.subject.text, domain) != 0) {
		(void)!q2q_conn_fail(p->conn, event->ask, Q2Q_ERROR_UNKNOWN, NULL, now_us());
		return;
	}
	answer.identify.certificate.data = crypto_cert_der(pin, &n);
	answer.identify.certificate.n_bytes = n;
	must(q2q_conn_answer(p->conn, event->ask, &answer, now_us()), "identify");
}

/* Signs, or says with which error not. */
static int sign(const struct q2q_call *call, struct crypto_cert **ret_cert)
{
	_cleanup_(crypto_csr_freep) struct crypto_csr *csr = NULL;
	struct q2q_address address;
	char password[256];
	int user;

	if (crypto_csr_from_der(call->sign.certificate_request.data,
				call->sign.certificate_request.n_bytes, &csr) != 0 ||
	    q2q_user_parse(crypto_csr_subject(csr), &address) < 0)
		return Q2Q_ERROR_BAD_CERTIFICATE_REQUEST;
	if (strcmp(address.domain, domain) != 0)
		return Q2Q_ERROR_NO_SUCH_USER;
	text_of(&call->sign.password, password, sizeof(password));
	user = find_user(address.resource);
	if (user < 0 || strcmp(users[user].password, password) != 0)
		return Q2Q_ERROR_WRONG_PASSWORD;
	must(crypto_cert_issue(pin, domain_key, csr, address.text, (int64_t)time(NULL), 365,
			       ret_cert),
	     "issue");
	return -1;
}

static void serve_sign(struct peer *p, const struct q2q_event *event)
{
	struct q2q_answer answer = { .command = Q2Q_SIGN };
	struct crypto_cert *cert = NULL;
	const int failed = sign(&event->call, &cert);
	size_t n;

	if (failed >= 0) {
		(void)!q2q_conn_fail(p->conn, event->ask, (enum q2q_error)failed, NULL, now_us());
		return;
	}
	answer.identify.certificate.data = crypto_cert_der(cert, &n);
	answer.identify.certificate.n_bytes = n;
	must(q2q_conn_answer(p->conn, event->ask, &answer, now_us()), "sign");
	crypto_cert_unref(cert);
}

static void serve_listen(struct peer *p, const struct q2q_event *event)
{
	struct reader r = reader_over(event->call.listen.protocols.data,
				      event->call.listen.protocols.n_bytes);
	const struct q2q_answer nothing = { .command = Q2Q_LISTEN };
	struct amp_value name;

	while (amp_list_next(&r, &name) == 0 && n_listeners < ITEMS_MAX) {
		listeners[n_listeners].peer = p;
		text_of(&name, listeners[n_listeners].protocol,
			sizeof(listeners[n_listeners].protocol));
		snprintf(listeners[n_listeners].address, sizeof(listeners[n_listeners].address),
			 "%s", event->call.listen.from.text);
		n_listeners++;
	}
	must(q2q_conn_answer(p->conn, event->ask, &nothing, now_us()), "listen");
}

/* An entry of our own, reached by a virtual transport alone. */
static void serve_own(struct peer *p, const struct q2q_event *event, enum q2q_inner inner)
{
	const struct q2q_method method = { .kind = Q2Q_METHOD_VIRTUAL };
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listener *entry = &answer.inbound.listeners.entries[0];
	struct buffer methods;
	uint8_t id[16];

	if (n_offers == ITEMS_MAX)
		n_offers = 0;
	must(crypto_random(id, sizeof(id)), "random");
	hex_encode(id, sizeof(id), offers[n_offers].id);
	offers[n_offers].inner = inner;
	buffer_init(&methods, 64, false);
	must(q2q_methods_append(&methods, &method), "methods");
	entry->id = amp_text(offers[n_offers++].id);
	entry->methods = amp_value(buffer_peek(&methods), buffer_used(&methods));
	entry->description = amp_text("identity admin");
	entry->expires_s = (int64_t)time(NULL) + 120;
	entry->expires_in_s = 120;
	answer.inbound.listeners.n = 1;
	must(q2q_conn_answer(p->conn, event->ask, &answer, now_us()), "inbound");
	buffer_fini(&methods);
}

static void serve_inbound(struct peer *p, const struct q2q_event *event)
{
	struct q2q_answer nobody = { .command = Q2Q_INBOUND };
	char name[Q2Q_PROTOCOL_MAX_BYTES + 1];

	text_of(&event->call.inbound.protocol, name, sizeof(name));
	if (strcmp(name, "identity-admin") == 0 || strcmp(name, "echo") == 0) {
		serve_own(p, event, strcmp(name, "echo") == 0 ? Q2Q_INNER_BYTES : Q2Q_INNER_ADMIN);
		return;
	}
	for (size_t i = 0; i < n_listeners && n_waiting < ITEMS_MAX; i++) {
		if (!listeners[i].peer ||
		    strcmp(listeners[i].address, event->call.inbound.to.text) != 0 ||
		    strcmp(listeners[i].protocol, name) != 0)
			continue;
		waiting[n_waiting].requester = p;
		waiting[n_waiting].ask = event->ask;
		must(q2q_conn_call(listeners[i].peer->conn, &event->call, n_waiting++, 0, now_us()),
		     "relay");
		peer_pump(listeners[i].peer);
		return;
	}
	must(q2q_conn_answer(p->conn, event->ask, &nobody, now_us()), "nobody");
}

static void serve_answer(struct peer *p, const struct q2q_event *event)
{
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct buffer methods[Q2Q_LISTENERS_MAX];
	struct peer *requester;
	size_t n = 0, der_bytes;

	if (event->command != Q2Q_INBOUND || !waiting[event->cookie].requester)
		return;
	requester = waiting[event->cookie].requester;
	for (size_t i = 0; event->kind == Q2Q_EVENT_ANSWER && i < event->answer.inbound.listeners.n;
	     i++) {
		struct q2q_listener *entry = &answer.inbound.listeners.entries[n];

		*entry = event->answer.inbound.listeners.entries[i];
		buffer_init(&methods[n], 4096, false);
		must(q2q_methods_relay(&entry->methods, &methods[n]), "methods");
		entry->methods = amp_value(buffer_peek(&methods[n]), buffer_used(&methods[n]));
		entry->certificate.data = crypto_cert_der(q2q_conn_peer_cert(p->conn), &der_bytes);
		entry->certificate.n_bytes = der_bytes;
		n += entry->methods.n_bytes > 0;
	}
	answer.inbound.listeners.n = n;
	(void)!q2q_conn_answer(requester->conn, waiting[event->cookie].ask, &answer, now_us());
	for (size_t i = 0; i < n; i++)
		buffer_fini(&methods[i]);
	peer_pump(requester);
}

static void serve_retrieve(struct peer *p, const struct q2q_event *event)
{
	char id[64];

	text_of(&event->call.retrieve.identifier, id, sizeof(id));
	for (size_t i = 0; i < n_offers; i++)
		if (strcmp(offers[i].id, id) == 0) {
			offers[i].id[0] = '\0';
			must(q2q_conn_accept_retrieve(p->conn, event->ask, offers[i].inner, 0,
						      now_us()),
			     "retrieve");
			return;
		}
	(void)!q2q_conn_fail(p->conn, event->ask, Q2Q_ERROR_NO_SUCH_CONNECTION, id, now_us());
}

static void serve_add_user(struct peer *p, const struct q2q_event *event)
{
	char name[65];

	text_of(&event->call.add_user.name, name, sizeof(name));
	if (find_user(name) >= 0 || n_users == ITEMS_MAX) {
		(void)!q2q_conn_fail(p->conn, event->ask, Q2Q_ERROR_NOT_ALLOWED, NULL, now_us());
		return;
	}
	snprintf(users[n_users].name, sizeof(users[n_users].name), "%s", name);
	text_of(&event->call.add_user.password, users[n_users].password,
		sizeof(users[n_users].password));
	n_users++;
	must(q2q_conn_answer(p->conn, event->ask, NULL, now_us()), "add_user");
}

static void serve_call(struct peer *p, const struct q2q_event *event)
{
	switch (event->command) {
	case Q2Q_IDENTIFY:
		serve_identify(p, event);
		return;
	case Q2Q_SECURE:
		must(q2q_conn_accept_secure(p->conn, event->ask, domain_context, verify, NULL,
					    now_us()),
		     "secure");
		return;
	case Q2Q_SIGN:
		serve_sign(p, event);
		return;
	case Q2Q_LISTEN:
		serve_listen(p, event);
		return;
	case Q2Q_INBOUND:
		serve_inbound(p, event);
		return;
	case Q2Q_RETRIEVE_CONNECTION:
		serve_retrieve(p, event);
		return;
	case Q2Q_ADD_USER:
		serve_add_user(p, event);
		return;
	default:
		(void)!q2q_conn_fail(p->conn, event->ask, Q2Q_ERROR_CONNECTION,
				     "unable to find appropriate UDP binder", now_us());
	}
}

static void serve_event(struct peer *p, struct q2q_event *event)
{
	switch (event->kind) {
	case Q2Q_EVENT_CALL:
		serve_call(p, event);
		break;
	case Q2Q_EVENT_ANSWER:
	case Q2Q_EVENT_ERROR:
		serve_answer(p, event);
		break;
	case Q2Q_EVENT_VIRTUAL_DATA:
		(void)!q2q_conn_virtual_write(p->conn, event->virtual_id, event->data.data,
					      event->data.n_bytes, now_us());
		break;
	case Q2Q_EVENT_CLOSED:
		fprintf(stderr, "# closed: %s\n", event->closed.text);
		for (size_t i = 0; i < n_listeners; i++)
			if (listeners[i].peer == p)
				listeners[i].peer = NULL;
		for (size_t i = 0; i < n_waiting; i++)
			if (waiting[i].requester == p)
				waiting[i].requester = NULL;
		break;
	default:
		break;
	}
}

static int listen_on(int type, uint16_t *port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(*port) };
	socklen_t sa_bytes = sizeof(sa);
	const int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(fd < 0 ? -errno : 0, "socket");
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    (type == SOCK_STREAM && listen(fd, 16) < 0) ||
	    getsockname(fd, (struct sockaddr *)&sa, &sa_bytes) < 0)
		must(-errno, "bind");
	*port = ntohs(sa.sin_port);
	return fd;
}

static void serve_udp(int fd, struct q2q_classic *classic)
{
	uint8_t bytes[2048];
	struct sockaddr_in sa;
	struct endpoint from;
	socklen_t sa_bytes = sizeof(sa);
	const ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&sa, &sa_bytes);

	if (n > 0 && endpoint_from_sockaddr((struct sockaddr *)&sa, &from) == 0)
		(void)!q2q_classic_input(classic, &from, bytes, (size_t)n, now_us());
}

static void flush_udp(int fd, struct q2q_classic *classic)
{
	uint8_t bytes[Q2Q_CLASSIC_DATAGRAM_MAX_BYTES];
	struct sockaddr_storage sa;
	struct endpoint to;
	size_t n;

	q2q_classic_tick(classic, now_us());
	while ((n = q2q_classic_output(classic, &to, bytes, now_us())) > 0) {
		const size_t sa_bytes = endpoint_to_sockaddr(&to, false, &sa);

		(void)!sendto(fd, bytes, n, 0, (struct sockaddr *)&sa, (socklen_t)sa_bytes);
	}
}

/* Ticks, then waits for one of the sockets and reads it. */
static void turn(struct pollfd *extra, size_t n_extra)
{
	struct pollfd fds[CONNS_MAX + 2];
	struct peer *of[CONNS_MAX + 2];
	size_t n = 0;

	for (; n < n_extra; n++)
		fds[n] = extra[n];
	for (size_t i = 0; i < CONNS_MAX; i++) {
		struct peer *p = &peers[i];

		if (p->fd < 0)
			continue;
		if (q2q_conn_deadline_us(p->conn) <= now_us())
			q2q_conn_tick(p->conn, now_us());
		peer_pump(p);
		if (q2q_conn_is_over(p->conn)) {
			peer_free(p);
			continue;
		}
		of[n] = p;
		fds[n++] = (struct pollfd){ .fd = p->fd, .events = POLLIN };
	}
	(void)poll(fds, n, 10);
	for (size_t i = 0; i < n_extra; i++)
		extra[i].revents = fds[i].revents;
	for (size_t i = n_extra; i < n; i++)
		if (fds[i].revents)
			peer_read(of[i]);
}

static _Noreturn void serve(void)
{
	const struct q2q_classic_config classic_config = { 0 };
	struct q2q_classic *classic;
	uint16_t port = 0;
	struct pollfd extra[2];

	must(crypto_key_generate(kind, &domain_key), "key");
	must(crypto_cert_make_domain(domain_key, domain, (int64_t)time(NULL), 365, &pin),
	     "certificate");
	must(q2q_classic_new(&classic_config, &classic), "classic PTCP");
	domain_context = context_of(domain_key, pin);
	on_event = serve_event;
	extra[0] = (struct pollfd){ .fd = listen_on(SOCK_STREAM, &port), .events = POLLIN };
	extra[1] = (struct pollfd){ .fd = listen_on(SOCK_DGRAM, &port), .events = POLLIN };
	printf("port %u\n", port);
	fflush(stdout);
	for (;;) {
		turn(extra, 2);
		if (extra[0].revents) {
			const int fd = accept(extra[0].fd, NULL, NULL);

			if (fd >= 0)
				(void)peer_new(fd, Q2Q_SERVER);
		}
		if (extra[1].revents)
			serve_udp(extra[1].fd, classic);
		flush_udp(extra[1].fd, classic);
	}
}

/* ---- client
 * -------------------------------------------------------------------------------------- */

static uint16_t server_port;
static int n_failed;

static void client_event(struct peer *p, struct q2q_event *event)
{
	p->n[event->kind]++;
	p->last = *event;
	if (event->kind == Q2Q_EVENT_ERROR)
		p->failure = event->failure;
	/* What the event lends is copied while it is there. */
	if (event->kind == Q2Q_EVENT_ANSWER &&
	    (event->command == Q2Q_IDENTIFY || event->command == Q2Q_SIGN)) {
		p->kept_bytes = event->answer.identify.certificate.n_bytes;
		memcpy(p->kept, event->answer.identify.certificate.data, p->kept_bytes);
	}
	if (event->kind == Q2Q_EVENT_ANSWER && event->command == Q2Q_INBOUND &&
	    event->answer.inbound.listeners.n > 0) {
		const struct q2q_listener *entry = &event->answer.inbound.listeners.entries[0];

		p->kept_bytes = min_size(entry->id.n_bytes, sizeof(p->kept));
		memcpy(p->kept, entry->id.data, p->kept_bytes);
		p->kept_methods_bytes = min_size(entry->methods.n_bytes, sizeof(p->kept_methods));
		memcpy(p->kept_methods, entry->methods.data, p->kept_methods_bytes);
	}
	if (event->kind == Q2Q_EVENT_CALL)
		p->call = event->ask;
}

static bool wait_for(struct peer *p, enum q2q_event_kind event_kind)
{
	const uint64_t until_us = now_us() + STEP_WAIT_S * US_PER_S;
	const unsigned before = p->n[event_kind], errors = p->n[Q2Q_EVENT_ERROR];

	while (now_us() < until_us && p->fd >= 0) {
		turn(NULL, 0);
		if (p->n[event_kind] > before)
			return true;
		/* An error instead of an answer comes at once. */
		if (event_kind == Q2Q_EVENT_ANSWER && p->n[Q2Q_EVENT_ERROR] > errors)
			return false;
	}
	return p->n[event_kind] > before;
}

static void step(const char *name, bool ok)
{
	printf("%s %s\n", ok ? "ok" : "not ok", name);
	fflush(stdout);
	n_failed += !ok;
}

static struct peer *dial(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(server_port) };
	const int fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		must(-errno, "connect");
	return peer_new(fd, Q2Q_CLIENT);
}

static bool secure(struct peer *p, const char *from, bool authorize,
		   struct crypto_tls_context *context)
{
	struct q2q_secure request = { .authorize = authorize, .tls = context, .verify = verify };

	must(q2q_address_parse(from, strlen(from), &request.from), "from");
	must(q2q_domain_parse(domain, &request.to), "to");
	must(q2q_conn_secure(p->conn, &request, 1, now_us()), "secure");
	return wait_for(p, Q2Q_EVENT_SECURED);
}

static bool ask_inbound(struct peer *p, const char *from, const char *to, const char *name)
{
	struct q2q_call call = { .command = Q2Q_INBOUND };

	must(q2q_address_parse(from, strlen(from), &call.inbound.from), "from");
	must(q2q_user_parse(to, &call.inbound.to), "to");
	call.inbound.protocol = amp_text(name);
	call.inbound.q2q_tun = true; /* a stock server ignores it */
	call.inbound.request = amp_text("00112233445566778899aabbccddeeff");
	must(q2q_conn_call(p->conn, &call, 2, 0, now_us()), "inbound");
	return wait_for(p, Q2Q_EVENT_ANSWER);
}

static void try_register(const char *accounts, const char *name, struct crypto_tls_context *context)
{
	const struct q2q_call add_user = { .command = Q2Q_ADD_USER,
					   .add_user = { .name = amp_text(name),
							 .password = amp_text("secret") } };
	struct q2q_call call = { .command = Q2Q_IDENTIFY };
	struct peer *p = dial();
	struct amp_value id;

	must(q2q_domain_parse(domain, &call.identify.subject), "domain");
	must(q2q_conn_call(p->conn, &call, 1, 0, now_us()), "identify");
	step("identify", wait_for(p, Q2Q_EVENT_ANSWER) &&
				 crypto_cert_from_der(p->kept, p->kept_bytes, &pin) == 0);
	call.command = Q2Q_SOURCE_IP;
	must(q2q_conn_call(p->conn, &call, 1, 0, now_us()), "source-ip");
	step("source-ip", wait_for(p, Q2Q_EVENT_ANSWER));
	step("secure, anonymous", secure(p, "", false, context));
	for (int i = 0; i < 2; i++) {
		step("inbound to accounts", ask_inbound(p, "", accounts, "identity-admin"));
		id = amp_value(p->kept, p->kept_bytes);
		must(q2q_conn_add_user(p->conn, &id, &add_user, 3, now_us()), "add_user");
		if (i == 0)
			step("add_user", wait_for(p, Q2Q_EVENT_ANSWER));
		else
			step("add_user again is NotAllowed",
			     !wait_for(p, Q2Q_EVENT_ANSWER) &&
				     p->failure.error == Q2Q_ERROR_NOT_ALLOWED);
	}
	q2q_conn_close(p->conn, now_us());
	step("an orderly end", wait_for(p, Q2Q_EVENT_CLOSED) && p->last.closed.error == 0);
}

static bool try_sign(const char *address, const char *password, struct crypto_key *key,
		     struct crypto_tls_context *context, struct crypto_cert **ret_cert)
{
	struct q2q_call call = { .command = Q2Q_SIGN };
	struct peer *p = dial();
	struct buffer csr;
	bool ok;

	buffer_init(&csr, 8192, false);
	must(crypto_csr_make(key, address, &csr), "request");
	call.sign.certificate_request = amp_value(buffer_peek(&csr), buffer_used(&csr));
	call.sign.password = amp_text(password);
	ok = secure(p, address, false, context);
	if (ok)
		must(q2q_conn_call(p->conn, &call, 1, 0, now_us()), "sign");
	ok = ok && wait_for(p, Q2Q_EVENT_ANSWER) &&
	     crypto_cert_from_der(p->kept, p->kept_bytes, ret_cert) == 0 &&
	     crypto_cert_verify(*ret_cert, pin, address, (int64_t)time(NULL)) == 0;
	if (p->fd >= 0 && !q2q_conn_is_over(p->conn))
		q2q_conn_close(p->conn, now_us());
	turn(NULL, 0);
	buffer_fini(&csr);
	return ok;
}

static void answer_relayed(struct peer *p)
{
	const struct q2q_method methods[] = {
		{ .kind = Q2Q_METHOD_TCP, .where = { .host = "127.0.0.1", .port = 9 } },
		{ .kind = Q2Q_METHOD_VIRTUAL },
	};
	struct q2q_answer answer = { .command = Q2Q_INBOUND };
	struct q2q_listener *entry = &answer.inbound.listeners.entries[0];
	struct buffer list;

	buffer_init(&list, 256, false);
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		must(q2q_methods_append(&list, &methods[i]), "methods");
	entry->id = amp_text("an id");
	entry->methods = amp_value(buffer_peek(&list), buffer_used(&list));
	entry->description = amp_text("from C");
	entry->expires_s = (int64_t)time(NULL) + 120;
	entry->expires_in_s = 120;
	entry->offer = amp_text("opaque to a stock server");
	answer.inbound.listeners.n = 1;
	must(q2q_conn_answer(p->conn, p->call, &answer, now_us()), "answer");
	buffer_fini(&list);
}

static void try_relay(const char *address, struct crypto_tls_context *context,
		      const struct crypto_cert *cert)
{
	struct peer *listener = dial(), *requester = dial();
	struct q2q_call call = { .command = Q2Q_LISTEN };
	const struct q2q_listener *entry = &requester->last.answer.inbound.listeners.entries[0];
	struct q2q_method method = { 0 };
	struct reader r;
	size_t n;

	must(q2q_user_parse(address, &call.listen.from), "from");
	call.listen.protocols = amp_value("\0\7q2q-tun", 9);
	call.listen.description = amp_text("interop");
	step("secure with authorization", secure(listener, address, true, context));
	must(q2q_conn_call(listener->conn, &call, 1, 0, now_us()), "listen");
	step("listen", wait_for(listener, Q2Q_EVENT_ANSWER));

	step("secure, the second connection", secure(requester, address, true, context));
	memset(&call, 0, sizeof(call));
	call.command = Q2Q_INBOUND;
	must(q2q_user_parse(address, &call.inbound.from), "from");
	call.inbound.to = call.inbound.from;
	call.inbound.protocol = amp_text("q2q-tun");
	call.inbound.q2q_tun = true;
	must(q2q_conn_call(requester->conn, &call, 2, 0, now_us()), "inbound");
	step("the inbound reaches the listener", wait_for(listener, Q2Q_EVENT_CALL));
	answer_relayed(listener);
	step("the answer comes back", wait_for(requester, Q2Q_EVENT_ANSWER));
	(void)crypto_cert_der(cert, &n);
	step("with the certificate of the listener", entry->certificate.n_bytes == n);
	r = reader_over(requester->kept_methods, requester->kept_methods_bytes);
	step("and tcp as the one method", q2q_methods_next(&r, &method) == 0 &&
						  method.kind == Q2Q_METHOD_TCP &&
						  q2q_methods_next(&r, &method) == AMP_END);
	call.inbound.protocol = amp_text("nothing");
	must(q2q_conn_call(requester->conn, &call, 2, 0, now_us()), "inbound");
	step("nobody listens to another protocol",
	     wait_for(requester, Q2Q_EVENT_ANSWER) &&
		     requester->last.answer.inbound.listeners.n == 0);
	must(q2q_user_parse("somebody@else.example", &call.inbound.from), "from");
	must(q2q_conn_call(requester->conn, &call, 2, 0, now_us()), "inbound");
	step("a false From is a VerifyError", !wait_for(requester, Q2Q_EVENT_ANSWER) &&
						      requester->failure.error == Q2Q_ERROR_VERIFY);
	step("and ends the connection",
	     requester->n[Q2Q_EVENT_CLOSED] > 0 || wait_for(requester, Q2Q_EVENT_CLOSED));
	q2q_conn_close(listener->conn, now_us());
	step("the listener ends in order", wait_for(listener, Q2Q_EVENT_CLOSED));
}

static int client(void)
{
	char address[Q2Q_ADDRESS_TEXT_BYTES], accounts[Q2Q_ADDRESS_TEXT_BYTES];
	struct crypto_tls_context *anonymous, *throwaway, *own;
	struct crypto_cert *at, *temporary, *cert = NULL;
	struct crypto_key *key;

	on_event = client_event;
	snprintf(address, sizeof(address), "alice@%.200s", domain);
	snprintf(accounts, sizeof(accounts), "accounts@%.200s", domain);
	must(crypto_key_generate(kind, &key), "key");
	must(crypto_cert_make_throwaway(key, "@", (int64_t)time(NULL), &at), "certificate");
	must(crypto_cert_make_throwaway(key, address, (int64_t)time(NULL), &temporary),
	     "certificate");
	anonymous = context_of(key, at);
	throwaway = context_of(key, temporary);
	try_register(accounts, "alice", anonymous);
	step("a wrong password is refused", !try_sign(address, "wrong", key, throwaway, &cert));
	step("sign", try_sign(address, "secret", key, throwaway, &cert));
	if (cert) {
		own = context_of(key, cert);
		try_relay(address, own, cert);
		crypto_tls_context_unref(own);
	}
	for (size_t i = 0; i < CONNS_MAX; i++)
		if (peers[i].fd >= 0)
			peer_free(&peers[i]);
	crypto_tls_context_unref(anonymous);
	crypto_tls_context_unref(throwaway);
	crypto_cert_unref(at);
	crypto_cert_unref(temporary);
	crypto_cert_unref(cert);
	crypto_cert_unref(pin);
	crypto_key_free(key);
	return n_failed > 0;
}

int main(int argc, char **argv)
{
	uint64_t port = 0;

	if (argc > 1 && strcmp(argv[1], "--rsa") == 0) {
		kind = CRYPTO_KEY_RSA;
		argv++;
		argc--;
	}
	for (size_t i = 0; i < CONNS_MAX; i++)
		peers[i].fd = -1;
	if (argc > 2)
		snprintf(domain, sizeof(domain), "%s", argv[2]);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		serve();
	if (argc == 4 && strcmp(argv[1], "client") == 0 &&
	    parse_u64(argv[3], UINT16_MAX, &port) == 0) {
		server_port = (uint16_t)port;
		return client();
	}
	fprintf(stderr, "usage: amp_peer [--rsa] serve DOMAIN | client DOMAIN PORT\n");
	return 2;
}

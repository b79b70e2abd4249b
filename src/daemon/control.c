/*
 * The control socket: clients, requests, and who may what.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <unistd.h>

static op_fn *const commands[CTL_COMMAND_COUNT] = {
	[CTL_REGISTER] = command_register,
	[CTL_AUTHORIZE] = command_authorize,
	[CTL_IDENTITY_LIST] = command_identity_list,
	[CTL_IDENTITY_SHOW] = command_identity_show,
	[CTL_IDENTITY_DEFAULT] = command_identity_default,
	[CTL_IDENTITY_EXPORT] = command_identity_export,
	[CTL_IDENTITY_IMPORT] = command_identity_import,
	[CTL_IDENTITY_ROTATE] = command_identity_rotate,
	[CTL_UP] = command_up,
	[CTL_DOWN] = command_down,
	[CTL_WAIT] = command_wait,
	[CTL_STATUS] = command_status,
	[CTL_DOCTOR] = command_doctor,
	[CTL_PEERS] = command_peers,
	[CTL_PEERS_FORGET] = command_peers_forget,
	[CTL_PEERS_PIN] = command_peers_pin,
	[CTL_ALLOW] = command_allow,
	[CTL_DENY] = command_deny,
	[CTL_REQUESTS] = command_requests,
	[CTL_PING] = command_ping,
	[CTL_LOG] = command_log,
	[CTL_MONITOR] = command_monitor,
	[CTL_VERSION_INFO] = command_version,
};

/* ---- ops ---- */

/* From now on it takes part in nothing. */
static void op_rest(struct op *op)
{
	if (op->on_end)
		op->on_end(op);
	op->on_answer = NULL;
	op->on_link = NULL;
	op->on_timer = NULL;
	op->on_pong = NULL;
	op->on_log = NULL;
	op->on_event = NULL;
	op->on_end = NULL;
	op->peer = NULL;
	op->asking = false;
	net_timer_disarm(&op->timer);
}

static void op_free(struct op *op)
{
	op_rest(op);
	if (op->answer)
		secret_wipe(op->answer, strlen(op->answer));
	free(op->answer);
	ctl_request_fini(&op->request);
	TAILQ_REMOVE(&op->client->ops, op, entry);
	TAILQ_REMOVE(&op->daemon->ops, op, all);
	op->client->n_ops--;
	free(op);
}

/* Takes the line. A client that does not read what it asked for is cut off. */
static void send_line(struct client *client, char *line)
{
	const size_t n_bytes = line ? strlen(line) : 0;

	if (!line || n_bytes > CTL_REPLY_BYTES_MAX || net_line_send(client->line, line, n_bytes))
		net_soon_queue(&client->gone);
	if (line)
		secret_wipe(line, n_bytes);
	free(line);
}

/* Whether the disk has all that was written while the op ran. */
static bool op_is_stored(const struct op *op)
{
	return op->n_until == op->n_written || disk_settled(op->daemon->disk) >= op->n_until;
}

static void op_answer(struct op *op, char *line)
{
	const int r = disk_fault(op->daemon->disk, op->n_written);
	char text[256];

	if (r) {
		free(line);
		snprintf(text, sizeof(text),
			 "done, but it could not be stored, and will be forgotten: %s",
			 strerror(-r));
		line = ctl_error_line(op->id, CTL_FAILED, text, NULL);
	}
	send_line(op->client, line);
	op_free(op);
}

/* Takes the line. */
static void op_end(struct op *op, char *line)
{
	op->n_until = disk_asked(op->daemon->disk);
	if (!line || op_is_stored(op)) {
		op_answer(op, line);
		return;
	}
	op_rest(op);
	op->answer = line;
}

void control_settled(struct daemon *d)
{
	struct op *op, *next;

	for (op = TAILQ_FIRST(&d->ops); op; op = next) {
		next = TAILQ_NEXT(op, all);
		if (op->answer && op_is_stored(op))
			op_answer(op, TAKE_PTR(op->answer));
	}
}

void op_done(struct op *op, json_t *result)
{
	op_end(op, ctl_result_line(op->id, result));
}

void op_fail(struct op *op, const struct problem *problem)
{
	op_end(op, ctl_error_line(op->id, problem->code, problem->error, problem->hint));
}

void op_failf(struct op *op, enum ctl_code code, const char *hint, const char *format, ...)
{
	struct problem problem;
	va_list args;

	problem.code = code;
	snprintf(problem.hint, sizeof(problem.hint), "%s", hint ? hint : "");
	va_start(args, format);
	vsnprintf(problem.error, sizeof(problem.error), format, args);
	va_end(args);
	op_fail(op, &problem);
}

void op_progress(struct op *op, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	send_line(op->client, ctl_progress_line(op->id, text));
}

void op_event(struct op *op, json_t *event)
{
	char *line = ctl_event_line(op->id, event);

	/* Who follows and does not read loses lines, not the connection. */
	if (line)
		net_line_send(op->client->line, line, strlen(line));
	free(line);
}

void op_ask(struct op *op, enum ctl_ask_kind kind, const char *subject, const char *fingerprint,
	    const char *text)
{
	op->asking = true;
	op->asked = kind;
	snprintf(op->asked_fingerprint, sizeof(op->asked_fingerprint), "%s", fingerprint);
	send_line(op->client, ctl_ask_line(op->id, kind, subject, fingerprint, text));
}

bool op_says_yes(const char *answer, const char *fingerprint)
{
	return !strcmp(answer, "yes") || !strcmp(answer, fingerprint);
}

bool op_user(struct op *op, const char *name, struct q2q_address *ret_address)
{
	const char *text = ctl_text(&op->request, name);

	if (text && !q2q_user_parse(text, ret_address))
		return true;
	op_failf(op, CTL_USAGE, "an address looks like an e-mail address: bob@example.org",
		 "\"%.100s\" is not a Q2Q address", text ? text : "");
	return false;
}

struct peer *op_peer(struct op *op)
{
	struct q2q_address address;
	struct peer *peer;

	if (!op_user(op, "address", &address))
		return NULL;
	peer = peers_find(op->daemon, address.text);
	if (!peer)
		op_failf(op, CTL_NOT_FOUND,
			 "q2q-tun peers lists those that are; q2q-tun up ADDRESS "
			 "adds one",
			 "%s is not known here", address.text);
	return peer;
}

void op_ask_domain(struct op *op, const char *domain, struct crypto_cert *cert)
{
	char fingerprint[CRYPTO_FINGERPRINT_BYTES], text[2048];

	snprintf(text, sizeof(text),
		 "The identity server of %s is not known to this machine yet.\n"
		 "Its key fingerprint is %s.\n"
		 "Compare it with what its operator says: the key is trusted from now on.",
		 domain, crypto_cert_fingerprint(cert, fingerprint));
	op_ask(op, CTL_ASK_TRUST_DOMAIN, domain, fingerprint, text);
}

void control_link_changed(struct daemon *d, struct link *link)
{
	struct op *op, *next;

	for (op = TAILQ_FIRST(&d->ops); op; op = next) {
		next = TAILQ_NEXT(op, all);
		if (op->peer == link->peer && op->on_link)
			op->on_link(op, link);
	}
}

void control_event(struct daemon *d, json_t *event)
{
	struct op *op, *next;

	for (op = TAILQ_FIRST(&d->ops); op; op = next) {
		next = TAILQ_NEXT(op, all);
		if (op->on_event)
			op->on_event(op, json_incref(event));
	}
	json_decref(event);
}

static void op_timer(void *user, uint64_t now_us)
{
	struct op *op = user;

	(void)now_us;
	if (op->on_timer)
		op->on_timer(op);
}

/* ---- requests ---- */

static void start_op(struct client *client, struct ctl_request *request)
{
	struct daemon *d = client->daemon;
	struct op *op = calloc(1, sizeof(*op));

	if (!op || client->n_ops == OPS_MAX) {
		free(op);
		send_line(client,
			  ctl_error_line(request->id, CTL_FAILED,
					 "too many requests at a time on one connection", NULL));
		ctl_request_fini(request);
		return;
	}
	op->daemon = d;
	op->client = client;
	op->id = request->id;
	op->request = *request;
	op->n_written = disk_asked(d->disk);
	net_timer_init(&op->timer, d->loop, op_timer, op);
	TAILQ_INSERT_TAIL(&client->ops, op, entry);
	TAILQ_INSERT_TAIL(&d->ops, op, all);
	client->n_ops++;
	if (!client->is_operator && !ctl_command_info(request->command)->public)
		op_failf(op, CTL_DENIED,
			 "become root, or a member of the group q2q-tun: sudo adduser $USER "
			 "q2q-tun, "
			 "then log in again",
			 "you may not use %s on this machine's tunnels",
			 ctl_command_info(request->command)->name);
	else
		commands[request->command](op);
}

static struct op *op_find(struct client *client, uint64_t id)
{
	struct op *op;

	TAILQ_FOREACH (op, &client->ops, entry)
		if (op->id == id)
			return op;
	return NULL;
}

static void give_answer(struct client *client, struct ctl_request *request)
{
	struct op *op = op_find(client, request->id);

	if (op && op->asking && op->on_answer) {
		op->asking = false;
		op->on_answer(op, request->answer);
	}
	ctl_request_fini(request);
}

static void on_line(void *user, struct net_line *line, char *text, size_t text_bytes)
{
	struct client *client = user;
	struct ctl_request request;
	char why[256];
	const int r = ctl_request_parse(text, text_bytes, &request, why, sizeof(why));

	(void)line;
	secret_wipe(text, text_bytes);
	if (r == -EBADMSG || r == -ENOMEM) {
		net_soon_queue(&client->gone);
	} else if (r) {
		send_line(client,
			  ctl_error_line(request.id, CTL_USAGE, why,
					 r == -EINVAL ? NULL
						      : "is the program of the same version "
							"as the daemon?"));
	} else if (request.type == CTL_ANSWER) {
		give_answer(client, &request);
	} else if (op_find(client, request.id)) {
		ctl_request_fini(&request);
		net_soon_queue(&client->gone);
	} else {
		start_op(client, &request);
	}
}

/* ---- clients ---- */

static void client_free(struct client *client)
{
	struct op *op;

	while ((op = TAILQ_FIRST(&client->ops)))
		op_free(op);
	net_soon_cancel(&client->gone);
	net_line_close(client->line);
	LIST_REMOVE(client, entry);
	client->daemon->n_clients--;
	free(client);
}

static void on_gone(void *user)
{
	client_free(user);
}

static void on_closed(void *user, struct net_line *line, int error)
{
	struct client *client = user;

	(void)line;
	(void)error;
	net_soon_queue(&client->gone);
}

static bool is_operator(const struct daemon *d, const struct net_peer *peer)
{
	return peer->uid == 0 || peer->uid == geteuid() ||
	       (d->options->operator_gid != (gid_t)-1 &&
		net_peer_in_group(peer, d->options->operator_gid));
}

/* Whoever may only look must not keep out those who operate. */
static bool is_room(const struct daemon *d, const struct net_peer *peer)
{
	const struct client *client;
	unsigned n_public = 0, n_own = 0;

	if (d->n_clients >= CLIENTS_MAX)
		return false;
	if (is_operator(d, peer))
		return true;
	LIST_FOREACH (client, &d->clients, entry) {
		n_public += !client->is_operator;
		n_own += !client->is_operator && client->uid == peer->uid;
	}
	return n_public < CLIENTS_PUBLIC_MAX && n_own < CLIENTS_PER_UID_MAX;
}

static void on_accepted(void *user, int fd, const struct net_peer *peer)
{
	struct daemon *d = user;
	struct client *client = is_room(d, peer) ? calloc(1, sizeof(*client)) : NULL;
	struct net_line_config config = { .fd = fd, .on_line = on_line, .on_closed = on_closed };

	if (!client) {
		close(fd);
		return;
	}
	client->daemon = d;
	client->is_operator = is_operator(d, peer);
	client->uid = peer->uid;
	TAILQ_INIT(&client->ops);
	net_soon_init(&client->gone, d->loop, on_gone, client);
	config.line_bytes_max = CTL_LINE_BYTES_MAX;
	config.output_bytes_max = CTL_REPLY_BYTES_MAX + CTL_LINE_BYTES_MAX;
	config.user = client;
	if (net_line_new(d->loop, &config, &client->line)) {
		free(client);
		return;
	}
	LIST_INSERT_HEAD(&d->clients, client, entry);
	d->n_clients++;
}

int control_start(struct daemon *d)
{
	const int r = net_listen_unix(d->loop, d->options->control_path, 0666, on_accepted, d,
				      &d->control);

	if (r)
		log_error("cannot open the control socket %s: %s%s", d->options->control_path,
			  strerror(-r), r == -EADDRINUSE ? ". Another daemon serves it" : "");
	return r;
}

void control_stop(struct daemon *d)
{
	struct client *client;

	while ((client = LIST_FIRST(&d->clients)))
		client_free(client);
	net_listener_free(d->control);
	d->control = NULL;
}

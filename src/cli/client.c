/*
 * One conversation with the daemon over its Unix socket: a request, then lines
 * of JSON until the final one. In between come progress, events and questions.
 */
#include "cli/cli.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_ID 1

struct client {
	int fd;
	struct buffer in;
	uint64_t deadline_us; /* NEVER_US: none */
};

static uint64_t clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

/* ---- the socket ------------------------------------------------------------- */

static int connect_daemon(const char *path, int *ret_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_(closep) int fd = -1;

	if (strlen(path) >= sizeof(address.sun_path)) {
		cli_complain("the path of the control socket is too long: %s", path);
		return CLI_USAGE;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EACCES || errno == EPERM) {
			cli_complain("you may not talk to the daemon at %s. Its group is q2q-tun: "
				     "`sudo adduser %s q2q-tun', then log in again.",
				     path, getenv("USER") ? getenv("USER") : "YOU");
			return CLI_DENIED;
		}
		cli_complain("the daemon is not running (%s: %s). Start it with "
			     "`sudo systemctl start q2q-tun'.",
			     path, strerror(errno));
		return CLI_NO_DAEMON;
	}
	*ret_fd = fd;
	fd = -1;
	return CLI_OK;
}

static int send_json(struct client *client, const json_t *message)
{
	_cleanup_(freep) char *text = json_dumps(message, JSON_COMPACT);
	size_t sent = 0, n_bytes;
	int r = CLI_OK;

	if (!text)
		return CLI_FAILED;
	n_bytes = strlen(text);
	text[n_bytes] = '\n'; /* over the NUL: the length is known */
	while (sent <= n_bytes) {
		const ssize_t n = send(client->fd, text + sent, n_bytes + 1 - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			cli_complain("the daemon closed the connection");
			r = CLI_NO_DAEMON;
			break;
		}
		sent += (size_t)n;
	}
	secret_wipe(text, n_bytes + 1); /* passwords pass here */
	return r;
}

static int wait_readable(struct client *client)
{
	struct pollfd poll_fd = { .fd = client->fd, .events = POLLIN };

	for (;;) {
		const uint64_t now_us = clock_us();
		int wait_ms = -1, n;

		if (client->deadline_us != NEVER_US) {
			if (now_us >= client->deadline_us) {
				cli_complain("timed out waiting for the daemon");
				return CLI_TIMED_OUT;
			}
			wait_ms = (int)min_u64((client->deadline_us - now_us) / 1000 + 1, 3600000);
		}
		n = poll(&poll_fd, 1, wait_ms);
		if (n > 0)
			return CLI_OK;
		if (n < 0 && errno != EINTR)
			return CLI_FAILED;
	}
}

static int fill(struct client *client)
{
	uint8_t *room;
	ssize_t n;
	int r = wait_readable(client);

	if (r != CLI_OK)
		return r;
	if (buffer_reserve(&client->in, 4096, &room) < 0) {
		cli_complain("the daemon sent a line that is too long");
		return CLI_FAILED;
	}
	do
		n = read(client->fd, room, 4096);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		cli_complain("the daemon closed the connection; its log says why "
			     "(`journalctl -u q2q-tun')");
		return CLI_NO_DAEMON;
	}
	buffer_commit(&client->in, (size_t)n);
	return CLI_OK;
}

/* The next line as JSON, owned by the caller. */
static int receive_json(struct client *client, json_t **ret_message)
{
	for (;;) {
		const uint8_t *start = buffer_peek(&client->in);
		const uint8_t *end = start ? memchr(start, '\n', buffer_used(&client->in)) : NULL;
		json_error_t error;
		int r;

		if (end) {
			const size_t n_bytes = (size_t)(end - start);

			*ret_message = json_loadb((const char *)start, n_bytes,
						  JSON_REJECT_DUPLICATES, &error);
			buffer_consume(&client->in, n_bytes + 1);
			if (json_is_object(*ret_message))
				return CLI_OK;
			json_decref(*ret_message);
			cli_complain("the daemon sent what is not JSON: %s", error.text);
			return CLI_FAILED;
		}
		r = fill(client);
		if (r != CLI_OK)
			return r;
	}
}

/* ---- questions ------------------------------------------------------------------ */

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* Asks as ssh does, until the answer is one of the three. */
static void ask_trust(const json_t *ask, char *out, size_t out_bytes)
{
	const char *fingerprint = text_of(ask, "fingerprint");
	char question[2048], clean[2048];

	snprintf(question, sizeof(question),
		 "%s\nIts key fingerprint is %s.\nAre you sure you want to continue connecting "
		 "(yes/no/[fingerprint])? ",
		 text_of(ask, "text"), fingerprint);
	snprintf(out, out_bytes, "no");
	/* What the server sent must not drive the terminal; our own newlines may. */
	size_t used = 0;
	for (const char *line = question; line && used + 1 < sizeof(clean);) {
		const char *end = strchr(line, '\n');
		const size_t n = end ? (size_t)(end - line) : strlen(line);

		text_sanitize(line, n, clean + used, sizeof(clean) - used - 1);
		used += strlen(clean + used);
		if (end) {
			clean[used++] = '\n';
			clean[used] = '\0';
		}
		line = end ? end + 1 : NULL;
	}
	for (const char *prompt = clean;; prompt = "Please type 'yes', 'no' or the fingerprint: ") {
		if (cli_prompt_line(prompt, out, out_bytes) < 0) {
			snprintf(out, out_bytes, "no");
			return;
		}
		if (strcmp(out, "yes") == 0 || strcmp(out, "no") == 0 ||
		    strcmp(out, fingerprint) == 0)
			return;
	}
}

static int answer(struct client *client, const json_t *ask)
{
	char text[256] = "no";
	json_t *message;
	int r;

	if (cli_can_prompt())
		ask_trust(ask, text, sizeof(text));
	else
		cli_complain("%s (%s) is not known yet, and there is no terminal to ask on. Check "
			     "the fingerprint, then run the command with --yes.",
			     text_of(ask, "subject"), text_of(ask, "fingerprint"));
	message = json_pack("{s:i, s:i, s:s}", "v", 1, "id", REQUEST_ID, "answer", text);
	if (!message)
		return CLI_FAILED;
	r = send_json(client, message);
	json_decref(message);
	return r;
}

/* ---- the conversation -------------------------------------------------------------- */

static int fail(const struct cli_call *call, const json_t *message)
{
	const json_int_t code = json_integer_value(json_object_get(message, "code"));
	const char *hint = text_of(message, "hint");

	if (call->globals->json) {
		json_dumpf(message, stdout, JSON_COMPACT);
		putchar('\n');
	}
	cli_complain("%s", text_of(message, "error"));
	if (*hint)
		cli_complain("%s", hint);
	return code > 0 && code < CLI_EXIT_COUNT ? (int)code : CLI_FAILED;
}

static void show_event(struct cli_call *call, const json_t *event)
{
	if (call->globals->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
	} else if (call->command->event) {
		call->command->event(call, event);
	}
	fflush(stdout);
}

static void show_progress(const struct cli_call *call, const json_t *progress)
{
	char clean[512];
	const char *text = json_string_value(progress);

	if (!text || call->globals->json || !isatty(STDERR_FILENO))
		return;
	text_sanitize(text, strlen(text), clean, sizeof(clean));
	fprintf(stderr, "%s\n", clean);
}

static int send_request(struct client *client, const struct cli_call *call)
{
	json_t *message = json_pack("{s:i, s:i, s:s, s:O}", "v", 1, "id", REQUEST_ID, "cmd",
				    call->request, "args", call->args);
	int r;

	if (!message)
		return CLI_FAILED;
	r = send_json(client, message);
	json_decref(message);
	return r;
}

/* Serves what comes until the final reply; *ret_result is borrowed from nobody: a new reference. */
static int converse(struct client *client, struct cli_call *call, json_t **ret_result)
{
	int r = send_request(client, call);

	while (r == CLI_OK) {
		json_t *message = NULL;
		const json_t *ok;

		r = receive_json(client, &message);
		if (r != CLI_OK)
			break;
		ok = json_object_get(message, "ok");
		if (json_is_true(ok))
			*ret_result = json_incref(json_object_get(message, "result"));
		else if (ok)
			r = fail(call, message);
		else if (json_object_get(message, "ask"))
			r = answer(client, json_object_get(message, "ask"));
		else if (json_object_get(message, "event"))
			show_event(call, json_object_get(message, "event"));
		else
			show_progress(call, json_object_get(message, "progress"));
		json_decref(message);
		if (ok)
			break;
	}
	return r;
}

int cli_client_fetch(struct cli_call *call, json_t **ret_result)
{
	struct client client = { .fd = -1, .deadline_us = NEVER_US };
	int r = connect_daemon(call->globals->control_path, &client.fd);

	if (r != CLI_OK)
		return r;
	if (call->globals->timeout_s > 0)
		client.deadline_us = clock_us() + call->globals->timeout_s * US_PER_S;
	buffer_init(&client.in, CLI_LINE_MAX_BYTES, true);
	r = converse(&client, call, ret_result);
	buffer_fini(&client.in);
	close(client.fd);
	return r;
}

int cli_client_run(struct cli_call *call)
{
	json_t *result = NULL;
	int r = cli_client_fetch(call, &result);

	if (r == CLI_OK && call->amend)
		r = call->amend(call, result);
	if (r == CLI_OK && call->globals->json) {
		if (json_is_object(result)) {
			json_object_set_new(result, "v", json_integer(1));
			json_dumpf(result, stdout, JSON_INDENT(2));
			putchar('\n');
		}
	} else if (r == CLI_OK && call->command->result) {
		r = call->command->result(call, result);
	}
	json_decref(result);
	/* What was flushed before, in vain, shows in the stream's flag alone. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		cli_complain("cannot write the output: %s", strerror(errno));
		return CLI_FAILED;
	}
	return r;
}

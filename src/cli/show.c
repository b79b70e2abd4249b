/* How answers look to people: columns that fit the terminal, sizes and times in their usual units.
 */
#include "cli/cli.h"

#include <libsmartcols.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* ---- values ------------------------------------------------------------------ */

static const char *text_of(const json_t *object, const char *key, const char *otherwise)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && *text ? text : otherwise;
}

static double number_of(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* Text from the network, made safe for a terminal. */
static const char *clean(const char *text, char *out, size_t out_bytes)
{
	text_sanitize(text, strlen(text), out, out_bytes);
	return out;
}

static const char *format_bytes(double n, char *out, size_t out_bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	size_t unit = 0;

	while (n >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		n /= 1024;
		unit++;
	}
	snprintf(out, out_bytes, unit && n < 10 ? "%.1f %s" : "%.0f %s", n, units[unit]);
	return out;
}

static const char *format_rtt(double us, char *out, size_t out_bytes)
{
	if (us <= 0)
		snprintf(out, out_bytes, "-");
	else
		snprintf(out, out_bytes, us < 10000 ? "%.2f ms" : "%.0f ms", us / 1000);
	return out;
}

static const char *format_age(double since_s, char *out, size_t out_bytes)
{
	const double age = (double)time(NULL) - since_s;

	if (since_s <= 0)
		snprintf(out, out_bytes, "-");
	else if (age < 120)
		snprintf(out, out_bytes, "%.0f s", age < 0 ? 0 : age);
	else if (age < 7200)
		snprintf(out, out_bytes, "%.0f min", age / 60);
	else if (age < 172800)
		snprintf(out, out_bytes, "%.0f h", age / 3600);
	else
		snprintf(out, out_bytes, "%.0f d", age / 86400);
	return out;
}

static const char *format_date(double at_s, char *out, size_t out_bytes)
{
	const time_t at = (time_t)at_s;
	struct tm tm;

	if (at_s <= 0 || !localtime_r(&at, &tm) || strftime(out, out_bytes, "%F %R", &tm) == 0)
		snprintf(out, out_bytes, "-");
	return out;
}

/* ---- tables -------------------------------------------------------------------- */

struct table {
	struct libscols_table *scols;
	struct libscols_line *line;
	size_t column;
};

static bool table_open(struct table *t, const char *const columns[])
{
	*t = (struct table){ .scols = scols_new_table() };
	if (!t->scols)
		return false;
	for (size_t i = 0; columns[i]; i++)
		if (!scols_table_new_column(t->scols, columns[i], 0, 0))
			return false;
	return true;
}

static void table_line(struct table *t)
{
	t->line = scols_table_new_line(t->scols, NULL);
	t->column = 0;
}

static void table_cell(struct table *t, const char *text)
{
	char safe[512];

	if (t->line)
		scols_line_set_data(t->line, t->column++, clean(text, safe, sizeof(safe)));
}

static int table_close(struct table *t)
{
	int r = CLI_FAILED;

	if (t->scols)
		r = scols_print_table(t->scols) == 0 ? CLI_OK : CLI_FAILED;
	scols_unref_table(t->scols);
	return r;
}

/* ---- status -------------------------------------------------------------------- */

static void state_cells(struct table *t, const json_t *peer)
{
	const json_t *path = json_object_get(peer, "path");
	const char *kind = text_of(path, "kind", "-");
	const char *state = text_of(peer, "state", "?");
	char rtt[32], sent[32], received[32], age[32];

	table_cell(t, state);
	table_cell(t, strcmp(state, "up") == 0 ? kind : text_of(peer, "reason", "-"));
	table_cell(t, format_rtt(number_of(path, "rtt_us"), rtt, sizeof(rtt)));
	table_cell(t, format_bytes(number_of(peer, "bytes_sent"), sent, sizeof(sent)));
	table_cell(t, format_bytes(number_of(peer, "bytes_received"), received, sizeof(received)));
	table_cell(t, format_age(number_of(peer, "since"), age, sizeof(age)));
}

bool cli_port_mapping_text(const json_t *mapping, char *out, size_t out_bytes)
{
	const double until_s = number_of(mapping, "until");
	char text[256], date[32];

	if (!mapping)
		return false;
	clean(text_of(mapping, "text", "?"), text, sizeof(text));
	if (until_s > 0)
		snprintf(out, out_bytes, "%s, until %s unless renewed", text,
			 format_date(until_s, date, sizeof(date)));
	else
		snprintf(out, out_bytes, "%s", text);
	return true;
}

static void show_self(const json_t *self)
{
	const bool connected = json_is_true(json_object_get(self, "connected"));
	const json_t *mapping = json_object_get(self, "port_mapping");
	const char *state = text_of(mapping, "state", "off");
	const char *way = text_of(self, "server_way", "");
	char address[512], server[512], text[512];

	printf("%s  %s  %s\n", clean(text_of(self, "address", "no identity"), address, 512),
	       text_of(self, "ipv4", "-"), text_of(self, "ipv6", "-"));
	printf("server %s: %s%s%s\n", clean(text_of(self, "server", "-"), server, 512),
	       connected ? "connected" : "not connected", *way ? " by " : "", way);
	if (strcmp(state, "off") != 0 && strcmp(state, "idle") != 0 &&
	    cli_port_mapping_text(mapping, text, sizeof(text)))
		printf("port: %s\n", text);
}

static void show_peer_lines(const json_t *peer)
{
	static const struct {
		const char *key, *label;
	} rows[] = { { "state", "state" }, { "reason", "reason" }, { "interface", "interface" },
		     { "ipv4", "IPv4" },   { "ipv6", "IPv6" },     { "device", "device" } };
	const json_t *path = json_object_get(peer, "path");
	char safe[512], size[32], rtt[32];

	printf("%s\n", clean(text_of(peer, "address", "?"), safe, sizeof(safe)));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (*text_of(peer, rows[i].key, ""))
			printf("  %-14s %s\n", rows[i].label,
			       clean(text_of(peer, rows[i].key, ""), safe, sizeof(safe)));
	if (json_is_object(path))
		printf("  %-14s %s, %s -> %s, RTT %s, MTU %.0f\n", "path",
		       text_of(path, "kind", "-"), text_of(path, "local", "-"),
		       text_of(path, "remote", "-"),
		       format_rtt(number_of(path, "rtt_us"), rtt, sizeof(rtt)),
		       number_of(path, "mtu"));
	printf("  %-14s %s\n", "sent",
	       format_bytes(number_of(peer, "bytes_sent"), size, sizeof(size)));
	printf("  %-14s %s\n", "received",
	       format_bytes(number_of(peer, "bytes_received"), size, sizeof(size)));
	printf("  %-14s %.0f lost, %.0f sent again\n", "packets", number_of(peer, "packets_lost"),
	       number_of(peer, "packets_retransmitted"));
	if (number_of(peer, "parity_bytes_sent") > 0 || number_of(peer, "packets_rebuilt") > 0)
		printf("  %-14s %s sent, %.0f packets rebuilt\n", "parity",
		       format_bytes(number_of(peer, "parity_bytes_sent"), size, sizeof(size)),
		       number_of(peer, "packets_rebuilt"));
	printf("  %-14s %s\n", "since", format_date(number_of(peer, "since"), size, sizeof(size)));
}

static int show_peer_table(const json_t *peers)
{
	static const char *const columns[] = { "PEER", "ADDRESS",  "STATE", "PATH", "RTT",
					       "SENT", "RECEIVED", "SINCE", NULL };
	struct table t;
	const json_t *peer;
	size_t i;

	if (json_array_size(peers) == 0) {
		printf("no peers. `q2q-tun up ADDRESS' adds one.\n");
		return CLI_OK;
	}
	if (!table_open(&t, columns))
		return table_close(&t);
	json_array_foreach (peers, i, peer) {
		table_line(&t);
		table_cell(&t, text_of(peer, "address", "?"));
		table_cell(&t, text_of(peer, "ipv4", "-"));
		state_cells(&t, peer);
	}
	return table_close(&t);
}

/* Prints again and again, until somebody stops it or the daemon goes. */
static int watch(struct cli_call *call)
{
	for (;;) {
		json_t *result = NULL;
		const struct timespec second = { .tv_sec = 1 };
		int r;

		nanosleep(&second, NULL);
		r = cli_client_fetch(call, &result);
		if (r != CLI_OK)
			return r;
		printf("\033[H\033[J");
		show_self(json_object_get(result, "self"));
		r = show_peer_table(json_object_get(result, "peers"));
		json_decref(result);
		fflush(stdout);
		if (r != CLI_OK)
			return r;
	}
}

static void pair_cells(struct table *t, const json_t *pair)
{
	char rtt[32], number[32];

	snprintf(number, sizeof(number), "%.0f", number_of(pair, "local_port"));
	table_cell(t, number);
	table_cell(t, text_of(pair, "remote", "-"));
	table_cell(t, text_of(pair, "kind", "-"));
	table_cell(t, json_is_true(json_object_get(pair, "in_use")) ? "in use"
								    : text_of(pair, "state", "-"));
	snprintf(number, sizeof(number), "%.0f", number_of(pair, "sent"));
	table_cell(t, number);
	table_cell(t, format_rtt(number_of(pair, "rtt_us"), rtt, sizeof(rtt)));
	table_cell(t, text_of(pair, "reason", ""));
}

/* What was tried, the most promising first. */
int cli_show_pairs(const json_t *peer)
{
	static const char *const columns[] = {
		"PORT", "PEER'S ADDRESS", "FOUND AS", "STATE", "SENT", "RTT", "WHY", NULL
	};
	const json_t *pairs = json_object_get(peer, "pairs"), *pair;
	struct table t;
	size_t i;

	if (json_array_size(pairs) == 0)
		return CLI_OK;
	printf("\n");
	fflush(stdout);
	if (!table_open(&t, columns))
		return table_close(&t);
	json_array_foreach (pairs, i, pair) {
		table_line(&t);
		pair_cells(&t, pair);
	}
	return table_close(&t);
}

int cli_show_status(struct cli_call *call, const json_t *result)
{
	const json_t *peers = json_object_get(result, "peers");
	int r;

	if (json_object_get(call->args, "address")) {
		const json_t *peer;
		size_t i;

		json_array_foreach (peers, i, peer) {
			show_peer_lines(peer);
			if (cli_show_pairs(peer) != CLI_OK)
				return CLI_FAILED;
		}
		return CLI_OK;
	}
	show_self(json_object_get(result, "self"));
	r = show_peer_table(peers);
	fflush(stdout);
	if (r == CLI_OK && json_object_get(call->local, "watch"))
		r = watch(call);
	return r;
}

int cli_show_link(struct cli_call *call, const json_t *result)
{
	const json_t *peer = json_object_get(result, "peer");
	const json_t *path = json_object_get(peer, "path");
	char safe[512], rtt[32];

	(void)call;
	clean(text_of(peer, "address", "?"), safe, sizeof(safe));
	if (strcmp(text_of(peer, "state", ""), "up") == 0)
		printf("%s is up: %s, %s (%s)\n", safe, text_of(peer, "ipv4", "-"),
		       text_of(path, "kind", "-"),
		       format_rtt(number_of(path, "rtt_us"), rtt, sizeof(rtt)));
	else
		printf("%s is %s%s%s\n", safe, text_of(peer, "state", "?"),
		       *text_of(peer, "reason", "") ? ": " : "", text_of(peer, "reason", ""));
	return CLI_OK;
}

/* ---- the others ------------------------------------------------------------------- */

int cli_show_peers(struct cli_call *call, const json_t *result)
{
	static const char *const columns[] = { "PEER",       "ALLOWED", "WANTED",
					       "PINNED KEY", "SINCE",   NULL };
	const json_t *peers = json_object_get(result, "peers"), *peer;
	struct table t;
	size_t i;

	(void)call;
	if (json_array_size(peers) == 0) {
		printf("no peers\n");
		return CLI_OK;
	}
	if (!table_open(&t, columns))
		return table_close(&t);
	json_array_foreach (peers, i, peer) {
		char date[32];

		table_line(&t);
		table_cell(&t, text_of(peer, "address", "?"));
		table_cell(&t, json_is_true(json_object_get(peer, "allowed")) ? "yes" : "no");
		table_cell(&t, json_is_true(json_object_get(peer, "wanted")) ? "yes" : "no");
		table_cell(&t, text_of(peer, "pinned", "-"));
		table_cell(&t, format_date(number_of(peer, "pinned_at"), date, sizeof(date)));
	}
	return table_close(&t);
}

int cli_show_requests(struct cli_call *call, const json_t *result)
{
	static const char *const columns[] = { "FROM", "TIMES", "FIRST", "LAST", "KEY", NULL };
	const json_t *requests = json_object_get(result, "requests"), *request;
	struct table t;
	size_t i;

	(void)call;
	if (json_array_size(requests) == 0) {
		printf("nobody has asked to connect\n");
		return CLI_OK;
	}
	if (!table_open(&t, columns))
		return table_close(&t);
	json_array_foreach (requests, i, request) {
		char date[32], count[32];

		table_line(&t);
		table_cell(&t, text_of(request, "address", "?"));
		snprintf(count, sizeof(count), "%.0f", number_of(request, "count"));
		table_cell(&t, count);
		table_cell(&t, format_date(number_of(request, "first"), date, sizeof(date)));
		table_cell(&t, format_date(number_of(request, "last"), date, sizeof(date)));
		table_cell(&t, text_of(request, "fingerprint", "-"));
	}
	return table_close(&t);
}

int cli_show_identities(struct cli_call *call, const json_t *result)
{
	static const char *const columns[] = { "ADDRESS", "DEFAULT", "SERVER",
					       "EXPIRES", "KEY",     NULL };
	const json_t *identities = json_object_get(result, "identities"), *identity;
	struct table t;
	size_t i;

	(void)call;
	if (json_array_size(identities) == 0) {
		printf("no identity. `q2q-tun register ADDRESS' makes one.\n");
		return CLI_OK;
	}
	if (!table_open(&t, columns))
		return table_close(&t);
	json_array_foreach (identities, i, identity) {
		const bool connected = json_is_true(json_object_get(identity, "connected"));
		char date[32];

		table_line(&t);
		table_cell(&t, text_of(identity, "address", "?"));
		table_cell(&t, json_is_true(json_object_get(identity, "default")) ? "yes" : "");
		table_cell(&t, connected ? "connected" : "not connected");
		table_cell(&t, format_date(number_of(identity, "expires"), date, sizeof(date)));
		table_cell(&t, text_of(identity, "fingerprint", "-"));
	}
	return table_close(&t);
}

int cli_show_identity(struct cli_call *call, const json_t *result)
{
	const double expires = number_of(result, "expires");
	char safe[512], date[32];

	(void)call;
	printf("%s\n", clean(text_of(result, "address", "?"), safe, sizeof(safe)));
	if (*text_of(result, "fingerprint", ""))
		printf("  key      %s\n", text_of(result, "fingerprint", ""));
	if (expires > 0)
		printf("  expires  %s\n", format_date(expires, date, sizeof(date)));
	return CLI_OK;
}

int cli_show_pem(struct cli_call *call, const json_t *result)
{
	(void)call;
	return fputs(text_of(result, "pem", ""), stdout) < 0 ? CLI_FAILED : CLI_OK;
}

void cli_show_pong(struct cli_call *call, const json_t *event)
{
	const json_t *path = json_object_get(event, "path");
	char rtt[32], safe[512];

	if (!json_object_get(event, "rtt_us")) {
		printf("no answer from %s: seq=%.0f\n",
		       clean(text_of(call->args, "address", "?"), safe, sizeof(safe)),
		       number_of(event, "seq"));
		return;
	}
	printf("pong from %s: seq=%.0f via %s %s time=%s\n",
	       clean(text_of(call->args, "address", "?"), safe, sizeof(safe)),
	       number_of(event, "seq"), text_of(path, "kind", "-"), text_of(path, "remote", ""),
	       format_rtt(number_of(event, "rtt_us"), rtt, sizeof(rtt)));
}

int cli_show_ping_summary(struct cli_call *call, const json_t *result)
{
	const double sent = number_of(result, "sent"), received = number_of(result, "received");
	char low[32], middle[32], high[32];

	(void)call;
	printf("%.0f sent, %.0f received", sent, received);
	if (received > 0)
		printf(", RTT min/avg/max %s / %s / %s",
		       format_rtt(number_of(result, "min_us"), low, sizeof(low)),
		       format_rtt(number_of(result, "avg_us"), middle, sizeof(middle)),
		       format_rtt(number_of(result, "max_us"), high, sizeof(high)));
	printf("\n");
	return received > 0 ? CLI_OK : CLI_TIMED_OUT;
}

void cli_show_log_line(struct cli_call *call, const json_t *event)
{
	char date[64], safe[2048];
	const time_t at = (time_t)number_of(event, "time");
	struct tm tm;

	(void)call;
	if (!localtime_r(&at, &tm) || strftime(date, sizeof(date), "%F %T", &tm) == 0)
		snprintf(date, sizeof(date), "-");
	printf("%s %s\n", date, clean(text_of(event, "line", ""), safe, sizeof(safe)));
}

/* doctor: one page for people of what the daemon and this program found out. */
#include "cli/cli.h"

#include <stdio.h>
#include <time.h>

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* One line; what the network said cannot drive the terminal. */
static void row(const char *label, const char *text)
{
	char safe[1024];

	text_sanitize(text, strlen(text), safe, sizeof(safe));
	printf("  %-12s %s\n", label, safe);
}

static void date_row(const char *label, const char *what, const json_t *seconds)
{
	const time_t at = (time_t)json_integer_value(seconds);
	char date[32], text[512];
	struct tm tm;

	if (at <= 0 || !localtime_r(&at, &tm) || !strftime(date, sizeof(date), "%F", &tm))
		return;
	snprintf(text, sizeof(text), "%s, certificate until %s", what, date);
	row(label, text);
}

static void show_keepalive(const json_t *keepalive)
{
	const double remembered_s = json_number_value(json_object_get(keepalive, "remembered_s"));
	const double interval_s = json_number_value(json_object_get(keepalive, "interval_s"));
	char text[512];

	if (remembered_s > 0)
		snprintf(text, sizeof(text),
			 "a silent path is remembered for at least %.0f s; keepalives every %.0f "
			 "s%s",
			 remembered_s, interval_s,
			 strcmp(text_of(keepalive, "state"), "found") ? ", still looking" : "");
	else if (interval_s > 0)
		snprintf(text, sizeof(text),
			 "how long a silent path is remembered is being found out; keepalives "
			 "every %.0f s",
			 interval_s);
	if (remembered_s > 0 || interval_s > 0)
		row("", text);
}

static void show_family(const char *label, const json_t *view)
{
	const char *outside = text_of(view, "outside");
	char text[768];

	if (!json_integer_value(json_object_get(view, "asked")))
		return;
	snprintf(text, sizeof(text), "%s%s%s (%lld of %lld questions answered)",
		 text_of(view, "udp"), *outside ? "; seen from outside as " : "", outside,
		 (long long)json_integer_value(json_object_get(view, "answered")),
		 (long long)json_integer_value(json_object_get(view, "asked")));
	row(label, text);
	if (*text_of(view, "nat_text"))
		row("", text_of(view, "nat_text"));
	show_keepalive(json_object_get(view, "keepalive"));
}

static void show_machine(const json_t *result)
{
	const json_t *self = json_object_get(result, "self");
	const json_t *network = json_object_get(result, "network"), *one;
	char text[512];
	size_t i;

	printf("This machine\n");
	row("program", text_of(json_object_get(result, "daemon"), "about"));
	json_array_foreach (json_object_get(result, "identities"), i, one)
		date_row("identity", text_of(one, "address"), json_object_get(one, "expires"));
	snprintf(text, sizeof(text), "%s: %sconnected%s%s", text_of(self, "server"),
		 json_is_true(json_object_get(self, "connected")) ? "" : "not ",
		 *text_of(self, "server_way") ? " by " : "", text_of(self, "server_way"));
	row("server", text);
	json_array_foreach (json_object_get(network, "addresses"), i, one) {
		snprintf(text, sizeof(text), "%s on %s", text_of(one, "address"),
			 text_of(one, "interface"));
		row(i ? "" : "addresses", text);
	}
	snprintf(text, sizeof(text), "%lld",
		 (long long)json_integer_value(json_object_get(network, "udp_port")));
	row("UDP port", text);
	show_family("UDP, IPv4", json_object_get(network, "ipv4"));
	show_family("UDP, IPv6", json_object_get(network, "ipv6"));
	if (cli_port_mapping_text(json_object_get(network, "port_mapping"), text, sizeof(text)))
		row("port mapping", text);
}

static void show_path(const json_t *path, bool first)
{
	const bool in_use = json_is_true(json_object_get(path, "in_use"));
	const double rtt_us = json_number_value(json_object_get(path, "rtt_us"));
	char text[512];

	snprintf(text, sizeof(text), "%s%s%s: %s, round trip %.1f ms, MTU %lld%s",
		 text_of(path, "kind"), *text_of(path, "remote") ? " " : "",
		 text_of(path, "remote"), text_of(path, "state"), rtt_us / 1000,
		 (long long)json_integer_value(json_object_get(path, "mtu")),
		 in_use ? ", in use" : "");
	row(first ? "paths" : "", text);
}

static void show_peer(const json_t *peer)
{
	const json_t *one;
	char safe[512];
	size_t i;

	text_sanitize(text_of(peer, "address"), strlen(text_of(peer, "address")), safe,
		      sizeof(safe));
	printf("\n%s: %s\n", safe, text_of(peer, "state"));
	if (*text_of(peer, "about"))
		row("program", text_of(peer, "about"));
	json_array_foreach (json_object_get(peer, "explanation"), i, one)
		row(i ? "" : "path", json_string_value(one));
	if (*text_of(peer, "nat_here"))
		row("NAT here", text_of(peer, "nat_here"));
	if (*text_of(peer, "nat_there"))
		row("NAT there", text_of(peer, "nat_there"));
	json_array_foreach (json_object_get(peer, "paths"), i, one)
		show_path(one, i == 0);
}

static void show_findings(const json_t *findings)
{
	const json_t *one;
	size_t i;

	printf("\nFindings\n");
	json_array_foreach (findings, i, one) {
		row(text_of(one, "level"), text_of(one, "text"));
		if (*text_of(one, "hint")) {
			char hint[1024];

			snprintf(hint, sizeof(hint), "-> %s", text_of(one, "hint"));
			row("", hint);
		}
	}
}

int cli_doctor_amend(struct cli_call *call, json_t *result)
{
	const char *file = json_string_value(json_object_get(call->local, "bundle"));

	cli_doctor_firewall(result);
	return file ? cli_doctor_bundle(call, result, file) : CLI_OK;
}

int cli_show_doctor(struct cli_call *call, const json_t *result)
{
	const json_t *peer;
	size_t i;

	show_machine(result);
	json_array_foreach (json_object_get(result, "peers"), i, peer) {
		show_peer(peer);
		if (json_object_get(call->args, "address") && cli_show_pairs(peer) != CLI_OK)
			return CLI_FAILED;
	}
	show_findings(json_object_get(result, "findings"));
	return CLI_OK;
}

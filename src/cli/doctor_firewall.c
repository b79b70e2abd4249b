/*
 * doctor: rules of this machine's firewall that drop our packets. The daemon has
 * no right to read them, and neither has an ordinary user; root has.
 */
#include "config.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void add(json_t *result, const char *level, const char *text, const char *hint)
{
	json_array_append_new(
		json_object_get(result, "findings"),
		json_pack("{s:s,s:s,s:s}", "level", level, "text", text, "hint", hint));
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

/* Starts nft(8) with its output in a pipe; its process, or a fault. */
static pid_t spawn_nft(int *ret_fd)
{
	char *const words[] = { (char[]){ "nft" }, (char[]){ "-j" }, (char[]){ "list" },
				(char[]){ "ruleset" }, NULL };
	posix_spawn_file_actions_t actions;
	pid_t pid = -1;
	int ends[2], r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	r = posix_spawn_file_actions_init(&actions);
	if (!r) {
		r = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
		if (!r)
			r = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null",
							     O_WRONLY, 0);
		if (!r)
			r = posix_spawnp(&pid, words[0], &actions, NULL, words, environ);
		posix_spawn_file_actions_destroy(&actions);
	}
	close(ends[1]);
	if (r) {
		close(ends[0]);
		return -r;
	}
	*ret_fd = ends[0];
	return pid;
}

/* The whole ruleset as nft prints it; NULL: there is no nft, or it fails. */
static json_t *ruleset(void)
{
	int fd = -1, status = -1;
	const pid_t pid = spawn_nft(&fd);
	json_t *rules;

	if (pid < 0)
		return NULL;
	rules = json_loadfd(fd, 0, NULL);
	close(fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status == 0)
		return rules;
	json_decref(rules);
	return NULL;
}

/* Whether a text stands anywhere in the value. */
static bool mentions(const json_t *value, const char *text)
{
	const json_t *each;
	const char *key;
	size_t i;

	if (json_is_string(value))
		return strcmp(json_string_value(value), text) == 0;
	json_array_foreach (value, i, each)
		if (mentions(each, text))
			return true;
	json_object_foreach ((json_t *)(uintptr_t)value, key, each)
		if (strcmp(key, text) == 0 || mentions(each, text))
			return true;
	return false;
}

static bool same_chain(const json_t *rule, const json_t *chain)
{
	return strcmp(text_of(rule, "family"), text_of(chain, "family")) == 0 &&
	       strcmp(text_of(rule, "table"), text_of(chain, "table")) == 0 &&
	       strcmp(text_of(rule, "chain"), text_of(chain, "name")) == 0;
}

/* A rule of this chain that does `verdict` and mentions `what` (NULL: whatever). */
static bool has_rule(const json_t *list, const json_t *chain, const char *verdict, const char *what)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		const json_t *rule = json_object_get(item, "rule");
		const json_t *expr = json_object_get(rule, "expr");

		if (rule && same_chain(rule, chain) && mentions(expr, verdict) &&
		    (!what || mentions(expr, what)))
			return true;
	}
	return false;
}

static void judge_chain(json_t *result, const json_t *list, const json_t *chain)
{
	const bool drops = strcmp(text_of(chain, "policy"), "drop") == 0;
	const bool output = strcmp(text_of(chain, "hook"), "output") == 0;
	const bool input = strcmp(text_of(chain, "hook"), "input") == 0;
	char text[512];

	if (!(input || output) || strcmp(text_of(chain, "type"), "filter") != 0)
		return;
	if (output &&
	    (has_rule(list, chain, "drop", "udp") || has_rule(list, chain, "reject", "udp"))) {
		snprintf(text, sizeof(text),
			 "a rule in %s %s %s drops UDP that leaves this machine",
			 text_of(chain, "family"), text_of(chain, "table"), text_of(chain, "name"));
		add(result, "warning", text, "nft list ruleset shows it; let the daemon's UDP out");
	} else if (output && drops && !has_rule(list, chain, "accept", "udp")) {
		snprintf(text, sizeof(text),
			 "%s %s %s drops what leaves this machine, and no rule there accepts UDP",
			 text_of(chain, "family"), text_of(chain, "table"), text_of(chain, "name"));
		add(result, "warning", text, "accept UDP from the daemon's port");
	}
	if (input && drops && !has_rule(list, chain, "accept", "established")) {
		snprintf(text, sizeof(text),
			 "%s %s %s drops what comes in, answers to our own packets too",
			 text_of(chain, "family"), text_of(chain, "table"), text_of(chain, "name"));
		add(result, "problem", text, "accept `ct state established,related' there");
	}
}

void cli_doctor_firewall(json_t *result)
{
	const size_t n_before = json_array_size(json_object_get(result, "findings"));
	const json_t *list, *item;
	json_t *rules;
	size_t i;

	if (geteuid() != 0) {
		add(result, "note",
		    "the rules of this machine's firewall were not read: only root may",
		    "sudo q2q-tun doctor");
		return;
	}
	rules = ruleset();
	list = json_object_get(rules, "nftables");
	if (!list) {
		add(result, "note",
		    "the rules of this machine's firewall were not read: nft failed",
		    "install nftables, or look with iptables-save");
		json_decref(rules);
		return;
	}
	json_array_foreach (list, i, item)
		if (json_object_get(item, "chain"))
			judge_chain(result, list, json_object_get(item, "chain"));
	if (json_array_size(json_object_get(result, "findings")) == n_before)
		add(result, "ok", "no rule of this machine's firewall (nftables) drops our packets",
		    "");
	json_decref(rules);
}

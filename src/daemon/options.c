/* The daemon's settings: built-in defaults, then the configuration file. */
#include "daemon/daemon.h"

#include "conf/conf.h"
#include "nat/nat.h"

#include <ctype.h>
#include <stdio.h>

#define DEFAULT_STATE   LOCALSTATEDIR "/lib/q2q-tun"
#define DEFAULT_CONTROL RUNSTATEDIR "/q2q-tun/control"
#define DEFAULT_NAMES   RUNSTATEDIR "/q2q-tun/names"
#define KEEPALIVE_MAX_S 300
#define DEFAULT_USER    "q2q-tun"

/* What the table fills in; copied into the options when the whole file was fine. */
struct loaded {
	char *state_dir, *control_path, *names_path, *user, *default_identity;
	uint64_t port, n_workers;
	int tcp_port;
	int log_level;    /* index into log_levels */
	int dscp;         /* index into dscp_rules */
	int parity;       /* index into parity_rules */
	int congestion;   /* enum ptcp_congestion_control */
	int aead_backend; /* enum crypto_aead_backend */
	bool accept_new;
	struct conf_list stun, exclude;
	bool use_virtual;
	uint64_t keepalive_min, keepalive_max;
	int port_mapping; /* enum daemon_port_mapping */
	uint64_t port_mapping_lifetime_s;
	struct daemon_domain domains[DAEMON_DOMAINS_MAX];
	size_t n_domains;
};

static const char *const log_levels[] = { "error", "warning", "notice", "info", "debug", NULL };

static const char *const port_mappings[] = {
	[DAEMON_PORT_MAPPING_OFF] = "off",
	[DAEMON_PORT_MAPPING_AUTO] = "auto",
	[DAEMON_PORT_MAPPING_PCP] = "pcp",
	NULL,
};
static const char *const dscp_rules[] = { "clear", "copy", NULL };
static const char *const parity_rules[] = { "auto", "off", NULL };
static const char *const controllers[] = {
	[PTCP_CC_BBR] = "bbr",
	[PTCP_CC_CUBIC] = "cubic",
	NULL,
};
static const char *const aead_backends[] = {
	[CRYPTO_AEAD_BACKEND_AUTO] = "auto",
	[CRYPTO_AEAD_BACKEND_OPENSSL] = "openssl",
	[CRYPTO_AEAD_BACKEND_IPSEC_MB] = "ipsec-mb",
	NULL,
};

static int refuse(char *why, size_t why_bytes, const char *reason)
{
	snprintf(why, why_bytes, "%s", reason);
	return -EINVAL;
}

static int check_path(void *target, const char *argument, const char *value, char *why,
		      size_t why_bytes)
{
	(void)target;
	(void)argument;
	return value[0] == '/' ? 0 : refuse(why, why_bytes, "not an absolute path");
}

/* "host:port": a name or IPv4 address, or an IPv6 address in brackets. */
static int check_host_port(void *target, const char *argument, const char *value, char *why,
			   size_t why_bytes)
{
	const char *colon = strrchr(value, ':');
	uint64_t port;

	(void)target;
	(void)argument;
	if (!colon || colon == value || parse_u64(colon + 1, UINT16_MAX, &port) < 0 || port == 0)
		return refuse(why, why_bytes, "not HOST:PORT");
	return 0;
}

static int set_domain_server(void *target, const char *argument, const char *value, char *why,
			     size_t why_bytes)
{
	struct loaded *loaded = target;
	struct daemon_domain domain = { 0 };
	int r = check_host_port(target, argument, value, why, why_bytes);

	if (r < 0)
		return r;
	if (loaded->n_domains == DAEMON_DOMAINS_MAX)
		return refuse(why, why_bytes, "too many domains");
	domain.domain = strdup(argument);
	domain.server = strdup(value);
	if (!domain.domain || !domain.server) {
		free(domain.domain);
		free(domain.server);
		return -ENOMEM;
	}
	for (char *c = domain.domain; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	loaded->domains[loaded->n_domains++] = domain;
	return 0;
}

static int set_tcp_port(void *target, const char *argument, const char *value, char *why,
			size_t why_bytes)
{
	struct loaded *loaded = target;
	uint64_t port;

	(void)argument;
	if (strcmp(value, "off") == 0)
		loaded->tcp_port = DAEMON_TCP_PORT_OFF;
	else if (strcmp(value, "auto") == 0)
		loaded->tcp_port = DAEMON_TCP_PORT_AUTO;
	else if (parse_u64(value, UINT16_MAX, &port) == 0 && port > 0)
		loaded->tcp_port = (int)port;
	else
		return refuse(why, why_bytes, "not a port, \"auto\" or \"off\"");
	return 0;
}

#define FIELD(member) offsetof(struct loaded, member)
/* clang-format off */
static const struct conf_key keys[] = {
	{ .section = "daemon", .name = "state-dir", .type = CONF_TEXT, .offset = FIELD(state_dir), .set = check_path },
	{ .section = "daemon", .name = "control", .type = CONF_TEXT, .offset = FIELD(control_path), .set = check_path },
	{ .section = "daemon", .name = "names-socket", .type = CONF_TEXT, .offset = FIELD(names_path), .set = check_path },
	{ .section = "daemon", .name = "port", .type = CONF_UINT, .offset = FIELD(port), .max = UINT16_MAX },
	{ .section = "daemon", .name = "workers", .type = CONF_UINT, .offset = FIELD(n_workers), .min = 1, .max = DAEMON_WORKERS_MAX },
	{ .section = "daemon", .name = "user", .type = CONF_TEXT, .offset = FIELD(user) },
	{ .section = "daemon", .name = "log-level", .type = CONF_CHOICE, .offset = FIELD(log_level), .choices = log_levels },
	{ .section = "daemon", .name = "aead-backend", .type = CONF_CHOICE, .offset = FIELD(aead_backend), .choices = aead_backends },
	{ .section = "identity", .name = "default", .type = CONF_TEXT, .offset = FIELD(default_identity) },
	{ .section = "network", .name = "parity", .type = CONF_CHOICE, .offset = FIELD(parity), .choices = parity_rules },
	{ .section = "network", .name = "congestion-control", .type = CONF_CHOICE, .offset = FIELD(congestion), .choices = controllers },
	{ .section = "network", .name = "dscp", .type = CONF_CHOICE, .offset = FIELD(dscp), .choices = dscp_rules },
	{ .section = "network", .name = "port-mapping", .type = CONF_CHOICE, .offset = FIELD(port_mapping), .choices = port_mappings },
	{ .section = "network", .name = "port-mapping-lifetime", .type = CONF_UINT, .offset = FIELD(port_mapping_lifetime_s), .min = NAT_PORTMAP_LIFETIME_S_MIN, .max = NAT_PORTMAP_LIFETIME_S_MAX },
	{ .section = "network", .name = "keepalive-min", .type = CONF_UINT, .offset = FIELD(keepalive_min), .min = 1, .max = KEEPALIVE_MAX_S },
	{ .section = "network", .name = "keepalive-max", .type = CONF_UINT, .offset = FIELD(keepalive_max), .min = 1, .max = KEEPALIVE_MAX_S },
	{ .section = "network", .name = "tcp-port", .type = CONF_CALL, .set = set_tcp_port },
	{ .section = "network", .name = "exclude-interface", .type = CONF_LIST, .offset = FIELD(exclude) },
	{ .section = "network", .name = "virtual-interfaces", .type = CONF_BOOL, .offset = FIELD(use_virtual) },
	{ .section = "network", .name = "stun", .type = CONF_LIST, .offset = FIELD(stun), .set = check_host_port },
	{ .section = "trust", .name = "accept-new", .type = CONF_BOOL, .offset = FIELD(accept_new) },
	{ .section = "domain *", .name = "server", .type = CONF_CALL, .set = set_domain_server },
};
/* clang-format on */

static void free_domains(struct daemon_domain *domains, size_t *n_domains)
{
	for (size_t i = 0; i < *n_domains; i++) {
		free(domains[i].domain);
		free(domains[i].server);
	}
	*n_domains = 0;
}

int daemon_options_init(struct daemon_options *options)
{
	*options = (struct daemon_options){
		.state_dir = strdup(DEFAULT_STATE),
		.control_path = strdup(DEFAULT_CONTROL),
		.names_path = strdup(DEFAULT_NAMES),
		.user = strdup(DEFAULT_USER),
		.log_level = LOG_INFO_,
		.n_workers = 1,
		.tcp_port = DAEMON_TCP_PORT_AUTO,
		.parity = true,
		.keepalive_min_s = NAT_LIFETIME_MIN_US / US_PER_S,
		.keepalive_max_s = NAT_LIFETIME_MAX_US / US_PER_S,
		.port_mapping = DAEMON_PORT_MAPPING_AUTO,
		.port_mapping_lifetime_s = NAT_PORTMAP_LIFETIME_S,
		.monitor_fd = -1,
		.upnp_fd = -1,
		.operator_gid = (gid_t)-1,
	};
	if (options->state_dir && options->control_path && options->names_path && options->user)
		return 0;
	daemon_options_fini(options);
	return -ENOMEM;
}

void daemon_options_fini(struct daemon_options *options)
{
	free(options->config_path);
	free(options->state_dir);
	free(options->control_path);
	free(options->names_path);
	free(options->user);
	free(options->default_identity);
	for (size_t i = 0; i < options->n_stun; i++)
		free(options->stun[i]);
	for (size_t i = 0; i < options->n_exclude; i++)
		free(options->exclude[i]);
	free_domains(options->domains, &options->n_domains);
	*options = (struct daemon_options){ .monitor_fd = -1,
					    .upnp_fd = -1,
					    .operator_gid = (gid_t)-1 };
}

/* ---- again ---- */

static void note_restart(struct daemon_changes *changes, const char *name)
{
	const size_t used = strlen(changes->restart);

	snprintf(changes->restart + used, sizeof(changes->restart) - used, "%s%s",
		 used > 0 ? ", " : "", name);
}

static bool texts_differ(const char *a, const char *b)
{
	return (!a) != (!b) || (a && strcmp(a, b) != 0);
}

static bool lists_differ(char *const *a, size_t n_a, char *const *b, size_t n_b)
{
	if (n_a != n_b)
		return true;
	for (size_t i = 0; i < n_a; i++)
		if (strcmp(a[i], b[i]) != 0)
			return true;
	return false;
}

static bool domains_differ(const struct daemon_options *a, const struct daemon_options *b)
{
	if (a->n_domains != b->n_domains)
		return true;
	for (size_t i = 0; i < a->n_domains; i++)
		if (strcmp(a->domains[i].domain, b->domains[i].domain) != 0 ||
		    strcmp(a->domains[i].server, b->domains[i].server) != 0)
			return true;
	return false;
}

static void swap_texts(char **a, char **b)
{
	char *const kept = *a;

	*a = *b;
	*b = kept;
}

/* Gives `fresh` what stays as it is. */
static void keep_fixed(struct daemon_options *o, struct daemon_options *fresh,
		       struct daemon_changes *changes)
{
	const struct {
		char **now, **then;
		const char *name;
	} texts[] = {
		{ &o->state_dir, &fresh->state_dir, "state-dir" },
		{ &o->control_path, &fresh->control_path, "control" },
		{ &o->names_path, &fresh->names_path, "names-socket" },
		{ &o->user, &fresh->user, "user" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (texts_differ(*texts[i].now, *texts[i].then))
			note_restart(changes, texts[i].name);
		swap_texts(texts[i].now, texts[i].then);
	}
	if (o->port != fresh->port)
		note_restart(changes, "port");
	if (o->n_workers != fresh->n_workers)
		note_restart(changes, "workers");
	if (o->aead_backend != fresh->aead_backend)
		note_restart(changes, "aead-backend");
	if (o->tcp_port != fresh->tcp_port)
		note_restart(changes, "tcp-port");
	/* Who speaks UPnP is started before the daemon gives up what that takes. */
	if (o->upnp_fd < 0 && o->port_mapping != DAEMON_PORT_MAPPING_AUTO &&
	    fresh->port_mapping == DAEMON_PORT_MAPPING_AUTO)
		note_restart(changes, "port-mapping (for UPnP)");
	fresh->port = o->port;
	fresh->n_workers = o->n_workers;
	fresh->aead_backend = o->aead_backend;
	fresh->tcp_port = o->tcp_port;
	fresh->foreground = o->foreground;
	fresh->load = o->load;
	fresh->load_user = o->load_user;
	fresh->monitor_fd = o->monitor_fd;
	fresh->upnp_fd = o->upnp_fd;
	fresh->operator_gid = o->operator_gid;
	fresh->watchdog_us = o->watchdog_us;
}

static void compare(const struct daemon_options *o, const struct daemon_options *fresh,
		    struct daemon_changes *changes)
{
	changes->log_level = o->log_level != fresh->log_level;
	changes->default_identity = texts_differ(o->default_identity, fresh->default_identity);
	changes->stun = lists_differ(o->stun, o->n_stun, fresh->stun, fresh->n_stun);
	changes->interfaces =
		o->use_virtual != fresh->use_virtual ||
		lists_differ(o->exclude, o->n_exclude, fresh->exclude, fresh->n_exclude);
	changes->port_mapping = o->port_mapping != fresh->port_mapping ||
				o->port_mapping_lifetime_s != fresh->port_mapping_lifetime_s;
	changes->keepalive = o->keepalive_min_s != fresh->keepalive_min_s ||
			     o->keepalive_max_s != fresh->keepalive_max_s;
	changes->tunnels = o->copy_dscp != fresh->copy_dscp || o->parity != fresh->parity ||
			   o->congestion_control != fresh->congestion_control;
	changes->trust = o->accept_new != fresh->accept_new || domains_differ(o, fresh);
}

void daemon_options_renew(struct daemon_options *options, struct daemon_options *fresh,
			  struct daemon_changes *ret_changes)
{
	struct daemon_changes changes = { .restart = "" };
	struct daemon_options old;

	compare(options, fresh, &changes);
	keep_fixed(options, fresh, &changes);
	old = *options;
	*options = *fresh;
	*fresh = old;
	daemon_options_fini(fresh);
	*ret_changes = changes;
}

static void take_text(char **to, char **from)
{
	if (!*from)
		return;
	free(*to);
	*to = TAKE_PTR(*from);
}

static void take_over(struct daemon_options *options, struct loaded *loaded)
{
	take_text(&options->state_dir, &loaded->state_dir);
	take_text(&options->control_path, &loaded->control_path);
	take_text(&options->names_path, &loaded->names_path);
	take_text(&options->user, &loaded->user);
	take_text(&options->default_identity, &loaded->default_identity);
	options->port = loaded->port;
	options->n_workers = loaded->n_workers;
	options->tcp_port = loaded->tcp_port;
	options->log_level = LOG_ERROR_ + loaded->log_level;
	options->copy_dscp = loaded->dscp != 0;
	options->parity = loaded->parity == 0;
	options->congestion_control = (enum ptcp_congestion_control)loaded->congestion;
	options->aead_backend = (enum crypto_aead_backend)loaded->aead_backend;
	options->accept_new = loaded->accept_new;
	for (size_t i = 0; i < options->n_stun; i++)
		free(options->stun[i]);
	options->n_stun = min_size(loaded->stun.n_items, DAEMON_STUN_MAX);
	for (size_t i = 0; i < options->n_stun; i++)
		options->stun[i] = TAKE_PTR(loaded->stun.items[i]);
	for (size_t i = 0; i < options->n_exclude; i++)
		free(options->exclude[i]);
	options->n_exclude = min_size(loaded->exclude.n_items, DAEMON_EXCLUDE_MAX);
	for (size_t i = 0; i < options->n_exclude; i++)
		options->exclude[i] = TAKE_PTR(loaded->exclude.items[i]);
	options->use_virtual = loaded->use_virtual;
	options->keepalive_min_s = loaded->keepalive_min;
	options->keepalive_max_s = max_u64(loaded->keepalive_max, loaded->keepalive_min);
	options->port_mapping = (enum daemon_port_mapping)loaded->port_mapping;
	options->port_mapping_lifetime_s = loaded->port_mapping_lifetime_s;
	free_domains(options->domains, &options->n_domains);
	memcpy(options->domains, loaded->domains, sizeof(options->domains));
	options->n_domains = loaded->n_domains;
	loaded->n_domains = 0;
}

int daemon_options_load(struct daemon_options *options, const char *path, char *ret_error,
			size_t error_bytes)
{
	struct loaded loaded = { .port = options->port,
				 .n_workers = options->n_workers,
				 .tcp_port = options->tcp_port,
				 .log_level = options->log_level - LOG_ERROR_,
				 .dscp = options->copy_dscp,
				 .parity = !options->parity,
				 .congestion = (int)options->congestion_control,
				 .aead_backend = (int)options->aead_backend,
				 .use_virtual = options->use_virtual,
				 .keepalive_min = options->keepalive_min_s,
				 .keepalive_max = options->keepalive_max_s,
				 .port_mapping = (int)options->port_mapping,
				 .port_mapping_lifetime_s = options->port_mapping_lifetime_s,
				 .accept_new = options->accept_new };
	struct conf_error error = { 0 };
	const int r = conf_load(path, keys, ARRAY_SIZE(keys), &loaded, &error);

	if (r == 0)
		take_over(options, &loaded);
	else
		snprintf(ret_error, error_bytes, "%s", error.text);
	conf_clear(keys, ARRAY_SIZE(keys), &loaded);
	free_domains(loaded.domains, &loaded.n_domains);
	return r;
}

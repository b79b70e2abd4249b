#include "server/options.h"

#include "server/policy.h"

#include <stdio.h>
#include <strings.h>

static const char *const registration_names[] = { "invite", "open", "closed", NULL };
static_assert(ARRAY_SIZE(registration_names) == REGISTRATION_COUNT + 1, "a name for each");

static const char *const log_level_names[] = {
	"error", "warning", "notice", "info", "debug", NULL
};

/* [domain b.test] server = HOST:PORT; the last one of a domain counts. */
static int set_domain_server(void *target, const char *argument, const char *value, char *why,
			     size_t why_bytes)
{
	struct server_options *o = target;
	char *domain = NULL, *server = NULL;

	if (!argument || argument[0] == '\0') {
		snprintf(why, why_bytes, "write the domain into the section: [domain b.test]");
		return -EINVAL;
	}
	if (o->n_domains == SERVER_DOMAINS_MAX) {
		snprintf(why, why_bytes, "more than %d domains", SERVER_DOMAINS_MAX);
		return -EINVAL;
	}
	domain = strdup(argument);
	server = strdup(value);
	if (!domain || !server) {
		free(domain);
		free(server);
		return -ENOMEM;
	}
	o->domains[o->n_domains].domain = domain;
	o->domains[o->n_domains++].server = server;
	return 0;
}

const char *options_domain_server(const struct server_options *o, const char *domain)
{
	for (size_t i = o->n_domains; i-- > 0;)
		if (strcasecmp(o->domains[i].domain, domain) == 0)
			return o->domains[i].server;
	return NULL;
}

static int set_certificate_lifetime(void *target, const char *argument, const char *value,
				    char *why, size_t why_bytes)
{
	struct server_options *o = target;
	uint64_t lifetime_s;

	(void)argument;
	if (policy_duration_parse(value, &lifetime_s) != 0 ||
	    lifetime_s < SERVER_CERTIFICATE_MIN_S || lifetime_s > SERVER_CERTIFICATE_MAX_S) {
		snprintf(why, why_bytes, "not a time from %ds to %dd, such as 12h or 30d",
			 SERVER_CERTIFICATE_MIN_S, SERVER_CERTIFICATE_MAX_S / 86400);
		return -EINVAL;
	}
	o->certificate_lifetime_s = lifetime_s;
	return 0;
}

static int set_certificate_days(void *target, const char *argument, const char *value, char *why,
				size_t why_bytes)
{
	struct server_options *o = target;
	uint64_t days;

	(void)argument;
	if (parse_u64(value, SERVER_CERTIFICATE_MAX_S / 86400, &days) != 0 || days == 0) {
		snprintf(why, why_bytes, "not a number from 1 to %d",
			 SERVER_CERTIFICATE_MAX_S / 86400);
		return -EINVAL;
	}
	o->certificate_lifetime_s = days * 86400;
	return 0;
}

#define FIELD(field) offsetof(struct server_options, field)

/* clang-format off */
static const struct conf_key keys[] = {
	{ "server", "data-dir",            CONF_TEXT,   FIELD(data_dir) },
	{ "server", "listen",              CONF_LIST,   FIELD(listen) },
	{ "server", "registration",        CONF_CHOICE, FIELD(registration),
	  .choices = registration_names },
	{ "server", "public-address",      CONF_TEXT,   FIELD(public_address) },
	{ "server", "user",                CONF_TEXT,   FIELD(user) },
	{ "server", "log-level",           CONF_CHOICE, FIELD(log_level),
	  .choices = log_level_names },
	{ "server", "federation-private",  CONF_BOOL,   FIELD(federation_private) },
	{ "server", "stun-second-port",    CONF_BOOL,   FIELD(stun_second_port) },
	{ "server", "password-min",        CONF_UINT,   FIELD(password_min_bytes), 1, 128 },
	{ "server", "certificate-days",    CONF_CALL,   0, .set = set_certificate_days },
	{ "server", "certificate-lifetime", CONF_CALL,  0, .set = set_certificate_lifetime },
	{ "server", "certificate-renewal", CONF_BOOL,   FIELD(certificate_renewal) },
	{ "limits", "connections",         CONF_UINT,   FIELD(connections_max), 1, 1000000 },
	{ "limits", "connections-per-address", CONF_UINT,
	  FIELD(connections_per_address_max), 1, 1000000 },
	{ "limits", "relay-bytes-per-second", CONF_UINT,
	  FIELD(relay_bytes_per_s), 1000, UINT64_C(1) << 40 },
	{ "limits", "relay-total-bytes-per-second", CONF_UINT,
	  FIELD(relay_total_bytes_per_s), 0, UINT64_C(1) << 40 },
	{ "domain *", "server",            CONF_CALL,   0, .set = set_domain_server },
	{ "limits", "idle-timeout",        CONF_UINT,   FIELD(idle_timeout_s), 30, 86400 },
};
/* clang-format on */

static int index_of(const char *const *names, const char *text, int *ret_index)
{
	for (int i = 0; names[i]; i++) {
		if (strcmp(names[i], text) == 0) {
			*ret_index = i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *registration_name(enum registration registration)
{
	assert((unsigned)registration < REGISTRATION_COUNT);
	return registration_names[registration];
}

int registration_parse(const char *text, int *ret_registration)
{
	return index_of(registration_names, text, ret_registration);
}

int log_level_parse(const char *text, int *ret_level)
{
	return index_of(log_level_names, text, ret_level);
}

enum log_level options_log_level(const struct server_options *o)
{
	return (enum log_level)(LOG_ERROR_ + o->log_level);
}

int options_set_text(char **field, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

int options_init(struct server_options *o)
{
	*o = (struct server_options){
		.registration = REGISTRATION_INVITE,
		.log_level = LOG_INFO_ - LOG_ERROR_,
		.stun_second_port = true,
		.connections_max = 10000,
		.connections_per_address_max = 100,
		.password_min_bytes = 8,
		.certificate_lifetime_s = 365 * 86400,
		.certificate_renewal = true,
		.relay_bytes_per_s = 16 * 1024 * 1024,
		.idle_timeout_s = 90,
	};
	return options_set_text(&o->data_dir, SERVER_DATA_DIR);
}

void options_fini(struct server_options *o)
{
	conf_clear(keys, ARRAY_SIZE(keys), o);
	for (size_t i = 0; i < o->n_domains; i++) {
		free(o->domains[i].domain);
		free(o->domains[i].server);
	}
	o->n_domains = 0;
}

static bool listens_elsewhere(const struct server_options *a, const struct server_options *b)
{
	if (a->n_listen_endpoints != b->n_listen_endpoints)
		return true;
	for (size_t i = 0; i < a->n_listen_endpoints; i++)
		if (!endpoint_equal(&a->listen_endpoints[i], &b->listen_endpoints[i]))
			return true;
	return false;
}

static bool texts_differ(const char *a, const char *b)
{
	return (!a) != (!b) || (a && strcmp(a, b) != 0);
}

static void name_if(bool differs, const char *name, char *names)
{
	const size_t used = strlen(names);

	if (differs)
		snprintf(names + used, OPTIONS_RESTART_BYTES - used, "%s%s", used > 0 ? ", " : "",
			 name);
}

void options_adopt(struct server_options *o, struct server_options *fresh,
		   char ret_restart[static OPTIONS_RESTART_BYTES])
{
	struct server_options old = *o;

	ret_restart[0] = '\0';
	name_if(texts_differ(o->data_dir, fresh->data_dir), "data-dir", ret_restart);
	name_if(listens_elsewhere(o, fresh), "listen", ret_restart);
	name_if(texts_differ(o->user, fresh->user), "user", ret_restart);
	name_if(o->stun_second_port != fresh->stun_second_port, "stun-second-port", ret_restart);
	*o = *fresh;
	o->data_dir = old.data_dir;
	o->listen = old.listen;
	o->user = old.user;
	o->stun_second_port = old.stun_second_port;
	memcpy(o->listen_endpoints, old.listen_endpoints, sizeof(o->listen_endpoints));
	o->n_listen_endpoints = old.n_listen_endpoints;
	old.data_dir = fresh->data_dir;
	old.listen = fresh->listen;
	old.user = fresh->user;
	*fresh = old; /* what is not used any more; the caller frees it */
}

int options_load(struct server_options *o, const char *path, struct conf_error *ret_error)
{
	const int rc =
		conf_load(path ? path : SERVER_CONFIG_PATH, keys, ARRAY_SIZE(keys), o, ret_error);

	return rc == -ENOENT && !path ? 0 : rc;
}

/* "ADDR:PORT", "ADDR", "PORT"; "[::]" means both families. */
static int listen_parse(const char *text, struct endpoint *ret_endpoint)
{
	char with_port[ENDPOINT_TEXT_BYTES + 8];
	struct endpoint e;
	struct ip_address ip;
	uint64_t port;

	if (parse_u64(text, UINT16_MAX, &port) == 0) {
		*ret_endpoint = (struct endpoint){ .port = (uint16_t)port };
		return 0;
	}
	if (ip_parse(text, &ip) == 0) {
		*ret_endpoint = (struct endpoint){ .ip = ip, .port = SERVER_PORT };
		return 0;
	}
	if (strncmp(text, "*:", 2) == 0)
		return listen_parse(text + 2, ret_endpoint);
	snprintf(with_port, sizeof(with_port), "%s", text);
	if (endpoint_parse(with_port, true, &e) != 0)
		return -EINVAL;
	if (e.ip.family == FAMILY_IPV6 && ip_is_unspecified(&e.ip))
		e.ip = (struct ip_address){ .family = FAMILY_NONE };
	*ret_endpoint = e;
	return 0;
}

int options_finish(struct server_options *o, char *why, size_t why_bytes)
{
	o->n_listen_endpoints = 0;
	if (o->data_dir[0] != '/') {
		char *full = realpath(o->data_dir, NULL);

		if (full) {
			free(o->data_dir);
			o->data_dir = full;
		}
	}
	if (o->listen.n_items > SERVER_LISTEN_MAX) {
		snprintf(why, why_bytes, "more than %d addresses to listen on", SERVER_LISTEN_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < o->listen.n_items; i++) {
		if (listen_parse(o->listen.items[i],
				 &o->listen_endpoints[o->n_listen_endpoints++]) != 0) {
			snprintf(why, why_bytes,
				 "\"%s\" is no address to listen on; write 192.0.2.1:8788, "
				 "[2001:db8::1]:8788 or [::]:8788",
				 o->listen.items[i]);
			return -EINVAL;
		}
	}
	if (o->n_listen_endpoints == 0)
		o->listen_endpoints[o->n_listen_endpoints++] =
			(struct endpoint){ .port = SERVER_PORT };
	return 0;
}

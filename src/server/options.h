/*
 * options - what the command line and the configuration file say, the first
 * over the second, and both over the defaults.
 */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include "base/base.h"
#include "conf/conf.h"

#define SERVER_CONFIG_PATH SYSCONFDIR "/q2q-tun/q2q-server.conf"
#define SERVER_DATA_DIR    LOCALSTATEDIR "/lib/q2q-server"
#define SERVER_PORT        8788
#define SERVER_LISTEN_MAX  16
#define SERVER_DOMAINS_MAX 256
#define SERVER_CERTIFICATE_MIN_S 10
#define SERVER_CERTIFICATE_MAX_S (3650 * 86400)

/* Exit codes; the same as those of q2q-tun. */
enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NOT_FOUND = 3,
	EXIT_DENIED = 4,
	EXIT_TIMED_OUT = 5,
	EXIT_OFFLINE = 6,
	EXIT_TRUST = 7,
	EXIT_NOT_RUNNING = 9,
};

enum registration {
	REGISTRATION_INVITE,
	REGISTRATION_OPEN,
	REGISTRATION_CLOSED,
	REGISTRATION_COUNT,
};
const char *registration_name(enum registration registration);

struct server_options {
	char *data_dir;
	struct conf_list listen; /* texts; see listen_endpoints */
	int registration;        /* enum registration */
	char *public_address;    /* host name or address that clients reach us by; NULL: not told */
	char *user;              /* whom to become when started by root; NULL: stay */
	int log_level;           /* index into error, warning, notice, info, debug */
	bool stun_second_port;   /* answer STUN on the next port too */
	bool federation_private; /* servers of other domains may have private addresses */
	uint64_t connections_max, connections_per_address_max;
	uint64_t password_min_bytes;
	uint64_t certificate_lifetime_s;
	bool certificate_renewal; /* without the password, as long as the old one is good */
	uint64_t relay_bytes_per_s;       /* of one account */
	uint64_t relay_total_bytes_per_s; /* of all together; 0: no limit */
	uint64_t idle_timeout_s; /* a silent client is asked then, and dropped if it stays silent */
	/* [domain NAME] server = HOST:PORT, where DNS does not say it. */
	struct {
		char *domain, *server;
	} domains[SERVER_DOMAINS_MAX];
	size_t n_domains;

	/* Made of `listen` by options_finish(). */
	struct endpoint listen_endpoints[SERVER_LISTEN_MAX];
	size_t n_listen_endpoints;
};

/* 0, or -ENOMEM. */
int options_init(struct server_options *o);
void options_fini(struct server_options *o);
/* path NULL: the default file, which need not exist. 0, or negative with ret_error. */
int options_load(struct server_options *o, const char *path, struct conf_error *ret_error);
#define OPTIONS_RESTART_BYTES 128
/*
 * Takes over what a running server can change; where it listens, lives and runs as stays. Those of
 * them that differ are named, with ", " between. The caller frees what is left in `fresh`.
 */
void options_adopt(struct server_options *o, struct server_options *fresh,
		   char ret_restart[static OPTIONS_RESTART_BYTES]);
/* Replaces a text option. */
int options_set_text(char **field, const char *value);
/* Checks and resolves what was set. 0, or -EINVAL with the reason in words. */
int options_finish(struct server_options *o, char *why, size_t why_bytes);
/* HOST:PORT that the configuration gives for a domain, or NULL. */
const char *options_domain_server(const struct server_options *o, const char *domain);
/* -EINVAL if there is no such mode. */
int registration_parse(const char *text, int *ret_registration);
int log_level_parse(const char *text, int *ret_level);
enum log_level options_log_level(const struct server_options *o);

#endif

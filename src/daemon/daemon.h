/*
 * daemon - the unprivileged process of q2q-tund: all protocol work.
 *
 * The monitor (src/monitor) has main(): it reads options and configuration,
 * makes the directories, forks, drops every privilege in the child and calls
 * daemon_run() there.
 */
#ifndef DAEMON_DAEMON_H
#define DAEMON_DAEMON_H

#include "crypto/crypto.h"
#include "ptcp/ptcp.h"

#include <sys/types.h>

#define DAEMON_DOMAINS_MAX 64
#define DAEMON_STUN_MAX    16
#define DAEMON_EXCLUDE_MAX 32
#define DAEMON_WORKERS_MAX 16

#define DAEMON_TCP_PORT_OFF  0
#define DAEMON_TCP_PORT_AUTO (-1) /* the number of the UDP port */

/* [domain NAME] of the configuration. */
struct daemon_domain {
	char *domain; /* lower case */
	char *server; /* "host:port"; used instead of SRV and A/AAAA */
};

enum daemon_port_mapping {
	DAEMON_PORT_MAPPING_OFF,
	DAEMON_PORT_MAPPING_AUTO, /* by whatever the gateway speaks */
	DAEMON_PORT_MAPPING_PCP,  /* not by UPnP */
};

struct daemon_options {
	/* Command line, else [daemon] of the configuration, else the built-in default. */
	char *config_path;
	char *state_dir;    /* exists, 0700, owned by the daemon's user */
	char *control_path; /* socket to make; its directory exists and is writable */
	char *names_path;   /* the same, for libnss_q2q */
	uint64_t port;      /* UDP, 0: any */
	uint64_t n_workers; /* 1..DAEMON_WORKERS_MAX */
	int tcp_port;       /* for peers without UDP: a port, or one of DAEMON_TCP_PORT_* */
	char *user;
	int log_level; /* enum log_level */
	enum crypto_aead_backend aead_backend;
	bool foreground;
	/* [identity], [network], [trust], [domain NAME] */
	char *default_identity;      /* NULL: none */
	char *stun[DAEMON_STUN_MAX]; /* "host:port" */
	size_t n_stun;
	char *exclude[DAEMON_EXCLUDE_MAX]; /* patterns of interfaces' names */
	size_t n_exclude;
	enum daemon_port_mapping port_mapping; /* whether the gateway is asked for a port */
	uint64_t port_mapping_lifetime_s;
	bool use_virtual; /* addresses of tunnels and of bridges for containers too */
	uint64_t keepalive_min_s, keepalive_max_s; /* on direct paths; the NAT's memory decides */
	bool copy_dscp;  /* of inner packets to outer ones */
	bool parity;     /* repair by it where it pays */
	enum ptcp_congestion_control congestion_control;
	bool accept_new; /* trust new domains and peers without asking */
	struct daemon_domain domains[DAEMON_DOMAINS_MAX];
	size_t n_domains;
	/* Set by the monitor. */
	/* Reads file and command line again, as at the start. 0, or a fault that it has logged. */
	int (*load)(void *user, struct daemon_options *ret_options);
	void *load_user;
	int monitor_fd;     /* the daemon's end of tun_ipc_pair(), non-blocking */
	int upnp_fd;        /* the daemon's end of the socket to q2q-tun-upnp; -1: there is none */
	gid_t operator_gid; /* group q2q-tun: may operate; (gid_t)-1: no such group */
	uint64_t watchdog_us; /* send TUN_REQUEST_ALIVE at least three times in this; 0: off */
};

/* What differs between two readings of the configuration. */
struct daemon_changes {
	bool log_level, default_identity, stun, interfaces, port_mapping, keepalive;
	bool tunnels;      /* dscp, parity, congestion-control */
	bool trust;        /* accept-new, servers of domains: looked up whenever they are needed */
	char restart[256]; /* names, with ", " between, of what only a restart changes; or "" */
};

/* Defaults. Never fails but by -ENOMEM. */
int daemon_options_init(struct daemon_options *options);
void daemon_options_fini(struct daemon_options *options);
/*
 * Takes over what may change while the daemon runs; what may not stays as it was, and is named.
 * `fresh` is empty afterwards.
 */
void daemon_options_renew(struct daemon_options *options, struct daemon_options *fresh,
			  struct daemon_changes *ret_changes);
/*
 * Reads a configuration file over the defaults. -ENOENT: there is none (fine,
 * unless the user named it); other faults: ret_error says in words, file and
 * line, what is wrong.
 */
int daemon_options_load(struct daemon_options *options, const char *path, char *ret_error,
			size_t error_bytes);

/*
 * Runs until SIGTERM or SIGINT, until the monitor is gone, or until a fault
 * that cannot be lived with. Returns the exit status of the process. Sends
 * TUN_REQUEST_READY when the control socket is there, TUN_REQUEST_STOPPING on
 * the way out. SIGHUP: read the configuration again.
 */
int daemon_run(struct daemon_options *options);

#endif

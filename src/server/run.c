/*
 * Starting and stopping. Everything is made in server_start() and unmade in
 * reverse order in server_stop(), which also takes a half-started server.
 */
#include "server/state.h"

#include "server/privileges.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FDS_RESERVED 64 /* database, sockets, resolver, fetches */

int64_t server_wall_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

uint64_t server_now_us(const struct server *s)
{
	return net_loop_now_us(s->loop);
}

/* ---- limits --------------------------------------------------------------------------- */

static void raise_fd_limit(struct server_options *o)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= o->connections_max + FDS_RESERVED)
		return;
	o->connections_max =
		limit.rlim_cur > 2 * FDS_RESERVED ? limit.rlim_cur - FDS_RESERVED : FDS_RESERVED;
	log_note("at most %llu connections: this process may open %llu files",
		 (unsigned long long)o->connections_max, (unsigned long long)limit.rlim_cur);
}

static int make_limiters(struct server *s)
{
	/* All connections that an address may have, twice over, at once: the server was restarted.
	 */
	const struct limiter_config accepts = {
		.seed = s->seed,
		.n_keys_max = 65536,
		.burst = (unsigned)max_u64(200, 2 * s->options->connections_per_address_max),
		.interval_us = US_PER_S / 20,
	};
	/* A person mistypes; a machine guesses. */
	const struct limiter_config account_tries = { .seed = s->seed,
						      .n_keys_max = 65536,
						      .free_failures = 4,
						      .first_pause_us = 2 * US_PER_S,
						      .longest_pause_us = 900 * US_PER_S,
						      .forget_us = 3600 * US_PER_S };
	/* Many people may share one address: it gets more tries than one account. */
	struct limiter_config address_tries = account_tries;
	const struct limiter_config registrations = {
		.seed = s->seed, .n_keys_max = 65536, .burst = 20, .interval_us = 30 * US_PER_S
	};
	const struct limiter_config renewals = {
		.seed = s->seed, .n_keys_max = 65536, .burst = 30, .interval_us = 60 * US_PER_S
	};
	const struct limiter_config fetch_asks = {
		.seed = s->seed, .n_keys_max = 65536, .burst = 10, .interval_us = 10 * US_PER_S
	};
	const struct limiter_config fetch_domains = { .seed = s->seed,
						      .n_keys_max = 4096,
						      .free_failures = 0,
						      .first_pause_us = 2 * US_PER_S,
						      .longest_pause_us = 300 * US_PER_S,
						      .forget_us = 3600 * US_PER_S };

	address_tries.free_failures = 20;
	s->accepts = limiter_new(&accepts);
	s->account_tries = limiter_new(&account_tries);
	s->address_tries = limiter_new(&address_tries);
	s->registrations = limiter_new(&registrations);
	s->renewals = limiter_new(&renewals);
	s->fetch_asks = limiter_new(&fetch_asks);
	s->fetch_domains = limiter_new(&fetch_domains);
	if (!s->accepts || !s->account_tries || !s->address_tries || !s->registrations ||
	    !s->renewals || !s->fetch_asks || !s->fetch_domains)
		return -ENOMEM;
	return 0;
}

static void free_limiters(struct server *s)
{
	limiter_free(s->accepts);
	limiter_free(s->account_tries);
	limiter_free(s->address_tries);
	limiter_free(s->registrations);
	limiter_free(s->renewals);
	limiter_free(s->fetch_asks);
	limiter_free(s->fetch_domains);
}

static uint64_t relay_burst(const struct server_options *o)
{
	return max_u64(o->relay_bytes_per_s, 2 * Q2Q_RELAY_MAX_BYTES);
}

static int make_relay(struct server *s)
{
	struct relay_config config;

	relay_config_default(&config);
	config.seed = s->seed;
	config.ends_max = (unsigned)s->options->connections_max;
	config.bytes_per_s = s->options->relay_bytes_per_s;
	config.total_bytes_per_s = s->options->relay_total_bytes_per_s;
	config.burst_bytes = relay_burst(s->options);
	s->relay = relay_new(&config);
	return s->relay ? 0 : -ENOMEM;
}

/* ---- sockets ----------------------------------------------------------------------------- */

static void on_accepted(void *user, int fd, const struct endpoint *from)
{
	client_accept(user, fd, from);
}

static const char *listen_text(const struct endpoint *e, char out[static ENDPOINT_TEXT_BYTES])
{
	if (e->ip.family == FAMILY_NONE)
		snprintf(out, ENDPOINT_TEXT_BYTES, "[::]:%u", e->port);
	else
		endpoint_format(e, out);
	return out;
}

static int open_udp(struct server *s, const struct endpoint *local, struct net_udp **ret_udp)
{
	const struct net_udp_config config = {
		.bind = *local, .on_packets = udp_on_packets, .user = s, .buffer_bytes = 1024 * 1024
	};

	return net_udp_new(s->loop, &config, ret_udp);
}

static int open_socket(struct server *s, const struct endpoint *wanted)
{
	struct server_socket *socket = &s->sockets[s->n_sockets];
	struct endpoint local = *wanted;
	char text[ENDPOINT_TEXT_BYTES];
	int rc = net_listen_tcp(s->loop, wanted, on_accepted, s, &socket->tcp);

	if (rc != 0) {
		log_error("cannot listen on %s: %s%s", listen_text(wanted, text), strerror(-rc),
			  rc == -EADDRINUSE ? " (is another server running?)"
			  : rc == -EACCES   ? " (a port below 1024 needs CAP_NET_BIND_SERVICE, "
					      "which q2q-server.service has)"
					    : "");
		return rc;
	}
	s->n_sockets++;
	local.port = net_listener_local(socket->tcp).port;
	rc = open_udp(s, &local, &socket->udp);
	if (rc != 0) {
		log_error("cannot open UDP port %s: %s", listen_text(&local, text), strerror(-rc));
		return rc;
	}
	log_info("listening on %s, TCP and UDP", listen_text(&local, text));
	return 0;
}

static void open_second_stun(struct server *s)
{
	struct endpoint second = s->options->listen_endpoints[0];
	const uint16_t port = net_listener_local(s->sockets[0].tcp).port;
	int rc;

	if (port == UINT16_MAX || !s->options->stun_second_port)
		return;
	second.port = (uint16_t)(port + 1);
	rc = open_udp(s, &second, &s->stun_second);
	if (rc != 0)
		log_note("no second STUN port (%u): %s", second.port, strerror(-rc));
}

static int open_sockets(struct server *s)
{
	for (size_t i = 0; i < s->options->n_listen_endpoints; i++) {
		const int rc = open_socket(s, &s->options->listen_endpoints[i]);

		if (rc != 0)
			return rc;
	}
	open_second_stun(s);
	return 0;
}

static void close_sockets(struct server *s)
{
	for (size_t i = 0; i < s->n_sockets; i++) {
		net_listener_free(s->sockets[i].tcp);
		net_udp_free(s->sockets[i].udp);
	}
	s->n_sockets = 0;
	s->classic_udp = NULL;
}

/* ---- signals and timers --------------------------------------------------------------------- */

static void on_stop_timeout(void *user, uint64_t now_us)
{
	struct server *s = user;

	(void)now_us;
	net_loop_stop(s->loop);
}

static void on_terminate(void *user, int signal_number)
{
	struct server *s = user;

	if (s->stopping) {
		net_loop_stop(s->loop);
		return;
	}
	log_note("stopping (%s)", strsignal(signal_number));
	service_notify("STOPPING=1");
	s->stopping = true;
	close_sockets(s);
	clients_close_all(s);
	net_timer_arm(&s->stop_timer, server_now_us(s) + SHUTDOWN_S * US_PER_S);
	if (TAILQ_EMPTY(&s->leaving))
		net_loop_stop(s->loop);
}

static void apply(struct server *s, struct server_options *fresh)
{
	char restart[OPTIONS_RESTART_BYTES];

	options_adopt(s->options, fresh, restart);
	raise_fd_limit(s->options);
	log_set_level(options_log_level(s->options));
	relay_set_limits(s->relay, (unsigned)s->options->connections_max,
			 s->options->relay_bytes_per_s, s->options->relay_total_bytes_per_s,
			 relay_burst(s->options));
	log_note("configuration read again; registration is %s",
		 registration_name((enum registration)s->options->registration));
	if (*restart)
		log_warn("needs a restart: %s", restart);
}

/* First what can fail: a fault in the file changes nothing. */
static void on_hangup(void *user, int signal_number)
{
	struct server *s = user;
	struct server_options fresh = { 0 };
	struct domain_error error;
	const char *fault = NULL;

	(void)signal_number;
	service_notify_reloading();
	if (s->reload(&fresh) != 0) {
		fault = "READY=1\nSTATUS=The configuration has a fault, which the log names; the "
			"one before holds.";
		log_error("the configuration was not read again, the one before holds");
	} else if (domain_reload(&s->domain, &error) != 0) {
		fault = "READY=1\nSTATUS=The key of the domain cannot be read again.";
		log_error("%s", error.text);
	} else {
		apply(s, &fresh);
	}
	options_fini(&fresh);
	service_notify(fault ? fault : "READY=1\nSTATUS=");
}

static void on_watchdog(void *user, uint64_t now_us)
{
	struct server *s = user;

	service_notify("WATCHDOG=1");
	net_timer_arm(&s->watchdog_timer, now_us + s->watchdog_us);
}

static void on_expire(void *user, uint64_t now_us)
{
	struct server *s = user;

	if (store_expire(s->domain.store, server_wall_s()) != 0)
		log_warn("cannot tidy the store: %s", store_error(s->domain.store));
	net_timer_arm(&s->expire_timer, now_us + EXPIRE_INTERVAL_S * US_PER_S);
}

static void start_timers(struct server *s)
{
	const char *watchdog = getenv("WATCHDOG_USEC");
	uint64_t us;

	net_timer_init(&s->stop_timer, s->loop, on_stop_timeout, s);
	net_timer_init(&s->watchdog_timer, s->loop, on_watchdog, s);
	net_timer_init(&s->expire_timer, s->loop, on_expire, s);
	net_timer_arm(&s->expire_timer, server_now_us(s));
	if (watchdog && parse_u64(watchdog, UINT64_MAX, &us) == 0 && us > 1) {
		s->watchdog_us = us / 2;
		net_timer_arm(&s->watchdog_timer, server_now_us(s));
	}
}

static int watch_signals(struct server *s)
{
	int rc = net_loop_on_signal(s->loop, SIGTERM, on_terminate, s);

	if (rc == 0)
		rc = net_loop_on_signal(s->loop, SIGINT, on_terminate, s);
	if (rc == 0)
		rc = net_loop_on_signal(s->loop, SIGHUP, on_hangup, s);
	signal(SIGPIPE, SIG_IGN);
	return rc;
}

/* ---- the whole --------------------------------------------------------------------------------
 */

/* One server per directory: the lock is on the directory itself and ends with the process. */
static int lock_dir(const char *dir, int *ret_fd)
{
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return 0; /* domain_open() says it better */
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		rc = -errno;
		log_error("%s", rc == -EWOULDBLOCK
					? "another q2q-server runs on this data directory"
					: strerror(-rc));
		close(fd);
		return rc;
	}
	*ret_fd = fd;
	return 0;
}

static int start(struct server *s, const char **ret_what)
{
	int rc;

	*ret_what = "the loop";
	rc = net_loop_new(&s->loop);
	if (rc != 0)
		return rc;
	s->started_us = server_now_us(s);
	*ret_what = "random numbers";
	rc = crypto_random(&s->seed, sizeof(s->seed));
	if (rc != 0)
		return rc;
	*ret_what = "the tables";
	rc = make_limiters(s);
	if (rc == 0)
		rc = make_relay(s);
	if (rc != 0)
		return rc;
	*ret_what = "the resolver";
	rc = net_resolver_new(s->loop, &s->resolver);
	if (rc != 0)
		return rc;
	*ret_what = "UDP";
	rc = udp_start(s);
	if (rc != 0)
		return rc;
	*ret_what = "signals";
	rc = watch_signals(s);
	if (rc != 0)
		return rc;
	start_timers(s);
	*ret_what = NULL; /* said already */
	rc = open_sockets(s);
	if (rc != 0)
		return rc;
	*ret_what = "without capabilities";
	rc = privileges_forget_ports();
	if (rc != 0)
		return rc;
	*ret_what = "the password threads"; /* after that, or they would keep capabilities of their
					       own */
	return hasher_new(s->loop, HASHER_THREADS, &s->hasher);
}

static void stop(struct server *s)
{
	admin_stop(s);
	federation_stop(s);
	close_sockets(s);
	udp_stop(s);
	s->stopping = false; /* no need to stop the loop again */
	clients_free_all(s);
	hasher_free(s->hasher);
	net_resolver_free(s->resolver);
	net_timer_disarm(&s->stop_timer);
	net_timer_disarm(&s->watchdog_timer);
	net_timer_disarm(&s->expire_timer);
	relay_free(s->relay);
	free_limiters(s);
	net_loop_free(s->loop);
	domain_close(&s->domain);
}

static void server_init(struct server *s, struct server_options *options)
{
	const struct log_limit limit = { .interval_us = 10 * US_PER_S, .burst = 50 };

	*s = (struct server){ .options = options };
	TAILQ_INIT(&s->clients);
	TAILQ_INIT(&s->leaving);
	LIST_INIT(&s->fetches);
	LIST_INIT(&s->admin_connections);
	s->log_client = s->log_refused = s->log_trust = limit;
}

static int serve(struct server *s)
{
	const char *what;
	int rc = start(s, &what);

	if (rc != 0) {
		if (what)
			log_error("cannot start %s: %s", what, strerror(-rc));
		return EXIT_FAILED;
	}
	rc = admin_start(s);
	if (rc != 0)
		log_warn("no admin socket in %s (%s): `status` and disconnecting disabled "
			 "accounts at once will not work",
			 s->options->data_dir, strerror(-rc));
	log_note("serving %s, key %s, registration %s", s->domain.name, s->domain.fingerprint,
		 registration_name((enum registration)s->options->registration));
	service_notify("READY=1");
	rc = net_loop_run(s->loop);
	if (rc != 0)
		log_error("the loop ended: %s", strerror(-rc));
	log_note("stopped");
	return rc == 0 ? EXIT_DONE : EXIT_FAILED;
}

int server_run(struct server_options *options, int (*reload)(struct server_options *ret_fresh))
{
	struct server s;
	struct domain_error error;
	_cleanup_(closep) int lock = -1;
	_cleanup_(freep) char *user = privileges_user(options->data_dir, options->user);
	char why[256];
	int rc;

	server_init(&s, options);
	s.reload = reload;
	umask(077);
	privileges_keep_ports();
	if (privileges_drop(user, why, sizeof(why)) != 0) {
		log_error("%s", why);
		return EXIT_FAILED;
	}
	if (privileges_ports_alone() != 0) {
		log_error("cannot give up capabilities");
		return EXIT_FAILED;
	}
	privileges_harden();
	raise_fd_limit(options);
	if (lock_dir(options->data_dir, &lock) != 0)
		return EXIT_FAILED;
	if (domain_open(options->data_dir, &s.domain, &error) != 0) {
		log_error("%s", error.text);
		return error.exit_code;
	}
	rc = serve(&s);
	stop(&s);
	return rc;
}

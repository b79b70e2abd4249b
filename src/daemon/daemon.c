/*
 * The daemon's start, its loop and its end.
 */
#include "daemon/internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/utsname.h>
#include <unistd.h>

#define OWN_CHANGE_US (4 * US_PER_S) /* that long after an interface of ours, it was that */
#define FLUSH_TIME_US (50 * US_PER_MS)
#define STOP_TIME_US  (600 * US_PER_MS) /* a session gives up waiting after 500 ms */

int daemon_random(void *user, void *out, size_t n_bytes)
{
	(void)user;
	return crypto_random(out, n_bytes);
}

/* ---- the end ---- */

void daemon_stop_now(struct daemon *d, int exit_status)
{
	d->stopping = true;
	d->exit_status = exit_status;
	net_loop_stop(d->loop);
}

static bool all_closed(const struct daemon *d)
{
	const struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		if (session_state_of(link_session(link)) == SESSION_CLOSING)
			return false;
	return true;
}

static void on_stop_timer(void *user, uint64_t now_us)
{
	struct daemon *d = user;

	if (now_us < d->stop_deadline_us && !(all_closed(d) && portmap_is_released(d))) {
		net_timer_arm(&d->stop_timer, now_us + 10 * US_PER_MS);
	} else if (!LIST_EMPTY(&d->hubs)) {
		/* The servers hear a goodbye too; a moment for it to leave. */
		hub_stop(d);
		net_timer_arm(&d->stop_timer, now_us + FLUSH_TIME_US);
	} else {
		net_loop_stop(d->loop);
	}
}

/* The peers are told, and given a moment to confirm. */
static void terminate(struct daemon *d, const char *because)
{
	struct tun_request stopping = { .type = TUN_REQUEST_STOPPING };
	const uint64_t now_us = net_loop_now_us(d->loop);
	struct link *link;

	if (d->stopping) {
		net_loop_stop(d->loop);
		return;
	}
	log_note("ending: %s", because);
	d->stopping = true;
	daemon_monitor_send(d, &stopping);
	portmap_release(d);
	LIST_FOREACH (link, &d->links, entry) {
		session_close(link_session(link), SESSION_CLOSE_GOING_AWAY, link_now_us(link));
		links_pump(link);
	}
	d->stop_deadline_us = now_us + STOP_TIME_US;
	net_timer_arm(&d->stop_timer, now_us + 10 * US_PER_MS);
}

static void on_signal(void *user, int signal_number)
{
	if (signal_number == SIGHUP)
		reload(user);
	else
		terminate(user, signal_number == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void on_reload_asked(struct daemon *d)
{
	struct tun_request done = { .type = TUN_REQUEST_RELOAD };

	done.id = reload(d) < 0;
	daemon_monitor_send(d, &done);
}

/* ---- the monitor ---- */

/*
 * The socket to the monitor holds some hundred requests, and it makes one link after the other.
 * What does not fit waits here: at most three messages for each link that there may be.
 */
struct waiting_request {
	struct tun_request request;
	STAILQ_ENTRY(waiting_request) entry;
};

static int monitor_failed(struct daemon *d, int r)
{
	log_error("the monitor does not answer (%s)",
		  r > 0 ? "its socket is closed" : strerror(-r));
	daemon_stop_now(d, EXIT_FAILURE);
	return r > 0 ? -EPIPE : r;
}

static int monitor_wait(struct daemon *d, const struct tun_request *request)
{
	struct waiting_request *w =
		d->n_monitor_waiting < 3 * TUN_SLOTS_MAX ? malloc(sizeof(*w)) : NULL;

	if (!w)
		return monitor_failed(d, -ENOMEM);
	w->request = *request;
	STAILQ_INSERT_TAIL(&d->monitor_waiting, w, entry);
	d->n_monitor_waiting++;
	return net_watch_want(&d->monitor_watch, NET_READ | NET_WRITE);
}

int daemon_monitor_send(struct daemon *d, struct tun_request *request)
{
	const int r = STAILQ_EMPTY(&d->monitor_waiting)
			      ? tun_ipc_send_request(d->options->monitor_fd, request)
			      : -EAGAIN;

	if (r == -EAGAIN)
		return monitor_wait(d, request);
	return r ? monitor_failed(d, r) : 0;
}

static void monitor_drop(struct daemon *d, struct waiting_request *w)
{
	STAILQ_REMOVE_HEAD(&d->monitor_waiting, entry);
	d->n_monitor_waiting--;
	free(w);
}

static void monitor_flush(struct daemon *d)
{
	struct waiting_request *w;
	int r = 0;

	while (!r && (w = STAILQ_FIRST(&d->monitor_waiting))) {
		r = tun_ipc_send_request(d->options->monitor_fd, &w->request);
		if (!r)
			monitor_drop(d, w);
	}
	if (r && r != -EAGAIN)
		monitor_failed(d, r);
	else if (!r)
		net_watch_want(&d->monitor_watch, NET_READ);
}

static void on_monitor(void *user, unsigned ready)
{
	struct daemon *d = user;
	struct tun_reply reply;
	int fd = -1, r;

	if (ready & NET_WRITE)
		monitor_flush(d);
	if (!(ready & NET_READ))
		return;
	for (;;) {
		r = tun_ipc_receive_reply(d->options->monitor_fd, &reply, &fd);
		if (r)
			break;
		/* Whoever stops the service signals the monitor, which may not signal us. */
		if (reply.type == TUN_REQUEST_STOPPING)
			terminate(d, "the monitor asks");
		else if (reply.type == TUN_REQUEST_RELOAD)
			on_reload_asked(d);
		else
			links_on_reply(d, &reply, fd);
	}
	if (r == -EAGAIN)
		return;
	log_error("the monitor is gone (%s)", r > 0 ? "its socket is closed" : strerror(-r));
	daemon_stop_now(d, EXIT_FAILURE);
}

static void tell_monitor(struct daemon *d, enum tun_request_type type)
{
	struct tun_request request = { .type = type };

	daemon_monitor_send(d, &request);
}

static void on_alive(void *user, uint64_t now_us)
{
	struct daemon *d = user;

	tell_monitor(d, TUN_REQUEST_ALIVE);
	net_timer_arm(&d->alive, now_us + d->options->watchdog_us / 4);
}

/* ---- now and then ---- */

static void on_network_changed(void *user)
{
	struct daemon *d = user;
	const uint64_t now_us = net_loop_now_us(d->loop);
	const uint64_t signature = gather_signature(d);
	const bool same = signature == d->network_signature;

	d->network_signature = signature;
	/* Our own interfaces come and go too: that is no change. */
	if (same && now_us - d->device_changed_us < OWN_CHANGE_US)
		return;
	log_info("the network changed: looking for paths again");
	hub_wake_all(d);
	if (!nat64_restart(d))
		gather_restart(d);
	portmap_restart(d);
	lifetime_restart(d);
}

/* ---- start ---- */

/* One daemon per state: the lock is on the directory itself and ends with the process. */
static int lock_state(struct daemon *d)
{
	const char *dir = d->options->state_dir;
	int r = 0;

	d->lock_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->lock_fd < 0 || flock(d->lock_fd, LOCK_EX | LOCK_NB))
		r = -errno;
	if (r)
		log_error("cannot use the state in %s: %s", dir,
			  r == -EWOULDBLOCK ? "another q2q-tund does" : strerror(-r));
	return r;
}

static int load_state(struct daemon *d)
{
	struct utsname names;
	int r = identities_load(&d->identities, d->options->state_dir);

	if (!r)
		r = domains_load(&d->domains, d->options->state_dir);
	if (!r)
		r = peers_load(d);
	if (!r)
		r = requests_load(d);
	if (r)
		log_error("cannot read the state in %s: %s", d->options->state_dir, strerror(-r));
	if (!uname(&names)) {
		text_sanitize(names.nodename, min_size(strlen(names.nodename), OFFER_NAME_BYTES),
			      d->device, sizeof(d->device));
		doctor_about(&names, d->about, sizeof(d->about));
	}
	d->started_s = wall_clock_s();
	d->identities.configured = d->options->default_identity;
	return r;
}

static void choose_aead(const struct daemon *d)
{
	const int r = crypto_aead_use(d->options->aead_backend);

	if (r == -EIO)
		log_warn("Intel's IPsec-MB gives wrong answers on this CPU: not using it");
	else if (r)
		log_warn("Intel's IPsec-MB cannot be used here: %s",
			 r == -ENOTSUP ? "not built in, or not for this CPU" : strerror(-r));
	log_info("packets are sealed by %s", crypto_aead_backend_name());
}

static void on_settled(void *user)
{
	control_settled(user);
}

static int start_loop(struct daemon *d)
{
	int r = workers_init(d);

	if (!r)
		r = net_resolver_new(d->loop, &d->resolver);
	if (!r)
		r = net_loop_on_signal(d->loop, SIGTERM, on_signal, d);
	if (!r)
		r = net_loop_on_signal(d->loop, SIGINT, on_signal, d);
	if (!r)
		r = net_loop_on_signal(d->loop, SIGHUP, on_signal, d);
	if (!r)
		r = crypto_random(&d->seed, sizeof(d->seed));
	if (r) {
		log_error("cannot start the loop: %s", strerror(-r));
		return r;
	}
	r = disk_new(d->loop, on_settled, d, &d->disk);
	if (r) {
		log_error("cannot write to disk: %s", strerror(-r));
		return r;
	}
	net_timer_init(&d->alive, d->loop, on_alive, d);
	upkeep_start(d);
	net_timer_init(&d->stop_timer, d->loop, on_stop_timer, d);
	return 0;
}

static int start_services(struct daemon *d)
{
	int r = udp_start(d);

	if (!r)
		r = gather_start(d);
	if (!r) {
		streams_start(d);
		nat64_start(d);
		portmap_start(d);
		lifetime_start(d);
	}
	if (!r) {
		r = net_changes_new(d->loop, on_network_changed, d, &d->changes);
		if (r)
			log_warn("changes of the network will not be noticed: %s", strerror(-r));
		net_watch_init(&d->monitor_watch, d->loop, d->options->monitor_fd, on_monitor, d);
		r = net_watch_want(&d->monitor_watch, NET_READ);
	}
	if (!r)
		r = control_start(d);
	if (!r)
		r = names_start(d);
	if (!r)
		r = hub_start(d);
	return r;
}

static void stop_services(struct daemon *d)
{
	/* Closed one by one, hundreds of devices would take the kernel many seconds. */
	if (d->exit_status == EXIT_SUCCESS)
		tell_monitor(d, TUN_REQUEST_LINKS_END);
	control_stop(d);
	names_stop(d);
	requests_save(d);
	upkeep_stop(d);
	peers_fini(d);
	hub_stop(d);
	renew_stop(d);
	lifetime_stop(d);
	portmap_stop(d);
	streams_stop(d);
	nat64_stop(d);
	gather_stop(d);
	udp_stop(d);
	net_watch_fini(&d->monitor_watch);
	while (!STAILQ_EMPTY(&d->monitor_waiting))
		monitor_drop(d, STAILQ_FIRST(&d->monitor_waiting));
	net_changes_free(d->changes);
	net_timer_disarm(&d->alive);
	net_timer_disarm(&d->stop_timer);
	net_timer_disarm(&d->requests.save_timer);
}

static void serve(struct daemon *d)
{
	const uint64_t now_us = net_loop_now_us(d->loop);
	int r;

	if (d->options->watchdog_us)
		net_timer_arm(&d->alive, now_us);
	upkeep_soon(d);
	d->network_signature = gather_signature(d);
	links_start_wanted(d);
	tell_monitor(d, TUN_REQUEST_READY);
	log_note("serving; control socket %s", d->options->control_path);
	r = workers_start(d);
	if (!r)
		r = net_loop_run(d->loop);
	workers_stop(d);
	if (r) {
		log_error("the loop failed: %s", strerror(-r));
		d->exit_status = EXIT_FAILURE;
	}
}

int daemon_run(struct daemon_options *options)
{
	/* Zero as it is: to write that would make a megabyte resident. */
	static struct daemon daemon;
	struct daemon *d = &daemon;

	d->options = options;
	d->lock_fd = -1;
	TAILQ_INIT(&d->peers);
	TAILQ_INIT(&d->ops);
	TAILQ_INIT(&d->identities.list);
	TAILQ_INIT(&d->domains.list);
	STAILQ_INIT(&d->monitor_waiting);
	if (logring_init(d))
		return EXIT_FAILURE;
	choose_aead(d);
	if (!start_loop(d) && !lock_state(d) && !load_state(d) && !start_services(d))
		serve(d);
	else
		d->exit_status = EXIT_FAILURE;
	if (d->loop)
		stop_services(d);
	disk_free(d->disk);
	identities_fini(&d->identities);
	domains_fini(&d->domains);
	net_resolver_free(d->resolver);
	workers_fini(d);
	closep(&d->lock_fd);
	logring_fini(d);
	return d->exit_status;
}

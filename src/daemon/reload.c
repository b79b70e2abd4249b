/*
 * The configuration, read again while everything goes on.
 *
 * The file is read whole first: one with a fault changes nothing. The options are the
 * control plane's, and what workers need of them is copied into their sessions while they
 * stand still (workers_enter()); no worker reads an option that may change under it.
 */
#include "daemon/internal.h"

static void renew_tunnels(struct daemon *d)
{
	const struct session_options options = {
		.copy_dscp = d->options->copy_dscp,
		.parity = d->options->parity,
		.congestion_control = d->options->congestion_control,
	};
	struct link *link;

	LIST_FOREACH (link, &d->links, entry)
		session_set_options(link_session(link), &options);
}

static void apply(struct daemon *d, const struct daemon_changes *c)
{
	/* The text that it pointed to is gone, changed or not. */
	d->identities.configured = d->options->default_identity;
	if (c->log_level)
		workers_set_log_level(d, (enum log_level)d->options->log_level);
	if (c->tunnels)
		renew_tunnels(d);
	if (c->stun || c->interfaces)
		gather_reload(d, c->stun, c->interfaces);
	if (c->port_mapping || c->interfaces)
		portmap_reload(d);
	if (c->keepalive)
		lifetime_reload(d);
}

static bool is_same(const struct daemon_changes *c)
{
	return !c->log_level && !c->default_identity && !c->stun && !c->interfaces &&
	       !c->port_mapping && !c->keepalive && !c->tunnels && !c->trust;
}

int reload(struct daemon *d)
{
	struct daemon_options fresh;
	struct daemon_changes changes;
	int r;

	if (d->stopping)
		return 0;
	r = d->options->load ? d->options->load(d->options->load_user, &fresh) : -ENOTSUP;
	if (r) {
		log_error("the configuration was not read again, the one before holds: %s",
			  strerror(-r));
		return r;
	}
	daemon_options_renew(d->options, &fresh, &changes);
	apply(d, &changes);
	log_note("the configuration was read again%s",
		 is_same(&changes) ? ": nothing changes now" : "");
	if (*changes.restart)
		log_warn("needs a restart: %s", changes.restart);
	return 0;
}

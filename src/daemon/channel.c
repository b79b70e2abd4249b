/*
 * Asks a server for a channel, by which it relays to a peer by UDP. A server that
 * has none refuses, or does not know the command: then its TLS connection goes on
 * to relay, and it is not asked again before the next rendezvous.
 */
#include "daemon/internal.h"

void channel_ask(struct link *link, const void *route, const char *id)
{
	struct daemon *d = link->daemon;
	struct hub_link *h = hub_of_route(d, route);
	struct q2q_call call = { .command = Q2Q_CHANNEL };

	if (!h)
		return;
	call.channel.id = amp_text(id);
	link->channel_cookie = ++d->next_cookie;
	memcpy(link->channel_id, id, OFFER_ID_BYTES + 1);
	if (q2q_conn_call(h->server->conn, &call, link->channel_cookie, 0,
			  net_loop_now_us(d->loop)))
		link->channel_cookie = 0;
	serverlink_pump(h->server);
}

void channel_answered(struct hub_link *h, const struct q2q_event *event)
{
	const struct amp_value *name = &event->answer.channel.name;
	const struct amp_value *key = &event->answer.channel.key;
	struct endpoint server;
	struct link *link;

	if (name->n_bytes != Q2Q_CHANNEL_BYTES || key->n_bytes != Q2Q_CHANNEL_KEY_BYTES)
		return;
	LIST_FOREACH (link, &h->daemon->links, entry)
		if (link->channel_cookie == event->cookie)
			break;
	if (!link)
		return;
	link->channel_cookie = 0;
	/* The server's UDP port has the number of its control port. */
	server = net_nat64_inward(h->daemon->loop, &h->server->remote);
	session_channel(link_session(link), link->channel_id, name->data, key->data, &server,
			link_now_us(link));
	links_pump(link);
}

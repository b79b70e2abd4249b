#include "net/net.h"

#include "q2q/q2q.h"

/* ---- the plan ---- */

static void add(struct lane *lane, const struct endpoint *e)
{
	for (size_t i = 0; i < lane->n_endpoints; i++)
		if (endpoint_equal(&lane->endpoints[i], e))
			return;
	if (lane->n_endpoints < NET_ENDPOINTS_MAX)
		lane->endpoints[lane->n_endpoints++] = *e;
}

static void add_with_port(struct lane *lane, const struct endpoint *e, uint16_t port)
{
	struct endpoint with = *e;

	with.port = port;
	add(lane, &with);
}

void lanes_plan(struct lanes *l, const struct net_resolved *found, bool named)
{
	struct lane *clear = &l->lanes[LANE_CLEAR], *tls = &l->lanes[LANE_TLS];

	for (unsigned i = 0; i < LANE_KIND_COUNT; i++)
		l->lanes[i] = (struct lane){ .lanes = l, .kind = (enum lane_kind)i };
	for (size_t i = 0; i < found->n_endpoints; i++)
		add(found->endpoints[i].port == LANES_TLS_PORT ? tls : clear, &found->endpoints[i]);
	for (size_t i = 0; i < found->n_endpoints && !named; i++)
		add_with_port(clear, &found->endpoints[i], Q2Q_PORT);
	for (size_t i = 0; i < found->n_endpoints; i++)
		add_with_port(tls, &found->endpoints[i], LANES_TLS_PORT);
	l->first = found->n_endpoints > 0 && found->endpoints[0].port == LANES_TLS_PORT
			   ? LANE_TLS
			   : LANE_CLEAR;
}

/* ---- trying ---- */

static struct lane *other_of(struct lane *lane)
{
	return &lane->lanes->lanes[lane->kind == LANE_CLEAR ? LANE_TLS : LANE_CLEAR];
}

static bool is_open(const struct lane *lane)
{
	return lane->n_endpoints > 0 && !lane->tried;
}

static int lane_start(struct lane *lane);

static void settle(struct lanes *l, struct lane *lane, int fd, const struct endpoint *remote)
{
	net_timer_disarm(&l->head_start);
	l->fn(l->user, fd < 0 ? lane->error : 0, fd, remote, lane->kind);
}

static void lane_failed(struct lane *lane, int error)
{
	struct lanes *l = lane->lanes;
	struct lane *other = other_of(lane), *told = &l->lanes[l->first];

	lane->error = error;
	if (other->connect)
		return;
	if (is_open(other)) {
		/* At once: there is nothing to wait for. */
		const int r = lane_start(other);

		if (r == 0)
			return;
		other->error = r;
	}
	if (!told->error)
		told = lane;
	settle(l, told, -1, &told->endpoints[0]);
}

static void on_connected(void *user, int error, int fd, const struct endpoint *remote)
{
	struct lane *lane = user, *other = other_of(lane);

	lane->connect = NULL;
	if (error) {
		lane_failed(lane, error);
		return;
	}
	/* It lost the race; it may still be needed, should this one prove to be deaf. */
	if (other->connect) {
		net_connect_cancel(other->connect);
		other->connect = NULL;
		other->tried = false;
	}
	settle(lane->lanes, lane, fd, remote);
}

static int lane_start(struct lane *lane)
{
	int r;

	lane->tried = true;
	r = net_connect_new(lane->lanes->loop, lane->endpoints, lane->n_endpoints,
			    lane->lanes->timeout_us, on_connected, lane, &lane->connect);
	if (r < 0)
		lane->connect = NULL;
	return r;
}

static void on_head_start(void *user, uint64_t now_us)
{
	struct lanes *l = user;
	struct lane *second = other_of(&l->lanes[l->first]);

	(void)now_us;
	if (is_open(second))
		(void)lane_start(second); /* the first one is on its way */
}

int lanes_start(struct lanes *l, struct net_loop *loop, bool prefer_tls, uint64_t timeout_us,
		lanes_fn *fn, void *user)
{
	int r;

	l->loop = loop;
	l->timeout_us = timeout_us;
	l->fn = fn;
	l->user = user;
	if (prefer_tls)
		l->first = LANE_TLS;
	if (!is_open(&l->lanes[l->first]))
		l->first = l->first == LANE_TLS ? LANE_CLEAR : LANE_TLS;
	if (!is_open(&l->lanes[l->first]))
		return -EINVAL;
	net_timer_init(&l->head_start, loop, on_head_start, l);
	r = lane_start(&l->lanes[l->first]);
	if (r == 0)
		net_timer_arm(&l->head_start, net_loop_now_us(loop) + LANES_HEAD_START_US);
	return r;
}

bool lanes_has_other(const struct lanes *l)
{
	return is_open(&l->lanes[LANE_CLEAR]) || is_open(&l->lanes[LANE_TLS]);
}

bool lanes_other(struct lanes *l)
{
	for (unsigned i = 0; i < LANE_KIND_COUNT; i++) {
		struct lane *lane = &l->lanes[i];

		if (!is_open(lane))
			continue;
		if (!other_of(lane)->error)
			other_of(lane)->error = -ECONNRESET;
		return lane_start(lane) == 0;
	}
	return false;
}

void lanes_cancel(struct lanes *l)
{
	net_timer_disarm(&l->head_start);
	for (unsigned i = 0; i < LANE_KIND_COUNT; i++) {
		net_connect_cancel(l->lanes[i].connect);
		l->lanes[i].connect = NULL;
	}
}

/* ---- what works where ---- */

static const struct lanes_network *find(const struct lanes_memory *m, uint64_t network)
{
	for (size_t i = 0; i < LANES_NETWORKS_MAX; i++)
		if (m->networks[i].until_us && m->networks[i].network == network)
			return &m->networks[i];
	return NULL;
}

bool lanes_recall(const struct lanes_memory *m, uint64_t network, uint64_t now_us)
{
	const struct lanes_network *n = find(m, network);

	return n && now_us < n->until_us;
}

void lanes_remember(struct lanes_memory *m, uint64_t network, const struct lanes *l,
		    enum lane_kind kind, uint64_t now_us)
{
	struct lanes_network *n = (struct lanes_network *)(uintptr_t)find(m, network);
	const bool had_head_start = l->first == kind;

	if (kind == LANE_CLEAR) {
		if (n)
			*n = (struct lanes_network){ 0 };
		return;
	}
	/* Over 443 because the server says so, or because we remember: nothing is learnt of 8788.
	 */
	if (had_head_start || l->lanes[LANE_CLEAR].n_endpoints == 0)
		return;
	if (!n) {
		n = &m->networks[m->next];
		m->next = (m->next + 1) % LANES_NETWORKS_MAX;
	}
	*n = (struct lanes_network){ .network = network, .until_us = now_us + LANES_MEMORY_US };
}

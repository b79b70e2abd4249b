/*
 * lanes - reaching a server over networks that stop its usual port: in clear over that port, or
 * with TLS around it over port 443 (doc/q2q-extensions.md, section 9). Both are tried, one with a
 * head start; the first TCP connection wins.
 */
#ifndef DAEMON_LANES_H
#define DAEMON_LANES_H

#include "net/net.h"

#define LANES_TLS_PORT      443
#define LANES_HEAD_START_US US_PER_S
#define LANES_PATIENCE_US   (6 * US_PER_S) /* for the first answer, while the other is untried */
#define LANES_NETWORKS_MAX  16
#define LANES_MEMORY_US     (3600 * US_PER_S) /* then the usual port has the head start again */

enum lane_kind { LANE_CLEAR, LANE_TLS, LANE_KIND_COUNT };

struct lanes;

struct lane {
	struct lanes *lanes;
	enum lane_kind kind;
	struct endpoint endpoints[NET_ENDPOINTS_MAX]; /* in the order to try */
	size_t n_endpoints;
	struct net_connect *connect; /* while it is tried */
	bool tried;                  /* and not again in this attempt */
	int error;                   /* why it failed; 0: it did not, or not yet */
};

/* error 0: fd is the callee's, and lane says what goes over it. Else both failed; remote is where
 * the usual one was looked for. */
typedef void lanes_fn(void *user, int error, int fd, const struct endpoint *remote,
		      enum lane_kind kind);

/* Embedded in its owner; begins zeroed. */
struct lanes {
	struct net_loop *loop;
	struct lane lanes[LANE_KIND_COUNT];
	struct net_timer head_start;
	enum lane_kind first; /* gets the head start */
	uint64_t timeout_us;  /* of each */
	lanes_fn *fn;
	void *user;
};

/*
 * Sorts a server's endpoints into lanes. `named`: the user said where it is, port included, so
 * that only port 443 is added; else the default port too.
 */
void lanes_plan(struct lanes *l, const struct net_resolved *found, bool named);
/* Tries them; fn comes exactly once, never from in here, unless cancelled. `prefer_tls`: that is
 * what works in this network. 0 or a fault. */
int lanes_start(struct lanes *l, struct net_loop *loop, bool prefer_tls, uint64_t timeout_us,
		lanes_fn *fn, void *user);
/* Something connected, but no server answered by it. True: the other lane is tried now, and fn
 * comes again. */
bool lanes_other(struct lanes *l);
bool lanes_has_other(const struct lanes *l);
void lanes_cancel(struct lanes *l); /* fine on a zeroed object */

/* Which networks of this machine let nothing but TLS through, as far as is known. */
struct lanes_memory {
	struct lanes_network {
		uint64_t network; /* what names it */
		uint64_t until_us;
	} networks[LANES_NETWORKS_MAX];
	size_t next;
};

bool lanes_recall(const struct lanes_memory *m, uint64_t network, uint64_t now_us);
/* A server answered over that lane. Only what shows that the other one does not work counts. */
void lanes_remember(struct lanes_memory *m, uint64_t network, const struct lanes *l,
		    enum lane_kind kind, uint64_t now_us);

#endif

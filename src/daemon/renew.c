/*
 * Certificates that end: before they do, the identity's own server is asked for
 * successors (q2q-extensions.md, section 5), over the connection that the old one has
 * proven. The key stays, so peers who pinned it see nothing but a later end.
 *
 * Asked for after two thirds of its life, at a random moment of the next twelfth: what
 * was issued on one day is not renewed in one minute. What comes to nothing is tried
 * again ever more slowly, and a server that does not renew is named in the log once,
 * while there is time for the user to do it.
 */
#include "daemon/internal.h"

#include <stdio.h>
#include <time.h>

#define RETRY_FIRST_S 60
#define RETRY_MAX_S   (6 * 3600)
#define LOOK_AGAIN_S  (6 * 3600) /* clocks are set */

struct renewal {
	struct daemon *daemon;
	struct identity *identity;
	struct net_timer timer;
	int64_t ends_s;            /* of the certificate that this is about */
	int64_t due_s;             /* wall clock */
	uint64_t cookie;           /* of the question; 0: none */
	struct crypto_cert *fresh; /* came, and is taken into use by the timer */
	unsigned n_failures;
	bool refused; /* the user has been told */
};

static uint32_t random_below(uint64_t n)
{
	uint64_t random;

	return n > 0 && !crypto_random(&random, sizeof(random)) ? (uint32_t)(random % n) : 0;
}

/* Servers of this project date certificates back a little. */
static int64_t life_of(const struct crypto_cert *cert)
{
	const int64_t life_s = crypto_cert_not_after_s(cert) - crypto_cert_not_before_s(cert);

	return life_s > CRYPTO_CERT_BACKDATE_S ? life_s - CRYPTO_CERT_BACKDATE_S : life_s;
}

static void wait_until_due(struct renewal *w)
{
	const int64_t left_s = w->due_s - wall_clock_s();
	const int64_t wait_s = left_s < LOOK_AGAIN_S ? left_s : LOOK_AGAIN_S;

	net_timer_arm(&w->timer, net_loop_now_us(w->daemon->loop) +
					 (wait_s > 0 ? (uint64_t)wait_s * US_PER_S : 0));
}

static const char *date_text(int64_t unix_s, char out[static 32])
{
	struct tm tm;

	if (!localtime_r(&unix_s, &tm) || strftime(out, 32, "%F %R", &tm) == 0)
		snprintf(out, 32, "?");
	return out;
}

/* Later, but while the certificate is still good. */
static void retry(struct renewal *w, int64_t first_s)
{
	const int64_t now_s = wall_clock_s(), left_s = w->ends_s - now_s;
	int64_t wait_s = first_s;

	for (unsigned i = 0; i < w->n_failures && wait_s < RETRY_MAX_S; i++)
		wait_s *= 2;
	if (w->n_failures < 64)
		w->n_failures++;
	if (wait_s > RETRY_MAX_S)
		wait_s = RETRY_MAX_S;
	if (wait_s > left_s / 4)
		wait_s = left_s / 4;
	w->due_s = now_s + (wait_s > 1 ? wait_s : 1) + random_below((uint64_t)(wait_s / 8 + 1));
	wait_until_due(w);
}

static void tell_user(struct renewal *w, const char *because)
{
	const char *address = w->identity->address.text;
	char date[32];

	if (w->refused)
		return;
	w->refused = true;
	log_warn("%s: its certificate ends on %s, and the server does not renew it (%s): before "
		 "then, run q2q-tun authorize %s",
		 address, date_text(w->ends_s, date), because, address);
}

/* ---- question and answer ---- */

static void ask(struct renewal *w, struct hub_link *h)
{
	struct q2q_call call = { .command = Q2Q_RENEW };
	struct buffer csr;
	int r;

	buffer_init(&csr, 4096, false);
	r = crypto_csr_make(w->identity->key, w->identity->address.text, &csr);
	call.sign.certificate_request = amp_value(buffer_peek(&csr), buffer_used(&csr));
	w->cookie = ++w->daemon->next_cookie;
	if (!r)
		r = q2q_conn_call(h->server->conn, &call, w->cookie, 0,
				  net_loop_now_us(w->daemon->loop));
	buffer_fini(&csr);
	if (r) {
		w->cookie = 0;
		retry(w, RETRY_FIRST_S);
		return;
	}
	serverlink_pump(h->server);
}

/* Is it a successor? 0, an enum crypto_verify, or a fault. */
static int read_fresh(struct renewal *w, const struct amp_value *der)
{
	const struct identity *id = w->identity;
	struct crypto_cert *anchor = domains_pin(&w->daemon->domains, id->address.domain);
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = NULL;
	int r = crypto_cert_from_der(der->data, der->n_bytes, &cert);

	if (!r)
		r = anchor ? crypto_cert_verify(cert, anchor, id->address.text, wall_clock_s())
			   : -ENOENT;
	if (!r && !crypto_cert_matches_key(cert, id->key))
		r = CRYPTO_VERIFY_KEY_CHANGED;
	if (!r && crypto_cert_not_after_s(cert) <= w->ends_s)
		r = CRYPTO_VERIFY_EXPIRED;
	if (!r) {
		crypto_cert_unref(w->fresh);
		w->fresh = TAKE_PTR(cert);
	}
	return r;
}

static void failed(struct renewal *w, const struct q2q_failure *f)
{
	switch (f->error) {
	case Q2Q_ERROR_CONNECTION_LOST: /* it is planned anew with the next one */
		return;
	case Q2Q_ERROR_UNHANDLED:
		tell_user(w, "it is an older one, which cannot");
		retry(w, RETRY_MAX_S);
		return;
	case Q2Q_ERROR_NOT_ALLOWED:
	case Q2Q_ERROR_BAD_CERTIFICATE_REQUEST:
		tell_user(w, f->description);
		retry(w, RETRY_MAX_S);
		return;
	default:
		log_info("%s: its certificate was not renewed, which is tried again: %s %s",
			 w->identity->address.text, f->code_text, f->description);
		retry(w, RETRY_FIRST_S);
		return;
	}
}

void renew_answered(struct hub_link *h, const struct q2q_event *event)
{
	struct renewal *w = h->identity->renewal;
	int r;

	if (!w || !w->cookie || event->cookie != w->cookie)
		return;
	w->cookie = 0;
	if (event->kind != Q2Q_EVENT_ANSWER) {
		failed(w, &event->failure);
		return;
	}
	r = read_fresh(w, &event->answer.identify.certificate);
	if (r) {
		tell_user(w, r > 0 ? crypto_verify_text((enum crypto_verify)r) : strerror(-r));
		retry(w, RETRY_MAX_S);
		return;
	}
	/* The connection that we are called from is made anew with it. */
	net_timer_arm(&w->timer, net_loop_now_us(w->daemon->loop));
}

static void take_fresh(struct renewal *w)
{
	_cleanup_(crypto_cert_unrefp) struct crypto_cert *cert = TAKE_PTR(w->fresh);
	struct identity *id = w->identity;
	char date[32];
	const int r = hub_identity_set(w->daemon, &id->address, cert, id->key, &id);

	if (r) {
		log_error("%s: cannot store its renewed certificate: %s", id->address.text,
			  strerror(-r));
		retry(w, RETRY_FIRST_S);
		return;
	}
	log_note("%s: its certificate was renewed, until %s", id->address.text,
		 date_text(crypto_cert_not_after_s(id->cert), date));
}

/* ---- when ---- */

static void on_timer(void *user, uint64_t now_us)
{
	struct renewal *w = user;
	struct hub_link *h = hub_own(w->daemon, w->identity);
	const int64_t now_s = wall_clock_s();

	(void)now_us;
	if (w->fresh) {
		take_fresh(w);
		return;
	}
	/* Without a connection: with the next one. With one that has ended by the clock: never. */
	if (w->cookie || !h || !hub_is_ready(h) || now_s >= w->ends_s)
		return;
	if (now_s < w->due_s)
		wait_until_due(w);
	else
		ask(w, h);
}

static void begin(struct renewal *w)
{
	const struct crypto_cert *cert = w->identity->cert;
	const int64_t life_s = life_of(cert), now_s = wall_clock_s();
	int64_t left_s;

	w->ends_s = crypto_cert_not_after_s(cert);
	w->due_s = w->ends_s - life_s / 3 + random_below((uint64_t)(life_s / 12));
	w->n_failures = 0;
	w->refused = false;
	left_s = w->ends_s - now_s;
	/* It should have been; many were off as long, so not all at once. */
	if (w->due_s <= now_s && left_s > 0)
		w->due_s = now_s + random_below(min_u64(60, (uint64_t)left_s / 4));
}

void renew_plan(struct daemon *d, struct identity *identity)
{
	struct renewal *w = identity->renewal;

	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return;
		w->daemon = d;
		w->identity = identity;
		net_timer_init(&w->timer, d->loop, on_timer, w);
		identity->renewal = w;
	}
	w->cookie = 0; /* of the connection before */
	if (w->ends_s != crypto_cert_not_after_s(identity->cert))
		begin(w);
	wait_until_due(w);
}

bool renew_is_refused(const struct identity *identity)
{
	return identity->renewal && identity->renewal->refused;
}

void renew_stop(struct daemon *d)
{
	struct identity *id;

	TAILQ_FOREACH (id, &d->identities.list, entry) {
		if (!id->renewal)
			continue;
		net_timer_disarm(&id->renewal->timer);
		crypto_cert_unref(id->renewal->fresh);
		free(id->renewal);
		id->renewal = NULL;
	}
}

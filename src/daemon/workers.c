/*
 * Workers: which thread moves the packets of which link.
 *
 * There is one by default, and then nothing of what follows happens: no thread is
 * started, no lock is taken, and what is for the control plane is a call.
 *
 * With more, each worker but the first is a thread with a loop, a UDP socket on the
 * common port, and the links that were given to it; it shares nothing with the others
 * while packets flow. The first one is also the thread of the control plane: servers,
 * the control socket, files, names, the monitor, our addresses. Three things cross:
 *
 *  - Letters, by bounded mailboxes. A worker tells the control plane of events and hands
 *    it what leaves by a server's connection; it is handed what arrived by one, and
 *    datagrams that the kernel gave to another worker's socket.
 *  - The control plane enters a worker: it waits until that one stands still between two
 *    callbacks, and then uses its sessions, timers and sockets as if they were its own,
 *    until the end of its own turn.
 *  - A worker borrows the control plane, to ask whether a certificate or an address is
 *    right: it waits until that one's turn has ended, or until it waits for a worker.
 *
 * The two waits cannot meet: who enters lets others borrow meanwhile, and who borrows
 * does nothing else. All of that is under one mutex, the gate's, which also orders what
 * one thread wrote before what the next one reads.
 */
#include "daemon/internal.h"

#include <signal.h>

/* For the messages of all peers that are queued, in flight or put together; see ptcp_memory. */
#define MEMORY_BYTES  ((size_t)128 << 20)
#define LETTERS_MAX   4096
#define LETTERS_BYTES ((size_t)8 << 20)

/* NULL: the control plane's thread, that of the first worker. */
static _Thread_local struct worker *self;

struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t control, borrower, parked, resumed;
	bool in_turn;         /* of the control plane, and it does not wait for a worker */
	unsigned n_borrowers; /* who wait for its end */
};

/* What letters carry; see handle_letter(). Bodies stand behind. */
enum letter_kind {
	/* to the control plane */
	LETTER_EVENT,
	LETTER_SIGNAL, /* body: what the server shall pass on */
	LETTER_STREAM, /* body: what a TCP connection with a peer shall carry */
	LETTER_STUN,   /* body: the datagram */
	LETTER_DEVICE_LOST,
	LETTER_LOG, /* body: the text */
	LETTER_FAULT,
	/* to a worker */
	LETTER_TOLD,     /* body: signal or relayed datagrams */
	LETTER_DATAGRAM, /* body: that */
};

struct letter {
	enum letter_kind kind;
	size_t body_bytes;
	uint32_t slot; /* EVENT, DEVICE_LOST: the link, if its serial is still that */
	uint64_t serial;
	union {
		struct session_event event;
		struct {
			void *route;
			char id[OFFER_ID_BYTES + 1];
			bool relay;
		} signal;
		struct {
			uint16_t number;
			bool framed;
		} stream;
		struct {
			struct udp_socket *socket;
			struct endpoint from;
		} stun;
		int level, fault;
		struct {
			enum q2q_command command;
			char id[OFFER_ID_BYTES + 1];
		} told;
		struct {
			struct endpoint from;
			uint8_t ecn;
		} datagram;
	};
	_Alignas(max_align_t) uint8_t body[];
};

static_assert(offsetof(struct letter, body) == sizeof(struct letter), "the body stands behind");

/* ---- letters ---- */

static int post(struct worker *to, struct letter *letter, const void *body, size_t body_bytes)
{
	letter->body_bytes = body_bytes;
	return net_mailbox_post(to->mailbox, letter, sizeof(*letter), body, body_bytes);
}

static int post_to_control(struct letter *letter, const void *body, size_t body_bytes)
{
	return post(&self->daemon->workers[0], letter, body, body_bytes);
}

bool workers_in_control(void)
{
	return self == NULL;
}

int workers_tell_event(struct link *link, const struct session_event *event)
{
	struct letter letter = {
		.kind = LETTER_EVENT, .slot = link->slot, .serial = link->serial, .event = *event
	};

	return post_to_control(&letter, NULL, 0);
}

int workers_tell_device_lost(struct link *link)
{
	struct letter letter = { .kind = LETTER_DEVICE_LOST,
				 .slot = link->slot,
				 .serial = link->serial };

	return post_to_control(&letter, NULL, 0);
}

int workers_tell_signal(void *route, const char *id, const void *body, size_t n_bytes, bool relay)
{
	struct letter letter = { .kind = LETTER_SIGNAL };

	letter.signal.route = route;
	letter.signal.relay = relay;
	memcpy(letter.signal.id, id, sizeof(letter.signal.id));
	return post_to_control(&letter, body, n_bytes);
}

int workers_tell_stream(const struct session_send *send)
{
	struct letter letter = { .kind = LETTER_STREAM };

	letter.stream.number = send->stream;
	letter.stream.framed = send->path_id != 0;
	return post_to_control(&letter, send->data, send->n_bytes);
}

void workers_tell_stun(struct udp_socket *socket, const struct endpoint *from, const uint8_t *data,
		       size_t n_bytes)
{
	struct letter letter = { .kind = LETTER_STUN };

	/* The main sockets are one to those who asked: the first worker's. */
	letter.stun.socket = socket->number ? socket : &self->daemon->workers[0].udp.sockets[0];
	letter.stun.from = *from;
	(void)post_to_control(&letter, data, n_bytes); /* it is asked again */
}

void workers_tell_log(enum log_level level, const char *text)
{
	struct letter letter = { .kind = LETTER_LOG, .level = (int)level };

	(void)post_to_control(&letter, text, strlen(text) + 1);
}

void workers_pass_told(struct worker *to, enum q2q_command command, const char *id,
		       const void *body, size_t n_bytes)
{
	struct letter letter = { .kind = LETTER_TOLD };

	letter.told.command = command;
	memcpy(letter.told.id, id, sizeof(letter.told.id));
	if (post(to, &letter, body, n_bytes))
		to->n_dropped++;
}

void workers_pass_datagram(struct worker *to, const struct endpoint *from, uint8_t ecn,
			   const uint8_t *data, size_t n_bytes)
{
	struct letter letter = { .kind = LETTER_DATAGRAM };

	letter.datagram.from = *from;
	letter.datagram.ecn = ecn;
	(void)post(to, &letter, data, n_bytes); /* full: lost, as in a full socket */
}

/* The link that a letter is about, entered; NULL: it went meanwhile. */
static struct link *link_of(struct daemon *d, const struct letter *letter)
{
	struct link *link = d->slots[letter->slot];

	if (!link || link->serial != letter->serial)
		return NULL;
	link_enter(link);
	return link;
}

static void control_letter(struct daemon *d, struct letter *letter)
{
	struct link *link;

	switch (letter->kind) {
	case LETTER_EVENT:
		link = link_of(d, letter);
		if (link)
			links_on_event(link, &letter->event);
		return;
	case LETTER_DEVICE_LOST:
		link = link_of(d, letter);
		if (link)
			link_device_lost(link);
		return;
	case LETTER_SIGNAL:
		hub_signal(d, letter->signal.route, letter->signal.id, letter->body,
			   letter->body_bytes, letter->signal.relay);
		return;
	case LETTER_STREAM:
		streams_send(d, letter->stream.number, letter->stream.framed, letter->body,
			     letter->body_bytes);
		return;
	case LETTER_STUN:
		gather_input(d, letter->stun.socket, &letter->stun.from, letter->body,
			     letter->body_bytes);
		return;
	case LETTER_LOG:
		logring_add(d, letter->level, (const char *)letter->body);
		return;
	case LETTER_FAULT:
		log_error("a worker's loop failed: %s", strerror(-letter->fault));
		daemon_stop_now(d, EXIT_FAILURE);
		return;
	default:
		return;
	}
}

static void on_letter(void *user, void *data)
{
	struct worker *w = user;
	struct letter *letter = data;

	switch (letter->kind) {
	case LETTER_TOLD:
		links_told(w, letter->told.command, letter->told.id, letter->body,
			   letter->body_bytes);
		return;
	case LETTER_DATAGRAM:
		udp_passed(w, &letter->datagram.from, letter->datagram.ecn, letter->body,
			   letter->body_bytes);
		return;
	default:
		control_letter(w->daemon, letter);
		return;
	}
}

/* ---- entering, borrowing ---- */

/* Around each turn of the control plane's loop. */
static void on_control_turn(void *user, bool begins)
{
	struct daemon *d = user;
	struct gate *gate = d->gate;
	bool resume = false;

	pthread_mutex_lock(&gate->mutex);
	while (begins && gate->n_borrowers > 0)
		pthread_cond_wait(&gate->control, &gate->mutex);
	gate->in_turn = begins;
	for (unsigned i = 1; !begins && i < d->n_workers; i++) {
		resume = resume || d->workers[i].entered;
		d->workers[i].entered = false;
	}
	if (resume)
		pthread_cond_broadcast(&gate->resumed);
	if (!begins && gate->n_borrowers > 0)
		pthread_cond_broadcast(&gate->borrower);
	pthread_mutex_unlock(&gate->mutex);
}

static void enter(struct worker *w)
{
	struct gate *gate = w->daemon->gate;

	pthread_mutex_lock(&gate->mutex);
	w->entered = true;
	net_mailbox_ring(w->mailbox);
	gate->in_turn = false;
	if (gate->n_borrowers > 0)
		pthread_cond_broadcast(&gate->borrower);
	while (!w->parked)
		pthread_cond_wait(&gate->parked, &gate->mutex);
	gate->in_turn = true;
	pthread_mutex_unlock(&gate->mutex);
}

void workers_enter(struct worker *w)
{
	/* `entered` is written by this thread alone, but for the first moment of a worker. */
	if (w->number == 0 || self == w || !w->runs || w->entered)
		return;
	assert(!self);
	enter(w);
}

/* The worker's side: between two callbacks. */
static void on_rung(void *user)
{
	struct worker *w = user;
	struct gate *gate = w->daemon->gate;

	pthread_mutex_lock(&gate->mutex);
	if (w->entered) {
		w->parked = true;
		pthread_cond_signal(&gate->parked);
		while (w->entered)
			pthread_cond_wait(&gate->resumed, &gate->mutex);
		w->parked = false;
		log_set_level(w->log_level);
	}
	if (w->ending)
		net_loop_stop(w->loop);
	pthread_mutex_unlock(&gate->mutex);
}

void workers_borrow(struct daemon *d)
{
	struct gate *gate = d->gate;

	if (!self)
		return;
	pthread_mutex_lock(&gate->mutex);
	gate->n_borrowers++;
	while (gate->in_turn)
		pthread_cond_wait(&gate->borrower, &gate->mutex);
}

void workers_return(struct daemon *d)
{
	struct gate *gate = d->gate;

	if (!self)
		return;
	if (--gate->n_borrowers == 0)
		pthread_cond_signal(&gate->control);
	pthread_mutex_unlock(&gate->mutex);
}

/* ---- life ---- */

static int worker_init(struct daemon *d, unsigned number)
{
	struct worker *w = &d->workers[number];
	const struct net_mailbox_config mailbox = {
		.letters_max = LETTERS_MAX,
		.bytes_max = LETTERS_BYTES,
		.on_letter = on_letter,
		.on_rung = number ? on_rung : NULL,
		.user = w,
	};
	int r;

	w->daemon = d;
	w->number = number;
	w->log_level = (enum log_level)d->options->log_level;
	w->memory.limit_bytes = MEMORY_BYTES / d->n_workers;
	TAILQ_INIT(&w->waiting_udp);
	r = net_loop_new(&w->loop);
	if (r)
		return r;
	upkeep_worker(w);
	w->scratch = session_scratch_new();
	if (!w->scratch)
		return -ENOMEM;
	return d->n_workers > 1 ? net_mailbox_new(w->loop, &mailbox, &w->mailbox) : 0;
}

static struct gate *gate_new(void)
{
	struct gate *gate = calloc(1, sizeof(*gate));

	/* Without attributes none of these needs memory, or fails. */
	if (!gate || pthread_mutex_init(&gate->mutex, NULL) ||
	    pthread_cond_init(&gate->control, NULL) || pthread_cond_init(&gate->borrower, NULL) ||
	    pthread_cond_init(&gate->parked, NULL) || pthread_cond_init(&gate->resumed, NULL)) {
		free(gate);
		return NULL;
	}
	return gate;
}

static void gate_free(struct gate *gate)
{
	if (!gate)
		return;
	pthread_mutex_destroy(&gate->mutex);
	pthread_cond_destroy(&gate->control);
	pthread_cond_destroy(&gate->borrower);
	pthread_cond_destroy(&gate->parked);
	pthread_cond_destroy(&gate->resumed);
	free(gate);
}

int workers_init(struct daemon *d)
{
	int r = 0;

	d->workers = calloc(d->options->n_workers, sizeof(*d->workers));
	if (!d->workers)
		return -ENOMEM;
	d->n_workers = (unsigned)d->options->n_workers;
	if (d->n_workers > 1) {
		d->gate = gate_new();
		r = d->gate ? directory_init(d) : -ENOMEM;
	}
	for (unsigned i = 0; i < d->n_workers && !r; i++)
		r = worker_init(d, i);
	d->loop = d->workers[0].loop;
	return r;
}

static void *run(void *user)
{
	struct worker *w = user;
	struct gate *gate = w->daemon->gate;
	struct letter letter = { .kind = LETTER_FAULT };

	self = w;
	letter.fault = net_loop_run(w->loop);
	if (letter.fault)
		(void)post_to_control(&letter, NULL, 0);
	/* Nobody waits for a thread that has gone. */
	pthread_mutex_lock(&gate->mutex);
	w->parked = true;
	pthread_cond_signal(&gate->parked);
	pthread_mutex_unlock(&gate->mutex);
	return NULL;
}

int workers_start(struct daemon *d)
{
	sigset_t all, before;
	int r = 0;

	if (d->n_workers == 1)
		return 0;
	net_loop_on_turn(d->loop, on_control_turn, d);
	/* Signals are the control plane's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (unsigned i = 1; i < d->n_workers && !r; i++) {
		struct worker *w = &d->workers[i];

		r = -pthread_create(&w->thread, NULL, run, w);
		w->runs = !r;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		log_error("cannot start a worker: %s", strerror(-r));
	else
		log_info("%u workers", d->n_workers);
	return r;
}

static void end(struct worker *w)
{
	pthread_mutex_lock(&w->daemon->gate->mutex);
	w->ending = true;
	pthread_mutex_unlock(&w->daemon->gate->mutex);
	net_mailbox_ring(w->mailbox);
}

void workers_stop(struct daemon *d)
{
	for (unsigned i = 1; i < d->n_workers; i++)
		if (d->workers[i].runs)
			end(&d->workers[i]);
	for (unsigned i = 1; i < d->n_workers; i++) {
		if (d->workers[i].runs)
			pthread_join(d->workers[i].thread, NULL);
		d->workers[i].runs = false;
	}
	net_loop_on_turn(d->loop, NULL, NULL);
}

void workers_fini(struct daemon *d)
{
	for (unsigned i = 0; i < d->n_workers; i++) {
		net_timer_disarm(&d->workers[i].trim);
		net_mailbox_free(d->workers[i].mailbox);
		net_loop_free(d->workers[i].loop);
		session_scratch_free(d->workers[i].scratch);
	}
	if (d->n_workers > 1)
		directory_fini(d);
	gate_free(d->gate);
	free(d->workers);
}

struct worker *workers_choose(struct daemon *d)
{
	struct worker *best = &d->workers[0];

	/* The first has the control plane as well, so it is the last to get one more. */
	for (unsigned i = 1; i < d->n_workers; i++)
		if (d->workers[i].n_links <= best->n_links)
			best = &d->workers[i];
	return best;
}

void workers_set_nat64(struct daemon *d, const struct net_nat64 *nat64)
{
	for (unsigned i = 0; i < d->n_workers; i++) {
		workers_enter(&d->workers[i]);
		net_loop_set_nat64(d->workers[i].loop, nat64);
	}
}

void workers_set_log_level(struct daemon *d, enum log_level level)
{
	log_set_level(level);
	for (unsigned i = 0; i < d->n_workers; i++) {
		workers_enter(&d->workers[i]);
		d->workers[i].log_level = level;
	}
}

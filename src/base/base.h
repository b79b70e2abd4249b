/*
 * base - what every other folder stands on: bounded readers and writers, byte
 * queues, secrets, endpoints, serial arithmetic, lists. libc only; no I/O
 * except log.c, which only the programs call.
 *
 * Results are dbus-broker's: 0 done, negative -Exxx a fault, positive a named
 * outcome of that one function.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* ---- small things -------------------------------------------------------- */

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define NEVER_US                        UINT64_MAX /* a deadline that is not armed */
#define US_PER_MS                       UINT64_C(1000)
#define US_PER_S                        UINT64_C(1000000)

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Owned locals: `_cleanup_(freep) char *s = NULL;`; TAKE_PTR() hands them on. */
#define _cleanup_(f) __attribute__((cleanup(f)))
#define TAKE_PTR(ptr)                                                                              \
	({                                                                                         \
		__typeof__(ptr) *take_from = &(ptr);                                               \
		__typeof__(ptr) taken = *take_from;                                                \
		*take_from = NULL;                                                                 \
		taken;                                                                             \
	})
#define DEFINE_CLEANUP(type, fn)                                                                   \
	static inline void fn##p(type *p)                                                          \
	{                                                                                          \
		if (*p)                                                                            \
			fn(*p);                                                                    \
	}
static inline void freep(void *p)
{
	free(*(void **)p);
}
void closep(int *fd); /* closes *fd if it is >= 0; keeps errno */

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define WARN_UNUSED            __attribute__((warn_unused_result))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}
static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}
/* a + b, or UINT64_MAX where that would wrap: deadlines far away stay far away. */
static inline uint64_t add_sat_u64(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* ---- secrets -------------------------------------------------------------- */

/* Overwrites memory in a way that the compiler keeps. NULL with 0 bytes is fine. */
void secret_wipe(void *data, size_t data_bytes);
/* Compares in time that depends on n_bytes alone. */
bool secret_equal(const void *a, const void *b, size_t n_bytes);

/* ---- serial numbers (RFC 1982) ---------------------------------------------- */

static inline bool seq16_lt(uint16_t a, uint16_t b)
{
	return (int16_t)(uint16_t)(a - b) < 0;
}
static inline bool seq32_lt(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}
static inline bool seq32_le(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) <= 0;
}

/* ---- reader: a bounded cursor over bytes that someone else owns ----------------- */

/*
 * Each getter moves on; the first one that would pass the end sets `failed`,
 * and from then on all return 0 or NULL. So parsing reads as a list of fields
 * with one check at the end. Integers are big-endian.
 */
struct reader {
	const uint8_t *data;
	size_t left_bytes;
	bool failed;
};

struct reader reader_over(const void *data, size_t data_bytes);
/* Borrowed from the buffer under the reader; NULL (and failed) if n_bytes are not there. */
static inline const uint8_t *reader_bytes(struct reader *r, size_t n_bytes)
{
	const uint8_t *at = r->data;

	if (r->failed || n_bytes > r->left_bytes) {
		r->failed = true;
		return NULL;
	}
	if (n_bytes > 0)
		r->data += n_bytes;
	r->left_bytes -= n_bytes;
	return at ? at : (const uint8_t *)"";
}
/* The getters of integers are inline: every packet passes a dozen of them. */
static inline uint64_t reader_be(struct reader *r, size_t n_bytes)
{
	const uint8_t *at = reader_bytes(r, n_bytes);
	uint64_t v = 0;

	for (size_t i = 0; at && i < n_bytes; i++)
		v = v << 8 | at[i];
	return v;
}
static inline uint8_t reader_u8(struct reader *r)
{
	return (uint8_t)reader_be(r, 1);
}
static inline uint16_t reader_u16(struct reader *r)
{
	return (uint16_t)reader_be(r, 2);
}
static inline uint32_t reader_u32(struct reader *r)
{
	return (uint32_t)reader_be(r, 4);
}
static inline uint64_t reader_u64(struct reader *r)
{
	return reader_be(r, 8);
}
/* Copies n_bytes out; writes nothing and returns false if they are not there. */
static inline bool reader_copy(struct reader *r, void *out, size_t n_bytes)
{
	const uint8_t *at = reader_bytes(r, n_bytes);

	if (at && n_bytes > 0)
		memcpy(out, at, n_bytes);
	return at != NULL;
}
/* A QUIC variable-length integer (RFC 9000, section 16). */
uint64_t reader_varint(struct reader *r);
/* 0 if nothing failed and nothing is left, else -EBADMSG. */
int reader_finish(const struct reader *r);

/* ---- writer: the same, outwards ------------------------------------------------- */

struct writer {
	uint8_t *data;
	size_t size_bytes, used_bytes;
	bool failed; /* something did not fit; used_bytes stays where it was */
};

struct writer writer_over(void *data, size_t size_bytes);
static inline size_t writer_left(const struct writer *w)
{
	return w->size_bytes - w->used_bytes;
}
static inline void writer_bytes(struct writer *w, const void *data, size_t n_bytes)
{
	if (w->failed || n_bytes > writer_left(w)) {
		w->failed = true;
		return;
	}
	if (n_bytes > 0)
		memcpy(w->data + w->used_bytes, data, n_bytes);
	w->used_bytes += n_bytes;
}
static inline void writer_be(struct writer *w, uint64_t v, size_t n_bytes)
{
	uint8_t be[8];

	for (size_t i = 0; i < n_bytes; i++)
		be[i] = (uint8_t)(v >> (8 * (n_bytes - 1 - i)));
	writer_bytes(w, be, n_bytes);
}
static inline void writer_u8(struct writer *w, uint8_t v)
{
	writer_be(w, v, 1);
}
static inline void writer_u16(struct writer *w, uint16_t v)
{
	writer_be(w, v, 2);
}
static inline void writer_u32(struct writer *w, uint32_t v)
{
	writer_be(w, v, 4);
}
static inline void writer_u64(struct writer *w, uint64_t v)
{
	writer_be(w, v, 8);
}
/* v must be below 2^62; larger fails. */
void writer_varint(struct writer *w, uint64_t v);
size_t varint_bytes(uint64_t v); /* 1, 2, 4 or 8 */

/* ---- buffer: a byte queue born with its maximum ----------------------------------- */

struct buffer {
	uint8_t *data;
	size_t start, end; /* the bytes are data[start..end) */
	size_t size_bytes; /* allocated */
	size_t max_bytes;  /* never grows past this */
	bool secret;       /* wipe what is freed or moved away from */
};

void buffer_init(struct buffer *b, size_t max_bytes, bool secret);
void buffer_fini(struct buffer *b);
static inline size_t buffer_used(const struct buffer *b)
{
	return b->end - b->start;
}
static inline const uint8_t *buffer_peek(const struct buffer *b)
{
	return b->data ? b->data + b->start : NULL;
}
/* 0; -ENOBUFS past the maximum, -ENOMEM: in both cases nothing was appended. */
int buffer_append(struct buffer *b, const void *data, size_t n_bytes) WARN_UNUSED;
/* Room for n_bytes at the end, to be filled in and then committed. Errors as above. */
int buffer_reserve(struct buffer *b, size_t n_bytes, uint8_t **ret_room) WARN_UNUSED;
void buffer_commit(struct buffer *b, size_t n_bytes);
void buffer_consume(struct buffer *b, size_t n_bytes); /* at most what is there */

/* ---- text ------------------------------------------------------------------------- */

#define HEX_TEXT_BYTES(n_bytes) (2 * (n_bytes) + 1)
void hex_encode(const void *data, size_t n_bytes, char *out /* HEX_TEXT_BYTES */);
/* Lower or upper case, exactly 2 * n_bytes digits. -EBADMSG otherwise. */
int hex_decode(const char *text, void *out, size_t n_bytes);
bool utf8_valid(const void *text, size_t n_bytes);
/*
 * Replaces control characters, so that hostile text cannot drive a terminal. Never
 * longer than the text, so out may be the text itself. Always ends in NUL.
 */
void text_sanitize(const void *text, size_t n_bytes, char *out, size_t out_bytes);
/* Decimal, nothing else, at most max. -EINVAL or -ERANGE. */
int parse_u64(const char *text, uint64_t max, uint64_t *ret_value);

/* SipHash-2-4; the seed keeps hash tables safe from keys that a stranger chose. */
struct hash_seed {
	uint64_t k0, k1;
};
uint64_t hash_bytes(const struct hash_seed *seed, const void *data, size_t n_bytes);

/* ---- endpoints ---------------------------------------------------------------------- */

enum address_family { FAMILY_NONE, FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };

struct ip_address {
	uint8_t family;    /* enum address_family */
	uint8_t bytes[16]; /* the first 4 for IPv4, the rest 0; network order */
};

struct endpoint {
	struct ip_address ip;
	uint16_t port;     /* host order */
	uint32_t scope_id; /* link-local IPv6 only, else 0 */
};

#define IP_TEXT_BYTES       46
#define ENDPOINT_TEXT_BYTES 72 /* [IPv6%scope]:port */

int ip_parse(const char *text, struct ip_address *ret_ip);
const char *ip_format(const struct ip_address *ip, char out[static IP_TEXT_BYTES]);
bool ip_equal(const struct ip_address *a, const struct ip_address *b);
bool ip_is_loopback(const struct ip_address *ip);
bool ip_is_link_local(const struct ip_address *ip);
bool ip_is_multicast(const struct ip_address *ip);
bool ip_is_unspecified(const struct ip_address *ip);
bool ip_is_private(const struct ip_address *ip); /* RFC 1918, RFC 6598, RFC 4193 */

/* "1.2.3.4:5", "[2001:db8::1]:5". -EINVAL otherwise; port 0 only if allow_port_zero. */
int endpoint_parse(const char *text, bool allow_port_zero, struct endpoint *ret_endpoint);
const char *endpoint_format(const struct endpoint *e, char out[static ENDPOINT_TEXT_BYTES]);
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);

struct sockaddr;
struct sockaddr_storage;
/* IPv4-mapped IPv6 addresses become IPv4. -EAFNOSUPPORT for other families. */
int endpoint_from_sockaddr(const struct sockaddr *sa, struct endpoint *ret_endpoint);
/* The length to pass on; with map_ipv4 an IPv4 address becomes ::ffff:a.b.c.d. */
size_t endpoint_to_sockaddr(const struct endpoint *e, bool map_ipv4,
			    struct sockaddr_storage *ret_sa);

/* ---- memory --------------------------------------------------------------------------- */

/* Gives free heap back to the system. */
void footprint_trim(void);
/*
 * And the clean pages of code too. What is still used comes back at the price of a page fault, so
 * this is for when a process has come to rest.
 */
void footprint_shrink(void);

/* ---- log: the programs alone call this ------------------------------------------------ */

enum log_level { LOG_ERROR_ = 3, LOG_WARN_ = 4, LOG_NOTE_ = 5, LOG_INFO_ = 6, LOG_DEBUG_ = 7 };

struct log_config {
	const char *program; /* NULL: none */
	enum log_level level;
	bool journal_prefix; /* "<6>" in front, for systemd; else a timestamp */
	/* Also called with each finished line (no newline); may be NULL. */
	void (*tee)(void *user, enum log_level level, const char *line);
	void *user;
};
void log_setup(const struct log_config *config); /* before there are threads */
/* The level for the calling thread, in place of the common one. */
void log_set_level(enum log_level level);
void log_write(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);
#define log_error(...) log_write(LOG_ERROR_, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN_, __VA_ARGS__)
#define log_note(...)  log_write(LOG_NOTE_, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO_, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG_, __VA_ARGS__)

/* "READY=1" and the like for the service manager, if there is one (sd_notify(3)). */
void service_notify(const char *state);
/* RELOADING=1 with the time, as a unit of the type notify-reload wants it. */
void service_notify_reloading(void);

/* At most `burst` lines per `interval_us`; the rest are counted and told about once. */
struct log_limit {
	uint64_t interval_us;
	unsigned burst;
	uint64_t window_start_us;
	unsigned used;
	uint64_t n_suppressed;
};
bool log_allowed(struct log_limit *limit, uint64_t now_us);

#endif

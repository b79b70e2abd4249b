/* The table of commands: what each is called, carries, answers and may fail with. */
#ifndef Q2Q_COMMAND_H
#define Q2Q_COMMAND_H

#include "q2q/q2q.h"

/* Where a command is understood. */
enum command_port { PORT_CONTROL = 1, PORT_RETRIEVE = 2, PORT_ADMIN = 4 };

enum field_type {
	FIELD_ADDRESS,     /* struct q2q_address; absent is anonymous */
	FIELD_BYTES,       /* struct amp_value */
	FIELD_UNICODE,     /* struct amp_value, UTF-8 */
	FIELD_BOOLEAN,     /* bool */
	FIELD_FLAG,        /* bool: the value "1", or absent */
	FIELD_INTEGER,     /* int64_t */
	FIELD_COUNT,       /* int64_t; -1 is absent */
	FIELD_TIME,        /* int64_t, AmpTime */
	FIELD_HOST_PORT,   /* struct q2q_host_port; host "" is absent */
	FIELD_CERTIFICATE, /* struct amp_value, DER, not empty */
	FIELD_PROTOCOL,    /* struct amp_value */
	FIELD_PROTOCOLS,   /* struct amp_value, ListOf(protocol) */
	FIELD_LIST,        /* struct amp_value, ListOf */
	FIELD_LISTENERS,   /* struct q2q_listeners */
	FIELD_TYPE_COUNT,
};

struct field {
	const char *key;
	enum field_type type;
	size_t offset;    /* in struct q2q_call, q2q_answer or q2q_listener */
	size_t max_bytes; /* of BYTES and UNICODE; 0: what a value holds */
	bool optional;
};

#define FIELDS_MAX 8

struct command {
	const char *name;
	unsigned ports;                    /* enum command_port */
	bool by_client;                    /* a client may send it */
	bool by_server;                    /* a server may send it */
	bool told;                         /* sent without _ask */
	uint32_t errors;                   /* declared: bits by enum q2q_error */
	uint32_t fatal;                    /* of those, the ones that end the stream */
	const struct field *call, *answer; /* up to a key of NULL; NULL: nothing */
};

#define ERROR_BIT(error) (UINT32_C(1) << (error))

const struct command *command_of(enum q2q_command command);

/* A box that fails a question, by its three keys. text must outlive the box. */
void failure_encode(struct amp_box *box, const struct amp_value *ask, enum q2q_error error,
		    const char *text);
/* What came instead of an answer to this command. */
void failure_decode(const struct command *command, const struct amp_box *box,
		    struct q2q_failure *ret_failure);
/* One of our own making. */
struct q2q_failure failure_local(enum q2q_error error, const char *description);

#endif

/*
 * ctl - the messages of the control socket, both ends: JSON lines (Jansson).
 * doc/control.md describes them for people who write scripts.
 *
 *   client                                     daemon
 *     {"v":1,"id":7,"cmd":"up","args":{...}} >
 *                                            < {"v":1,"id":7,"progress":"..."}
 *                                            < {"v":1,"id":7,"ask":{...}}
 *     {"v":1,"id":7,"answer":"yes"}          >
 *                                            < {"v":1,"id":7,"event":{...}}
 *                                            < {"v":1,"id":7,"ok":true,"result":{...}}
 *                                         or < {"v":1,"id":7,"ok":false,"code":6,
 *                                               "error":"...","hint":"..."}
 *
 * Every command stands in one table with its arguments, their types and bounds,
 * so a request that parses holds what it must and nothing else. No I/O here: a
 * line comes in as bytes, a line goes out as a string without its newline.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/base.h"

#include <jansson.h>

#define CTL_VERSION         1
#define CTL_LINE_BYTES_MAX  (256 * 1024)  /* a request, without the newline */
#define CTL_REPLY_BYTES_MAX (2048 * 1024) /* a reply: the status of a thousand peers fits */
#define CTL_TEXT_BYTES_MAX  4096          /* any text argument but a PEM */
#define CTL_PEM_BYTES_MAX   (64 * 1024)
#define CTL_ADDRESS_BYTES   320 /* resource 64, @, domain 253, NUL, rounded up */
#define CTL_SOCKET          RUNSTATEDIR "/q2q-tun/control" /* where it is unless configured */

/* The code of an error; also the exit status of the command line. */
enum ctl_code {
	CTL_DONE = 0,
	CTL_FAILED = 1,
	CTL_USAGE = 2,
	CTL_NOT_FOUND = 3,
	CTL_DENIED = 4, /* not authorized, or the peer or operator said no */
	CTL_TIMED_OUT = 5,
	CTL_OFFLINE = 6,   /* peer or server cannot be reached */
	CTL_UNTRUSTED = 7, /* a key changed, a certificate is wrong */
	CTL_RELAYED = 8,   /* connected by the relay though direct was required */
	CTL_NO_DAEMON = 9, /* never sent by a daemon, of course */
	CTL_CODE_COUNT,
};

enum ctl_command {
	CTL_REGISTER,
	CTL_AUTHORIZE,
	CTL_IDENTITY_LIST,
	CTL_IDENTITY_SHOW,
	CTL_IDENTITY_DEFAULT,
	CTL_IDENTITY_EXPORT,
	CTL_IDENTITY_IMPORT,
	CTL_IDENTITY_ROTATE,
	CTL_UP,
	CTL_DOWN,
	CTL_WAIT,
	CTL_STATUS,
	CTL_DOCTOR,
	CTL_PEERS,
	CTL_PEERS_FORGET,
	CTL_PEERS_PIN,
	CTL_ALLOW,
	CTL_DENY,
	CTL_REQUESTS,
	CTL_PING,
	CTL_LOG,
	CTL_MONITOR,
	CTL_VERSION_INFO,
	CTL_COMMAND_COUNT,
};

enum ctl_argument_type { CTL_TEXT, CTL_PEM, CTL_BOOL, CTL_UINT };

struct ctl_argument {
	const char *name; /* NULL ends a list */
	enum ctl_argument_type type;
	bool required;
	bool secret;  /* wipe it, never log it */
	uint64_t max; /* CTL_UINT */
};

#define CTL_ARGUMENTS_MAX 8

struct ctl_command_info {
	const char *name;
	/* Anybody on the machine may; else root, the daemon's user and the operators' group. */
	bool public;
	/* Sends events until the client closes (or until the final reply, for ping). */
	bool follows;
	struct ctl_argument arguments[CTL_ARGUMENTS_MAX + 1];
};

const struct ctl_command_info *ctl_command_info(enum ctl_command command);
/* 0, or -ENOENT. */
int ctl_command_find(const char *name, enum ctl_command *ret_command);

/* ---- what the daemon receives and sends ---- */

enum ctl_request_type { CTL_REQUEST, CTL_ANSWER };

struct ctl_request {
	enum ctl_request_type type;
	uint64_t id;
	enum ctl_command command; /* CTL_REQUEST */
	json_t *args;             /* CTL_REQUEST: an object, checked against the table; owned */
	char *answer;             /* CTL_ANSWER: owned */
};

/*
 * 0, or a reason to answer with an error: -EBADMSG (not a message of ours: close),
 * -EPROTO (version unknown), -ENOENT (command unknown), -EINVAL (arguments). In the
 * last three cases ret_request->id is set (0 if there was none) and `why` says
 * what is wrong, in words that the user can use. *ret_request is otherwise written only on
 * success; free it with ctl_request_fini().
 */
int ctl_request_parse(const char *line, size_t line_bytes, struct ctl_request *ret_request,
		      char *why, size_t why_bytes);
void ctl_request_fini(struct ctl_request *request); /* wipes secrets */

/* Arguments of a request that parsed. Absent ones read as NULL, false or fallback. */
const char *ctl_text(const struct ctl_request *request, const char *name);
bool ctl_bool(const struct ctl_request *request, const char *name);
uint64_t ctl_uint(const struct ctl_request *request, const char *name, uint64_t fallback);

/* Each returns an allocated line, NULL when out of memory. json_t arguments are consumed. */
char *ctl_result_line(uint64_t id, json_t *result);
/* hint may be NULL or empty. Text may hold anything; it is made valid UTF-8. */
char *ctl_error_line(uint64_t id, enum ctl_code code, const char *error, const char *hint);
char *ctl_progress_line(uint64_t id, const char *text);
char *ctl_event_line(uint64_t id, json_t *event);

enum ctl_ask_kind { CTL_ASK_TRUST_DOMAIN, CTL_ASK_TRUST_PEER, CTL_ASK_KIND_COUNT };
const char *ctl_ask_kind_name(enum ctl_ask_kind kind);
/* text: what to show, several lines, without the question itself. */
char *ctl_ask_line(uint64_t id, enum ctl_ask_kind kind, const char *subject,
		   const char *fingerprint, const char *text);

/* ---- what a client sends and receives ---- */

enum ctl_reply_type {
	CTL_REPLY_RESULT,
	CTL_REPLY_ERROR,
	CTL_REPLY_PROGRESS,
	CTL_REPLY_EVENT,
	CTL_REPLY_ASK,
	CTL_REPLY_TYPE_COUNT,
};

struct ctl_reply {
	enum ctl_reply_type type;
	uint64_t id;
	json_t *body;       /* RESULT, EVENT: an object; ASK: the whole of it; else NULL. Owned */
	enum ctl_code code; /* ERROR */
	char *text;         /* ERROR: what failed; PROGRESS; ASK: what to show. Sanitised. Owned */
	char *hint;         /* ERROR: what to do, or NULL. Owned */
	enum ctl_ask_kind ask_kind;
	const char *subject, *fingerprint; /* ASK: borrowed from body */
};

/* args may be NULL; consumed. NULL when out of memory. The caller wipes lines with secrets. */
char *ctl_request_line(uint64_t id, enum ctl_command command, json_t *args);
/* answer: "yes", "no" or a fingerprint. */
char *ctl_answer_line(uint64_t id, const char *answer);
/* 0; -EBADMSG: not one of ours; -ENOMEM. */
int ctl_reply_parse(const char *line, size_t line_bytes, struct ctl_reply *ret_reply);
void ctl_reply_fini(struct ctl_reply *reply);

#endif

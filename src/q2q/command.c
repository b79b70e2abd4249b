/* Commands as data: one table, and one encoder and decoder that walk it. */
#include "q2q/command.h"

#include <stdio.h>

/* ---- the table --------------------------------------------------------------------------- */

#define CALL(member)     offsetof(struct q2q_call, member)
#define ANSWER(member)   offsetof(struct q2q_answer, member)
#define LISTENER(member) offsetof(struct q2q_listener, member)
#define OPTIONAL         .optional = true
#define END                                                                                        \
	{                                                                                          \
		.key = NULL                                                                        \
	}

/* clang-format off */
static const struct field source_ip_answer[] = {
	{ "ip", FIELD_BYTES, ANSWER(source_ip.ip), 64 }, END
};
static const struct field identify_call[] = {
	{ "subject", FIELD_ADDRESS, CALL(identify.subject) }, END
};
static const struct field certificate_answer[] = {
	{ "certificate", FIELD_CERTIFICATE, ANSWER(identify.certificate) }, END
};
static const struct field secure_call[] = {
	{ "From",      FIELD_ADDRESS, CALL(secure.from), OPTIONAL },
	{ "to",        FIELD_ADDRESS, CALL(secure.to) },
	{ "authorize", FIELD_BOOLEAN, CALL(secure.authorize) }, END
};
static const struct field sign_call[] = {
	{ "certificate_request", FIELD_CERTIFICATE, CALL(sign.certificate_request) },
	{ "password", FIELD_BYTES, CALL(sign.password), Q2Q_PASSWORD_MAX_BYTES },
	{ "q2q-tun",  FIELD_FLAG,  CALL(sign.q2q_tun), OPTIONAL }, END
};
static const struct field renew_call[] = {
	{ "certificate_request", FIELD_CERTIFICATE, CALL(sign.certificate_request) }, END
};
static const struct field listen_call[] = {
	{ "From",        FIELD_ADDRESS,   CALL(listen.from) },
	{ "protocols",   FIELD_PROTOCOLS, CALL(listen.protocols) },
	{ "description", FIELD_UNICODE,   CALL(listen.description), Q2Q_DESCRIPTION_MAX_BYTES }, END
};
static const struct field listen_answer[] = {
	{ "q2q-tun-server", FIELD_BYTES, ANSWER(listen.server), Q2Q_SERVER_TEXT_BYTES, true }, END
};
static const struct field inbound_call[] = {
	{ "From",       FIELD_ADDRESS,   CALL(inbound.from) },
	{ "to",         FIELD_ADDRESS,   CALL(inbound.to) },
	{ "protocol",   FIELD_PROTOCOL,  CALL(inbound.protocol) },
	{ "udp_source", FIELD_HOST_PORT, CALL(inbound.udp_source), OPTIONAL },
	{ "q2q-tun",    FIELD_FLAG,      CALL(inbound.q2q_tun), OPTIONAL },
	{ "q2q-tun-certificate", FIELD_CERTIFICATE, CALL(inbound.certificate), OPTIONAL },
	{ "q2q-tun-request", FIELD_BYTES, CALL(inbound.request), Q2Q_ID_MAX_BYTES, true }, END
};
static const struct field inbound_answer[] = {
	{ "listeners",      FIELD_LISTENERS, ANSWER(inbound.listeners) },
	{ "q2q-tun-status", FIELD_BYTES,     ANSWER(inbound.status), 64, true }, END
};
static const struct field listener_entry[] = {
	{ "id",          FIELD_BYTES,       LISTENER(id), Q2Q_ID_MAX_BYTES },
	{ "certificate", FIELD_CERTIFICATE, LISTENER(certificate), OPTIONAL },
	{ "methods",     FIELD_LIST,        LISTENER(methods) },
	{ "expires",     FIELD_TIME,        LISTENER(expires_s) },
	{ "description", FIELD_UNICODE,     LISTENER(description), Q2Q_DESCRIPTION_MAX_BYTES },
	{ "q2q-tun-expires-in", FIELD_COUNT, LISTENER(expires_in_s), OPTIONAL },
	{ "q2q-tun-offer", FIELD_BYTES, LISTENER(offer), Q2Q_SIGNAL_MAX_BYTES, true }, END
};
static const struct field bind_udp_call[] = {
	{ "protocol", FIELD_PROTOCOL,  CALL(bind_udp.protocol) },
	{ "q2qsrc",   FIELD_ADDRESS,   CALL(bind_udp.q2qsrc) },
	{ "q2qdst",   FIELD_ADDRESS,   CALL(bind_udp.q2qdst) },
	{ "udpsrc",   FIELD_HOST_PORT, CALL(bind_udp.udpsrc) },
	{ "udpdst",   FIELD_HOST_PORT, CALL(bind_udp.udpdst) }, END
};
static const struct field virtual_call[] = {
	{ "id", FIELD_INTEGER, CALL(virtual_open.id) }, END
};
static const struct field write_call[] = {
	{ "id",   FIELD_INTEGER, CALL(write.id) },
	{ "body", FIELD_BYTES,   CALL(write.body) }, END
};
static const struct field outbound_call[] = {
	{ "From",     FIELD_ADDRESS,  CALL(outbound.from) },
	{ "to",       FIELD_ADDRESS,  CALL(outbound.to) },
	{ "protocol", FIELD_PROTOCOL, CALL(outbound.protocol) },
	{ "id",       FIELD_BYTES,    CALL(outbound.id), Q2Q_ID_MAX_BYTES },
	{ "methods",  FIELD_LIST,     CALL(outbound.methods) }, END
};
static const struct field signal_call[] = {
	{ "id",   FIELD_BYTES, CALL(signal.id), Q2Q_ID_MAX_BYTES },
	{ "body", FIELD_BYTES, CALL(signal.body), Q2Q_SIGNAL_MAX_BYTES }, END
};
static const struct field relay_call[] = {
	{ "id",   FIELD_BYTES, CALL(signal.id), Q2Q_ID_MAX_BYTES },
	{ "body", FIELD_BYTES, CALL(signal.body), Q2Q_RELAY_MAX_BYTES }, END
};
static const struct field gone_call[] = {
	{ "id", FIELD_BYTES, CALL(gone.id), Q2Q_ID_MAX_BYTES }, END
};
static const struct field channel_call[] = {
	{ "id", FIELD_BYTES, CALL(channel.id), Q2Q_ID_MAX_BYTES }, END
};
static const struct field channel_answer[] = {
	{ "channel", FIELD_BYTES, ANSWER(channel.name), Q2Q_CHANNEL_BYTES },
	{ "key",     FIELD_BYTES, ANSWER(channel.key), Q2Q_CHANNEL_KEY_BYTES }, END
};
static const struct field retrieve_call[] = {
	{ "identifier", FIELD_BYTES, CALL(retrieve.identifier), Q2Q_ID_MAX_BYTES }, END
};
static const struct field who_am_i_answer[] = {
	{ "address", FIELD_HOST_PORT, ANSWER(who_am_i.address) }, END
};
static const struct field add_user_call[] = {
	{ "name",     FIELD_BYTES, CALL(add_user.name), Q2Q_RESOURCE_MAX_BYTES },
	{ "password", FIELD_BYTES, CALL(add_user.password), Q2Q_PASSWORD_MAX_BYTES },
	{ "invite",   FIELD_BYTES, CALL(add_user.invite), Q2Q_ID_MAX_BYTES, true }, END
};

#define E(error)  ERROR_BIT(Q2Q_ERROR_##error)
#define BOTH      true, true
#define CLIENT    true, false
#define ANY_NAME  (E(NO_SUCH_USER) | E(BAD_CERTIFICATE_REQUEST) | E(WRONG_PASSWORD) | \
		   E(TOO_MANY_ATTEMPTS))
#define RENEW     (E(BAD_CERTIFICATE_REQUEST) | E(NOT_ALLOWED) | E(TOO_MANY_ATTEMPTS))
#define ADD_USER  (E(NOT_ALLOWED) | E(INVITE_REQUIRED) | E(REGISTRATION_CLOSED) | \
		   E(TOO_MANY_ATTEMPTS))

static const struct command commands[] = {
	/*                        name, port, who sends it, told, errors, fatal, call, answer */
	[Q2Q_SOURCE_IP] = { "source-ip", PORT_CONTROL, BOTH, false, 0, 0, NULL, source_ip_answer },
	[Q2Q_IDENTIFY] = { "identify", PORT_CONTROL, CLIENT, false, 0, 0,
			   identify_call, certificate_answer },
	[Q2Q_SECURE] = { "secure", PORT_CONTROL, CLIENT, false, 0, 0, secure_call, NULL },
	[Q2Q_SIGN] = { "sign", PORT_CONTROL, CLIENT, false, ANY_NAME, 0,
		       sign_call, certificate_answer },
	[Q2Q_LISTEN] = { "listen", PORT_CONTROL, CLIENT, false, 0, 0, listen_call,
			 listen_answer },
	[Q2Q_INBOUND] = { "inbound", PORT_CONTROL, BOTH, false, E(NOT_FOUND) | E(VERIFY), E(VERIFY),
			  inbound_call, inbound_answer },
	[Q2Q_BIND_UDP] = { "bind-udp", PORT_CONTROL, BOTH, false, E(CONNECTION), 0,
			   bind_udp_call, NULL },
	[Q2Q_VIRTUAL] = { "virtual", PORT_CONTROL, BOTH, false, 0, 0, virtual_call, NULL },
	[Q2Q_WRITE] = { "write", PORT_CONTROL, BOTH, true, 0, 0, write_call, NULL },
	[Q2Q_CLOSE] = { "close", PORT_CONTROL, BOTH, false, 0, 0, virtual_call, NULL },
	[Q2Q_CHOKE] = { "Choke", PORT_CONTROL, BOTH, true, 0, 0, virtual_call, NULL },
	[Q2Q_UNCHOKE] = { "Unchoke", PORT_CONTROL, BOTH, true, 0, 0, virtual_call, NULL },
	/* Defined by the original, sent and answered by nobody. */
	[Q2Q_OUTBOUND] = { "outbound", 0, BOTH, false, E(ATTEMPTS_FAILED), 0, outbound_call, NULL },
	[Q2Q_SIGNAL] = { "q2q-tun-signal", PORT_CONTROL, BOTH, true, 0, 0, signal_call, NULL },
	[Q2Q_RELAY] = { "q2q-tun-relay", PORT_CONTROL, BOTH, true, 0, 0, relay_call, NULL },
	[Q2Q_GONE] = { "q2q-tun-gone", PORT_CONTROL, BOTH, true, 0, 0, gone_call, NULL },
	[Q2Q_CHANNEL] = { "q2q-tun-channel", PORT_CONTROL, CLIENT, false, E(NOT_FOUND), 0,
			  channel_call, channel_answer },
	[Q2Q_RENEW] = { "q2q-tun-renew", PORT_CONTROL, CLIENT, false, RENEW, 0,
			renew_call, certificate_answer },
	[Q2Q_RETRIEVE_CONNECTION] = { "Retrieve-Connection", PORT_RETRIEVE, BOTH, false,
				      E(NO_SUCH_CONNECTION), E(NO_SUCH_CONNECTION),
				      retrieve_call, NULL },
	[Q2Q_WHO_AM_I] = { "Who-Am-I", PORT_RETRIEVE, BOTH, false, 0, 0, NULL, who_am_i_answer },
	/* AMP's own, which no program of Q2Q sends; we answer UNHANDLED. */
	[Q2Q_START_TLS] = { "StartTLS", 0, BOTH, false, 0, 0, NULL, NULL },
	[Q2Q_ADD_USER] = { "add_user", PORT_ADMIN, BOTH, false, ADD_USER, 0, add_user_call, NULL },
};
static_assert(ARRAY_SIZE(commands) == Q2Q_COMMAND_COUNT, "a row for each command");

static const char *const error_names[] = {
	[Q2Q_ERROR_UNHANDLED] = "UNHANDLED",
	[Q2Q_ERROR_UNKNOWN] = "UNKNOWN",
	[Q2Q_ERROR_NO_SUCH_USER] = "NoSuchUser",
	[Q2Q_ERROR_BAD_CERTIFICATE_REQUEST] = "BadCertificateRequest",
	[Q2Q_ERROR_NOT_FOUND] = "NotFound",
	[Q2Q_ERROR_VERIFY] = "VerifyError",
	[Q2Q_ERROR_CONNECTION] = "ConnectionError",
	[Q2Q_ERROR_ATTEMPTS_FAILED] = "AttemptsFailed",
	[Q2Q_ERROR_NO_SUCH_CONNECTION] = "NoSuchConnection",
	[Q2Q_ERROR_NOT_ALLOWED] = "NotAllowed",
	[Q2Q_ERROR_INVITE_REQUIRED] = "InviteRequired",
	[Q2Q_ERROR_REGISTRATION_CLOSED] = "RegistrationClosed",
	[Q2Q_ERROR_TOO_MANY_ATTEMPTS] = "TooManyAttempts",
	[Q2Q_ERROR_WRONG_PASSWORD] = "WrongPassword",
	[Q2Q_ERROR_OTHER] = "other",
	[Q2Q_ERROR_MALFORMED] = "malformed",
	[Q2Q_ERROR_TIMED_OUT] = "timed-out",
	[Q2Q_ERROR_CONNECTION_LOST] = "connection-lost",
};
static_assert(ARRAY_SIZE(error_names) == Q2Q_ERROR_COUNT, "a name for each error");
/* clang-format on */

const struct command *command_of(enum q2q_command command)
{
	assert(command < Q2Q_COMMAND_COUNT);
	return &commands[command];
}

const char *q2q_command_name(enum q2q_command command)
{
	return command < Q2Q_COMMAND_COUNT ? commands[command].name : "?";
}

const char *q2q_error_name(enum q2q_error error)
{
	return error < Q2Q_ERROR_COUNT ? error_names[error] : "?";
}

int q2q_command_find(const struct amp_value *name, enum q2q_command *ret_command)
{
	for (enum q2q_command c = 0; c < Q2Q_COMMAND_COUNT; c++)
		if (amp_value_is(name, commands[c].name)) {
			*ret_command = c;
			return 0;
		}
	return -ENOENT;
}

/* ---- decode --------------------------------------------------------------------------------- */

static int decode_fields(const struct field *fields, const struct amp_box *box, void *out);

static int check_list(const struct amp_value *value, bool protocols)
{
	struct reader r = reader_over(value->data, value->n_bytes);
	struct amp_value element;
	size_t n = 0;
	int result;

	while ((result = amp_list_next(&r, &element)) == 0)
		if (protocols &&
		    (++n > Q2Q_PROTOCOLS_MAX || !q2q_protocol_valid(element.data, element.n_bytes)))
			return -EBADMSG;
	return result == AMP_END ? 0 : result;
}

static int decode_listeners(const struct amp_value *value, struct q2q_listeners *out)
{
	struct reader r = reader_over(value->data, value->n_bytes);
	struct amp_box box;
	int result;

	out->n = 0;
	while ((result = amp_boxes_next(&r, &box)) == 0) {
		struct q2q_listener *entry;

		if (out->n == Q2Q_LISTENERS_MAX)
			return 0; /* more than anybody can try: the first ones will do */
		entry = &out->entries[out->n];
		memset(entry, 0, sizeof(*entry));
		result = decode_fields(listener_entry, &box, entry);
		if (result < 0)
			return result;
		out->n++;
	}
	return result == AMP_END ? 0 : result;
}

static int decode_bytes(const struct field *field, const struct amp_value *value,
			struct amp_value *out)
{
	if (field->max_bytes > 0 && value->n_bytes > field->max_bytes)
		return -EBADMSG;
	*out = *value;
	return 0;
}

static int decode_value(const struct field *field, const struct amp_value *value, void *at)
{
	switch (field->type) {
	case FIELD_ADDRESS:
		return q2q_address_parse(value->data, value->n_bytes, at);
	case FIELD_BYTES:
		return decode_bytes(field, value, at);
	case FIELD_UNICODE:
		return utf8_valid(value->data, value->n_bytes) ? decode_bytes(field, value, at)
							       : -EBADMSG;
	case FIELD_BOOLEAN:
		return amp_parse_boolean(value, at);
	case FIELD_FLAG:
		*(bool *)at = amp_value_is(value, "1");
		return 0;
	case FIELD_INTEGER:
	case FIELD_COUNT:
		return amp_parse_integer(value, at);
	case FIELD_TIME:
		return q2q_time_parse(value->data, value->n_bytes, at);
	case FIELD_HOST_PORT:
		return q2q_host_port_parse(value->data, value->n_bytes, at);
	case FIELD_CERTIFICATE:
		*(struct amp_value *)at = *value;
		return value->n_bytes > 0 && value->n_bytes <= CRYPTO_CERT_MAX_BYTES ? 0 : -EBADMSG;
	case FIELD_PROTOCOL:
		*(struct amp_value *)at = *value;
		return q2q_protocol_valid(value->data, value->n_bytes) ? 0 : -EBADMSG;
	case FIELD_PROTOCOLS:
	case FIELD_LIST:
		*(struct amp_value *)at = *value;
		return check_list(value, field->type == FIELD_PROTOCOLS);
	case FIELD_LISTENERS:
		return decode_listeners(value, at);
	case FIELD_TYPE_COUNT:
		break;
	}
	return -EBADMSG;
}

static int decode_fields(const struct field *fields, const struct amp_box *box, void *out)
{
	for (const struct field *field = fields; field && field->key; field++) {
		void *at = (char *)out + field->offset;
		struct amp_value value;

		if (field->type == FIELD_COUNT)
			*(int64_t *)at = -1;
		if (!amp_get(box, field->key, &value)) {
			if (!field->optional)
				return -EBADMSG;
			continue;
		}
		if (decode_value(field, &value, at) < 0)
			return -EBADMSG;
	}
	return 0;
}

int q2q_call_decode(enum q2q_command command, const struct amp_box *box, struct q2q_call *ret_call)
{
	struct q2q_call call;
	int r;

	memset(&call, 0, sizeof(call));
	call.command = command;
	r = decode_fields(command_of(command)->call, box, &call);
	if (r == 0)
		*ret_call = call;
	return r;
}

int q2q_answer_decode(enum q2q_command command, const struct amp_box *box,
		      struct q2q_answer *ret_answer)
{
	struct q2q_answer answer;
	int r;

	memset(&answer, 0, sizeof(answer));
	answer.command = command;
	r = decode_fields(command_of(command)->answer, box, &answer);
	if (r == 0)
		*ret_answer = answer;
	return r;
}

/* ---- encode ------------------------------------------------------------------------------------
 */

static int encode_fields(const struct field *fields, const void *in, struct amp_box *box,
			 struct buffer *scratch);

static int encode_listeners(const char *key, const struct q2q_listeners *listeners,
			    struct amp_box *box, struct buffer *scratch)
{
	if (listeners->n > Q2Q_LISTENERS_MAX)
		return -EINVAL;
	for (size_t i = 0; i < listeners->n; i++) {
		struct amp_box entry;
		int r;

		amp_box_init(&entry);
		r = encode_fields(listener_entry, &listeners->entries[i], &entry, scratch);
		if (r == 0)
			r = amp_box_write(&entry, scratch);
		if (r < 0)
			return r == -ENOBUFS ? -EMSGSIZE : r;
	}
	amp_put(box, key, buffer_peek(scratch), buffer_used(scratch));
	return box->failed ? -EMSGSIZE : 0;
}

static int encode_bytes(const struct field *field, const struct amp_value *value,
			struct amp_box *box)
{
	if (!value->data)
		return field->optional ? 0 : -EINVAL;
	if (field->max_bytes > 0 && value->n_bytes > field->max_bytes)
		return -EMSGSIZE;
	amp_put_value(box, field->key, value);
	return 0;
}

static int encode_host_port(const struct field *field, const struct q2q_host_port *value,
			    struct amp_box *box)
{
	char text[Q2Q_HOST_TEXT_BYTES + 6];

	if (value->host[0] == '\0')
		return field->optional ? 0 : -EINVAL;
	snprintf(text, sizeof(text), "%s:%u", value->host, value->port);
	amp_put_copy(box, field->key, text);
	return 0;
}

static int encode_protocols(const struct field *field, const struct amp_value *value,
			    struct amp_box *box)
{
	if (!value->data || check_list(value, field->type == FIELD_PROTOCOLS) < 0)
		return -EINVAL;
	return encode_bytes(field, value, box);
}

static int encode_value(const struct field *field, const void *at, struct amp_box *box,
			struct buffer *scratch)
{
	const struct amp_value *value = at;
	char time[Q2Q_TIME_TEXT_BYTES];

	switch (field->type) {
	case FIELD_ADDRESS:
		amp_put_text(box, field->key, ((const struct q2q_address *)at)->text);
		return 0;
	case FIELD_BYTES:
		return encode_bytes(field, value, box);
	case FIELD_UNICODE:
		if (value->data && !utf8_valid(value->data, value->n_bytes))
			return -EINVAL;
		return encode_bytes(field, value, box);
	case FIELD_BOOLEAN:
		amp_put_boolean(box, field->key, *(const bool *)at);
		return 0;
	case FIELD_FLAG:
		if (*(const bool *)at)
			amp_put_text(box, field->key, "1");
		return 0;
	case FIELD_INTEGER:
		amp_put_integer(box, field->key, *(const int64_t *)at);
		return 0;
	case FIELD_COUNT:
		if (*(const int64_t *)at > 0)
			amp_put_integer(box, field->key, *(const int64_t *)at);
		return 0;
	case FIELD_TIME:
		amp_put_copy(box, field->key, q2q_time_format(*(const int64_t *)at, time));
		return 0;
	case FIELD_HOST_PORT:
		return encode_host_port(field, at, box);
	case FIELD_CERTIFICATE:
		if (value->data && (value->n_bytes == 0 || value->n_bytes > CRYPTO_CERT_MAX_BYTES))
			return -EINVAL;
		return encode_bytes(field, value, box);
	case FIELD_PROTOCOL:
		if (!value->data || !q2q_protocol_valid(value->data, value->n_bytes))
			return -EINVAL;
		return encode_bytes(field, value, box);
	case FIELD_PROTOCOLS:
	case FIELD_LIST:
		return encode_protocols(field, value, box);
	case FIELD_LISTENERS:
		return encode_listeners(field->key, at, box, scratch);
	case FIELD_TYPE_COUNT:
		break;
	}
	return -EINVAL;
}

static int encode_fields(const struct field *fields, const void *in, struct amp_box *box,
			 struct buffer *scratch)
{
	for (const struct field *field = fields; field && field->key; field++) {
		const int r = encode_value(field, (const char *)in + field->offset, box, scratch);

		if (r < 0)
			return r;
	}
	return box->failed ? -EMSGSIZE : 0;
}

int q2q_call_encode(const struct q2q_call *call, struct amp_box *box, struct buffer *scratch)
{
	return encode_fields(command_of(call->command)->call, call, box, scratch);
}

int q2q_answer_encode(const struct q2q_answer *answer, struct amp_box *box, struct buffer *scratch)
{
	return encode_fields(command_of(answer->command)->answer, answer, box, scratch);
}

/* ---- failures
 * -------------------------------------------------------------------------------------- */

void failure_encode(struct amp_box *box, const struct amp_value *ask, enum q2q_error error,
		    const char *text)
{
	amp_put_value(box, "_error", ask);
	amp_put_text(box, "_error_code", error_names[error]);
	amp_put_text(box, "_error_description", text);
}

void failure_decode(const struct command *command, const struct amp_box *box,
		    struct q2q_failure *ret_failure)
{
	struct amp_value code = amp_text(""), description = amp_text("");

	*ret_failure = (struct q2q_failure){ .error = Q2Q_ERROR_OTHER };
	(void)amp_get(box, "_error_code", &code);
	(void)amp_get(box, "_error_description", &description);
	text_sanitize(code.data, code.n_bytes, ret_failure->code_text,
		      sizeof(ret_failure->code_text));
	text_sanitize(description.data, description.n_bytes, ret_failure->description,
		      sizeof(ret_failure->description));
	for (enum q2q_error e = 0; e < Q2Q_ERROR_OTHER; e++)
		if (amp_value_is(&code, error_names[e]) &&
		    (e <= Q2Q_ERROR_UNKNOWN || (command->errors & ERROR_BIT(e))))
			ret_failure->error = e;
}

struct q2q_failure failure_local(enum q2q_error error, const char *description)
{
	struct q2q_failure failure = { .error = error };

	snprintf(failure.code_text, sizeof(failure.code_text), "%s", error_names[error]);
	snprintf(failure.description, sizeof(failure.description), "%s", description);
	return failure;
}

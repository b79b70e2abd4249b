/*
 * What the daemon sends: results, errors, progress, events and questions; built
 * for the daemon, parsed for the client.
 */
#include "ctl/ctl_private.h"

static const char *const ask_kinds[] = {
	[CTL_ASK_TRUST_DOMAIN] = "trust-domain",
	[CTL_ASK_TRUST_PEER] = "trust-peer",
};
static_assert(ARRAY_SIZE(ask_kinds) == CTL_ASK_KIND_COUNT, "one name per kind");

const char *ctl_ask_kind_name(enum ctl_ask_kind kind)
{
	return (unsigned)kind < CTL_ASK_KIND_COUNT ? ask_kinds[kind] : "?";
}

/* A copy that neither breaks JSON nor drives a terminal; newlines stay. */
static char *clean_copy(const char *text)
{
	const size_t n_bytes = strlen(text);
	const bool valid = utf8_valid(text, n_bytes);
	char *copy = malloc(n_bytes + 1);

	if (!copy)
		return NULL;
	for (size_t i = 0; i <= n_bytes; i++) {
		const unsigned char c = (unsigned char)text[i];

		copy[i] = (c < ' ' && c != '\n' && c != '\0') || c == 0x7f || (c >= 0x80 && !valid)
				  ? '?'
				  : (char)c;
	}
	return copy;
}

json_t *ctl_clean_text(const char *text)
{
	_cleanup_(freep) char *copy = clean_copy(text);

	return copy ? json_string(copy) : NULL;
}

/* ---- daemon ---- */

char *ctl_result_line(uint64_t id, json_t *result)
{
	if (!result)
		return NULL;
	return ctl_dump(json_pack("{s:i,s:I,s:b,s:o}", "v", CTL_VERSION, "id", (json_int_t)id, "ok",
				  1, "result", result));
}

char *ctl_error_line(uint64_t id, enum ctl_code code, const char *error, const char *hint)
{
	json_t *object = json_pack("{s:i,s:I,s:b,s:i,s:o}", "v", CTL_VERSION, "id", (json_int_t)id,
				   "ok", 0, "code", (int)code, "error", ctl_clean_text(error));

	if (object && hint && *hint && json_object_set_new(object, "hint", ctl_clean_text(hint))) {
		json_decref(object);
		return NULL;
	}
	return ctl_dump(object);
}

char *ctl_progress_line(uint64_t id, const char *text)
{
	return ctl_dump(ctl_envelope(id, "progress", ctl_clean_text(text)));
}

char *ctl_event_line(uint64_t id, json_t *event)
{
	return event ? ctl_dump(ctl_envelope(id, "event", event)) : NULL;
}

char *ctl_ask_line(uint64_t id, enum ctl_ask_kind kind, const char *subject,
		   const char *fingerprint, const char *text)
{
	json_t *ask = json_pack("{s:s,s:s,s:s,s:o}", "kind", ctl_ask_kind_name(kind), "subject",
				subject, "fingerprint", fingerprint, "text", ctl_clean_text(text));

	return ask ? ctl_dump(ctl_envelope(id, "ask", ask)) : NULL;
}

/* ---- client ---- */

static int parse_error(const json_t *object, struct ctl_reply *out)
{
	const char *error = json_string_value(json_object_get(object, "error"));
	const char *hint = json_string_value(json_object_get(object, "hint"));
	uint64_t code;

	if (!error || ctl_get_uint(object, "code", CTL_CODE_COUNT - 1, &code) || code == CTL_DONE)
		return -EBADMSG;
	out->type = CTL_REPLY_ERROR;
	out->code = (enum ctl_code)code;
	out->text = clean_copy(error);
	out->hint = hint ? clean_copy(hint) : NULL;
	return out->text && (!hint || out->hint) ? 0 : -ENOMEM;
}

static int parse_final(json_t *object, const json_t *ok, struct ctl_reply *out)
{
	json_t *result = json_object_get(object, "result");

	if (json_is_false(ok))
		return parse_error(object, out);
	if (!json_is_true(ok) || !json_is_object(result))
		return -EBADMSG;
	out->type = CTL_REPLY_RESULT;
	out->body = json_incref(result);
	return 0;
}

static int parse_ask(json_t *ask, struct ctl_reply *out)
{
	const char *kind, *text;

	if (json_unpack(ask, "{s:s,s:s,s:s,s:s}", "kind", &kind, "subject", &out->subject,
			"fingerprint", &out->fingerprint, "text", &text))
		return -EBADMSG;
	out->type = CTL_REPLY_ASK;
	out->body = json_incref(ask);
	while (strcmp(kind, ask_kinds[out->ask_kind]))
		if (++out->ask_kind == CTL_ASK_KIND_COUNT)
			return -EBADMSG;
	out->text = clean_copy(text);
	return out->text ? 0 : -ENOMEM;
}

static int parse_body(json_t *object, struct ctl_reply *out)
{
	const json_t *ok = json_object_get(object, "ok");
	const char *progress = json_string_value(json_object_get(object, "progress"));
	json_t *event = json_object_get(object, "event");
	json_t *ask = json_object_get(object, "ask");

	if (ok)
		return parse_final(object, ok, out);
	if (ask)
		return parse_ask(ask, out);
	if (progress) {
		out->type = CTL_REPLY_PROGRESS;
		out->text = clean_copy(progress);
		return out->text ? 0 : -ENOMEM;
	}
	if (!json_is_object(event))
		return -EBADMSG;
	out->type = CTL_REPLY_EVENT;
	out->body = json_incref(event);
	return 0;
}

int ctl_reply_parse(const char *line, size_t line_bytes, struct ctl_reply *ret_reply)
{
	struct ctl_reply reply = { .type = CTL_REPLY_RESULT };
	json_t *object = ctl_load(line, line_bytes);
	int r = -EBADMSG;

	if (!object)
		return -EBADMSG;
	if (!ctl_get_uint(object, "id", INT64_MAX, &reply.id))
		r = parse_body(object, &reply);
	json_decref(object);
	if (r)
		ctl_reply_fini(&reply);
	else
		*ret_reply = reply;
	return r;
}

void ctl_reply_fini(struct ctl_reply *reply)
{
	json_decref(reply->body);
	free(reply->text);
	free(reply->hint);
	*reply = (struct ctl_reply){ .type = CTL_REPLY_TYPE_COUNT };
}

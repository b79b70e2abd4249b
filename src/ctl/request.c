/*
 * What a client sends: requests and answers; built for the client, parsed for the daemon.
 */
#include "ctl/ctl_private.h"

#include <stdio.h>

json_t *ctl_load(const char *line, size_t line_bytes)
{
	json_t *object;
	uint64_t version;

	if (line_bytes > CTL_LINE_BYTES_MAX)
		return NULL;
	object = json_loadb(line, line_bytes, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(object) && !ctl_get_uint(object, "v", UINT32_MAX, &version))
		return object;
	json_decref(object);
	return NULL;
}

int ctl_get_uint(const json_t *object, const char *key, uint64_t max, uint64_t *ret_value)
{
	const json_t *value = json_object_get(object, key);

	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) > max)
		return -EBADMSG;
	*ret_value = (uint64_t)json_integer_value(value);
	return 0;
}

char *ctl_dump(json_t *object)
{
	char *line;

	if (!object)
		return NULL;
	line = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	return line;
}

json_t *ctl_envelope(uint64_t id, const char *key, json_t *value)
{
	return json_pack("{s:i,s:I,s:o}", "v", CTL_VERSION, "id", (json_int_t)id, key, value);
}

/* ---- client ---- */

char *ctl_request_line(uint64_t id, enum ctl_command command, json_t *args)
{
	if (!args)
		args = json_object();
	return ctl_dump(json_pack("{s:i,s:I,s:s,s:o}", "v", CTL_VERSION, "id", (json_int_t)id,
				  "cmd", ctl_command_info(command)->name, "args", args));
}

char *ctl_answer_line(uint64_t id, const char *answer)
{
	return ctl_dump(ctl_envelope(id, "answer", ctl_clean_text(answer)));
}

/* ---- daemon ---- */

static int parse_answer(const json_t *object, const json_t *answer, struct ctl_request *out)
{
	if (!json_is_string(answer) || json_string_length(answer) > 256 ||
	    json_object_size(object) != 3)
		return -EBADMSG;
	out->type = CTL_ANSWER;
	out->answer = strdup(json_string_value(answer));
	return out->answer ? 0 : -ENOMEM;
}

static int parse_command(const json_t *object, struct ctl_request *out, char *why, size_t why_bytes)
{
	const char *name = json_string_value(json_object_get(object, "cmd"));
	json_t *args = json_object_get(object, "args");
	char clean[64];
	int r;

	if (!name || (args && !json_is_object(args)))
		return -EBADMSG;
	out->type = CTL_REQUEST;
	if (ctl_command_find(name, &out->command)) {
		text_sanitize(name, strlen(name), clean, sizeof(clean));
		snprintf(why, why_bytes, "the daemon knows no command \"%s\"", clean);
		return -ENOENT;
	}
	out->args = args ? json_incref(args) : json_object();
	if (!out->args)
		return -ENOMEM;
	r = ctl_check_arguments(out->command, out->args, why, why_bytes);
	if (r)
		ctl_request_fini(out);
	return r;
}

int ctl_request_parse(const char *line, size_t line_bytes, struct ctl_request *ret_request,
		      char *why, size_t why_bytes)
{
	struct ctl_request request = { .type = CTL_REQUEST };
	json_t *object = ctl_load(line, line_bytes);
	const json_t *answer;
	uint64_t version = 0;
	int r = -EBADMSG;

	snprintf(why, why_bytes, "not a message of the control protocol");
	if (!object)
		return -EBADMSG;
	if (ctl_get_uint(object, "id", INT64_MAX, &request.id))
		goto out;
	ctl_get_uint(object, "v", UINT32_MAX, &version);
	answer = json_object_get(object, "answer");
	if (version != CTL_VERSION) {
		snprintf(why, why_bytes,
			 "this daemon speaks version %d of the control protocol, not %llu",
			 CTL_VERSION, (unsigned long long)version);
		r = -EPROTO;
	} else if (answer) {
		r = parse_answer(object, answer, &request);
	} else {
		r = parse_command(object, &request, why, why_bytes);
	}
out:
	json_decref(object);
	if (!r)
		*ret_request = request;
	else
		ret_request->id = request.id;
	return r;
}

static void wipe_text(json_t *value)
{
	/* Jansson lends its own bytes; nobody reads them again. */
	if (json_is_string(value))
		secret_wipe((char *)(uintptr_t)json_string_value(value), json_string_length(value));
}

void ctl_request_fini(struct ctl_request *request)
{
	if (request->args && request->type == CTL_REQUEST)
		for (const struct ctl_argument *a = ctl_command_info(request->command)->arguments;
		     a->name; a++)
			if (a->secret)
				wipe_text(json_object_get(request->args, a->name));
	json_decref(request->args);
	free(request->answer);
	request->args = NULL;
	request->answer = NULL;
}

const char *ctl_text(const struct ctl_request *request, const char *name)
{
	return json_string_value(json_object_get(request->args, name));
}

bool ctl_bool(const struct ctl_request *request, const char *name)
{
	return json_is_true(json_object_get(request->args, name));
}

uint64_t ctl_uint(const struct ctl_request *request, const char *name, uint64_t fallback)
{
	uint64_t value = fallback;

	ctl_get_uint(request->args, name, UINT64_MAX, &value);
	return value;
}

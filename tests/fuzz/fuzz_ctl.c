/* Lines of the control socket, as the daemon and as a client reads them. */
#include "ctl/ctl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static void as_daemon(const char *line, size_t line_bytes)
{
	struct ctl_request request;
	char why[256];

	if (ctl_request_parse(line, line_bytes, &request, why, sizeof(why)))
		return;
	if (request.type == CTL_REQUEST) {
		const struct ctl_argument *a = ctl_command_info(request.command)->arguments;

		for (; a->name; a++)
			if (a->required && a->type == CTL_TEXT && !ctl_text(&request, a->name))
				abort();
	}
	ctl_request_fini(&request);
}

static void as_client(const char *line, size_t line_bytes)
{
	struct ctl_reply reply;

	if (ctl_reply_parse(line, line_bytes, &reply))
		return;
	if (reply.text)
		for (const char *c = reply.text; *c; c++)
			if ((unsigned char)*c < ' ' && *c != '\n')
				abort();
	ctl_reply_fini(&reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes)
{
	as_daemon((const char *)data, data_bytes);
	as_client((const char *)data, data_bytes);
	return 0;
}

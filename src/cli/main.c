/* q2q-tun: parses the command line by the tables of commands.c and runs one command. */
#include "cli/cli.h"

#include <argp.h>
#include <malloc.h>
#include <stdio.h>

#include "config.h"

#define OPTIONS_MAX    24
#define KEY_BASE       0x100 /* argp keys of options without a letter */
#define KEY_GLOBAL     0x200 /* options that may stand before or after the command */
#define KEY_CONTROL    (KEY_GLOBAL + 0)
#define KEY_JSON       (KEY_GLOBAL + 1)
#define KEY_AS         (KEY_GLOBAL + 2)
#define KEY_TIMEOUT    (KEY_GLOBAL + 3)
#define GROUP_COMMAND  1
#define GROUP_EVERYONE 2

const char *argp_program_version = PACKAGE_STRING;

static const char default_control[] = RUNSTATEDIR "/q2q-tun/control";

/* ---- finding the command --------------------------------------------------- */

/* The command named by argv[0..], two words before one. *ret_words says how many it took. */
static const struct cli_command *find_command(int argc, char **argv, int *ret_words)
{
	char two_words[64];

	for (int words = 2; words >= 1; words--) {
		if (argc < words)
			continue;
		snprintf(two_words, sizeof(two_words), words == 2 ? "%s %s" : "%s", argv[0],
			 words == 2 ? argv[1] : "");
		for (const struct cli_command *c = cli_commands; c->name; c++) {
			if (strcmp(c->name, two_words) == 0) {
				*ret_words = words;
				return c;
			}
		}
	}
	return NULL;
}

static char *help_filter(int key, const char *text, void *input)
{
	char *list = NULL;
	size_t list_bytes;
	FILE *out;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)(uintptr_t)text;
	out = open_memstream(&list, &list_bytes);
	if (!out)
		return NULL;
	fprintf(out, "Commands:\n");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		fprintf(out, "  %-18s %s\n", c->name, c->doc);
	fprintf(out,
		"\n`q2q-tun COMMAND --help' explains one. Exit codes: 0 done, 1 failed, 2 usage, "
		"3 not found, 4 denied, 5 timed out, 6 offline, 7 trust failure, 8 relayed though "
		"direct was required, 9 daemon not running.");
	fclose(out);
	return list;
}

/* ---- the options that every command takes ------------------------------------- */

static int parse_duration(const char *text, uint64_t *ret_seconds);

static const struct argp_option global_options[] = {
	{ "control", KEY_CONTROL, "PATH", 0, "The daemon's control socket", GROUP_EVERYONE },
	{ "json", KEY_JSON, NULL, 0, "Print one JSON document, or lines of JSON when following",
	  GROUP_EVERYONE },
	{ "as", KEY_AS, "ADDRESS", 0, "Act as this identity instead of the default one",
	  GROUP_EVERYONE },
	{ "timeout", KEY_TIMEOUT, "S", 0, "Give up after S seconds (also 15m, 2h)",
	  GROUP_EVERYONE },
	{ 0 },
};

static error_t parse_global(int key, char *text, struct argp_state *state,
			    struct cli_globals *globals)
{
	switch (key) {
	case KEY_CONTROL:
		globals->control_path = text;
		return 0;
	case KEY_JSON:
		globals->json = true;
		return 0;
	case KEY_AS:
		globals->as = text;
		return 0;
	case KEY_TIMEOUT:
		if (parse_duration(text, &globals->timeout_s) < 0)
			argp_error(state, "--timeout does not take `%s'", text);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ---- one command's options --------------------------------------------------- */

struct parse {
	struct cli_call *call;
	struct cli_globals *globals;
	char positionals[160]; /* a copy of the table's text, cut into words */
	const char *names[CLI_POSITIONALS_MAX];
	bool optional[CLI_POSITIONALS_MAX];
	size_t n_names, n_given;
};

static void split_positionals(struct parse *p)
{
	char *save = NULL;

	snprintf(p->positionals, sizeof(p->positionals), "%s", p->call->command->positionals);
	for (char *word = strtok_r(p->positionals, " ", &save);
	     word && p->n_names < CLI_POSITIONALS_MAX; word = strtok_r(NULL, " ", &save)) {
		char *mark = strchr(word, '?');

		if (mark)
			*mark = '\0';
		p->optional[p->n_names] = mark != NULL;
		p->names[p->n_names++] = word;
	}
}

/* "90", "90s", "15m", "2h", "7d" */
static int parse_duration(const char *text, uint64_t *ret_seconds)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
	const size_t n = strlen(text);
	uint64_t factor = 1, value;
	char digits[24];

	if (n == 0 || n >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, n + 1);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (digits[n - 1] == units[i].unit) {
			factor = units[i].seconds;
			digits[n - 1] = '\0';
			break;
		}
	}
	if (parse_u64(digits, UINT32_MAX, &value) < 0)
		return -EINVAL;
	*ret_seconds = value * factor;
	return 0;
}

static bool is_choice(const char *choices, const char *word)
{
	const size_t n = strlen(word);

	for (const char *at = choices; n > 0 && at; at = strchr(at, '|')) {
		at += *at == '|';
		if (strncmp(at, word, n) == 0 && (at[n] == '|' || at[n] == '\0'))
			return true;
	}
	return false;
}

/* NULL when the text does not fit the kind. */
static json_t *param_value(const struct cli_param *param, const char *text)
{
	uint64_t number;
	double seconds;
	char *end;

	switch (param->kind) {
	case CLI_FLAG:
		return json_true();
	case CLI_STRING:
		return json_string(text);
	case CLI_CHOICE:
		return is_choice(param->choices, text) ? json_string(text) : NULL;
	case CLI_COUNT:
		return parse_u64(text, INT32_MAX, &number) < 0 ? NULL
							       : json_integer((json_int_t)number);
	case CLI_SECONDS:
		return parse_duration(text, &number) < 0 ? NULL : json_integer((json_int_t)number);
	case CLI_MILLIS:
		seconds = strtod(text, &end);
		if (end == text || *end != '\0' || !(seconds >= 0.01 && seconds <= 3600))
			return NULL;
		return json_integer((json_int_t)(seconds * 1000));
	}
	return NULL;
}

static error_t take_positional(struct parse *p, const char *text, struct argp_state *state)
{
	if (p->n_given == p->n_names) {
		argp_error(state, "unexpected argument: %s", text);
		return EINVAL;
	}
	if (json_object_set_new(p->call->args, p->names[p->n_given], json_string(text)) < 0) {
		argp_failure(state, CLI_USAGE, 0, "the argument is not valid UTF-8 text");
		return EINVAL;
	}
	p->n_given++;
	return 0;
}

static error_t parse_command_option(int key, char *text, struct argp_state *state)
{
	struct parse *p = state->input;
	const struct cli_param *params = p->call->command->params;

	if (key == ARGP_KEY_ARG)
		return take_positional(p, text, state);
	if (key == ARGP_KEY_END) {
		if (p->n_given < p->n_names && !p->optional[p->n_given])
			argp_error(state, "%s is missing", p->names[p->n_given]);
		return 0;
	}
	for (size_t i = 0; params && params[i].name; i++) {
		if (key != (params[i].letter ? params[i].letter : KEY_BASE + (int)i))
			continue;
		json_t *value = param_value(&params[i], text);

		if (!value)
			argp_error(state, "--%s does not take `%s'%s%s", params[i].name, text,
				   params[i].choices ? "; it takes one of " : "",
				   params[i].choices ? params[i].choices : "");
		else
			json_object_set_new(params[i].key ? p->call->args : p->call->local,
					    params[i].key ? params[i].key : params[i].name, value);
		return 0;
	}
	return parse_global(key, text, state, p->globals);
}

static bool takes_option(const struct cli_param *params, const char *name)
{
	for (size_t i = 0; params && params[i].name; i++)
		if (strcmp(params[i].name, name) == 0)
			return true;
	return false;
}

static void fill_options(const struct cli_param *params, struct argp_option *options)
{
	size_t n = 0;

	for (; params && params[n].name; n++) {
		assert(n + ARRAY_SIZE(global_options) < OPTIONS_MAX);
		options[n] = (struct argp_option){
			.name = params[n].name,
			.key = params[n].letter ? params[n].letter : KEY_BASE + (int)n,
			.arg = params[n].kind == CLI_FLAG ? NULL : params[n].argument,
			.doc = params[n].doc,
			.group = GROUP_COMMAND,
		};
	}
	/* A command's own --timeout says more than the general one. */
	for (const struct argp_option *o = global_options; o->name; o++)
		if (!takes_option(params, o->name))
			options[n++] = *o;
}

/* "address password?" as "ADDRESS [PASSWORD]" */
static void describe_positionals(const struct parse *p, char *out, size_t out_bytes)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < p->n_names; i++) {
		used += (size_t)snprintf(out + used, out_bytes - used, "%s%s%s%s", i ? " " : "",
					 p->optional[i] ? "[" : "", p->names[i],
					 p->optional[i] ? "]" : "");
		if (used >= out_bytes)
			return;
	}
	for (char *c = out; *c; c++)
		if (*c >= 'a' && *c <= 'z')
			*c = (char)(*c - 'a' + 'A');
}

static void parse_command(struct cli_call *call, struct cli_globals *globals, int argc, char **argv)
{
	struct argp_option options[OPTIONS_MAX] = { 0 };
	struct parse p = { .call = call, .globals = globals };
	char args_doc[160], program[96];
	struct argp argp = { .options = options,
			     .parser = parse_command_option,
			     .args_doc = args_doc,
			     .doc = call->command->doc };

	split_positionals(&p);
	describe_positionals(&p, args_doc, sizeof(args_doc));
	fill_options(call->command->params, options);
	snprintf(program, sizeof(program), "q2q-tun %s", call->command->name);
	argv[0] = program;
	argp_err_exit_status = CLI_USAGE;
	argp_parse(&argp, argc, argv, 0, NULL, &p);
}

/* ---- the options before the command -------------------------------------------- */

struct front {
	struct cli_globals globals;
	int argc;
	char **argv; /* from the command's name on */
};

static error_t parse_front(int key, char *text, struct argp_state *state)
{
	struct front *front = state->input;

	switch (key) {
	case ARGP_KEY_ARG:
		front->argv = state->argv + state->next - 1;
		front->argc = state->argc - state->next + 1;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_usage(state);
		return 0;
	default:
		return parse_global(key, text, state, &front->globals);
	}
}

static int run(struct front *front)
{
	struct cli_call call = { .globals = &front->globals };
	int words = 0, result;

	call.command = find_command(front->argc, front->argv, &words);
	if (!call.command) {
		cli_complain("there is no command `%s'. `q2q-tun --help' lists them.",
			     front->argv[0]);
		return CLI_USAGE;
	}
	call.args = json_object();
	call.local = json_object();
	if (!call.args || !call.local)
		return CLI_FAILED;
	parse_command(&call, &front->globals, front->argc - words + 1, front->argv + words - 1);
	call.request = call.command->request;
	if (front->globals.as)
		json_object_set_new(call.args, "as", json_string(front->globals.as));
	result = call.command->prepare ? call.command->prepare(&call) : CLI_OK;
	if (result == CLI_OK)
		result = cli_client_run(&call);
	json_decref(call.args);
	json_decref(call.local);
	return result;
}

/* Passwords pass through JSON values: what Jansson frees is wiped first. */
static void wiping_free(void *memory)
{
	secret_wipe(memory, malloc_usable_size(memory));
	free(memory);
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = global_options,
		.parser = parse_front,
		.args_doc = "COMMAND [ARGUMENT...]",
		.doc = "Reach another machine by its Q2Q address as if it were on your LAN.\v",
		.help_filter = help_filter,
	};
	struct front front = { .globals.control_path = default_control };

	json_set_alloc_funcs(malloc, wiping_free);
	argp_err_exit_status = CLI_USAGE;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &front);
	return run(&front);
}

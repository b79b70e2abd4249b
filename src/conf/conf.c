/*
 * INI files by table. libinih splits the lines; what it would take silently (a
 * long line or name cut off, a continuation line, a section seen again) is
 * caught here, in the reader that hands it the lines.
 */
#include "conf/conf.h"

#include <fcntl.h>
#include <ini.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS_MAX      128
#define SECTIONS_MAX  128
#define SECTION_BYTES 320 /* "domain " and a DNS name */

struct parse {
	const char *name;
	const struct conf_key *keys;
	size_t n_keys;
	void *target;
	struct conf_error *error;
	int result; /* the first fault; nothing is looked at after it */
	/* input */
	const char *text;
	size_t left_bytes;
	unsigned line;
	/* where we are */
	char section[SECTION_BYTES]; /* empty: before the first one */
	bool given[KEYS_MAX];        /* in this section */
	char *sections[SECTIONS_MAX];
	unsigned section_lines[SECTIONS_MAX];
	size_t n_sections;
};

/* The first fault wins: what follows is often only its consequence. */
static void PRINTF_LIKE(3, 4) fail(struct parse *p, int result, const char *format, ...)
{
	struct conf_error *e = p->error;
	va_list args;
	size_t used;

	if (p->result < 0)
		return;
	p->result = result;
	e->line = p->line;
	if (p->line > 0)
		snprintf(e->text, sizeof(e->text), "%s:%u: ", p->name, p->line);
	else
		snprintf(e->text, sizeof(e->text), "%s: ", p->name);
	used = strlen(e->text);
	va_start(args, format);
	vsnprintf(e->text + used, sizeof(e->text) - used, format, args);
	va_end(args);
	text_sanitize(e->text, strlen(e->text), e->text, sizeof(e->text));
}

/* ---- the table --------------------------------------------------------------------- */

/* What "*" stands for; "" where the pattern has none; NULL: another section. */
static const char *section_match(const char *pattern, const char *section)
{
	const size_t n = strlen(pattern);

	if (n == 0 || pattern[n - 1] != '*')
		return strcmp(pattern, section) == 0 ? "" : NULL;
	if (strncmp(pattern, section, n - 1) != 0 || section[n - 1] == '\0')
		return NULL;
	return section + n - 1;
}

static bool section_known(const struct parse *p, const char *section)
{
	for (size_t i = 0; i < p->n_keys; i++)
		if (section_match(p->keys[i].section, section))
			return true;
	return false;
}

/* Sections or keys of a section, for the message about an unknown one. */
static void list_known(const struct parse *p, const char *section, char *out, size_t out_bytes)
{
	size_t used = 0;

	out[0] = '\0';
	for (size_t i = 0; i < p->n_keys && used < out_bytes; i++) {
		const struct conf_key *key = &p->keys[i];
		const bool again = i > 0 && strcmp(key->section, p->keys[i - 1].section) == 0;

		if (section ? !section_match(key->section, section) : again)
			continue;
		used += (size_t)snprintf(out + used, out_bytes - used, section ? "%s%s" : "%s[%s]",
					 used ? ", " : "", section ? key->name : key->section);
	}
}

/* ---- values -------------------------------------------------------------------------- */

static void *field(const struct parse *p, const struct conf_key *key)
{
	return (char *)p->target + key->offset;
}

static int parse_bool(const char *value, bool *ret_value)
{
	static const char *const yes[] = { "yes", "true", "on", "1" };
	static const char *const no[] = { "no", "false", "off", "0" };

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (strcasecmp(value, yes[i]) == 0 || strcasecmp(value, no[i]) == 0) {
			*ret_value = strcasecmp(value, yes[i]) == 0;
			return 0;
		}
	}
	return -EINVAL;
}

static void set_text(struct parse *p, const struct conf_key *key, const char *value)
{
	char **const text = field(p, key);
	char *const copy = strdup(value);

	if (!copy) {
		fail(p, -ENOMEM, "out of memory");
		return;
	}
	free(*text);
	*text = copy;
}

static void set_list(struct parse *p, const struct conf_key *key, const char *value)
{
	struct conf_list *const list = field(p, key);

	if (list->n_items == CONF_LIST_MAX) {
		fail(p, -EINVAL, "more than %d times \"%s\"", CONF_LIST_MAX, key->name);
		return;
	}
	list->items[list->n_items] = strdup(value);
	if (!list->items[list->n_items])
		fail(p, -ENOMEM, "out of memory");
	else
		list->n_items++;
}

static void set_bool(struct parse *p, const struct conf_key *key, const char *value)
{
	if (parse_bool(value, field(p, key)) < 0)
		fail(p, -EINVAL, "%s = %.60s: must be yes or no", key->name, value);
}

static void set_uint(struct parse *p, const struct conf_key *key, const char *value)
{
	uint64_t number = 0;

	if (parse_u64(value, key->max, &number) < 0 || number < key->min) {
		fail(p, -EINVAL, "%s = %.60s: must be a number from %" PRIu64 " to %" PRIu64,
		     key->name, value, key->min, key->max);
		return;
	}
	memcpy(field(p, key), &number, sizeof(number));
}

static void set_choice(struct parse *p, const struct conf_key *key, const char *value)
{
	char known[200] = "";

	for (int i = 0; key->choices[i]; i++) {
		const size_t used = strlen(known);

		if (strcmp(key->choices[i], value) == 0) {
			memcpy(field(p, key), &i, sizeof(i));
			return;
		}
		snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "",
			 key->choices[i]);
	}
	fail(p, -EINVAL, "%s = %.60s: must be one of %s", key->name, value, known);
}

static void set_nothing(struct parse *p, const struct conf_key *key, const char *value)
{
	(void)p, (void)key, (void)value; /* set() did it */
}

typedef void set_fn(struct parse *p, const struct conf_key *key, const char *value);

static set_fn *const setters[CONF_TYPE_COUNT] = {
	[CONF_TEXT] = set_text, [CONF_LIST] = set_list,     [CONF_BOOL] = set_bool,
	[CONF_UINT] = set_uint, [CONF_CHOICE] = set_choice, [CONF_CALL] = set_nothing,
};

static void set_value(struct parse *p, const struct conf_key *key, const char *value)
{
	const char *const argument = section_match(key->section, p->section);
	char why[160] = "not acceptable";
	int r;

	assert(key->type < CONF_TYPE_COUNT);
	if (value[0] == '\0') {
		fail(p, -EINVAL, "%s has no value", key->name);
		return;
	}
	if (key->set) {
		r = key->set(p->target, argument && *argument ? argument : NULL, value, why,
			     sizeof(why));
		if (r == -ENOMEM)
			fail(p, r, "out of memory");
		else if (r < 0)
			fail(p, -EINVAL, "%s = %.100s: %s", key->name, value, why);
	}
	if (p->result == 0)
		setters[key->type](p, key, value);
}

/* ---- lines ------------------------------------------------------------------------------ */

static int on_key(void *user, const char *section, const char *name, const char *value)
{
	struct parse *p = user;
	char known[300];

	(void)section; /* cut by libinih; ours is whole */
	if (p->result < 0)
		return 1;
	if (p->section[0] == '\0') {
		fail(p, -EINVAL, "\"%.60s\" stands before the first [section]", name);
		return 1;
	}
	for (size_t i = 0; i < p->n_keys; i++) {
		const struct conf_key *key = &p->keys[i];

		if (!section_match(key->section, p->section) || strcmp(key->name, name) != 0)
			continue;
		if (p->given[i] && key->type != CONF_LIST && key->type != CONF_CALL) {
			fail(p, -EINVAL, "\"%s\" is given twice in [%.100s]", name, p->section);
			return 1;
		}
		p->given[i] = true;
		set_value(p, key, value);
		return 1;
	}
	list_known(p, p->section, known, sizeof(known));
	fail(p, -EINVAL, "unknown key \"%.60s\" in [%.100s]; known are: %s", name, p->section,
	     known);
	return 1;
}

static void enter_section(struct parse *p, const char *start, size_t n_bytes)
{
	const char *const end = memchr(start, ']', n_bytes);
	char known[300];
	size_t length;

	if (!end) {
		fail(p, -EINVAL, "a section needs its \"]\"");
		return;
	}
	for (const char *c = end + 1; c < start + n_bytes && *c != ';' && *c != '#'; c++) {
		if (*c != ' ' && *c != '\t') {
			fail(p, -EINVAL, "nothing may follow the \"]\" of a section");
			return;
		}
	}
	length = (size_t)(end - start);
	if (length >= SECTION_BYTES) {
		fail(p, -EINVAL, "the name of this section is too long");
		return;
	}
	memcpy(p->section, start, length);
	p->section[length] = '\0';
	memset(p->given, 0, sizeof(p->given));

	if (!section_known(p, p->section)) {
		list_known(p, NULL, known, sizeof(known));
		fail(p, -EINVAL, "unknown section [%.100s]; known are: %s", p->section, known);
		return;
	}
	for (size_t i = 0; i < p->n_sections; i++) {
		if (strcmp(p->sections[i], p->section) == 0) {
			fail(p, -EINVAL, "section [%.100s] is there already, in line %u",
			     p->section, p->section_lines[i]);
			return;
		}
	}
	if (p->n_sections == SECTIONS_MAX) {
		fail(p, -EINVAL, "more than %d sections", SECTIONS_MAX);
		return;
	}
	p->sections[p->n_sections] = strdup(p->section);
	if (!p->sections[p->n_sections]) {
		fail(p, -ENOMEM, "out of memory");
		return;
	}
	p->section_lines[p->n_sections++] = p->line;
}

/*
 * Gives libinih one line without its leading blanks (it would take an indented
 * line for the rest of the one before). A section line goes in short, for
 * libinih cuts long names; ours is kept in p->section.
 */
static char *next_line(char *out, int out_bytes, void *user)
{
	struct parse *p = user;
	const char *start = p->text, *newline;
	size_t n_bytes;

	if (p->result < 0 || p->left_bytes == 0)
		return NULL;
	newline = memchr(start, '\n', p->left_bytes);
	n_bytes = newline ? (size_t)(newline - start) : p->left_bytes;
	p->text += n_bytes + (newline ? 1 : 0);
	p->left_bytes -= n_bytes + (newline ? 1 : 0);
	p->line++;

	if (p->line == 1 && n_bytes >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0) {
		start += 3;
		n_bytes -= 3;
	}
	while (n_bytes > 0 && (start[n_bytes - 1] == '\r' || start[n_bytes - 1] == ' '))
		n_bytes--;
	while (n_bytes > 0 && (*start == ' ' || *start == '\t')) {
		start++;
		n_bytes--;
	}
	if (n_bytes > 0 && *start == '[') {
		enter_section(p, start + 1, n_bytes - 1);
		snprintf(out, (size_t)out_bytes, "[s]\n");
		return p->result < 0 ? NULL : out;
	}
	if (n_bytes > 0 && (*start == ';' || *start == '#'))
		n_bytes = 0;
	if (n_bytes + 2 > (size_t)out_bytes) {
		fail(p, -EINVAL, "the line is longer than %d characters", out_bytes - 2);
		return NULL;
	}
	memcpy(out, start, n_bytes);
	out[n_bytes] = '\n';
	out[n_bytes + 1] = '\0';
	return out;
}

int conf_parse(const char *name, const char *text, size_t text_bytes, const struct conf_key *keys,
	       size_t n_keys, void *target, struct conf_error *ret_error)
{
	struct parse p = { .name = name,
			   .keys = keys,
			   .n_keys = n_keys,
			   .target = target,
			   .error = ret_error,
			   .text = text,
			   .left_bytes = text_bytes };
	int r;

	assert(n_keys <= KEYS_MAX);
	if (text_bytes > CONF_FILE_BYTES_MAX)
		fail(&p, -EFBIG, "larger than %d bytes", CONF_FILE_BYTES_MAX);
	else if (text_bytes > 0 &&
		 (memchr(text, '\0', text_bytes) || !utf8_valid(text, text_bytes)))
		fail(&p, -EINVAL, "not a text file (UTF-8)");
	if (p.result == 0) {
		r = ini_parse_stream(next_line, &p, on_key, &p);
		if (r > 0) {
			p.line = (unsigned)r;
			fail(&p, -EINVAL, "neither [section], key = value nor # comment");
		} else if (r < 0) {
			fail(&p, -ENOMEM, "out of memory");
		}
	}
	for (size_t i = 0; i < p.n_sections; i++)
		free(p.sections[i]);
	return p.result;
}

static int load_fault(const char *path, int error, struct conf_error *ret_error)
{
	ret_error->line = 0;
	snprintf(ret_error->text, sizeof(ret_error->text), "%s: %s", path, strerror(error));
	return -error;
}

int conf_load(const char *path, const struct conf_key *keys, size_t n_keys, void *target,
	      struct conf_error *ret_error)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	_cleanup_(freep) char *text = NULL;
	size_t used = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return load_fault(path, errno, ret_error);
	if (S_ISDIR(st.st_mode))
		return load_fault(path, EISDIR, ret_error);
	text = malloc(CONF_FILE_BYTES_MAX + 1);
	if (!text)
		return load_fault(path, ENOMEM, ret_error);
	do {
		n = read(fd, text + used, CONF_FILE_BYTES_MAX + 1 - used);
		if (n < 0 && errno != EINTR)
			return load_fault(path, errno, ret_error);
		used += n > 0 ? (size_t)n : 0;
	} while (n != 0 && used <= CONF_FILE_BYTES_MAX);
	return conf_parse(path, text, used, keys, n_keys, target, ret_error);
}

void conf_clear(const struct conf_key *keys, size_t n_keys, void *target)
{
	for (size_t i = 0; i < n_keys; i++) {
		void *const at = (char *)target + keys[i].offset;

		if (keys[i].type == CONF_TEXT) {
			char **const text = at;

			free(*text);
			*text = NULL;
		} else if (keys[i].type == CONF_LIST) {
			struct conf_list *const list = at;

			for (size_t k = 0; k < list->n_items; k++)
				free(list->items[k]);
			memset(list, 0, sizeof(*list));
		}
	}
}

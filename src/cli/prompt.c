/* Questions to a person at the terminal, and secrets from files. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

void cli_complain(const char *format, ...)
{
	char text[2048], clean[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_sanitize(text, strlen(text), clean, sizeof(clean));
	fprintf(stderr, "q2q-tun: %s\n", clean);
}

bool cli_can_prompt(void)
{
	_cleanup_(closep) int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);

	return fd >= 0;
}

/* One line, without its end. -EMSGSIZE if it is longer than fits, -EIO at the end of input. */
static int read_line(int fd, char *out, size_t out_bytes)
{
	size_t used = 0;
	char c;

	for (;;) {
		const ssize_t n = read(fd, &c, 1);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || (n == 0 && used == 0))
			return -EIO;
		if (n == 0 || c == '\n')
			break;
		if (c == '\r')
			continue;
		if (used + 1 >= out_bytes) {
			secret_wipe(out, out_bytes);
			return -EMSGSIZE;
		}
		out[used++] = c;
	}
	out[used] = '\0';
	return 0;
}

static int prompt(const char *text, bool echo, char *out, size_t out_bytes)
{
	_cleanup_(closep) int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios before, silent;
	int r;

	if (fd < 0)
		return -ENOTTY;
	if (dprintf(fd, "%s", text) < 0)
		return -EIO;
	if (echo)
		return read_line(fd, out, out_bytes);
	if (tcgetattr(fd, &before) < 0)
		return -ENOTTY;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	if (tcsetattr(fd, TCSAFLUSH, &silent) < 0)
		return -ENOTTY;
	r = read_line(fd, out, out_bytes);
	if (tcsetattr(fd, TCSAFLUSH, &before) < 0 || dprintf(fd, "\n") < 0)
		return -EIO;
	return r;
}

int cli_prompt_secret(const char *text, char out[static CLI_SECRET_MAX_BYTES])
{
	return prompt(text, false, out, CLI_SECRET_MAX_BYTES);
}

int cli_prompt_line(const char *text, char *out, size_t out_bytes)
{
	return prompt(text, true, out, out_bytes);
}

int cli_read_secret_file(const char *path, char out[static CLI_SECRET_MAX_BYTES])
{
	const bool standard_input = strcmp(path, "-") == 0;
	const int fd = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	int r;

	if (fd < 0) {
		r = -errno;
		cli_complain("cannot open %s: %s", path, strerror(-r));
		return r;
	}
	r = read_line(fd, out, CLI_SECRET_MAX_BYTES);
	if (!standard_input)
		close(fd);
	if (r < 0)
		cli_complain("%s: %s", path,
			     r == -EMSGSIZE ? "the first line is too long for a password"
					    : "the file is empty or cannot be read");
	return r;
}

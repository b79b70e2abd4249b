#include "server/commands.h"

#include "server/policy.h"

#include <fcntl.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

#define LINE_BYTES (POLICY_PASSWORD_MAX + 2)

void password_free(char *password)
{
	if (!password)
		return;
	secret_wipe(password, strlen(password));
	free(password);
}

/* One line without its end. Byte by byte, so that nothing is left in a buffer of stdio. */
static int read_line(int fd, char **ret_line)
{
	char *line = calloc(1, LINE_BYTES);
	size_t n = 0;

	if (!line)
		return -ENOMEM;
	while (n < LINE_BYTES - 1) {
		const ssize_t got = read(fd, line + n, 1);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			const int rc = -errno;

			secret_wipe(line, LINE_BYTES);
			free(line);
			return rc;
		}
		if (got == 0 || line[n] == '\n')
			break;
		n++;
	}
	if (n > 0 && line[n - 1] == '\r')
		n--;
	line[n] = '\0';
	*ret_line = line;
	return 0;
}

static int read_file(const char *file, char **ret_password)
{
	const bool is_stdin = strcmp(file, "-") == 0;
	const int fd = is_stdin ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return complain(EXIT_FAILED, "cannot read the password from %s: %s", file,
				strerror(errno));
	rc = read_line(fd, ret_password);
	if (!is_stdin)
		close(fd);
	if (rc != 0)
		return complain(EXIT_FAILED, "cannot read the password from %s: %s", file,
				strerror(-rc));
	return 0;
}

static int ask(int tty, const char *prompt, char **ret_line)
{
	struct termios saved, quiet;
	int rc;

	if (tcgetattr(tty, &saved) != 0)
		return -errno;
	quiet = saved;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	if (dprintf(tty, "%s: ", prompt) < 0 || tcsetattr(tty, TCSAFLUSH, &quiet) != 0)
		return -errno;
	rc = read_line(tty, ret_line);
	tcsetattr(tty, TCSAFLUSH, &saved);
	dprintf(tty, "\n");
	return rc;
}

static int ask_twice(int tty, const char *prompt, char **ret_password)
{
	char *first = NULL, *second = NULL;
	int rc = ask(tty, prompt, &first);

	if (rc == 0)
		rc = ask(tty, "Again", &second);
	if (rc == 0 && strcmp(first, second) != 0) {
		password_free(first);
		password_free(second);
		return complain(EXIT_USAGE, "the two passwords differ; nothing was changed");
	}
	password_free(second);
	if (rc != 0) {
		password_free(first);
		return complain(EXIT_FAILED, "cannot ask for a password: %s", strerror(-rc));
	}
	*ret_password = first;
	return 0;
}

int password_read(const char *file, const char *prompt, char **ret_password)
{
	int tty, rc;

	if (file)
		return read_file(file, ret_password);
	tty = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (tty < 0)
		return complain(EXIT_USAGE,
				"there is no terminal to ask for a password; give --password-file "
				"FILE (\"-\" is standard input)");
	rc = ask_twice(tty, prompt, ret_password);
	close(tty);
	return rc;
}

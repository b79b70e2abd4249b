/*
 * Runs a fuzz harness over files: `make check` replays the seed corpus with
 * every compiler, and a crash file is replayed the same way by hand.
 *
 * usage: replay_NAME FILE|DIRECTORY...      prints TAP, one case per argument
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_MAX_BYTES (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_bytes);

static int replay_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *whole, *exact;
	size_t n_bytes;

	if (!file)
		return -1;
	whole = malloc(INPUT_MAX_BYTES);
	if (!whole) {
		fclose(file);
		return -1;
	}
	n_bytes = fread(whole, 1, INPUT_MAX_BYTES, file);
	fclose(file);
	/* A copy of exactly that size, so that a sanitizer sees a read past the end. */
	exact = malloc(n_bytes ? n_bytes : 1);
	if (exact) {
		memcpy(exact, whole, n_bytes);
		LLVMFuzzerTestOneInput(exact, n_bytes);
	}
	free(exact);
	free(whole);
	return exact ? 1 : -1;
}

/* The number of files replayed, or -1. */
static int replay_directory(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int n_files = 0;

	if (!dir)
		return -1;
	while (n_files >= 0 && (entry = readdir(dir)) != NULL) {
		char file[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		n_files = replay_file(file) < 0 ? -1 : n_files + 1;
	}
	closedir(dir);
	return n_files;
}

int main(int argc, char **argv)
{
	int failed = argc < 2;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..%d\n", argc - 1);
	for (int i = 1; i < argc; i++) {
		struct stat st;
		int n_files = -1;

		if (stat(argv[i], &st) == 0)
			n_files = S_ISDIR(st.st_mode) ? replay_directory(argv[i])
						      : replay_file(argv[i]);
		/* An empty corpus is a mistake of the tree, not a success. */
		failed |= n_files <= 0;
		printf("%s %d - %s: %d inputs replayed\n", n_files > 0 ? "ok" : "not ok", i,
		       argv[i], n_files);
	}
	return failed;
}

/* What the daemon keeps on disk, and whom it trusts. */
#include "unit.h"
#include "daemon/internal.h"
#include "base/names.h"
#include "daemon/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* daemon.c is part of the program alone. */
int daemon_monitor_send(struct daemon *d, struct tun_request *request)
{
	(void)d;
	(void)request;
	return 0;
}

void daemon_stop_now(struct daemon *d, int exit_status)
{
	(void)d;
	(void)exit_status;
}

int daemon_random(void *user, void *out, size_t n_bytes)
{
	(void)user;
	return crypto_random(out, n_bytes);
}

struct fixture {
	char dir[64];
	struct daemon_options options;
	struct daemon d;
	struct crypto_key *domain_key;
	struct crypto_cert *domain_cert;
};

static void load(struct fixture *f)
{
	memset(&f->d, 0, sizeof(f->d));
	f->d.options = &f->options;
	TAILQ_INIT(&f->d.ops);
	assert_int_equal(net_loop_new(&f->d.loop), 0);
	assert_int_equal(identities_load(&f->d.identities, f->dir), 0);
	assert_int_equal(domains_load(&f->d.domains, f->dir), 0);
	assert_int_equal(peers_load(&f->d), 0);
	assert_int_equal(requests_load(&f->d), 0);
}

static void unload(struct fixture *f)
{
	peers_fini(&f->d);
	domains_fini(&f->d.domains);
	identities_fini(&f->d.identities);
	net_timer_disarm(&f->d.requests.save_timer);
	net_loop_free(f->d.loop);
}

/* As after a crash: what was not on disk is gone. */
static void restart(struct fixture *f)
{
	unload(f);
	load(f);
}

static int setup(void **state)
{
	const struct log_config quiet = { .level = LOG_ERROR_ - 1 };
	struct fixture *f = calloc(1, sizeof(*f));

	log_setup(&quiet);
	snprintf(f->dir, sizeof(f->dir), "/tmp/q2q-test-daemon.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->options.state_dir = f->dir;
	load(f);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &f->domain_key), 0);
	assert_int_equal(crypto_cert_make_domain(f->domain_key, "b.test", wall_clock_s(), 365,
						 &f->domain_cert),
			 0);
	*state = f;
	return 0;
}

static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char child[1400];

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (unlink(child))
			remove_tree(child);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unload(f);
	remove_tree(f->dir);
	crypto_cert_unref(f->domain_cert);
	crypto_key_free(f->domain_key);
	free(f);
	return 0;
}

static struct q2q_address user(const char *text)
{
	struct q2q_address address;

	assert_int_equal(q2q_user_parse(text, &address), 0);
	return address;
}

static struct crypto_cert *issue(struct fixture *f, struct crypto_key *key, const char *address,
				 int64_t now_s)
{
	struct crypto_cert *cert;
	struct crypto_csr *csr;
	struct buffer der;

	buffer_init(&der, 4096, false);
	assert_int_equal(crypto_csr_make(key, address, &der), 0);
	assert_int_equal(crypto_csr_from_der(buffer_peek(&der), buffer_used(&der), &csr), 0);
	assert_int_equal(
		crypto_cert_issue(f->domain_cert, f->domain_key, csr, address, now_s, 30, &cert),
		0);
	crypto_csr_free(csr);
	buffer_fini(&der);
	return cert;
}

/* ---- files ---- */

static int count_name(void *user_data, const char *name)
{
	assert_string_equal(name, "one");
	++*(int *)user_data;
	return 0;
}

static void a_file_is_replaced_whole_and_private(void **state)
{
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES], stale[FILES_PATH_BYTES + 16];
	struct buffer back;
	struct stat st;
	int n = 0, fd;

	assert_int_equal(files_path(path, f->dir, NULL, "one", ".txt"), 0);
	assert_int_equal(files_write(path, "first content", 13), 0);
	assert_int_equal(files_write(path, "second", 6), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	buffer_init(&back, 5, false);
	assert_int_equal(files_read(path, &back), -EFBIG);
	buffer_fini(&back);
	buffer_init(&back, 6, false);
	assert_int_equal(files_read(path, &back), 0);
	assert_int_equal(buffer_used(&back), 6);
	assert_memory_equal(buffer_peek(&back), "second", 6);
	buffer_fini(&back);
	/* What a crash in the middle of a write leaves is neither read nor kept. */
	snprintf(stale, sizeof(stale), "%s.tmp-new", path);
	fd = open(stale, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(files_list(f->dir, ".txt", count_name, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(access(stale, F_OK), -1);
	assert_int_equal(files_remove(path), 0);
	assert_int_equal(files_remove(path), 0);
}

/* ---- without waiting for the disk ---- */

struct writes {
	struct net_loop *loop;
	struct disk *disk;
	uint64_t until;
	unsigned n_calls;
};

static void on_settled(void *user)
{
	struct writes *w = user;

	w->n_calls++;
	if (disk_settled(w->disk) == w->until)
		net_loop_stop(w->loop);
}

static void begin_writes(struct fixture *f, struct writes *w)
{
	*w = (struct writes){ .loop = f->d.loop };
	assert_int_equal(disk_new(w->loop, on_settled, w, &w->disk), 0);
}

static void run_writes(struct writes *w)
{
	w->until = disk_asked(w->disk);
	assert_int_equal(net_loop_run(w->loop), 0);
	assert_int_equal(disk_settled(w->disk), w->until);
}

static void assert_holds(const char *path, const char *text)
{
	struct buffer back;

	buffer_init(&back, 100, false);
	assert_int_equal(files_read(path, &back), 0);
	assert_int_equal(buffer_used(&back), strlen(text));
	assert_memory_equal(buffer_peek(&back), text, strlen(text));
	buffer_fini(&back);
}

static void count_entries(const char *dir, unsigned *ret_n)
{
	DIR *list = opendir(dir);

	assert_non_null(list);
	for (*ret_n = 0; readdir(list); ++*ret_n)
		;
	closedir(list);
}

static void writes_take_their_place_in_order(void **state)
{
	struct fixture *f = *state;
	char path[2][FILES_PATH_BYTES], text[20];
	unsigned n_before, n_after;
	struct writes w;

	begin_writes(f, &w);
	assert_int_equal(files_path(path[0], f->dir, NULL, "zero", ".txt"), 0);
	assert_int_equal(files_path(path[1], f->dir, NULL, "one", ".txt"), 0);
	count_entries(f->dir, &n_before);
	/* More than may wait. */
	for (unsigned i = 0; i < 150; i++) {
		snprintf(text, sizeof(text), "number %u", i);
		assert_int_equal(disk_write(w.disk, path[i % 2], text, strlen(text)), 0);
		assert_true(disk_asked(w.disk) - disk_settled(w.disk) <= 64);
	}
	assert_true(disk_settled(w.disk) < 150);
	run_writes(&w);
	assert_true(w.n_calls > 0);
	assert_int_equal(disk_fault(w.disk, 0), 0);
	assert_holds(path[0], "number 148");
	assert_holds(path[1], "number 149");
	/* Nothing is left beside them. */
	count_entries(f->dir, &n_after);
	assert_int_equal(n_after, n_before + 2);
	assert_int_equal(disk_write(w.disk, path[0], "last", 4), 0);
	disk_flush(w.disk);
	assert_holds(path[0], "last");
	assert_int_equal(disk_write(w.disk, path[0], "and done", 8), 0);
	disk_free(w.disk);
	assert_holds(path[0], "and done");
}

static void a_write_that_fails_is_told_of_and_stops_no_other(void **state)
{
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES], taken[FILES_PATH_BYTES], nowhere[FILES_PATH_BYTES];
	unsigned n_before, n_after;
	struct writes w;

	begin_writes(f, &w);
	assert_int_equal(files_path(path, f->dir, NULL, "sound", ".txt"), 0);
	assert_int_equal(files_path(taken, f->dir, NULL, "taken", ".txt"), 0);
	assert_int_equal(files_path(nowhere, f->dir, "nowhere", "lost", ".txt"), 0);
	assert_int_equal(mkdir(taken, 0700), 0);
	count_entries(f->dir, &n_before);
	assert_int_equal(disk_write(w.disk, nowhere, "x", 1), -ENOENT); /* at once */
	assert_int_equal(disk_asked(w.disk), 0);
	assert_int_equal(disk_write(w.disk, path, "first", 5), 0);
	assert_int_equal(disk_write(w.disk, taken, "second", 6), 0);
	assert_int_equal(disk_write(w.disk, path, "third", 5), 0);
	run_writes(&w);
	assert_holds(path, "third");
	assert_int_equal(disk_fault(w.disk, 0), -EISDIR);
	assert_int_equal(disk_fault(w.disk, 1), -EISDIR);
	assert_int_equal(disk_fault(w.disk, 2), 0); /* of the third */
	disk_free(w.disk);
	count_entries(f->dir, &n_after);
	assert_int_equal(n_after, n_before + 1);
	assert_int_equal(rmdir(taken), 0);
	assert_int_equal(files_remove(path), 0);
}

/* ---- peers ---- */

static void what_the_user_said_about_a_peer_survives(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	struct peer *peer = peers_get(&f->d, &bob);
	uint8_t spki[CRYPTO_HASH_BYTES];

	memset(spki, 7, sizeof(spki));
	peer->wanted = peer->allowed = peer->linked = true;
	peer->path_mode = SESSION_PATH_RELAY;
	peer->has_local4 = true;
	memcpy(peer->local4, "\x64\x40\x01\x02", 4);
	snprintf(peer->as, sizeof(peer->as), "alice@a.test");
	assert_int_equal(peers_pin(&f->d, peer, spki), 0);
	restart(f);
	peer = peers_find(&f->d, "bob@b.test");
	assert_non_null(peer);
	assert_true(peer->wanted && peer->allowed && peer->linked && peer->pinned);
	assert_false(peer->held);
	assert_memory_equal(peer->spki, spki, sizeof(spki));
	assert_int_equal(peer->path_mode, SESSION_PATH_RELAY);
	assert_memory_equal(peer->local4, "\x64\x40\x01\x02", 4);
	assert_string_equal(peer->as, "alice@a.test");
	assert_int_equal(peers_forget(&f->d, peer), 0);
	restart(f);
	assert_null(peers_find(&f->d, "bob@b.test"));
}

static void a_file_that_cannot_be_read_is_left_alone(void **state)
{
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES];

	peers_path(&f->d, "bob@b.test", path, sizeof(path));
	assert_int_equal(files_write(path, "{\"allowed\":tru", 14), 0);
	peers_path(&f->d, "no address", path, sizeof(path));
	assert_int_equal(files_write(path, "{}", 2), 0);
	restart(f);
	assert_int_equal(access(path, F_OK), 0);
	/* He is not new, and nothing that he or we do makes him so. */
	assert_non_null(peers_find(&f->d, "bob@b.test"));
	assert_true(peers_find(&f->d, "bob@b.test")->damaged);
	assert_false(peer_is_allowed(peers_find(&f->d, "bob@b.test")));
	assert_int_equal(peers_save(&f->d, peers_find(&f->d, "bob@b.test")), -EBADMSG);
	restart(f);
	assert_true(peers_find(&f->d, "bob@b.test")->damaged);
	assert_int_equal(peers_forget(&f->d, peers_find(&f->d, "bob@b.test")), 0);
	restart(f);
	assert_null(peers_find(&f->d, "bob@b.test"));
}

static void a_pin_that_makes_no_sense_is_not_a_missing_pin(void **state)
{
	static const char text[] = "{\"allowed\":true,\"wanted\":true,\"spki\":\"00ff\"}";
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES];
	struct crypto_cert *cert;
	struct crypto_key *key;
	struct problem p;

	peers_path(&f->d, "bob@b.test", path, sizeof(path));
	assert_int_equal(files_write(path, text, strlen(text)), 0);
	assert_int_equal(domains_set(&f->d.domains, "b.test", f->domain_cert), 0);
	restart(f);
	assert_false(peer_is_allowed(peers_find(&f->d, "bob@b.test")));
	assert_false(peers_find(&f->d, "bob@b.test")->wanted);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &key), 0);
	cert = issue(f, key, "bob@b.test", wall_clock_s());
	assert_int_equal(peers_judge(&f->d, peers_find(&f->d, "bob@b.test"), cert, &p),
			 PEER_DISTRUSTED);
	assert_non_null(strstr(p.error, path));
	crypto_cert_unref(cert);
	crypto_key_free(key);
}

static void what_cannot_be_stored_does_not_hold(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	struct peer *peer = peers_get(&f->d, &bob), before = *peer;
	uint8_t spki[CRYPTO_HASH_BYTES] = { 1 };
	char dir[FILES_PATH_BYTES], away[FILES_PATH_BYTES];

	assert_int_equal(peers_save(&f->d, peer), 0);
	/* As good as a full disk. */
	assert_int_equal(files_path(dir, f->dir, NULL, "known-peers", ""), 0);
	assert_int_equal(files_path(away, f->dir, NULL, "away", ""), 0);
	assert_int_equal(rename(dir, away), 0);
	peer->allowed = true;
	assert_int_equal(peers_store(&f->d, peer, &before), -ENOENT);
	assert_false(peer->allowed);
	assert_int_equal(peers_pin(&f->d, peer, spki), -ENOENT);
	assert_false(peer->pinned);
	/* One that nobody knew is forgotten. */
	before.address.text[0] = '\0';
	assert_int_equal(peers_store(&f->d, peer, &before), -ENOENT);
	assert_null(peers_find(&f->d, "bob@b.test"));
	assert_int_equal(rename(away, dir), 0);
}

static void a_permission_ends_when_its_time_is_over(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	struct peer *peer = peers_get(&f->d, &bob);

	assert_false(peer_is_allowed(peer));
	peer->allowed = true;
	assert_true(peer_is_allowed(peer));
	peer->allowed_until_s = wall_clock_s() + 100;
	assert_true(peer_is_allowed(peer));
	peer->allowed_until_s = wall_clock_s() - 1;
	assert_false(peer_is_allowed(peer));
	peer->allowed_until_s = 0;
	peer->held = true;
	assert_false(peer_is_allowed(peer));
}

static void a_key_is_trusted_once_pinned_and_a_changed_one_never(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	struct peer *peer = peers_get(&f->d, &bob);
	struct crypto_key *key, *other_key;
	struct crypto_cert *cert, *other, *expired, *carol;
	char old[CRYPTO_FINGERPRINT_BYTES], new[CRYPTO_FINGERPRINT_BYTES];
	struct problem p;

	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &key), 0);
	assert_int_equal(crypto_key_generate(CRYPTO_KEY_P256, &other_key), 0);
	cert = issue(f, key, "bob@b.test", wall_clock_s());
	other = issue(f, other_key, "bob@b.test", wall_clock_s());
	carol = issue(f, key, "carol@b.test", wall_clock_s());
	expired = issue(f, key, "bob@b.test", wall_clock_s() - 100 * 86400);

	assert_int_equal(peers_judge(&f->d, peer, cert, &p), PEER_DISTRUSTED); /* domain unknown */
	assert_non_null(strstr(p.error, "b.test"));
	assert_int_equal(domains_set(&f->d.domains, "b.test", f->domain_cert), 0);
	assert_int_equal(peers_judge(&f->d, peer, cert, &p), PEER_UNPINNED);
	assert_int_equal(peers_pin(&f->d, peer, crypto_cert_spki_hash(cert)), 0);
	assert_int_equal(peers_judge(&f->d, peer, cert, &p), PEER_TRUSTED);
	assert_int_equal(peers_judge(&f->d, peer, carol, &p), PEER_DISTRUSTED);
	assert_int_equal(peers_judge(&f->d, peer, expired, &p), PEER_DISTRUSTED);

	assert_int_equal(peers_judge(&f->d, peer, other, &p), PEER_DISTRUSTED);
	assert_int_equal(p.code, CTL_UNTRUSTED);
	crypto_cert_fingerprint(cert, old);
	crypto_cert_fingerprint(other, new);
	assert_non_null(strstr(p.error, old));
	assert_non_null(strstr(p.error, new));
	assert_non_null(strstr(p.error, "known-peers/bob@b.test.json"));
	assert_non_null(strstr(p.hint, "q2q-tun peers pin bob@b.test SHA256:"));

	crypto_cert_unref(cert);
	crypto_cert_unref(other);
	crypto_cert_unref(expired);
	crypto_cert_unref(carol);
	crypto_key_free(key);
	crypto_key_free(other_key);
}

/* ---- virtual addresses ---- */

static void a_name_that_was_made_to_collide_takes_nobodys_address(void **state)
{
	/* Found by trying: both have the hash of 100.88.58.60. */
	const struct q2q_address bob = user("bob@b.test"), mallory = user("m1b511e@b.test");
	struct fixture *f = *state;
	struct identity own = { .address = bob };
	struct link link = { .daemon = &f->d, .identity = &own };
	uint8_t spki[CRYPTO_HASH_BYTES] = { 1 };
	struct vip vip;

	assert_int_equal(vip_from_address("bob@b.test", &vip), 0);
	/* Not ours: the monitor ends a daemon that asks for a link from an address to itself. */
	link.peer = peers_get(&f->d, &mallory);
	assert_int_equal(link_choose_addresses(&link), 0);
	assert_memory_equal(link.shown.own4, vip.ip4, 4);
	assert_memory_not_equal(link.shown.peer4, vip.ip4, 4);
	assert_int_equal(peers_forget(&f->d, link.peer), 0);
	/* Nor that of another peer, whose tunnel is down. */
	own.address = user("alice@a.test");
	assert_int_equal(peers_pin(&f->d, peers_get(&f->d, &bob), spki), 0);
	link.peer = peers_get(&f->d, &mallory);
	assert_int_equal(link_choose_addresses(&link), 0);
	assert_memory_not_equal(link.shown.peer4, vip.ip4, 4);
	/* Who was there first keeps it, also when both are known. */
	assert_int_equal(peers_pin(&f->d, link.peer, spki), 0);
	link.peer->pinned_at_s += 10;
	link.peer = peers_find(&f->d, "bob@b.test");
	assert_int_equal(link_choose_addresses(&link), 0);
	assert_memory_equal(link.shown.peer4, vip.ip4, 4);
}

/* ---- domains, identities ---- */

static void a_pinned_domain_and_its_server_survive(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(domains_set(&f->d.domains, "b.test", f->domain_cert), 0);
	assert_int_equal(domains_set_server(&f->d.domains, "b.test", "192.0.2.1:8788"), 0);
	restart(f);
	assert_non_null(domains_pin(&f->d.domains, "b.test"));
	assert_true(crypto_cert_same_key(domains_pin(&f->d.domains, "b.test"), f->domain_cert));
	assert_string_equal(domains_server(&f->d.domains, "b.test"), "192.0.2.1:8788");
	assert_int_equal(domains_forget(&f->d.domains, "b.test"), 0);
	restart(f);
	assert_null(domains_pin(&f->d.domains, "b.test"));
}

static void a_damaged_pin_of_a_domain_is_not_a_missing_one(void **state)
{
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES];

	domains_path(&f->d.domains, "b.test", path, sizeof(path));
	assert_int_equal(files_write(path, "-----BEGIN", 10), 0);
	restart(f);
	assert_null(domains_pin(&f->d.domains, "b.test"));
	assert_true(domains_damaged(&f->d.domains, "b.test"));
	assert_false(domains_damaged(&f->d.domains, "c.test"));
	assert_int_equal(domains_forget(&f->d.domains, "b.test"), 0);
	assert_false(domains_damaged(&f->d.domains, "b.test"));
	restart(f);
	assert_false(domains_damaged(&f->d.domains, "b.test"));
}

static void a_key_without_certificate_is_used_again_after_a_crash(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	uint8_t first[CRYPTO_HASH_BYTES], second[CRYPTO_HASH_BYTES], third[CRYPTO_HASH_BYTES];
	struct crypto_key *key;

	assert_int_equal(identities_pending_key(&f->d.identities, &bob, false, &key), 0);
	crypto_key_spki_hash(key, first);
	crypto_key_free(key);
	restart(f);
	assert_int_equal(identities_pending_key(&f->d.identities, &bob, false, &key), 0);
	crypto_key_spki_hash(key, second);
	crypto_key_free(key);
	assert_memory_equal(first, second, sizeof(first));
	assert_int_equal(identities_pending_key(&f->d.identities, &bob, true, &key), 0);
	crypto_key_spki_hash(key, third);
	crypto_key_free(key);
	assert_memory_not_equal(first, third, sizeof(first));
}

static void an_identity_survives_and_can_be_replaced(void **state)
{
	struct fixture *f = *state;
	const struct q2q_address bob = user("bob@b.test");
	struct identity *id, *again;
	struct crypto_cert *cert;
	struct crypto_key *key;

	assert_null(identities_default(&f->d.identities, NULL));
	assert_int_equal(identities_pending_key(&f->d.identities, &bob, false, &key), 0);
	cert = issue(f, key, "bob@b.test", wall_clock_s());
	assert_int_equal(identities_add(&f->d.identities, &bob, cert, key, &id), 0);
	assert_ptr_equal(identities_default(&f->d.identities, NULL), id);
	restart(f);
	id = identities_find(&f->d.identities, "bob@b.test");
	assert_non_null(id);
	assert_true(crypto_cert_matches_key(id->cert, key));
	crypto_cert_unref(cert);
	cert = issue(f, key, "bob@b.test", wall_clock_s() + 5);
	assert_int_equal(identities_add(&f->d.identities, &bob, cert, key, &again), 0);
	assert_ptr_equal(again, id);
	assert_int_equal(f->d.identities.n, 1);
	crypto_cert_unref(cert);
	crypto_key_free(key);
}

/* ---- requests ---- */

static void the_list_of_requests_is_bounded_and_survives(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < REQUESTS_MAX + 50; i++) {
		char text[64];
		struct q2q_address address;

		snprintf(text, sizeof(text), "u%u@d%u.test", i, i % 16);
		address = user(text);
		requests_note(&f->d, &address, NULL);
		/* Time passes: otherwise they are all as old. */
		f->d.requests.list[f->d.requests.n - 1].last_s -=
			i < REQUESTS_MAX ? (int64_t)(REQUESTS_MAX - i) : 0;
	}
	assert_int_equal(f->d.requests.n, REQUESTS_MAX);
	requests_save(&f->d);
	restart(f);
	assert_int_equal(f->d.requests.n, REQUESTS_MAX);
	assert_non_null(requests_find(&f->d, "u300@d12.test"));
	assert_null(requests_find(&f->d, "u3@d3.test"));
	requests_remove(&f->d, "u300@d12.test");
	restart(f);
	assert_null(requests_find(&f->d, "u300@d12.test"));
}

/* A domain has as many users as its operator likes. */
static void one_domain_does_not_push_the_requests_of_others_out(void **state)
{
	struct fixture *f = *state;
	struct q2q_address address = user("bob@b.test");

	requests_note(&f->d, &address, NULL);
	for (unsigned i = 0; i < 2 * REQUESTS_MAX; i++) {
		char text[64];

		snprintf(text, sizeof(text), "u%u@flood.test", i);
		address = user(text);
		requests_note(&f->d, &address, NULL);
	}
	assert_non_null(requests_find(&f->d, "bob@b.test"));
	assert_int_equal(f->d.requests.n, 1 + REQUESTS_OF_DOMAIN_MAX);
}

static void a_damaged_list_of_requests_is_put_aside(void **state)
{
	struct fixture *f = *state;
	char path[FILES_PATH_BYTES], aside[FILES_PATH_BYTES];

	assert_int_equal(files_path(path, f->dir, NULL, "requests", ".json"), 0);
	assert_int_equal(files_path(aside, f->dir, NULL, "requests", ".json.damaged"), 0);
	assert_int_equal(files_write(path, "garbage", 7), 0);
	restart(f);
	assert_int_equal(f->d.requests.n, 0);
	assert_int_equal(access(aside, F_OK), 0);
}

/* ---- names ---- */

static void who_asks_for_a_name_and_leaves_does_no_harm(void **state)
{
	struct fixture *f = *state;
	const struct names_request request = { .kind = NAMES_BY_NAME, .name = "bob.b.test.q2q" };
	uint8_t bytes[NAMES_REQUEST_BYTES];
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/names", f->dir);
	f->options.names_path = path;
	assert_int_equal(names_start(&f->d), 0);
	assert_int_equal(net_connect_unix(path, &fd), 0);
	names_encode_request(&request, bytes);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	close(fd); /* the reply meets a closed socket */
	for (int i = 0; i < 4; i++)
		assert_int_equal(net_loop_turn(f->d.loop, false), 0);
	names_stop(&f->d);
	f->options.names_path = NULL;
}

/* ---- two ways to the server ---- */

static struct endpoint at(const char *text)
{
	struct endpoint e;

	assert_int_equal(endpoint_parse(text, true, &e), 0);
	return e;
}

static void ports_are_tried_in_order_of_preference(void **state)
{
	struct net_resolved found = { .n_endpoints = 2, .from_srv = true };
	struct lanes l = { 0 };
	struct endpoint want;

	(void)state;
	found.endpoints[0] = at("192.0.2.1:9000");
	found.endpoints[1] = at("192.0.2.2:9000");
	lanes_plan(&l, &found, false);
	assert_int_equal(l.first, LANE_CLEAR);
	assert_int_equal(l.lanes[LANE_CLEAR].n_endpoints, 4);
	want = at("192.0.2.2:9000");
	assert_true(endpoint_equal(&l.lanes[LANE_CLEAR].endpoints[1], &want));
	want = at("192.0.2.1:8788");
	assert_true(endpoint_equal(&l.lanes[LANE_CLEAR].endpoints[2], &want));
	assert_int_equal(l.lanes[LANE_TLS].n_endpoints, 2);
	want = at("192.0.2.1:443");
	assert_true(endpoint_equal(&l.lanes[LANE_TLS].endpoints[0], &want));
	/* The user named the port: no other one but 443. */
	lanes_plan(&l, &found, true);
	assert_int_equal(l.lanes[LANE_CLEAR].n_endpoints, 2);
	assert_int_equal(l.lanes[LANE_TLS].n_endpoints, 2);
	/* SRV names 443: that is TLS, and first. */
	found.endpoints[0] = at("192.0.2.1:443");
	found.n_endpoints = 1;
	lanes_plan(&l, &found, false);
	assert_int_equal(l.first, LANE_TLS);
	assert_int_equal(l.lanes[LANE_TLS].n_endpoints, 1);
	assert_int_equal(l.lanes[LANE_CLEAR].n_endpoints, 1);
	lanes_plan(&l, &found, true);
	assert_int_equal(l.lanes[LANE_CLEAR].n_endpoints, 0);
}

struct arrival {
	unsigned n;
	int error, fd;
	enum lane_kind kind;
	bool done;
};

static void on_arrival(void *user, int error, int fd, const struct endpoint *remote,
		       enum lane_kind kind)
{
	struct arrival *a = user;

	assert_true((error == 0) == (fd >= 0));
	assert_non_null(remote);
	*a = (struct arrival){ a->n + 1, error, fd, kind, true };
}

static void on_accept(void *user, int fd, const struct endpoint *from)
{
	(void)user;
	(void)from;
	close(fd);
}

/* The plan of a test has ports of its own: 443 may be somebody's. */
static void plan(struct lanes *l, const struct endpoint *clear, const struct endpoint *tls)
{
	*l = (struct lanes){ 0 };
	for (unsigned i = 0; i < LANE_KIND_COUNT; i++)
		l->lanes[i] =
			(struct lane){ .lanes = l, .kind = (enum lane_kind)i, .n_endpoints = 1 };
	l->lanes[LANE_CLEAR].endpoints[0] = *clear;
	l->lanes[LANE_TLS].endpoints[0] = *tls;
}

static void turn_until(struct fixture *f, const bool *done)
{
	while (!*done)
		assert_int_equal(net_loop_turn(f->d.loop, true), 0);
}

static void a_refused_lane_gives_way_at_once(void **state)
{
	struct fixture *f = *state;
	const struct endpoint any = at("127.0.0.1:0");
	struct net_listener *open, *shut;
	struct endpoint good, bad;
	struct arrival a = { 0 };
	struct lanes l;

	assert_int_equal(net_listen_tcp(f->d.loop, &any, on_accept, NULL, &open), 0);
	assert_int_equal(net_listen_tcp(f->d.loop, &any, on_accept, NULL, &shut), 0);
	good = net_listener_local(open);
	bad = net_listener_local(shut);
	net_listener_free(shut);
	plan(&l, &bad, &good);
	assert_int_equal(lanes_start(&l, f->d.loop, false, US_PER_S, on_arrival, &a), 0);
	turn_until(f, &a.done);
	assert_int_equal(a.error, 0);
	assert_int_equal(a.kind, LANE_TLS);
	assert_false(lanes_has_other(&l)); /* that one was tried */
	close(a.fd);
	/* The other way round: what won may be deaf, and the loser has not been tried. */
	plan(&l, &good, &bad);
	a.done = false;
	assert_int_equal(lanes_start(&l, f->d.loop, false, US_PER_S, on_arrival, &a), 0);
	turn_until(f, &a.done);
	assert_int_equal(a.kind, LANE_CLEAR);
	close(a.fd);
	assert_true(lanes_has_other(&l));
	a.done = false;
	assert_true(lanes_other(&l));
	turn_until(f, &a.done);
	assert_true(a.error < 0);
	assert_int_equal(a.n, 3);
	assert_false(lanes_other(&l));
	lanes_cancel(&l);
	/* Neither: the fault is that of the usual way. */
	plan(&l, &bad, &bad);
	a.done = false;
	assert_int_equal(lanes_start(&l, f->d.loop, false, US_PER_S, on_arrival, &a), 0);
	turn_until(f, &a.done);
	assert_int_equal(a.error, -ECONNREFUSED);
	assert_int_equal(a.kind, LANE_CLEAR);
	lanes_cancel(&l);
	net_listener_free(open);
}

static void what_worked_in_a_network_is_remembered_for_a_while(void **state)
{
	struct lanes_memory m = { .next = 0 };
	struct lanes l = { .first = LANE_CLEAR };

	(void)state;
	l.lanes[LANE_CLEAR].n_endpoints = l.lanes[LANE_TLS].n_endpoints = 1;
	lanes_remember(&m, 7, &l, LANE_TLS, US_PER_S);
	assert_true(lanes_recall(&m, 7, 2 * US_PER_S));
	assert_false(lanes_recall(&m, 8, 2 * US_PER_S));
	assert_false(lanes_recall(&m, 7, US_PER_S + LANES_MEMORY_US));
	/* That it works with a head start says nothing of the other one. */
	l.first = LANE_TLS;
	lanes_remember(&m, 9, &l, LANE_TLS, US_PER_S);
	assert_false(lanes_recall(&m, 9, US_PER_S));
	/* The usual port works again. */
	lanes_remember(&m, 7, &l, LANE_CLEAR, US_PER_S);
	assert_false(lanes_recall(&m, 7, 2 * US_PER_S));
	/* Bounded: the oldest is forgotten. */
	l.first = LANE_CLEAR;
	for (uint64_t n = 100; n <= 100 + LANES_NETWORKS_MAX; n++)
		lanes_remember(&m, n, &l, LANE_TLS, US_PER_S);
	assert_false(lanes_recall(&m, 100, US_PER_S));
	assert_true(lanes_recall(&m, 101, US_PER_S));
}

/* ---- the configuration, again ---- */

static void read_options(struct fixture *f, const char *text, struct daemon_options *ret)
{
	char path[128], error[512] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/test.conf", f->dir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(daemon_options_init(ret), 0);
	if (daemon_options_load(ret, path, error, sizeof(error)))
		fail_msg("%s", error);
}

static struct daemon_changes renew(struct fixture *f, struct daemon_options *now, const char *text)
{
	struct daemon_options fresh;
	struct daemon_changes changes;

	read_options(f, text, &fresh);
	daemon_options_renew(now, &fresh, &changes);
	return changes;
}

static bool nothing_changed(const struct daemon_changes *c)
{
	return !c->log_level && !c->default_identity && !c->stun && !c->interfaces &&
	       !c->port_mapping && !c->keepalive && !c->tunnels && !c->trust && !*c->restart;
}

static void each_option_that_changes_is_noticed(void **state)
{
	static const struct {
		const char *text;
		size_t flag; /* the one that is set, and no other */
	} cases[] = {
#define FLAG(name) offsetof(struct daemon_changes, name)
		{ "[daemon]\nlog-level = error\n", FLAG(log_level) },
		{ "[identity]\ndefault = a@b.test\n", FLAG(default_identity) },
		{ "[network]\nstun = a:1\n", FLAG(stun) },
		{ "[network]\nexclude-interface = eth1\n", FLAG(interfaces) },
		{ "[network]\nvirtual-interfaces = yes\n", FLAG(interfaces) },
		{ "[network]\nport-mapping = pcp\n", FLAG(port_mapping) },
		{ "[network]\nport-mapping-lifetime = 100\n", FLAG(port_mapping) },
		{ "[network]\nkeepalive-min = 20\n", FLAG(keepalive) },
		{ "[network]\nkeepalive-max = 40\n", FLAG(keepalive) },
		{ "[network]\ndscp = copy\n", FLAG(tunnels) },
		{ "[network]\nparity = off\n", FLAG(tunnels) },
		{ "[network]\ncongestion-control = cubic\n", FLAG(tunnels) },
		{ "[trust]\naccept-new = yes\n", FLAG(trust) },
		{ "[domain b.test]\nserver = a:1\n", FLAG(trust) },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct daemon_options o;
		struct daemon_changes c;
		bool *flag = (bool *)((char *)&c + cases[i].flag);

		read_options(f, "", &o);
		o.upnp_fd = 5; /* there is one to talk UPnP */
		c = renew(f, &o, cases[i].text);
		assert_true(*flag);
		*flag = false;
		assert_true(nothing_changed(&c));
		/* It is in use now, so the same again is no change; and back again is one. */
		c = renew(f, &o, cases[i].text);
		assert_true(nothing_changed(&c));
		c = renew(f, &o, "");
		assert_true(*flag);
		assert_string_equal(c.restart, "");
		o.upnp_fd = -1;
		daemon_options_fini(&o);
	}
}

static void what_takes_a_restart_stays_and_is_named(void **state)
{
	static const char *const text =
		"[daemon]\nstate-dir = /s\ncontrol = /c\nnames-socket = /n\nuser = u\nport = 7\n"
		"workers = 2\naead-backend = openssl\n[network]\ntcp-port = 9\ndscp = copy\n";
	struct fixture *f = *state;
	struct daemon_options o;
	struct daemon_changes c;

	read_options(f, "[daemon]\nstate-dir = /first\nport = 6\n", &o);
	o.monitor_fd = 3;
	o.operator_gid = 4;
	c = renew(f, &o, text);
	assert_string_equal(c.restart, "state-dir, control, names-socket, user, port, workers, "
				       "aead-backend, tcp-port");
	assert_true(c.tunnels);
	assert_true(o.copy_dscp);
	assert_string_equal(o.state_dir, "/first");
	assert_int_equal(o.port, 6);
	assert_int_equal(o.n_workers, 1);
	assert_int_equal(o.tcp_port, DAEMON_TCP_PORT_AUTO);
	assert_int_equal(o.monitor_fd, 3);
	assert_int_equal(o.operator_gid, 4);
	/* Named each time, for it still does not hold. */
	c = renew(f, &o, text);
	assert_non_null(strstr(c.restart, "workers"));
	assert_false(c.tunnels);
	o.monitor_fd = -1;
	daemon_options_fini(&o);
}

static void upnp_that_was_off_takes_a_restart(void **state)
{
	struct fixture *f = *state;
	struct daemon_options o;
	struct daemon_changes c;

	read_options(f, "[network]\nport-mapping = off\n", &o);
	c = renew(f, &o, "[network]\nport-mapping = pcp\n");
	assert_true(c.port_mapping);
	assert_string_equal(c.restart, "");
	c = renew(f, &o, "[network]\nport-mapping = auto\n");
	assert_true(c.port_mapping);
	assert_non_null(strstr(c.restart, "UPnP"));
	daemon_options_fini(&o);
}

static void the_configured_default_identity_gives_way_to_the_chosen_one(void **state)
{
	struct fixture *f = *state;
	struct identity ids[3];

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		char text[] = "a@b.test";

		text[0] = (char)('a' + i);
		ids[i] = (struct identity){ .address = user(text) };
		TAILQ_INSERT_TAIL(&f->d.identities.list, &ids[i], entry);
	}
	assert_ptr_equal(identities_default(&f->d.identities, NULL), &ids[0]);
	f->d.identities.configured = "b@b.test";
	assert_ptr_equal(identities_default(&f->d.identities, NULL), &ids[1]);
	assert_int_equal(identities_set_default(&f->d.identities, "c@b.test"), 0);
	assert_ptr_equal(identities_default(&f->d.identities, NULL), &ids[2]);
	f->d.identities.configured = NULL;
	assert_ptr_equal(identities_default(&f->d.identities, NULL), &ids[2]);
	TAILQ_INIT(&f->d.identities.list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(a_file_is_replaced_whole_and_private),
		TEST(writes_take_their_place_in_order),
		TEST(a_write_that_fails_is_told_of_and_stops_no_other),
		TEST(what_the_user_said_about_a_peer_survives),
		TEST(a_file_that_cannot_be_read_is_left_alone),
		TEST(a_pin_that_makes_no_sense_is_not_a_missing_pin),
		TEST(what_cannot_be_stored_does_not_hold),
		TEST(a_permission_ends_when_its_time_is_over),
		TEST(a_key_is_trusted_once_pinned_and_a_changed_one_never),
		TEST(a_name_that_was_made_to_collide_takes_nobodys_address),
		TEST(a_pinned_domain_and_its_server_survive),
		TEST(a_damaged_pin_of_a_domain_is_not_a_missing_one),
		TEST(a_key_without_certificate_is_used_again_after_a_crash),
		TEST(an_identity_survives_and_can_be_replaced),
		TEST(the_list_of_requests_is_bounded_and_survives),
		TEST(one_domain_does_not_push_the_requests_of_others_out),
		TEST(a_damaged_list_of_requests_is_put_aside),
		TEST(who_asks_for_a_name_and_leaves_does_no_harm),
		TEST(ports_are_tried_in_order_of_preference),
		TEST(a_refused_lane_gives_way_at_once),
		TEST(what_worked_in_a_network_is_remembered_for_a_while),
		TEST(each_option_that_changes_is_noticed),
		TEST(what_takes_a_restart_stays_and_is_named),
		TEST(upnp_that_was_off_takes_a_restart),
		TEST(the_configured_default_identity_gives_way_to_the_chosen_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Whose is a datagram or a signal? An index of all names of all sessions: what
 * arrives costs one lookup, however many peers there are, and whoever sent it.
 *
 * Sessions change their names by themselves, so each pump compares and corrects.
 * Names come from the network: the hash is seeded.
 */
#include "daemon/internal.h"

#include <stdio.h>

static unsigned hash_of(const struct daemon *d, const struct session_name *name)
{
	return (unsigned)hash_bytes(&d->seed, name, sizeof(*name));
}

/* ---- of all workers ---- */

struct directory {
	pthread_mutex_t mutex;
	struct link_name *names;
};

int directory_init(struct daemon *d)
{
	d->directory = calloc(1, sizeof(*d->directory));
	return d->directory ? -pthread_mutex_init(&d->directory->mutex, NULL) : -ENOMEM;
}

void directory_fini(struct daemon *d)
{
	if (d->directory)
		pthread_mutex_destroy(&d->directory->mutex);
	free(d->directory);
	d->directory = NULL;
}

static void directory_add(struct daemon *d, struct link_name *entry)
{
	struct directory *all = d->directory;

	pthread_mutex_lock(&all->mutex);
	HASH_ADD_BYHASHVALUE(directory_hh, all->names, name, sizeof(entry->name),
			     hash_of(d, &entry->name), entry);
	entry->listed = entry->directory_hh.tbl != NULL;
	pthread_mutex_unlock(&all->mutex);
}

static void directory_remove(struct daemon *d, struct link_name *entry)
{
	pthread_mutex_lock(&d->directory->mutex);
	HASH_DELETE(directory_hh, d->directory->names, entry);
	pthread_mutex_unlock(&d->directory->mutex);
	entry->listed = false;
}

struct worker *directory_find(struct daemon *d, enum session_name_kind kind, const void *bytes,
			      size_t n_bytes)
{
	struct session_name name = { .kind = (uint8_t)kind };
	struct link_name *entry;
	struct worker *w;

	memcpy(name.bytes, bytes, n_bytes);
	pthread_mutex_lock(&d->directory->mutex);
	HASH_FIND_BYHASHVALUE(directory_hh, d->directory->names, &name, sizeof(name),
			      hash_of(d, &name), entry);
	w = entry ? entry->link->worker : NULL;
	pthread_mutex_unlock(&d->directory->mutex);
	return w;
}

/* ---- of one ---- */

static void enter(struct link *link, struct link_name *entry, const struct session_name *name)
{
	entry->name = *name;
	entry->link = link;
	HASH_ADD_BYHASHVALUE(hh, link->worker->names_index, name, sizeof(entry->name),
			     hash_of(link->daemon, name), entry);
	/* Without memory it is entered by one of the next pumps. */
	entry->entered = entry->hh.tbl != NULL;
	if (entry->entered && link->daemon->directory)
		directory_add(link->daemon, entry);
}

static void take_out(struct link *link, struct link_name *entry)
{
	struct worker *w = link->worker;

	if (w->last_found == entry)
		w->last_found = NULL;
	if (entry->listed)
		directory_remove(w->daemon, entry);
	if (entry->entered)
		HASH_DELETE(hh, w->names_index, entry);
	entry->entered = false;
}

void index_remove(struct link *link)
{
	for (size_t i = 0; i < SESSION_NAMES_MAX; i++)
		take_out(link, &link->names[i]);
}

void index_update(struct link *link)
{
	struct session_name names[SESSION_NAMES_MAX];
	const size_t n = session_names(link->session, names);

	for (size_t i = 0; i < SESSION_NAMES_MAX; i++) {
		struct link_name *entry = &link->names[i];

		if (entry->entered && i < n && !memcmp(&entry->name, &names[i], sizeof(names[i])))
			continue;
		take_out(link, entry);
		if (i < n)
			enter(link, entry, &names[i]);
	}
}

struct link *index_find(struct worker *w, enum session_name_kind kind, const void *bytes,
			size_t n_bytes)
{
	struct session_name name = { .kind = (uint8_t)kind };
	struct link_name *entry = w->last_found;

	memcpy(name.bytes, bytes, n_bytes);
	/* Most come in trains. */
	if (!entry || memcmp(&entry->name, &name, sizeof(name)) != 0)
		HASH_FIND_BYHASHVALUE(hh, w->names_index, &name, sizeof(name),
				      hash_of(w->daemon, &name), entry);
	if (!entry)
		return NULL;
	w->last_found = entry;
	return entry->link;
}

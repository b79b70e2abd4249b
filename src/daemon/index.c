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

static void enter(struct link *link, struct link_name *entry, const struct session_name *name)
{
	entry->name = *name;
	entry->link = link;
	HASH_ADD_BYHASHVALUE(hh, link->worker->names_index, name, sizeof(entry->name),
			     hash_of(link->daemon, name), entry);
	/* Without memory it is entered by one of the next pumps. */
	entry->entered = entry->hh.tbl != NULL;
}

static void take_out(struct link *link, struct link_name *entry)
{
	struct worker *w = link->worker;

	if (w->last_found == entry)
		w->last_found = NULL;
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

/*
 * Gives back memory that was needed for a while. Besides the heap that is the code
 * of libraries that runs once: IPsec-MB tests all its algorithms when it is set up, OpenSSL
 * loads its own and shakes hands, and that keeps 6 MiB of clean pages mapped. The
 * kernel drops those when it is short of memory; a machine of little memory and
 * many services is better off if it need not be. What is still used comes back by
 * itself from the page cache, sixteen pages at a fault.
 */
#include "config.h"

#include "base/base.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEAP_PAD_BYTES ((size_t)64 << 10)

/* Code that the dynamic linker wrote into would come back without what it wrote. */
static bool has_text_relocations(const struct dl_phdr_info *object, const ElfW(Phdr) * dynamic)
{
	const ElfW(Dyn) *d = (const void *)(object->dlpi_addr + dynamic->p_vaddr);

	for (; d->d_tag != DT_NULL; d++)
		if (d->d_tag == DT_TEXTREL || (d->d_tag == DT_FLAGS && d->d_un.d_val & DF_TEXTREL))
			return true;
	return false;
}

static bool is_pristine(const struct dl_phdr_info *object)
{
	for (size_t i = 0; i < object->dlpi_phnum; i++)
		if (object->dlpi_phdr[i].p_type == PT_DYNAMIC)
			return !has_text_relocations(object, &object->dlpi_phdr[i]);
	return false;
}

/* A segment nobody may write is as the file is: it can be read again. */
static void give_back_segment(const struct dl_phdr_info *object, const ElfW(Phdr) * segment)
{
	const uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t from = object->dlpi_addr + segment->p_vaddr;
	const uintptr_t start = from & ~(page_bytes - 1);

	/* Nothing is lost if the kernel will not. */
	(void)madvise((void *)start, from + segment->p_memsz - start, MADV_DONTNEED);
}

static int give_back_object(struct dl_phdr_info *object, size_t info_bytes, void *user)
{
	(void)info_bytes;
	(void)user;
	if (!is_pristine(object))
		return 0;
	for (size_t i = 0; i < object->dlpi_phnum; i++)
		if (object->dlpi_phdr[i].p_type == PT_LOAD &&
		    !(object->dlpi_phdr[i].p_flags & PF_W))
			give_back_segment(object, &object->dlpi_phdr[i]);
	return 0;
}

void footprint_trim(void)
{
	malloc_trim(HEAP_PAD_BYTES);
}

void footprint_shrink(void)
{
	footprint_trim();
	dl_iterate_phdr(give_back_object, NULL);
}

/* Planned memory: anonymous mappings, reserved as address space and committed in steps. */
#ifndef MFI_OS_VMEM_H
#define MFI_OS_VMEM_H

#include "base/status.h"

typedef struct mfi_vmem {
    void *base; /* page-aligned; NULL when released */
    size_t reserved, committed;
} mfi_vmem;

/* Reserves address space that can't be touched yet. */
mf_status mfi_vmem_reserve(mfi_vmem *vm, size_t bytes, mf_error *err);
/* Makes [0, bytes) usable (zeroed); never shrinks. */
mf_status mfi_vmem_commit(mfi_vmem *vm, size_t bytes, mf_error *err);
/* Reserve and commit at once; huge pages are asked for where they fit whole. */
mf_status mfi_vmem_alloc(mfi_vmem *vm, size_t bytes, mf_error *err);
void mfi_vmem_release(mfi_vmem *vm);
size_t mfi_vmem_page(void); /* bytes of a page */
/* Gives freed heap memory back to the system where the C library can, so that a reading of the
 * resident set says what is in use. */
void mfi_vmem_trim_heap(void);

#endif

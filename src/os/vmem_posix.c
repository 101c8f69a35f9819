/* Planned memory by mmap; see vmem.h. */
#include "os/vmem.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

size_t mfi_vmem_page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

mf_status mfi_vmem_reserve(mfi_vmem *vm, size_t bytes, mf_error *err)
{
    size_t size = (size_t)mfi_align_up(bytes ? bytes : 1, mfi_vmem_page());
    void *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "can't reserve %zu bytes of address space: %s", size,
                        strerror(errno));
    *vm = (mfi_vmem){base, size, 0};
    return MF_OK;
}

mf_status mfi_vmem_commit(mfi_vmem *vm, size_t bytes, mf_error *err)
{
    size_t want = (size_t)mfi_align_up(bytes, mfi_vmem_page());
    MFI_ASSERT(want <= vm->reserved);
    if (want <= vm->committed)
        return MF_OK;
    if (mprotect((char *)vm->base + vm->committed, want - vm->committed, PROT_READ | PROT_WRITE) !=
        0)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "can't commit %zu bytes of memory: %s",
                        want - vm->committed, strerror(errno));
    vm->committed = want;
    return MF_OK;
}

mf_status mfi_vmem_alloc(mfi_vmem *vm, size_t bytes, mf_error *err)
{
    MFI_TRY(mfi_vmem_reserve(vm, bytes, err));
    mf_status status = mfi_vmem_commit(vm, bytes, err);
    if (status != MF_OK) {
        mfi_vmem_release(vm);
        return status;
    }
#ifdef MADV_HUGEPAGE
    /* Only whole huge pages inside the region: nothing beyond the plan becomes resident. */
    uintptr_t begin = mfi_align_up((uintptr_t)vm->base, HUGE_PAGE);
    uintptr_t end = ((uintptr_t)vm->base + vm->reserved) & ~(uintptr_t)(HUGE_PAGE - 1);
    if (end > begin)
        madvise((void *)begin, end - begin, MADV_HUGEPAGE); /* advice: refusal costs speed only */
#endif
    return MF_OK;
}

void mfi_vmem_release(mfi_vmem *vm)
{
    if (vm->base)
        munmap(vm->base, vm->reserved);
    *vm = (mfi_vmem){0};
}

void mfi_vmem_trim_heap(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

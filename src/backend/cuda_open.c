/* Opening the CUDA module at run time: the library itself links no CUDA. Called by the engine, on
 * its thread. The module is looked for beside what this code is in (program or library), in the
 * library folder next to that, and where the system's loader looks; it stays loaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "backend/cuda/cuda_module.h"

#define MODULE "libmoeflux-cuda.so"

static void *open_beside(const char *sub)
{
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)mfi_backend_cuda_open, &info) || !info.dli_fname)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    int dir = slash ? (int)(slash - info.dli_fname) : 0;
    int n = snprintf(path, sizeof path, "%.*s/%s%s", dir, info.dli_fname, sub, MODULE);
    return slash && n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static mf_status find_module(const mfi_cuda_module **module, mf_error *err)
{
    void *so = open_beside("");
    if (!so)
        so = open_beside("../");
    if (!so)
        so = open_beside("../" MF_LIBDIR "/");
    if (!so)
        so = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no CUDA: %s can't be opened", MODULE);
    uint64_t (*layout)(void);
    const mfi_cuda_module *(*entry)(void);
    *(void **)&layout = dlsym(so, MFI_CUDA_MODULE_LAYOUT);
    *(void **)&entry = dlsym(so, MFI_CUDA_MODULE_ENTRY);
    if (!layout || !entry || layout() != mfi_cuda_layout()) {
        dlclose(so);
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no CUDA: %s is of another build", MODULE);
    }
    *module = entry();
    return MF_OK;
}

mf_status mfi_backend_cuda_open(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                                mf_error *err)
{
    const mfi_cuda_module *m = NULL;
    MFI_TRY(find_module(&m, err));
    return m->open(backend, index, facts, err);
}

mf_status mfi_backend_cuda_facts(uint32_t index, mfi_device_facts *facts, mf_error *err)
{
    const mfi_cuda_module *m = NULL;
    *facts = (mfi_device_facts){.index = index};
    MFI_TRY(find_module(&m, err));
    return m->facts(index, facts, err);
}

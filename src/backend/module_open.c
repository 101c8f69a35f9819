/* Opening a device's module; see module_open.h. Called by the engine, on its thread. */
#include "backend/module_open.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void *open_beside(const char *sub, const char *file)
{
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)mfi_module_open, &info) || !info.dli_fname)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    int dir = slash ? (int)(slash - info.dli_fname) : 0;
    int n = snprintf(path, sizeof path, "%.*s/%s%s", dir, info.dli_fname, sub, file);
    return slash && n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

mf_status mfi_module_open(const mfi_module_names *names, const mfi_cuda_module **module,
                          mf_error *err)
{
    void *so = open_beside("", names->file);
    if (!so)
        so = open_beside("../", names->file);
    if (!so)
        so = open_beside("../" MF_LIBDIR "/", names->file);
    if (!so)
        so = dlopen(names->file, RTLD_NOW | RTLD_LOCAL);
    if (!so)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no %s: %s can't be opened", names->what,
                        names->file);
    uint64_t (*layout)(void);
    const mfi_cuda_module *(*entry)(void);
    *(void **)&layout = dlsym(so, names->layout);
    *(void **)&entry = dlsym(so, names->entry);
    if (!layout || !entry || layout() != mfi_cuda_layout()) {
        dlclose(so);
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no %s: %s is of another build", names->what,
                        names->file);
    }
    *module = entry();
    return MF_OK;
}

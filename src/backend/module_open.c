/* Opening a device's module; see module_open.h. Called by the engine, on its thread. */
#include "backend/module_open.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct failure {
    char why[256]; /* of the first module that is there and can't be loaded; "": none is there */
} failure;

static void *open_at(const char *path, failure *f)
{
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *why = so ? NULL : dlerror();
    /* A name alone was looked for in the system's folders; whether it was there the loader says. */
    bool there = strchr(path, '/') ? access(path, F_OK) == 0
                                   : why && (strncmp(why, path, strlen(path)) != 0 ||
                                             !strstr(why, "No such file"));
    if (!so && there && why && !f->why[0])
        snprintf(f->why, sizeof f->why, ": %s", why);
    return so;
}

static void *open_beside(const char *sub, const char *file, failure *f)
{
    Dl_info info;
    char path[4096];
    if (!dladdr((void *)(uintptr_t)mfi_module_open, &info) || !info.dli_fname)
        return NULL;
    const char *slash = strrchr(info.dli_fname, '/');
    int dir = slash ? (int)(slash - info.dli_fname) : 0;
    int n = snprintf(path, sizeof path, "%.*s/%s%s", dir, info.dli_fname, sub, file);
    return slash && n > 0 && (size_t)n < sizeof path ? open_at(path, f) : NULL;
}

mf_status mfi_module_open(const mfi_module_names *names, const mfi_cuda_module **module,
                          mf_error *err)
{
    failure f = {""};
    void *so = open_beside("", names->file, &f);
    if (!so)
        so = open_beside("../", names->file, &f);
    if (!so)
        so = open_beside("../" MF_LIBDIR "/", names->file, &f);
    if (!so)
        so = open_at(names->file, &f);
    if (!so)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "no %s: %s can't be opened%s", names->what,
                        names->file, f.why);
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

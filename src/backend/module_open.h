/* Modules of devices, opened at run time: the library itself links neither CUDA nor Metal. */
#ifndef MFI_BACKEND_MODULE_OPEN_H
#define MFI_BACKEND_MODULE_OPEN_H

#include "backend/cuda/cuda_module.h"

typedef struct mfi_module_names {
    const char *what, *file;    /* "CUDA", "libmoeflux-cuda.so" */
    const char *layout, *entry; /* symbols */
} mfi_module_names;

/* Looked for beside what this code is in (program or library), in the library folder next to that,
 * and where the system's loader looks; it stays loaded. MF_ERR_UNSUPPORTED: there is none, or one
 * of another build. */
mf_status mfi_module_open(const mfi_module_names *names, const mfi_cuda_module **module,
                          mf_error *err);

#endif

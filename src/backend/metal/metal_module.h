/* What the Metal module exports: the same as CUDA's, under its own names. */
#ifndef MFI_BACKEND_METAL_MODULE_H
#define MFI_BACKEND_METAL_MODULE_H

#include "backend/cuda/cuda_module.h"

#define MFI_METAL_MODULE_LAYOUT "mfi_metal_module_layout"
#define MFI_METAL_MODULE_ENTRY  "mfi_metal_module_v1"

typedef mfi_cuda_module mfi_device_module;

static inline uint64_t mfi_device_layout(void)
{
    return mfi_cuda_layout();
}

#endif

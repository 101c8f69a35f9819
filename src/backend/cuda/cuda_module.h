/* What the module exports, and the check that module and library are of one build. */
#ifndef MFI_BACKEND_CUDA_MODULE_H
#define MFI_BACKEND_CUDA_MODULE_H

#include "backend/backend.h"

/* uint64_t (*)(void): mfi_cuda_layout() of the module's build. */
#define MFI_CUDA_MODULE_LAYOUT "mfi_cuda_module_layout"
/* const mfi_cuda_module *(*)(void) */
#define MFI_CUDA_MODULE_ENTRY "mfi_cuda_module_v1"

typedef struct mfi_cuda_module {
    mf_status (*facts)(uint32_t index, mfi_device_facts *facts, mf_error *err);
    mf_status (*open)(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                      mf_error *err);
} mfi_cuda_module;

/* Changes whenever a structure that crosses the border does (or very nearly so). */
static inline uint64_t mfi_cuda_layout(void)
{
    const uint64_t sizes[] = {sizeof(mfi_backend),
                              sizeof(mfi_device_ops),
                              sizeof(mfi_program),
                              sizeof(mfi_shape),
                              sizeof(mfi_op),
                              sizeof(mfi_program_weight),
                              sizeof(mfi_program_buf),
                              sizeof(mfi_expert_layout),
                              sizeof(mfi_step),
                              sizeof(mfi_layer_state),
                              sizeof(mfi_device_facts),
                              sizeof(mf_error),
                              MFI_N_OPS,
                              MFI_N_BUFS,
                              offsetof(mfi_shape, window)};
    uint64_t hash = 1469598103934665603u;
    for (size_t i = 0; i < MFI_ARRAY_LEN(sizes); i++)
        hash = (hash ^ sizes[i]) * 1099511628211u;
    return hash;
}

#endif

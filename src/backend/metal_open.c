/* Metal, by its module. Called by the engine, on its thread. */
#include "backend/metal/metal_module.h"
#include "backend/module_open.h"

static const mfi_module_names names = {"Metal", "libmoeflux-metal.so", MFI_METAL_MODULE_LAYOUT,
                                       MFI_METAL_MODULE_ENTRY};

mf_status mfi_backend_metal_open(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                                 mf_error *err)
{
    const mfi_device_module *m = NULL;
    MFI_TRY(mfi_module_open(&names, &m, err));
    return m->open(backend, index, facts, err);
}

mf_status mfi_backend_metal_facts(uint32_t index, mfi_device_facts *facts, mf_error *err)
{
    const mfi_device_module *m = NULL;
    *facts = (mfi_device_facts){.index = index};
    MFI_TRY(mfi_module_open(&names, &m, err));
    return m->facts(index, facts, err);
}

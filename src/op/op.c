/* Names of ops and buffers, for plans and messages. */
#include "op/op.h"

const char *mfi_op_name(mfi_op_code code)
{
    static const char *const names[] = {
#define MFI_OP_NAME(name) #name,
        MFI_OP_LIST(MFI_OP_NAME)
#undef MFI_OP_NAME
    };
    return code < MFI_N_OPS ? names[code] : "?";
}

const char *mfi_buf_name(mfi_buf_id id)
{
    static const char *const names[] = {
#define MFI_BUF_NAME(name) #name,
        MFI_BUF_LIST(MFI_BUF_NAME)
#undef MFI_BUF_NAME
    };
    return id < MFI_N_BUFS ? names[id] : "?";
}

/* Where an engine computes: takes the name of a device apart, opens it, and lists what there is.
 * Called on the application's thread. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine_int.h"

mf_status mfi_engine_device(const char *asked, mfi_backend **backend, mfi_device_facts *facts,
                            mf_error *err)
{
    uint32_t index = 0;
    if (!asked || strcmp(asked, "cpu") == 0)
        return MF_OK;
    if (strcmp(asked, "auto") == 0) {
        mf_status status = mfi_backend_cuda_open(backend, 0, facts, err);
        return status == MF_ERR_UNSUPPORTED ? MF_OK : status;
    }
    if (strncmp(asked, "cuda:", 5) == 0 && asked[5] >= '0' && asked[5] <= '9') {
        char *end;
        unsigned long n = strtoul(asked + 5, &end, 10);
        if (*end || n >= MFI_MAX_DEVICES)
            return mfi_fail(err, MF_ERR_ARGUMENT, "there is no device '%s'", asked);
        index = (uint32_t)n;
    } else if (strcmp(asked, "cuda") != 0) {
        return mfi_fail(err, MF_ERR_ARGUMENT,
                        "unknown device '%s' (known: auto, cpu, cuda, cuda:0, cuda:1, ...)", asked);
    }
    return mfi_backend_cuda_open(backend, index, facts, err);
}

static void put_device(mfi_buf *out, const mfi_device_facts *f, bool json)
{
    if (!json) {
        mfi_buf_fmt(out, "cuda:%u  %s, compute capability %u.%u, %.1f GiB, %.1f GiB free\n",
                    f->index, f->name, f->cc_major, f->cc_minor,
                    (double)f->total_bytes / (double)MFI_GIB,
                    (double)f->free_bytes / (double)MFI_GIB);
        return;
    }
    mfi_buf_fmt(out, ",{\"device\":\"cuda:%u\",\"name\":", f->index);
    mfi_json_put_str(out, f->name, strlen(f->name));
    mfi_buf_fmt(out,
                ",\"compute_capability\":\"%u.%u\",\"total_bytes\":%" PRIu64
                ",\"free_bytes\":%" PRIu64 "}",
                f->cc_major, f->cc_minor, f->total_bytes, f->free_bytes);
}

mf_status mf_devices_write(bool json, mf_write_fn write, void *user, mf_error *err)
{
    mfi_buf out = {0};
    mfi_device_facts facts = {0};
    mf_error why = {0};
    mf_status status = MF_OK;
    mfi_buf_str(&out, json ? "{\"schema\":1,\"devices\":[{\"device\":\"cpu\"}" : "cpu\n");
    uint32_t n = 1;
    for (uint32_t i = 0; i < n && i < MFI_MAX_DEVICES; i++) {
        mf_error one = {0};
        if (mfi_backend_cuda_facts(i, &facts, &one) == MF_OK)
            put_device(&out, &facts, json);
        else
            why = one;
        n = facts.n_devices;
    }
    if (json)
        mfi_buf_str(&out, "]");
    if (json && why.message[0]) {
        mfi_buf_str(&out, ",\"why_no_more\":");
        mfi_json_put_str(&out, why.message, strlen(why.message));
    } else if (why.message[0]) {
        mfi_buf_fmt(&out, "%s\n", why.message);
    }
    if (json)
        mfi_buf_str(&out, "}\n");
    if (out.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to print devices");
    else if (!write(user, out.data, out.len))
        status = mfi_fail(err, MF_ERR_CANCELLED, "the list's output was refused");
    mfi_buf_free(&out);
    return status;
}

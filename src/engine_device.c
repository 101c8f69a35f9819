/* Where an engine computes: takes the name of a device apart, opens it, and lists what there is.
 * Called on the application's thread. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine_int.h"

/* What there may be beside the CPU. */
static const struct kind {
    const char *name;
    mf_status (*open)(mfi_backend **backend, uint32_t index, mfi_device_facts *facts,
                      mf_error *err);
    mf_status (*facts)(uint32_t index, mfi_device_facts *facts, mf_error *err);
} kinds[] = {
    {"cuda", mfi_backend_cuda_open, mfi_backend_cuda_facts},
    {"metal", mfi_backend_metal_open, mfi_backend_metal_facts},
};

mf_status mfi_engine_device(const char *asked, mfi_backend **backend, mfi_device_facts *facts,
                            mf_error *err)
{
    if (!asked || strcmp(asked, "cpu") == 0)
        return MF_OK;
    if (strcmp(asked, "auto") == 0) {
        mf_status status = mfi_backend_cuda_open(backend, 0, facts, err);
        return status == MF_ERR_UNSUPPORTED ? MF_OK : status;
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(kinds); i++) {
        size_t len = strlen(kinds[i].name);
        const char *rest = asked + len;
        if (strncmp(asked, kinds[i].name, len) != 0)
            continue;
        if (!*rest)
            return kinds[i].open(backend, 0, facts, err);
        if (rest[0] != ':' || rest[1] < '0' || rest[1] > '9')
            continue;
        char *end;
        unsigned long n = strtoul(rest + 1, &end, 10);
        if (*end || n >= MFI_MAX_DEVICES)
            return mfi_fail(err, MF_ERR_ARGUMENT, "there is no device '%s'", asked);
        return kinds[i].open(backend, (uint32_t)n, facts, err);
    }
    return mfi_fail(err, MF_ERR_ARGUMENT,
                    "unknown device '%s' (known: auto, cpu, cuda, cuda:0, cuda:1, ..., metal)",
                    asked);
}

static void put_text(mfi_buf *out, const char *kind, const mfi_device_facts *f)
{
    mfi_buf_fmt(out, "%s:%u  %s, ", kind, f->index, f->name);
    if (f->unified)
        mfi_buf_fmt(out, "in the host's memory, up to %.1f GiB of it\n",
                    (double)f->total_bytes / (double)MFI_GIB);
    else
        mfi_buf_fmt(out, "compute capability %u.%u, %.1f GiB, %.1f GiB free\n", f->cc_major,
                    f->cc_minor, (double)f->total_bytes / (double)MFI_GIB,
                    (double)f->free_bytes / (double)MFI_GIB);
}

static void put_json(mfi_buf *out, const char *kind, const mfi_device_facts *f)
{
    mfi_buf_fmt(out, ",{\"device\":\"%s:%u\",\"name\":", kind, f->index);
    mfi_json_put_str(out, f->name, strlen(f->name));
    if (f->unified)
        mfi_buf_str(out, ",\"unified\":true");
    else
        mfi_buf_fmt(out, ",\"compute_capability\":\"%u.%u\"", f->cc_major, f->cc_minor);
    mfi_buf_fmt(out, ",\"total_bytes\":%" PRIu64 ",\"free_bytes\":%" PRIu64 "}", f->total_bytes,
                f->free_bytes);
}

/* The devices of one kind, and into `why` the reason where there is no more. */
static void put_kind(mfi_buf *out, const struct kind *k, bool json, mfi_buf *why)
{
    mfi_device_facts facts = {0};
    uint32_t n = 1;
    for (uint32_t i = 0; i < n && i < MFI_MAX_DEVICES; i++) {
        mf_error one = {0};
        if (k->facts(i, &facts, &one) == MF_OK)
            (json ? put_json : put_text)(out, k->name, &facts);
        else
            mfi_buf_fmt(why, "%s%s", why->len ? json ? "; " : "\n" : "", one.message);
        n = facts.n_devices;
    }
}

mf_status mf_devices_write(bool json, mf_write_fn write, void *user, mf_error *err)
{
    mfi_buf out = {0}, why = {0};
    mf_status status = MF_OK;
    mfi_buf_str(&out, json ? "{\"schema\":1,\"devices\":[{\"device\":\"cpu\"}" : "cpu\n");
    for (size_t i = 0; i < MFI_ARRAY_LEN(kinds); i++)
        put_kind(&out, &kinds[i], json, &why);
    if (json)
        mfi_buf_str(&out, "]");
    if (json && why.len) {
        mfi_buf_str(&out, ",\"why_no_more\":");
        mfi_json_put_str(&out, why.data, why.len);
    } else if (why.len) {
        mfi_buf_fmt(&out, "%s\n", why.data);
    }
    if (json)
        mfi_buf_str(&out, "}\n");
    if (out.failed || why.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to print devices");
    else if (!write(user, out.data, out.len))
        status = mfi_fail(err, MF_ERR_CANCELLED, "the list's output was refused");
    mfi_buf_free(&out);
    mfi_buf_free(&why);
    return status;
}

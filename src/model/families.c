/* The table of families, printed from the registry itself, so that it can't say other than what is
 * opened. Any thread; reads no file. */
#include <string.h>

#include "model/model.h"

static void put_people(const mfi_arch *arch, mfi_buf *out)
{
    mfi_buf_fmt(out, "%s\n  model_type  ", arch->name);
    for (const char *const *t = arch->model_types; *t; t++)
        mfi_buf_fmt(out, "%s%s", t == arch->model_types ? "" : ", ", *t);
    mfi_buf_str(out, *arch->model_types ? "" : "(from GGUF only)");
    mfi_buf_fmt(out, "\n  gguf        %s\n", arch->gguf_arch);
    for (uint32_t i = 0; i < arch->n_evidence; i++)
        mfi_buf_fmt(out, "  %s\n    %s\n", arch->evidence[i].format, arch->evidence[i].against);
}

static void put_str(mfi_buf *out, const char *str)
{
    mfi_json_put_str(out, str, strlen(str));
}

static void put_json(const mfi_arch *arch, mfi_buf *out)
{
    mfi_buf_str(out, "{\"family\":");
    put_str(out, arch->name);
    mfi_buf_str(out, ",\"model_types\":[");
    for (const char *const *t = arch->model_types; *t; t++) {
        mfi_buf_str(out, t == arch->model_types ? "" : ",");
        put_str(out, *t);
    }
    mfi_buf_str(out, "],\"gguf_architecture\":");
    put_str(out, arch->gguf_arch);
    mfi_buf_str(out, ",\"formats\":[");
    for (uint32_t i = 0; i < arch->n_evidence; i++) {
        mfi_buf_str(out, i ? ",{\"format\":" : "{\"format\":");
        put_str(out, arch->evidence[i].format);
        mfi_buf_str(out, ",\"evidence\":");
        put_str(out, arch->evidence[i].against);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]}");
}

mf_status mf_families_write(bool json, mf_write_fn write, void *user, mf_error *err)
{
    mfi_buf out = {0};
    mfi_buf_str(&out, json ? "{\"schema\":1,\"families\":[" : "");
    for (size_t i = 0; i < mfi_n_archs; i++) {
        mfi_buf_str(&out, !i ? "" : json ? "," : "\n");
        if (json)
            put_json(mfi_archs[i], &out);
        else
            put_people(mfi_archs[i], &out);
    }
    mfi_buf_str(&out, json ? "]}\n" : "");
    mf_status status = MF_OK;
    if (out.failed)
        status = mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to print the families");
    else if (!write(user, out.data, out.len))
        status = mfi_fail(err, MF_ERR_CANCELLED, "the table was refused");
    mfi_buf_free(&out);
    return status;
}

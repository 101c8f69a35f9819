/* GGUF files for tests; see gguf_files.h. */
#include "fake/support.h"
#include "fake/gguf_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake/model_files.h"

void mft_gguf_put(mfi_buf *buf, uint64_t v, int n_bytes)
{
    char bytes[8];
    for (int i = 0; i < n_bytes; i++)
        bytes[i] = (char)(v >> 8 * i & 0xff);
    mfi_buf_append(buf, bytes, (size_t)n_bytes);
}

void mft_gguf_put_str(mfi_buf *buf, const char *text, size_t len)
{
    mft_gguf_put(buf, len, 8);
    mfi_buf_append(buf, text, len);
}

void mft_gguf_key(mft_gguf *g, const char *key, uint32_t type)
{
    mft_gguf_put_str(&g->kv, key, strlen(key));
    mft_gguf_put(&g->kv, type, 4);
    g->n_kv++;
}

void mft_gguf_u32(mft_gguf *g, const char *key, uint32_t v)
{
    mft_gguf_key(g, key, 4);
    mft_gguf_put(&g->kv, v, 4);
}

void mft_gguf_i32(mft_gguf *g, const char *key, int32_t v)
{
    mft_gguf_key(g, key, 5);
    mft_gguf_put(&g->kv, (uint32_t)v, 4);
}

void mft_gguf_u16(mft_gguf *g, const char *key, uint16_t v)
{
    mft_gguf_key(g, key, 2);
    mft_gguf_put(&g->kv, v, 2);
}

void mft_gguf_u64(mft_gguf *g, const char *key, uint64_t v)
{
    mft_gguf_key(g, key, 10);
    mft_gguf_put(&g->kv, v, 8);
}

void mft_gguf_f32(mft_gguf *g, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    mft_gguf_key(g, key, 6);
    mft_gguf_put(&g->kv, bits, 4);
}

void mft_gguf_bool(mft_gguf *g, const char *key, bool v)
{
    mft_gguf_key(g, key, 7);
    mft_gguf_put(&g->kv, v, 1);
}

void mft_gguf_str(mft_gguf *g, const char *key, const char *v)
{
    mft_gguf_key(g, key, 8);
    mft_gguf_put_str(&g->kv, v, strlen(v));
}

void mft_gguf_array(mft_gguf *g, const char *key, uint32_t type, uint64_t n)
{
    mft_gguf_key(g, key, 9);
    mft_gguf_put(&g->kv, type, 4);
    mft_gguf_put(&g->kv, n, 8);
}

static void pad(mfi_buf *buf, size_t align)
{
    while (buf->len % align)
        mft_gguf_put(buf, 0, 1);
}

void mft_gguf_tensor(mft_gguf *g, const char *name, uint32_t type, int n_dims,
                     const uint64_t dims[], const void *data, size_t n_bytes)
{
    pad(&g->data, g->alignment ? g->alignment : 32);
    mft_gguf_put_str(&g->infos, name, strlen(name));
    mft_gguf_put(&g->infos, (uint64_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++)
        mft_gguf_put(&g->infos, dims[i], 8);
    mft_gguf_put(&g->infos, type, 4);
    mft_gguf_put(&g->infos, g->data.len, 8);
    if (data)
        mfi_buf_append(&g->data, data, n_bytes);
    else
        for (size_t i = 0; i < n_bytes; i++)
            mft_gguf_put(&g->data, (7 * i + strlen(name)) & 0xff, 1);
    g->n_tensors++;
}

void mft_gguf_write(mft_gguf *g, const char *dir, const char *name)
{
    mfi_buf file = {0};
    mfi_buf_str(&file, "GGUF");
    mft_gguf_put(&file, g->version ? g->version : 3, 4);
    mft_gguf_put(&file, g->n_tensors, 8);
    mft_gguf_put(&file, g->n_kv, 8);
    mfi_buf_append(&file, g->kv.data, g->kv.len);
    mfi_buf_append(&file, g->infos.data, g->infos.len);
    pad(&file, g->alignment ? g->alignment : 32);
    mfi_buf_append(&file, g->data.data, g->data.len);
    assert_false(file.failed || g->kv.failed || g->infos.failed || g->data.failed);
    mft_write(dir, name, file.data, file.len);
    mfi_buf_free(&file);
    mfi_buf_free(&g->kv);
    mfi_buf_free(&g->infos);
    mfi_buf_free(&g->data);
    *g = (mft_gguf){0};
}

const char *mft_unpack(const char *path, const char *dir)
{
    char packed[512], command[2048];
    snprintf(packed, sizeof packed, "%s.xz", path);
    const char *from = mft_oracle(packed);
    if (!from)
        return NULL;
    const char *slash = strrchr(path, '/');
    const char *to = mft_path(dir, slash ? slash + 1 : path);
    snprintf(command, sizeof command, "xz -dc '%s' > '%s'", from, to);
    return system(command) == 0 ? to : NULL;
}

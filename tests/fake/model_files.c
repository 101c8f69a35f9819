/* Model folders for tests; see model_files.h. */
#include "fake/support.h"
#include "fake/model_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *mft_folder(void)
{
    static char paths[4][512];
    static int n;
    char *path = paths[n & 3];
    snprintf(path, sizeof paths[0], "%s/m%d", mft_tmpdir(), n++);
    assert_int_equal(mkdir(path, 0700), 0);
    return path;
}

const char *mft_path(const char *dir, const char *name)
{
    static char paths[8][1024];
    static int n;
    char *path = paths[n++ & 7];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

const char *mft_fresh(const char *name)
{
    static char paths[64][512];
    static int n;
    char *path = paths[n & 63];
    snprintf(path, sizeof paths[0], "%s/%d-%s", mft_tmpdir(), n++, name);
    return path;
}

size_t mft_n_entries(const char *path)
{
    size_t n = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

void mft_write(const char *dir, const char *name, const void *bytes, size_t len)
{
    FILE *f = fopen(mft_path(dir, name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

void mft_write_buf(const char *dir, const char *name, mfi_buf *bytes)
{
    assert_false(bytes->failed);
    mft_write(dir, name, bytes->data, bytes->len);
    mfi_buf_free(bytes);
}

void mft_write_str(const char *dir, const char *name, const char *text)
{
    mft_write(dir, name, text, strlen(text));
}

static void put_len(FILE *f, uint64_t n)
{
    for (int i = 0; i < 8; i++)
        fputc((int)(n >> 8 * i & 0xff), f);
}

void mft_write_header(const char *dir, const char *name, const char *header, size_t n_data)
{
    FILE *f = fopen(mft_path(dir, name), "wb");
    assert_non_null(f);
    put_len(f, strlen(header));
    fputs(header, f);
    for (size_t i = 0; i < n_data; i++)
        fputc(0, f);
    assert_int_equal(fclose(f), 0);
}

static uint64_t n_bytes(const mft_tensor *tensor)
{
    static const char *const wide[] = {"F64", "I64", "U64"}, *const four[] = {"F32", "I32", "U32"},
                             *const two[] = {"BF16", "F16", "I16", "U16"};
    uint64_t n = 1;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        n = strcmp(tensor->dtype, wide[i]) == 0 ? 8 : n;
    for (size_t i = 0; i < sizeof four / sizeof four[0]; i++)
        n = strcmp(tensor->dtype, four[i]) == 0 ? 4 : n;
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        n = strcmp(tensor->dtype, two[i]) == 0 ? 2 : n;
    for (int i = 0; i < tensor->n_dims; i++)
        n *= tensor->dims[i];
    return n;
}

static void write_header_text(FILE *f, const mft_tensor *tensors, size_t n)
{
    uint64_t at = 0;
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", f);
    for (size_t i = 0; i < n; i++) {
        const mft_tensor *t = &tensors[i];
        fprintf(f, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype);
        for (int d = 0; d < t->n_dims; d++)
            fprintf(f, "%s%llu", d ? "," : "", (unsigned long long)t->dims[d]);
        fprintf(f, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                (unsigned long long)(at + n_bytes(t)));
        at += n_bytes(t);
    }
    fputs("}", f);
}

void mft_write_tensors(const char *dir, const char *name, const mft_tensor *tensors, size_t n)
{
    char *text = NULL;
    size_t len = 0;
    FILE *mem = open_memstream(&text, &len);
    assert_non_null(mem);
    write_header_text(mem, tensors, n);
    fclose(mem);
    FILE *f = fopen(mft_path(dir, name), "wb");
    assert_non_null(f);
    put_len(f, len);
    fwrite(text, 1, len, f);
    free(text);
    for (size_t i = 0; i < n; i++) {
        const unsigned char *data = tensors[i].data;
        for (uint64_t b = 0; b < n_bytes(&tensors[i]); b++)
            fputc(data ? data[b] : (int)((7 * b + strlen(tensors[i].name)) & 0xff), f);
    }
    assert_int_equal(fclose(f), 0);
}

unsigned char *mft_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    unsigned char *bytes = malloc(*len + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *len, f), *len);
    fclose(f);
    return bytes;
}

void mft_same_file(const char *path_a, const char *path_b)
{
    size_t len_a, len_b;
    unsigned char *a = mft_read(path_a, &len_a), *b = mft_read(path_b, &len_b);
    assert_int_equal(len_a, len_b);
    assert_memory_equal(a, b, len_a);
    free(a);
    free(b);
}

mft_tensor *mft_add_tensor(mft_tensor_list *t, const char *name, const char *dtype)
{
    size_t i = t->n++;
    assert_true(i < sizeof t->list / sizeof t->list[0]);
    snprintf(t->names[i], sizeof t->names[i], "%s", name);
    t->list[i] = (mft_tensor){.name = t->names[i], .dtype = dtype};
    return &t->list[i];
}

void mft_free_tensors(mft_tensor_list *t)
{
    for (size_t i = 0; i < t->n; i++)
        free((void *)t->list[i].data);
    free(t);
}

const char *mft_in_layer(uint32_t layer, const char *name, ...)
{
    static char text[96];
    va_list args;
    int n = snprintf(text, sizeof text, "model.layers.%u.", layer);
    va_start(args, name);
    vsnprintf(text + n, sizeof text - (size_t)n, name, args);
    va_end(args);
    return text;
}

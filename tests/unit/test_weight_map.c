/* Weight maps and the device buffers on them, against a device that keeps books. */
#include "fake/support.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake/fake_device.h"
#include "fake/model_files.h"
#include "format/catalog_build.h"
#include "format/format.h"
#include "os/vmem.h"

static const mft_tensor tensors[] = {
    {"first.weight", "BF16", 2, {300, 64}, NULL},
    {"odd", "F32", 1, {3}, NULL},
    {"big.weight", "F32", 3, {8, 100, 64}, NULL},
    {"none", "F32", 2, {0, 4}, NULL},
    {"last", "F16", 1, {5}, NULL},
};

static const char *make_model(mfi_catalog **catalog)
{
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    mft_write_tensors(dir, "model.safetensors", tensors, MFI_ARRAY_LEN(tensors));
    mf_error err;
    mft_ok(mfi_format_open(catalog, dir, &err), &err);
    return dir;
}

static uint64_t file_offset(const mfi_catalog *catalog, const char *name)
{
    uint32_t id = mfi_catalog_find(catalog, name);
    assert_int_not_equal(id, MFI_TENSOR_NONE);
    return mfi_catalog_tensor(catalog, id)->offset[0];
}

/* Resident bytes of the mapping that contains `address`, by the system's account. */
static long resident_kib(const void *address)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    if (!f)
        return -1;
    char line[1024];
    bool here = false;
    long kib = -1;
    while (fgets(line, sizeof line, f)) {
        unsigned long begin, end;
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
            here = begin <= (uintptr_t)address && (uintptr_t)address < end;
        else if (here && sscanf(line, "Rss: %ld kB", &kib) == 1)
            break;
    }
    fclose(f);
    return kib;
}

static void whole_file(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    const char *dir = make_model(&catalog);
    size_t size;
    unsigned char *bytes = mft_read(mft_path(dir, "model.safetensors"), &size);
    uint64_t page = mfi_vmem_page();
    mf_weight_map *map;
    mf_error err;
    mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
    assert_int_equal(mf_weight_map_file_len(map), size);
    assert_int_equal(mf_weight_map_len(map), (size + page - 1) / page * page);
    mft_device device;
    mft_device_init(&device, page, 0);
    mf_weight_buf *buf;
    mft_ok(mf_weight_buf_open(&buf, map, &device.device, 0, 0, &err), &err);
    assert_int_equal(device.n_binds, 1);
    assert_ptr_equal(device.binds[0].address, mf_weight_map_base(map));
    assert_int_equal(device.binds[0].len, mf_weight_map_len(map));
    assert_ptr_equal(mf_weight_buf_handle(buf), &device.binds[0]);
    assert_ptr_equal(mf_weight_buf_base(buf), mf_weight_map_base(map));
    assert_int_equal(mf_weight_buf_len(buf), mf_weight_map_len(map));
    uint64_t offset[5], len[5];
    for (size_t i = 0; i < MFI_ARRAY_LEN(tensors); i++) {
        mft_ok(mf_weight_buf_offset(buf, tensors[i].name, 0, &offset[i], &len[i], &err), &err);
        assert_int_equal(offset[i], file_offset(catalog, tensors[i].name));
    }
    assert_int_equal(len[0], 300 * 64 * 2);
    assert_int_equal(len[1], 12);
    assert_int_equal(len[2], 8 * 100 * 64 * 4);
    assert_int_equal(len[3], 0);
    assert_int_equal(len[4], 10);
    /* nothing so far may have touched a page */
    long kib = resident_kib(mf_weight_map_base(map));
    if (kib >= 0)
        assert_int_equal(kib, 0);
    /* the device's view holds the file's bytes, zeros behind them */
    const unsigned char *view = device.binds[0].address;
    for (size_t i = 0; i < MFI_ARRAY_LEN(tensors); i++)
        assert_memory_equal(view + offset[i], bytes + file_offset(catalog, tensors[i].name),
                            len[i]);
    assert_int_equal(view[offset[2] + 1], (7 + strlen("big.weight")) & 0xff);
    assert_memory_equal(view, bytes, size);
    for (size_t i = size; i < device.binds[0].len; i++)
        assert_int_equal(view[i], 0);
    if (kib >= 0)
        assert_true(resident_kib(mf_weight_map_base(map)) > 0); /* the account does count */
    mf_weight_buf_close(&buf);
    assert_null(buf);
    mft_ok(mf_weight_map_close(&map, &err), &err);
    assert_int_equal(device.n_live, 0);
    mfi_catalog_close(&catalog);
    free(bytes);
}

/* The map outlives its buffers, or says no. */
static void map_outlives_buffers(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    make_model(&catalog);
    mf_weight_map *map;
    mf_error err;
    mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
    mft_device device;
    mft_device_init(&device, mfi_vmem_page(), 0);
    mf_weight_buf *a, *b;
    mft_ok(mf_weight_buf_open(&a, map, &device.device, 0, 0, &err), &err);
    mft_ok(mf_weight_buf_open(&b, map, &device.device, 0, 1, &err), &err);
    mf_weight_map *same = map;
    assert_int_equal(mf_weight_map_close(&map, &err), MF_ERR_STATE);
    assert_ptr_equal(map, same);
    assert_non_null(strstr(err.message, "2 device buffers"));
    mf_weight_buf_close(&a);
    assert_int_equal(mf_weight_map_close(&map, NULL), MF_ERR_STATE);
    assert_int_equal(*(const unsigned char *)mf_weight_buf_base(b),
                     *(const unsigned char *)mf_weight_map_base(map)); /* still mapped */
    mf_weight_buf_close(&b);
    mf_weight_buf_close(&b); /* of nothing */
    mft_ok(mf_weight_map_close(&map, &err), &err);
    assert_null(map);
    mft_ok(mf_weight_map_close(&map, &err), &err);
    mfi_catalog_close(&catalog);
}

static void ranges_are_widened(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    make_model(&catalog);
    mf_weight_map *map;
    mf_error err;
    mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
    const uint64_t pages[] = {mfi_vmem_page(), 16384, 65536};
    for (size_t p = 0; p < MFI_ARRAY_LEN(pages); p++) {
        uint64_t page = pages[p];
        if (page < mfi_vmem_page())
            continue;
        mft_device device; /* asserts alignment of address and length */
        mft_device_init(&device, page, 0);
        uint64_t at = file_offset(catalog, "big.weight"), n = 8 * 100 * 64 * 4;
        mf_weight_buf *buf;
        mft_ok(mf_weight_buf_open(&buf, map, &device.device, at, n, &err), &err);
        uint64_t begin = at / page * page, end = (at + n + page - 1) / page * page;
        assert_ptr_equal(device.binds[0].address, (const char *)mf_weight_map_base(map) + begin);
        assert_int_equal(device.binds[0].len, end - begin);
        uint64_t offset, len;
        mft_ok(mf_weight_buf_offset(buf, "big.weight", 0, &offset, &len, &err), &err);
        assert_int_equal(offset, at - begin);
        assert_int_equal(len, n);
        mf_weight_buf_close(&buf);
        mft_ok(mf_weight_buf_open(&buf, map, &device.device, 0, 0, &err), &err);
        /* every byte of what the device got can be read, also behind the file's last page */
        unsigned sum = 0;
        for (uint64_t i = 0; i < device.binds[1].len; i += 512)
            sum += ((const volatile unsigned char *)device.binds[1].address)[i];
        assert_true(sum > 0);
        mf_weight_buf_close(&buf);
    }
    mft_device device;
    mft_device_init(&device, (uint64_t)1 << 30, 0);
    mf_weight_buf *buf;
    assert_int_equal(mf_weight_buf_open(&buf, map, &device.device, 0, 0, &err), MF_ERR_DEVICE);
    assert_int_equal(device.n_binds, 0);
    mft_ok(mf_weight_map_close(&map, &err), &err);
    mfi_catalog_close(&catalog);
}

static void tensors_outside_a_range(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    make_model(&catalog);
    mf_weight_map *map;
    mf_error err;
    mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
    mft_device device;
    mft_device_init(&device, mfi_vmem_page(), 0);
    mf_weight_buf *buf;
    uint64_t big = file_offset(catalog, "big.weight"), offset, len;
    mft_ok(mf_weight_buf_open(&buf, map, &device.device, 0, big + 1, &err), &err);
    mft_ok(mf_weight_buf_offset(buf, "first.weight", 0, &offset, &len, &err), &err);
    assert_int_equal(mf_weight_buf_offset(buf, "big.weight", 0, &offset, &len, &err),
                     MF_ERR_TENSOR_BOUNDS); /* begins inside, ends outside */
    assert_non_null(strstr(err.message, "big.weight"));
    assert_int_equal(mf_weight_buf_offset(buf, "last", 0, &offset, &len, &err),
                     MF_ERR_TENSOR_BOUNDS);
    assert_int_equal(mf_weight_buf_offset(buf, "nothing", 0, &offset, &len, &err),
                     MF_ERR_TENSOR_MISSING);
    assert_non_null(strstr(err.message, "nothing"));
    assert_int_equal(mf_weight_buf_offset(buf, "first.weight", 1, &offset, &len, &err),
                     MF_ERR_TENSOR_MISSING);
    mf_weight_buf_close(&buf);
    mft_ok(mf_weight_buf_open(&buf, map, &device.device, file_offset(catalog, "last"), 10, &err),
           &err);
    mft_ok(mf_weight_buf_offset(buf, "last", 0, &offset, &len, &err), &err);
    assert_int_equal(mf_weight_buf_offset(buf, "first.weight", 0, &offset, &len, &err),
                     MF_ERR_TENSOR_BOUNDS); /* lies below the buffer */
    mf_weight_buf_close(&buf);
    mft_ok(mf_weight_map_close(&map, &err), &err);
    mfi_catalog_close(&catalog);
}

static void refusals(void **state)
{
    (void)state;
    mfi_catalog *catalog;
    make_model(&catalog);
    mf_weight_map *map;
    mf_error err;
    mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
    uint64_t size = mf_weight_map_file_len(map), page = mfi_vmem_page();
    mft_device device;
    mft_device_init(&device, page, 2 * page);
    mf_weight_buf *buf = (mf_weight_buf *)&err;
    const struct {
        uint64_t offset, len;
        mf_status status;
    } cases[] = {
        {0, size + 1, MF_ERR_TENSOR_BOUNDS},
        {size, 1, MF_ERR_TENSOR_BOUNDS},
        {1, UINT64_MAX, MF_ERR_TENSOR_BOUNDS},
        {UINT64_MAX, 1, MF_ERR_TENSOR_BOUNDS},
        {mf_weight_map_len(map), 0, MF_ERR_TENSOR_BOUNDS},
        {0, 0, MF_ERR_DEVICE},
        {0, 2 * page + 1, MF_ERR_DEVICE},
        {1, 2 * page, MF_ERR_DEVICE}, /* widened it is three pages */
        {0, 2 * page, MF_OK},
        {2 * page, page + 1, MF_OK},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_status status =
            mf_weight_buf_open(&buf, map, &device.device, cases[i].offset, cases[i].len, &err);
        assert_int_equal(status, cases[i].status);
        assert_true((status == MF_OK) == (buf != NULL));
        if (status != MF_OK)
            assert_non_null(strstr(err.message, "model.safetensors"));
        mf_weight_buf_close(&buf);
    }
    device.refuse = true;
    assert_int_equal(mf_weight_buf_open(&buf, map, &device.device, 0, page, &err), MF_ERR_DEVICE);
    assert_null(buf);
    assert_non_null(strstr(err.message, "fake device is full"));
    assert_int_equal(device.n_refused, 1);
    assert_int_equal(device.n_live, 0);
    mft_ok(mf_weight_map_close(&map, &err), &err); /* a refused buffer isn't counted */
    mfi_catalog_close(&catalog);
}

static void changed_files(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        mfi_catalog *catalog;
        const char *path = mft_path(make_model(&catalog), "model.safetensors");
        mf_weight_map *map;
        mf_error err;
        mft_ok(mf_weight_map_open(&map, catalog, 0, &err), &err);
        mft_device device;
        mft_device_init(&device, mfi_vmem_page(), 0);
        mf_weight_buf *buf;
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        if (how == 0) {
            assert_int_equal(truncate(path, 100), 0);
        } else if (how == 1) {
            assert_int_equal(truncate(path, st.st_size + 1), 0);
        } else {
            struct timespec later[2] = {st.st_mtim, st.st_mtim};
            later[1].tv_sec++;
            assert_int_equal(utimensat(AT_FDCWD, path, later, 0), 0);
        }
        assert_int_equal(mf_weight_buf_open(&buf, map, &device.device, 0, 0, &err),
                         MF_ERR_FILE_CHANGED);
        assert_non_null(strstr(err.message, path));
        assert_int_equal(device.n_binds, 0);
        mft_ok(mf_weight_map_close(&map, &err), &err);
        assert_int_equal(mf_weight_map_open(&map, catalog, 0, &err), MF_ERR_FILE_CHANGED);
        assert_null(map);
        mfi_catalog_close(&catalog);
    }
}

/* Planes of one tensor in two files. */
static void several_files(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    static const mft_tensor packed[] = {{"l.weight", "U32", 2, {4, 8}, NULL},
                                        {"l.biases", "BF16", 2, {4, 1}, NULL}},
                            scales[] = {{"l.scales", "BF16", 2, {4, 1}, NULL}};
    mft_write_str(dir, "config.json", "{\"quantization\":{\"group_size\":64,\"bits\":4}}");
    mft_write_tensors(dir, "a.safetensors", packed, 2);
    mft_write_tensors(dir, "b.safetensors", scales, 1);
    mft_write_str(dir, "model.safetensors.index.json",
                  "{\"weight_map\":{\"l.weight\":\"a.safetensors\",\"l.scales\":\"b.safetensors\","
                  "\"l.biases\":\"a.safetensors\"}}");
    mfi_catalog *catalog;
    mf_error err;
    mft_ok(mfi_format_open(&catalog, dir, &err), &err);
    assert_int_equal(mfi_catalog_n_files(catalog), 2);
    mf_weight_map *map;
    mft_device device;
    mft_device_init(&device, mfi_vmem_page(), 0);
    mf_weight_buf *buf;
    uint64_t offset, len;
    for (uint32_t file = 0; file < 2; file++) {
        mft_ok(mf_weight_map_open(&map, catalog, file, &err), &err);
        mft_ok(mf_weight_buf_open(&buf, map, &device.device, 0, 0, &err), &err);
        for (uint32_t plane = 0; plane < 3; plane++) {
            mf_status status = mf_weight_buf_offset(buf, "l.weight", plane, &offset, &len, &err);
            assert_int_equal(status, (plane == 1) == (file == 1) ? MF_OK : MF_ERR_TENSOR_MISSING);
            if (status == MF_OK)
                assert_int_equal(len, plane == 0 ? 128 : 8);
        }
        mf_weight_buf_close(&buf);
        mft_ok(mf_weight_map_close(&map, &err), &err);
    }
    mfi_catalog_close(&catalog);
}

static void empty_manifest(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_write_str(dir, "config.json", "{}");
    mft_write_header(dir, "a.safetensors", "{}", 100);
    mfi_catalog *catalog;
    mf_error err;
    uint32_t file;
    mft_ok(mfi_catalog_new(&catalog, dir, &err), &err);
    mft_ok(mfi_catalog_add_file(catalog, mft_path(dir, "a.safetensors"), &file, &err), &err);
    mf_weight_map *map;
    assert_int_equal(mf_weight_map_open(&map, catalog, file, &err), MF_ERR_EMPTY_MANIFEST);
    assert_null(map);
    assert_non_null(strstr(err.message, "a.safetensors"));
    mfi_catalog_close(&catalog);
}

int main(void)
{
    const struct CMUnitTest tests_[] = {
        cmocka_unit_test(whole_file),         cmocka_unit_test(map_outlives_buffers),
        cmocka_unit_test(ranges_are_widened), cmocka_unit_test(tensors_outside_a_range),
        cmocka_unit_test(refusals),           cmocka_unit_test(changed_files),
        cmocka_unit_test(several_files),      cmocka_unit_test(empty_manifest),
    };
    return mft_run(tests_);
}

/* mf_tensor_read_f32: one tensor of a model, decoded piece by piece. Reads and writes on the
 * caller's thread, workers decode; bounded memory, however large the tensor is; needs no engine. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/pool.h"
#include "format/format.h"
#include "os/machine.h"

#define PIECE_ELEMENTS ((uint64_t)65536) /* whole blocks and groups of every type */

typedef struct piece_reader {
    const mfi_catalog *catalog;
    const mfi_tensor *tensor;
    const char *name;
    uint64_t rows, cols;
    uint8_t *raw[MFI_MAX_PLANES];
    float *out; /* [PIECE_ELEMENTS] */
    mfi_pool *pool;
    uint64_t first_row, n; /* of the piece at hand: its rows are n elements */
    uint32_t n_rows;
    mf_write_fn write;
    void *user;
    mf_error *err;
} piece_reader;

/* The first of the plane's rows that belongs to a row of the matrix. */
static uint64_t plane_row(const piece_reader *p, uint32_t plane, uint64_t row)
{
    return row / mfi_quant_rows_per_row(p->tensor->type, plane);
}

/* Reads columns [col, col + n) of rows [row, row + n_rows); col > 0 or n < cols only with one row.
 */
static mf_status read_raw(piece_reader *p, uint64_t row, uint64_t n_rows, uint64_t col, uint64_t n)
{
    mfi_qtype type = p->tensor->type;
    for (uint32_t i = 0; i < mfi_quant_n_planes(type); i++) {
        uint64_t row_bytes = mfi_quant_row_bytes(type, i, p->cols);
        uint64_t first = plane_row(p, i, row), last = plane_row(p, i, row + n_rows - 1);
        uint64_t begin =
            mfi_tensor_extent(p->tensor, i, first * mfi_quant_rows_per_row(type, i), 0).offset +
            mfi_quant_row_bytes(type, i, col);
        uint64_t len = (last - first) * row_bytes + mfi_quant_row_bytes(type, i, n);
        MFI_TRY(mfi_file_read(mfi_catalog_file(p->catalog, p->tensor->file[i]), p->raw[i], len,
                              begin, p->err));
    }
    return MF_OK;
}

static void decode_row(const piece_reader *p, uint64_t first_row, uint64_t row, uint64_t n,
                       float *out)
{
    mfi_qtype type = p->tensor->type;
    const void *planes[MFI_MAX_PLANES] = {0};
    for (uint32_t i = 0; i < mfi_quant_n_planes(type); i++)
        planes[i] = p->raw[i] + (plane_row(p, i, row) - plane_row(p, i, first_row)) *
                                    mfi_quant_row_bytes(type, i, p->cols);
    mfi_dequant_row(type, planes, n, out);
}

static void decode_rows(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const piece_reader *p = ctx;
    uint32_t begin, end;
    mfi_pool_range(p->n_rows, 1, worker, n_workers, &begin, &end);
    for (uint32_t i = begin; i < end; i++)
        decode_row(p, p->first_row, p->first_row + i, p->n, p->out + i * p->n);
}

static mf_status read_piece(piece_reader *p, uint64_t row, uint64_t n_rows, uint64_t col,
                            uint64_t n)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "float32 goes out as it is");
    MFI_TRY(read_raw(p, row, n_rows, col, n));
    p->first_row = row;
    p->n_rows = (uint32_t)n_rows; /* at most PIECE_ELEMENTS */
    p->n = n;
    mfi_pool_run(p->pool, decode_rows, p);
    if (!p->write(p->user, (const char *)p->out, n_rows * n * sizeof *p->out))
        return mfi_fail(p->err, MF_ERR_CANCELLED, "tensor %.200s: its output was refused", p->name);
    return MF_OK;
}

static mf_status read_all(piece_reader *p)
{
    uint64_t n_rows = p->cols ? PIECE_ELEMENTS / p->cols : 0;
    if (p->rows == 0 || p->cols == 0)
        return MF_OK;
    for (uint64_t row = 0, n; n_rows > 0 && row < p->rows; row += n) {
        n = MFI_MIN(n_rows, mfi_tensor_run(p->tensor, row));
        MFI_TRY(read_piece(p, row, n, 0, p->cols));
    }
    for (uint64_t row = 0; n_rows == 0 && row < p->rows; row++)
        for (uint64_t col = 0; col < p->cols; col += PIECE_ELEMENTS)
            MFI_TRY(read_piece(p, row, 1, col, MFI_MIN(PIECE_ELEMENTS, p->cols - col)));
    return MF_OK;
}

/* Rows are at most 4 bytes an element in any plane, but for types that aren't decoded. */
static mf_status open_buffers(piece_reader *p)
{
    bool ok = (p->out = malloc(PIECE_ELEMENTS * sizeof *p->out)) != NULL;
    for (uint32_t i = 0; ok && i < mfi_quant_n_planes(p->tensor->type); i++)
        ok = (p->raw[i] = malloc(2 * PIECE_ELEMENTS * sizeof(float))) != NULL;
    return ok ? MF_OK : mfi_fail(p->err, MF_ERR_NO_MEMORY, "no memory to read a tensor");
}

static mf_status find(piece_reader *p)
{
    uint32_t id = mfi_catalog_find(p->catalog, p->name);
    if (id == MFI_TENSOR_NONE)
        return mfi_fail(p->err, MF_ERR_TENSOR_MISSING, "%s: no tensor %.200s",
                        mfi_catalog_path(p->catalog), p->name);
    p->tensor = mfi_catalog_tensor(p->catalog, id);
    p->rows = mfi_tensor_rows(p->tensor);
    p->cols = mfi_tensor_cols(p->tensor);
    if (mfi_quant_multiplies(p->tensor->type))
        return MF_OK;
    char type[64];
    mfi_quant_name(p->tensor->type, type, sizeof type);
    return mfi_fail(p->err, MF_ERR_UNSUPPORTED, "%s: tensor %.200s holds %s elements, no weights",
                    mfi_catalog_path(p->catalog), p->name, type);
}

static void tell(const piece_reader *p, mf_tensor_info *info)
{
    _Static_assert(MF_TENSOR_DIMS == MFI_MAX_DIMS, "a place a dimension");
    info->n_dims = p->tensor->n_dims;
    for (uint32_t i = 0; i < p->tensor->n_dims; i++)
        info->dims[i] = p->tensor->dims[i];
    mfi_quant_name(p->tensor->type, info->type, sizeof info->type);
}

mf_status mf_tensor_read_f32(const char *path, const char *name, uint32_t n_threads,
                             mf_write_fn write, void *user, mf_tensor_info *info, mf_error *err)
{
    if (!path || !name || !write)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_tensor_read_f32: NULL argument");
    if (info && info->struct_size != sizeof *info)
        return mfi_fail(err, MF_ERR_ARGUMENT, "struct_size: tensor information of another version");
    if (n_threads > MFI_MAX_THREADS)
        return mfi_fail(err, MF_ERR_ARGUMENT, "n_threads: %" PRIu32 " are more than %d", n_threads,
                        MFI_MAX_THREADS);
    mfi_machine machine;
    if (n_threads == 0) {
        mfi_machine_read(&machine);
        n_threads = machine.n_cpus;
    }
    mfi_catalog *catalog = NULL;
    MFI_TRY(mfi_format_open(&catalog, path, err));
    piece_reader p = {.catalog = catalog, .name = name, .write = write, .user = user, .err = err};
    mf_status status = find(&p);
    if (status == MF_OK && info)
        tell(&p, info);
    if (status == MF_OK)
        status = open_buffers(&p);
    if (status == MF_OK)
        status = mfi_pool_open(&p.pool, n_threads, err);
    if (status == MF_OK)
        status = read_all(&p);
    for (uint32_t i = 0; i < MFI_MAX_PLANES; i++)
        free(p.raw[i]);
    free(p.out);
    mfi_pool_close(&p.pool);
    mfi_catalog_close(&catalog);
    return status;
}

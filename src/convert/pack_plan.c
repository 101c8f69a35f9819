/* Plans a pack; see pack_plan.h. Called by the pack's writer, on its thread.
 *
 * A record holds what the engine puts into a slot, in the slot's order: gate, up and down with
 * their planes, each bias behind its matrix, at multiples of PART_ALIGN as in the slot. So one read
 * fetches it. */
#include "convert/pack_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"
#include "base/room.h"

#define PART_ALIGN      64
#define LARGE_BYTES_MIN (64 * MFI_KIB) /* resident planes that are worth a block's alignment */
#define COLUMNS_MAX     (2 * MFI_EXPERT_PROJS)

typedef struct mfi_pp_place {
    bool placed;
    uint64_t offset[MFI_MAX_PLANES], stride;
} mfi_pp_place;

/* What a layer's records have in one place: a tensor for all experts, or one for each. */
typedef struct column {
    uint32_t proj;
    bool bias, stacked;
} column;

static mf_status no_memory(const mfi_pp *p, mf_error *err)
{
    return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for the plan",
                    mfi_catalog_path(p->model->catalog));
}

static mfi_pp_record *add_record(mfi_pp *p, mfi_pack_record r, const char *name)
{
    if (!MFI_ROOM(p->records, p->n_records, p->cap_records, 256))
        return NULL;
    mfi_pp_record *record = &p->records[p->n_records++];
    *record = (mfi_pp_record){r, name, p->n_parts, 0};
    return record;
}

/* Rows of a plane as parts of the last record, from its byte `at` on; *bytes is their number. */
static mf_status add_rows(mfi_pp *p, uint32_t tensor, uint32_t plane, uint64_t row, uint64_t n_rows,
                          uint64_t at, uint64_t *bytes, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(p->model->catalog, tensor);
    *bytes = 0;
    for (uint64_t end = row + n_rows, n; row < end; row += n) {
        n = MFI_MIN(end - row, mfi_tensor_run(t, row));
        if (!MFI_ROOM(p->parts, p->n_parts, p->cap_parts, 1024))
            return no_memory(p, err);
        p->parts[p->n_parts++] = (mfi_pp_part){tensor, plane, row, n, at + *bytes};
        p->records[p->n_records - 1].n_parts++;
        *bytes += mfi_tensor_extent(t, plane, row, n).len;
    }
    return MF_OK;
}

/* ---- experts ---- */

static uint32_t column_tensor(const mfi_model *m, uint32_t layer, const column *c, uint32_t expert)
{
    if (c->bias)
        return m->expert_bias[layer * MFI_EXPERT_PROJS + c->proj];
    return m->experts[((size_t)layer * m->shape.n_experts + expert) * MFI_EXPERT_PROJS + c->proj]
        .tensor;
}

/* Whether one tensor has a slice for each expert, in order. */
static bool is_stacked(const mfi_model *m, uint32_t layer, const column *c)
{
    uint32_t n = m->shape.n_experts, id = column_tensor(m, layer, c, 0);
    const mfi_tensor *t = mfi_catalog_tensor(m->catalog, id);
    if (t->n_dims < 2 || t->dims[0] != n)
        return false;
    uint64_t rows = mfi_tensor_rows(t) / n;
    for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++)
        if (rows == 0 || rows % mfi_quant_rows_per_row(t->type, plane) != 0)
            return false;
    const mfi_expert_src *src = m->experts + (size_t)layer * n * MFI_EXPERT_PROJS + c->proj;
    for (uint32_t e = 0; e < n && !c->bias; e++, src += MFI_EXPERT_PROJS)
        if (src->tensor != id || src->row / rows != e)
            return false;
    return true;
}

/* Whether each expert has a tensor of its own. */
static bool is_apart(const mfi_pp *p, uint32_t layer, const column *c)
{
    const mfi_model *m = p->model;
    if (c->bias)
        return false;
    const mfi_expert_src *src =
        m->experts + (size_t)layer * m->shape.n_experts * MFI_EXPERT_PROJS + c->proj;
    for (uint32_t e = 0; e < m->shape.n_experts; e++, src += MFI_EXPERT_PROJS)
        if (src->row != 0 || p->places[src->tensor].placed ||
            (e > 0 && src->tensor == src[-MFI_EXPERT_PROJS].tensor))
            return false;
    return true;
}

/* What is neither stays with the resident part, where the engine finds it as well. */
static uint32_t find_columns(const mfi_pp *p, uint32_t layer, column *columns)
{
    const mfi_model *m = p->model;
    uint32_t n = 0, seen[COLUMNS_MAX];
    for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
        for (int bias = 0; bias < 2; bias++) {
            column c = {proj, bias, false};
            uint32_t id = column_tensor(m, layer, &c, 0);
            bool there = id == MFI_TENSOR_NONE || p->places[id].placed;
            for (uint32_t i = 0; i < n; i++)
                there |= seen[i] == id;
            if (there)
                continue;
            c.stacked = is_stacked(m, layer, &c);
            seen[n] = id;
            if (c.stacked || is_apart(p, layer, &c))
                columns[n++] = c;
        }
    }
    return n;
}

/* An expert's record at p->at; its bytes. */
static mf_status add_expert(mfi_pp *p, uint32_t layer, uint32_t expert, const column *columns,
                            uint32_t n, mf_error *err)
{
    const mfi_pack_record head = {MFI_PACK_EXPERT, layer, expert, p->at, 0, 0};
    if (!add_record(p, head, ""))
        return no_memory(p, err);
    uint64_t at = 0, bytes;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = column_tensor(p->model, layer, &columns[i], expert);
        const mfi_tensor *t = mfi_catalog_tensor(p->model->catalog, id);
        uint64_t rows = mfi_tensor_rows(t), first = 0;
        if (columns[i].stacked) {
            rows /= p->model->shape.n_experts;
            first = rows * expert;
        }
        mfi_pp_place *place = &p->places[id];
        for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++) {
            at = mfi_align_up(at, PART_ALIGN);
            MFI_TRY(add_rows(p, id, plane, first, rows, at, &bytes, err));
            if (!place->placed)
                place->offset[plane] = p->at + at;
            at += bytes;
        }
        place->placed = true;
    }
    mfi_pack_record *r = &p->records[p->n_records - 1].r;
    r->bytes = mfi_align_up(at, MFI_PACK_ALIGN);
    p->at += r->bytes;
    return MF_OK;
}

static mf_status add_layer(mfi_pp *p, uint32_t layer, mf_error *err)
{
    column columns[COLUMNS_MAX];
    uint32_t n = find_columns(p, layer, columns), first = p->n_records;
    if (n == 0)
        return MF_OK;
    p->at = mfi_align_up(p->at, MFI_PACK_ALIGN);
    for (uint32_t e = 0; e < p->model->shape.n_experts; e++) {
        MFI_TRY(add_expert(p, layer, e, columns, n, err));
        /* Binding saw that all experts of a layer have the same types and shapes. */
        MFI_ASSERT(p->records[p->n_records - 1].r.bytes == p->records[first].r.bytes);
    }
    for (uint32_t i = 0; i < n; i++)
        if (columns[i].stacked)
            p->places[column_tensor(p->model, layer, &columns[i], 0)].stride =
                p->records[first].r.bytes;
    return MF_OK;
}

/* ---- the rest ---- */

static mf_status add_resident(mfi_pp *p, uint32_t id, mf_error *err)
{
    const mfi_tensor *t = mfi_catalog_tensor(p->model->catalog, id);
    for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++) {
        uint64_t bytes = mfi_tensor_bytes(t, plane), got;
        p->at = mfi_align_up(p->at, bytes >= LARGE_BYTES_MIN ? MFI_PACK_ALIGN : PART_ALIGN);
        p->places[id].offset[plane] = p->at;
        if (bytes == 0)
            continue;
        const mfi_pack_record r = {MFI_PACK_PLANE, plane, 0, p->at, bytes, 0};
        if (!add_record(p, r, mfi_catalog_name(p->model->catalog, id)))
            return no_memory(p, err);
        MFI_TRY(add_rows(p, id, plane, 0, mfi_tensor_rows(t), 0, &got, err));
        MFI_ASSERT(got == bytes);
        p->at += bytes;
    }
    return MF_OK;
}

/* Places were relative to the end of the header, which is known once all records are. */
static mf_status shift(mfi_pp *p, mf_error *err)
{
    mfi_buf header = {0};
    mf_status status = mfi_pp_header(p, &header, err);
    uint64_t begin = mfi_align_up(header.len, MFI_PACK_ALIGN);
    mfi_buf_free(&header);
    if (status == MF_OK && begin > MFI_MAX_PACK_HEADER_BYTES)
        status = mfi_fail(err, MF_ERR_LIMIT, "%s: a header of %llu bytes is too large",
                          mfi_catalog_path(p->model->catalog), (unsigned long long)begin);
    for (uint32_t i = 0; i < p->n_records; i++)
        if (p->records[i].r.kind != MFI_PACK_BESIDE)
            p->records[i].r.offset += begin;
    for (uint32_t id = 0; id < mfi_catalog_n_tensors(p->model->catalog); id++)
        for (uint32_t plane = 0; plane < MFI_MAX_PLANES; plane++)
            p->places[id].offset[plane] += begin;
    p->file_bytes = mfi_align_up(p->at + begin, MFI_PACK_ALIGN);
    return status;
}

mf_status mfi_pp_open(mfi_pp *p, const mfi_model *model, const mfi_pp_beside *beside,
                      uint32_t n_beside, mf_error *err)
{
    *p = (mfi_pp){.model = model};
    uint32_t n = mfi_catalog_n_tensors(model->catalog);
    p->places = calloc(n, sizeof *p->places);
    if (!p->places)
        return no_memory(p, err);
    for (uint32_t i = 0; i < n_beside; i++) {
        const mfi_pack_record r = {MFI_PACK_BESIDE, 0, 0, 0, beside[i].bytes, 0};
        if (!add_record(p, r, beside[i].name))
            return no_memory(p, err);
    }
    for (uint32_t layer = 0; layer < model->shape.n_layers; layer++)
        if (mfi_model_routed(model, layer))
            MFI_TRY(add_layer(p, layer, err));
    for (uint32_t id = 0; id < n; id++)
        if (!p->places[id].placed)
            MFI_TRY(add_resident(p, id, err));
    for (uint32_t i = 0; i < p->n_records; i++)
        p->bytes += p->records[i].r.bytes;
    return shift(p, err);
}

void mfi_pp_close(mfi_pp *p)
{
    free(p->records);
    free(p->parts);
    free(p->places);
    *p = (mfi_pp){0};
}

/* ---- the header ---- */

static void put(mfi_buf *out, uint64_t v, uint32_t n_bytes)
{
    char bytes[8];
    for (uint32_t i = 0; i < n_bytes; i++)
        bytes[i] = (char)(v >> (8 * i));
    mfi_buf_append(out, bytes, n_bytes);
}

static void put_name(mfi_buf *out, const char *name)
{
    size_t len = strlen(name);
    put(out, len, 8);
    mfi_buf_append(out, name, len);
}

static void put_tensor(const mfi_pp *p, uint32_t id, mfi_buf *out)
{
    const mfi_tensor *t = mfi_catalog_tensor(p->model->catalog, id);
    put_name(out, mfi_catalog_name(p->model->catalog, id));
    put(out, t->type.kind, 1);
    put(out, t->type.bits, 1);
    put(out, t->type.scale, 1);
    put(out, t->type.group, 1);
    put(out, t->n_dims, 4);
    for (uint32_t i = 0; i < t->n_dims; i++)
        put(out, t->dims[i], 4);
    put(out, p->places[id].stride, 8);
    for (uint32_t plane = 0; plane < mfi_quant_n_planes(t->type); plane++)
        put(out, p->places[id].offset[plane], 8);
}

static void put_record(const mfi_pp_record *record, mfi_buf *out)
{
    put(out, record->r.kind, 4);
    put(out, record->r.layer, 4);
    put(out, record->r.expert, 4);
    put(out, record->r.offset, 8);
    put(out, record->r.bytes, 8);
    put(out, record->r.checksum, 8);
    put_name(out, record->name);
}

/* Overwrites 8 bytes of what was put. */
static void set(mfi_buf *out, size_t at, uint64_t v)
{
    for (uint32_t i = 0; i < 8 && !out->failed; i++)
        out->data[at + i] = (char)(v >> (8 * i));
}

mf_status mfi_pp_header(const mfi_pp *p, mfi_buf *out, mf_error *err)
{
    uint32_t n = mfi_catalog_n_tensors(p->model->catalog);
    mfi_buf_append(out, MFI_PACK_MAGIC, 8);
    put(out, MFI_PACK_VERSION, 4);
    put(out, n, 4);
    put(out, p->n_records, 4);
    put(out, 0, 4);
    put(out, p->file_bytes, 8);
    for (int i = 0; i < 3; i++)
        put(out, 0, 8);
    for (uint32_t id = 0; id < n; id++)
        put_tensor(p, id, out);
    set(out, MFI_PACK_AT_RECORDS_OFFSET, out->len);
    for (uint32_t i = 0; i < p->n_records; i++)
        put_record(&p->records[i], out);
    set(out, MFI_PACK_AT_HEADER_BYTES, out->len);
    mfi_checksum *sum = mfi_checksum_open();
    if (!sum || out->failed) {
        mfi_checksum_close(&sum);
        return no_memory(p, err);
    }
    mfi_checksum_add(sum, out->data, MFI_PACK_AT_CHECKSUM);
    mfi_checksum_add(sum, out->data + MFI_PACK_FIXED_BYTES, out->len - MFI_PACK_FIXED_BYTES);
    set(out, MFI_PACK_AT_CHECKSUM, mfi_checksum_value(sum));
    mfi_checksum_close(&sum);
    return MF_OK;
}

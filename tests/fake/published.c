/* Plans of published models against counts by hand, and pieces of their layouts; see published.h.
 */
#include "fake/support.h"
#include "fake/published.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "io/io.h"

#define BF16  ((mfi_qtype){MFI_Q_BF16, 16, 0, 0})
#define LAYER "model.layers.%u."
#define ATTN  LAYER "self_attn."

/* Layers with a window keep what the first token of a chunk looks back over, and the chunk. */
uint64_t mft_kv_by_hand(const mft_hand *h, uint64_t ctx, uint64_t chunk)
{
    return h->kv_bytes * ctx + h->window_kv_bytes * MFI_MIN(h->window - 1 + chunk, ctx);
}

/* The smallest budget: dense weights, KV of 512 positions, state, one token's experts of a layer in
 * whole pages; the process, the readers' page cache, scratch of one token and tables, which is what
 * the plan says and little; a 64th of it all, 64 MiB at most; in whole MiB. */
static uint64_t floor_by_hand(const mft_hand *h, const mfi_plan *plan)
{
    uint64_t page = 4096, top_k = plan->program.shape.top_k;
    uint64_t cache =
        MFI_MAX(MFI_PAGE_CACHE_BYTES_MIN, plan->n_io_threads * MFI_IO_READER_CACHE_BYTES);
    uint64_t small = plan->bytes[MFI_PLAN_PROCESS] + plan->bytes[MFI_PLAN_SCRATCH] +
                     plan->bytes[MFI_PLAN_TABLES] + cache;
    assert_in_range(small, 2 * MFI_MIB, 24 * MFI_MIB);
    uint64_t gaps = plan->program.dense_gap_bytes; /* beside the weights, for the drive's sake */
    uint64_t sum = h->dense_bytes + gaps + mft_kv_by_hand(h, 512, 1) + h->state_bytes +
                   top_k * mfi_align_up(h->expert_bytes, page) + small;
    return mfi_align_up(sum + MFI_MIN(sum / 63, 64 * MFI_MIB), MFI_MIB);
}

mf_status mft_published_plan(mfi_plan *plan, const mfi_model *model, mfi_plan_options options,
                             mf_error *err)
{
    const mfi_machine machine = {.n_cpus = 8,
                                 .mem_total = (uint64_t)1 << 41,
                                 .mem_available = (uint64_t)1 << 41,
                                 .cgroup_limit = UINT64_MAX};
    options.isa = MFI_ISA_C;
    return mfi_plan_make(plan, model, &machine, &options, err);
}

mfi_model *mft_published_open(const mft_headers *headers)
{
    mf_error err;
    mfi_model *model;
    mft_ok(mfi_model_open(&model, mft_headers_catalog(headers), &err), &err);
    return model;
}

static void check_counts(const mfi_plan *plan, const mft_hand *h)
{
    uint64_t kv = 0;
    for (uint32_t i = 0; i < plan->program.shape.n_layers; i++)
        kv += plan->program.state[i].kv_pos_bytes;
    const mfi_expert_layout *l = &plan->program.experts[mfi_program_expert_layer(&plan->program)];
    assert_int_equal(l->bytes - l->gap_bytes, h->expert_bytes);
    assert_int_equal(plan->token_expert_bytes, h->token_bytes);
    assert_int_equal(plan->expert_bytes_total, h->experts_bytes);
    assert_int_equal(plan->bytes[MFI_PLAN_DENSE] - plan->program.dense_gap_bytes, h->dense_bytes);
    assert_int_equal(kv, h->kv_bytes + h->window_kv_bytes);
    assert_int_equal(plan->bytes[MFI_PLAN_KV], mft_kv_by_hand(h, 512, 1));
    assert_int_equal(plan->bytes[MFI_PLAN_STATE], h->state_bytes);
}

void mft_published_check(const mfi_model *model, const mft_hand *h)
{
    mf_error err;
    mfi_plan plan;
    mfi_plan_options o = {.ctx = 512, .chunk = 1, .memory_bytes = 1};
    assert_int_equal(mft_published_plan(&plan, model, o, &err), MF_ERR_BUDGET);
    uint64_t least = plan.floor_bytes;
    char text[64];
    snprintf(text, sizeof text, "is %" PRIu64 "M", least / MFI_MIB);
    assert_non_null(strstr(err.message, text));
    mfi_plan_free(&plan);

    o.memory_bytes = least - 2 * MFI_MIB;
    assert_int_equal(mft_published_plan(&plan, model, o, &err), MF_ERR_BUDGET);
    mfi_plan_free(&plan);

    o.memory_bytes = least;
    mft_ok(mft_published_plan(&plan, model, o, &err), &err);
    assert_true(plan.fits && plan.n_slots >= model->shape.top_k);
    check_counts(&plan, h);
    printf("  %s: smallest budget %" PRIu64 " MiB\n", model->family, least / MFI_MIB);
    /* A slot more in the plan than at the floor costs the tables some bytes. */
    assert_in_range(floor_by_hand(h, &plan), least, least + MFI_MIB);
    mfi_plan_free(&plan);

    /* Left to itself, with all memory there is: everything fits, no expert is read twice. */
    mft_ok(mft_published_plan(&plan, model, (mfi_plan_options){0}, &err), &err);
    assert_int_equal(plan.n_slots, plan.n_experts_total);
    mfi_plan_free(&plan);
}

void mft_add_outside(mft_headers *h, uint32_t n_vocab, uint32_t hidden, bool tied)
{
    mft_headers_add(h, BF16, n_vocab, hidden, 0, "model.embed_tokens.weight");
    mft_headers_add(h, BF16, hidden, 0, 0, "model.norm.weight");
    if (!tied)
        mft_headers_add(h, BF16, n_vocab, hidden, 0, "lm_head.weight");
}

void mft_add_attention(mft_headers *h, mfi_qtype type, uint32_t i, uint32_t hidden, uint32_t q,
                       uint32_t kv)
{
    mft_headers_add(h, BF16, hidden, 0, 0, LAYER "input_layernorm.weight", i);
    mft_headers_add(h, BF16, hidden, 0, 0, LAYER "post_attention_layernorm.weight", i);
    mft_headers_add(h, type, q, hidden, 0, ATTN "q_proj.weight", i);
    mft_headers_add(h, type, kv, hidden, 0, ATTN "k_proj.weight", i);
    mft_headers_add(h, type, kv, hidden, 0, ATTN "v_proj.weight", i);
    mft_headers_add(h, type, hidden, q, 0, ATTN "o_proj.weight", i);
}

void mft_add_qkv_biases(mft_headers *h, uint32_t i, uint32_t q, uint32_t kv)
{
    mft_headers_add(h, BF16, q, 0, 0, ATTN "q_proj.bias", i);
    mft_headers_add(h, BF16, kv, 0, 0, ATTN "k_proj.bias", i);
    mft_headers_add(h, BF16, kv, 0, 0, ATTN "v_proj.bias", i);
}

void mft_add_glu(mft_headers *h, mfi_qtype type, uint32_t i, const char *what, uint32_t width,
                 uint32_t hidden)
{
    mft_headers_add(h, type, width, hidden, 0, LAYER "mlp.%sgate_proj.weight", i, what);
    mft_headers_add(h, type, width, hidden, 0, LAYER "mlp.%sup_proj.weight", i, what);
    mft_headers_add(h, type, hidden, width, 0, LAYER "mlp.%sdown_proj.weight", i, what);
}

void mft_add_experts(mft_headers *h, mfi_qtype type, uint32_t i, uint32_t n, uint32_t width,
                     uint32_t hidden)
{
    mft_headers_add(h, BF16, n, hidden, 0, LAYER "mlp.gate.weight", i);
    for (uint32_t e = 0; e < n; e++) {
        char what[32];
        snprintf(what, sizeof what, "experts.%u.", e);
        mft_add_glu(h, type, i, what, width, hidden);
    }
}

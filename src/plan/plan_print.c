/* The plan as a table for people and as JSON. Pure. */
#include <inttypes.h>
#include <string.h>

#include "plan/plan.h"

static const char *const item_names[MFI_PLAN_N_ITEMS] = {
    [MFI_PLAN_PROCESS] = "process",       [MFI_PLAN_CACHE] = "page cache",
    [MFI_PLAN_DENSE] = "dense weights",   [MFI_PLAN_KV] = "KV cache",
    [MFI_PLAN_STATE] = "recurrent state", [MFI_PLAN_SCRATCH] = "scratch",
    [MFI_PLAN_TABLES] = "tables",         [MFI_PLAN_SLOTS] = "expert slots"};

static const char *const item_keys[MFI_PLAN_N_ITEMS] = {
    [MFI_PLAN_PROCESS] = "process_bytes", [MFI_PLAN_CACHE] = "page_cache_bytes",
    [MFI_PLAN_DENSE] = "dense_bytes",     [MFI_PLAN_KV] = "kv_bytes",
    [MFI_PLAN_STATE] = "state_bytes",     [MFI_PLAN_SCRATCH] = "scratch_bytes",
    [MFI_PLAN_TABLES] = "tables_bytes",   [MFI_PLAN_SLOTS] = "slots_bytes"};

static double to_mib(uint64_t bytes)
{
    return (double)bytes / (double)MFI_MIB;
}

static uint64_t total_bytes(const mfi_plan *plan)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        total += plan->bytes[i];
    return total;
}

/* Bytes an average token misses if choices were uniform: the share of experts without a slot. Real
 * routing repeats itself, so it reads less. */
static uint64_t uniform_miss_bytes(const mfi_plan *plan)
{
    double share = 1.0 - (double)plan->n_slots / (double)plan->n_experts_total;
    return (uint64_t)((double)plan->token_expert_bytes * share);
}

static uint64_t total_vram(const mfi_plan *plan)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        total += plan->vram[i];
    return total;
}

static void print_device(const mfi_plan *plan, mfi_buf *out)
{
    mfi_buf_fmt(out, "\ndevice       %s; %.1f MiB of its memory (%s), at least %.1f\n\n",
                plan->device, to_mib(plan->vram_budget_bytes), plan->vram_reason,
                to_mib(plan->vram_floor_bytes));
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        if (plan->vram[i])
            mfi_buf_fmt(out, "%-16s %12.1f  %s\n",
                        i == MFI_PLAN_PROCESS ? "driver, lists" : item_names[i],
                        to_mib(plan->vram[i]), i == MFI_PLAN_SLOTS ? plan->vram_slots_reason : "");
    mfi_buf_fmt(out, "%-16s %12.1f  of %.1f\n", "total", to_mib(total_vram(plan)),
                to_mib(plan->vram_budget_bytes));
}

static void print_table(const mfi_plan *plan, const mfi_model *model, mfi_buf *out)
{
    const mfi_shape *s = &model->shape;
    char type[64];
    mfi_quant_name(plan->program.experts[mfi_program_expert_layer(&plan->program)].proj[0].type,
                   type, sizeof type);
    mfi_buf_fmt(out, "model        %s\n", mfi_catalog_path(model->catalog));
    mfi_buf_fmt(out, "family       %s (%s)\n", model->family, model->reason);
    uint32_t n_dense = s->n_layers - mfi_model_n_routed(model);
    mfi_buf_fmt(out, "shape        %u layers", s->n_layers);
    if (n_dense)
        mfi_buf_fmt(out, " (%u without experts)", n_dense);
    mfi_buf_fmt(out, ", hidden %u, vocabulary %u; %u experts a layer, top-%u, %s\n", s->hidden,
                s->n_vocab, s->n_experts, s->top_k, type);
    mfi_buf_fmt(out, "budget       %.1f MiB (%s); smallest with these options %.1f MiB\n",
                to_mib(plan->budget_bytes), plan->budget_reason, to_mib(plan->floor_bytes));
    mfi_buf_fmt(out, "context      %u (%s)\n", plan->ctx, plan->ctx_reason);
    mfi_buf_fmt(out, "chunk        %u (%s)\n", plan->chunk, plan->chunk_reason);
    mfi_buf_fmt(out, "threads      %u (%s)\n", plan->n_threads, plan->threads_reason);
    mfi_buf_fmt(out, "kernels      %s\n", mfi_isa_name(plan->isa));
    mfi_buf_fmt(out, "policy       %s (%s)\n", plan->policy, plan->policy_reason);
    mfi_buf_fmt(out, "activations  %s (%s)\n", mfi_plan_activations(plan),
                plan->activations_reason);
    mfi_buf_fmt(out, "\n%-16s %12s  %s\n", "memory", "MiB", "why");
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++)
        mfi_buf_fmt(out, "%-16s %12.1f  %s\n", item_names[i], to_mib(plan->bytes[i]),
                    plan->reason[i]);
    mfi_buf_fmt(out, "%-16s %12.1f  of %.1f\n", "total", to_mib(total_bytes(plan)),
                to_mib(plan->budget_bytes));
    if (plan->device[0])
        print_device(plan, out);
    mfi_buf_fmt(out,
                "\na token multiplies %.2f MiB of resident weights and %.2f MiB of experts (%.1f "
                "MiB on the drive in all)\n",
                to_mib(plan->token_dense_bytes), to_mib(plan->token_expert_bytes),
                to_mib(plan->expert_bytes_total));
    mfi_buf_fmt(out,
                "if choices were uniform it would read %.2f MiB from the drive: with M GB/s of "
                "memory and D GB/s\n"
                "of drive at best 1000 / (%.2f / M + %.2f / D) tokens/s\n",
                to_mib(uniform_miss_bytes(plan)),
                (double)(plan->token_dense_bytes + plan->token_expert_bytes) / 1e6,
                (double)uniform_miss_bytes(plan) / 1e6);
    if (!plan->fits && plan->device[0] && plan->n_slots < s->top_k)
        mfi_buf_fmt(out, "\nDOES NOT FIT: give at least --vram %" PRIu64 "M\n",
                    plan->vram_floor_bytes / MFI_MIB);
    else if (!plan->fits)
        mfi_buf_fmt(out, "\nDOES NOT FIT: give at least --memory %" PRIu64 "M\n",
                    plan->floor_bytes / MFI_MIB);
}

static void put_str(mfi_buf *out, const char *key, const char *value)
{
    mfi_buf_fmt(out, ",\"%s\":", key);
    mfi_json_put_str(out, value, strlen(value));
}

static void put_u64(mfi_buf *out, const char *key, uint64_t value)
{
    mfi_buf_fmt(out, ",\"%s\":%" PRIu64, key, value);
}

static void put_device(const mfi_plan *plan, mfi_buf *out)
{
    put_str(out, "device", plan->device);
    put_u64(out, "vram_budget_bytes", plan->vram_budget_bytes);
    put_u64(out, "vram_floor_bytes", plan->vram_floor_bytes);
    put_u64(out, "vram_total_bytes", total_vram(plan));
    put_u64(out, "host_slots", plan->n_host_slots);
    put_u64(out, "mapped_bytes", plan->mapped_bytes);
    put_u64(out, "weights_in_place", plan->n_in_place);
    if (!plan->tier_reason[0]) /* a device that computes in the host's memory: nothing is below it
                                */
        return;
    put_str(out, "host_tier", plan->in_place.experts ? "mapped" : "slots");
    put_str(out, "tier_reason", plan->tier_reason);
    put_str(out, "miss", plan->helper ? "cpu" : "copy");
    mfi_buf_fmt(out, ",\"exclusive\":%s", plan->exclusive ? "true" : "false");
}

static void print_json(const mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                       mfi_buf *out)
{
    const mfi_shape *s = &model->shape;
    char type[64];
    mfi_quant_name(plan->program.experts[mfi_program_expert_layer(&plan->program)].proj[0].type,
                   type, sizeof type);
    mfi_buf_str(out, "{\"schema\":1");
    put_str(out, "model", mfi_catalog_path(model->catalog));
    put_str(out, "family", model->family);
    put_str(out, "family_reason", model->reason);
    put_u64(out, "layers", s->n_layers);
    put_u64(out, "dense_layers", s->n_layers - mfi_model_n_routed(model));
    put_u64(out, "mtp_layers", model->n_mtp_layers);
    put_u64(out, "hidden", s->hidden);
    put_u64(out, "vocab", s->n_vocab);
    put_u64(out, "experts", s->n_experts);
    put_u64(out, "top_k", s->top_k);
    put_str(out, "expert_type", type);
    mfi_buf_fmt(out, ",\"fits\":%s", plan->fits ? "true" : "false");
    put_u64(out, "budget_bytes", plan->budget_bytes);
    put_str(out, "budget_reason", plan->budget_reason);
    put_u64(out, "floor_bytes", plan->floor_bytes);
    put_u64(out, "total_bytes", total_bytes(plan));
    put_u64(out, "ctx", plan->ctx);
    put_str(out, "ctx_reason", plan->ctx_reason);
    put_u64(out, "chunk", plan->chunk);
    put_str(out, "chunk_reason", plan->chunk_reason);
    put_u64(out, "threads", plan->n_threads);
    put_u64(out, "io_threads", plan->n_io_threads);
    put_str(out, "threads_reason", plan->threads_reason);
    put_str(out, "isa", mfi_isa_name(plan->isa));
    put_str(out, "activations", mfi_plan_activations(plan));
    put_str(out, "activations_reason", plan->activations_reason);
    put_str(out, "cache_type_k", mfi_plan_cache_type(plan, 0));
    put_str(out, "cache_type_v", mfi_plan_cache_type(plan, 1));
    put_str(out, "policy", plan->policy);
    put_str(out, "policy_reason", plan->policy_reason);
    mfi_buf_str(out, ",\"memory\":[");
    for (uint32_t i = 0; i < MFI_PLAN_N_ITEMS; i++) {
        mfi_buf_fmt(out, "%s{\"item\":\"%s\",\"bytes\":%" PRIu64 ",\"reason\":", i ? "," : "",
                    item_keys[i], plan->bytes[i]);
        mfi_json_put_str(out, plan->reason[i], strlen(plan->reason[i]));
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]");
    if (plan->device[0])
        put_device(plan, out);
    put_u64(out, "slots", plan->n_slots);
    put_u64(out, "slot_bytes", plan->slot_stride);
    put_u64(out, "experts_total", plan->n_experts_total);
    put_u64(out, "expert_bytes_total", plan->expert_bytes_total);
    put_u64(out, "token_dense_bytes", plan->token_dense_bytes);
    put_u64(out, "token_expert_bytes", plan->token_expert_bytes);
    put_u64(out, "token_uniform_miss_bytes", uniform_miss_bytes(plan));
    put_u64(out, "ignored_tensors", model->n_ignored);
    put_u64(out, "machine_cpus", machine->n_cpus);
    put_u64(out, "machine_available_bytes", machine->mem_available);
    mfi_buf_str(out, "}\n");
}

void mfi_plan_print(const mfi_plan *plan, const mfi_model *model, const mfi_machine *machine,
                    bool json, mfi_buf *out)
{
    if (json)
        print_json(plan, model, machine, out);
    else
        print_table(plan, model, out);
}

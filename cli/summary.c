/* The summary of `moeflux run`: derives rates from counters and writes them. Called once at the end
 * of a run on the main thread. */
#include "summary.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "size.h"

void cli_run_facts_take(cli_run_facts *facts, const mf_engine *engine)
{
    facts->stats.struct_size = sizeof facts->stats;
    facts->info.struct_size = sizeof facts->info;
    mf_engine_stats(engine, &facts->stats);
    mf_engine_info(engine, &facts->info);
}

const char *cli_stop_name(mf_stop stop)
{
    switch (stop) {
    case MF_STOP_EOS:
        return "eos";
    case MF_STOP_LENGTH:
        return "length";
    case MF_STOP_CONTEXT:
        return "context";
    case MF_STOP_CANCELLED:
        return "cancelled";
    case MF_STOP_STRING:
        return "stop";
    }
    return "?";
}

static double per_second(double n, uint64_t ns)
{
    return ns ? n * 1e9 / (double)ns : 0;
}

/* Tokens evaluated after the prompt: the last one generated is not. decode_ns covers as many. */
static double n_decoded(const cli_run_facts *facts)
{
    return facts->result.n_generated > 1 ? (double)(facts->result.n_generated - 1) : 0;
}

static double decoded_per_token(const cli_run_facts *facts, uint64_t at_end, uint64_t at_first)
{
    double n = n_decoded(facts);
    return n > 0 && facts->has_prompt_stats ? (double)(at_end - at_first) / n : 0;
}

static double bytes_per_token(const cli_run_facts *facts)
{
    return decoded_per_token(facts, facts->stats.expert_bytes_read,
                             facts->prompt_stats.expert_bytes_read);
}

static double stall_ns_per_token(const cli_run_facts *facts)
{
    return decoded_per_token(facts, facts->stats.stall_ns, facts->prompt_stats.stall_ns);
}

static void put_experts(const mf_stats *s, mfi_buf *out)
{
    uint64_t uses = s->expert_hits + s->expert_misses;
    double hit_percent = uses ? 100.0 * (double)s->expert_hits / (double)uses : 0;
    mfi_buf_fmt(out, "experts     room for %u of %u (", s->n_slots, s->n_experts_total);
    cli_put_size(out, (double)s->slot_bytes);
    mfi_buf_str(out, " of ");
    cli_put_size(out, (double)s->expert_bytes_total);
    mfi_buf_fmt(out, "); %llu hits, %llu misses (%.1f %% hit), %llu evictions\n",
                (unsigned long long)s->expert_hits, (unsigned long long)s->expert_misses,
                hit_percent, (unsigned long long)s->expert_evictions);
}

void cli_summary_print(const cli_run_facts *facts)
{
    const mf_stats *s = &facts->stats;
    const mf_generate_result *r = &facts->result;
    double prompt_rate = per_second((double)r->n_prompt, r->prompt_ns);
    double decode_rate = per_second(n_decoded(facts), r->decode_ns);
    mfi_buf out = {0};
    mfi_buf_fmt(&out, "model       %s, %s; activations %s, kernels %s, threads %u, context %u\n",
                facts->info.family, facts->info.weights, facts->info.activations, facts->info.isa,
                facts->info.n_threads, facts->info.ctx);
    mfi_buf_fmt(&out, "prompt      %zu tokens, %.1f tokens/s\n", r->n_prompt, prompt_rate);
    mfi_buf_fmt(&out, "generation  %zu tokens, %.1f tokens/s, stop: %s\n", r->n_generated,
                decode_rate, cli_stop_name(r->stop));
    put_experts(s, &out);
    mfi_buf_str(&out, "read        ");
    cli_put_size(&out, (double)s->expert_bytes_read);
    mfi_buf_fmt(&out,
                " of experts, stalled %.1f ms; a generated token: ", (double)s->stall_ns / 1e6);
    cli_put_size(&out, bytes_per_token(facts));
    mfi_buf_fmt(&out, ", %.2f ms\n", stall_ns_per_token(facts) / 1e6);
    if (facts->info.tier_reason[0]) {
        mfi_buf_str(&out, "copied      ");
        cli_put_size(&out, (double)s->expert_bytes_copied);
        mfi_buf_str(&out, " to the device, ");
        cli_put_size(&out, (double)s->expert_bytes_fetched);
        mfi_buf_fmt(&out, " back; %llu experts computed by the CPU (%s)\n",
                    (unsigned long long)s->experts_on_cpu, facts->info.tier_reason);
    }
    mfi_buf_fmt(&out, "reader      %s, %s (%s)\n", facts->info.reader,
                facts->info.direct ? "past the page cache" : "through the page cache",
                facts->info.reader_reason);
    mfi_buf_str(&out, "memory      peak ");
    cli_put_size(&out, (double)s->peak_bytes);
    mfi_buf_str(&out, " of a budget of ");
    cli_put_size(&out, (double)s->budget_bytes);
    mfi_buf_str(&out, "\n");
    if (!out.failed)
        fputs(out.data, stderr);
    mfi_buf_free(&out);
}

static void put_u64(mfi_buf *out, const char *key, uint64_t v)
{
    mfi_buf_fmt(out, "\"%s\":%llu", key, (unsigned long long)v);
}

static void put_f64(mfi_buf *out, const char *key, double v)
{
    mfi_buf_fmt(out, "\"%s\":", key);
    mfi_json_put_f64(out, v);
}

static void put_str(mfi_buf *out, const char *key, const char *v, size_t len)
{
    mfi_buf_fmt(out, "\"%s\":", key);
    mfi_json_put_str(out, v ? v : "", len);
}

static void put_json_experts(const cli_run_facts *facts, mfi_buf *out)
{
    const mf_stats *s = &facts->stats;
    const struct {
        const char *key;
        uint64_t value;
    } counters[] = {
        {"hits", s->expert_hits},
        {"misses", s->expert_misses},
        {"evictions", s->expert_evictions},
        {"bytes_read", s->expert_bytes_read},
        {"bytes_copied", s->expert_bytes_copied},
        {"bytes_fetched", s->expert_bytes_fetched},
        {"on_cpu", s->experts_on_cpu},
        {"stall_ns", s->stall_ns},
        {"slots", s->n_slots},
        {"total", s->n_experts_total},
        {"slot_bytes", s->slot_bytes},
        {"total_bytes", s->expert_bytes_total},
    };
    mfi_buf_str(out, "\"experts\":{");
    for (size_t i = 0; i < MFI_ARRAY_LEN(counters); i++) {
        put_u64(out, counters[i].key, counters[i].value);
        mfi_buf_str(out, ",");
    }
    put_f64(out, "bytes_read_per_token", bytes_per_token(facts));
    mfi_buf_str(out, ",");
    put_f64(out, "stall_ns_per_token", stall_ns_per_token(facts));
    mfi_buf_str(out, "}");
}

void cli_summary_json(const cli_run_facts *facts, const cli_answer *answer, mfi_buf *out)
{
    const mf_generate_result *r = &facts->result;
    mfi_buf_str(out, "{\"schema\":1,");
    cli_answer_put_json(answer, out);
    mfi_buf_fmt(out, ",\"prompt_tokens\":%zu,\"generated_tokens\":%zu,\"stop\":\"%s\",",
                r->n_prompt, r->n_generated, cli_stop_name(r->stop));
    if (facts->logprobs) {
        mfi_buf_str(out, "\"logprobs\":[");
        mfi_buf_append(out, facts->logprobs->data, facts->logprobs->len);
        mfi_buf_str(out, "],");
    }
    put_u64(out, "seed", facts->seed);
    mfi_buf_str(out, ",\"timings\":{");
    put_u64(out, "prompt_ns", r->prompt_ns);
    mfi_buf_str(out, ",");
    put_u64(out, "decode_ns", r->decode_ns);
    mfi_buf_str(out, ",");
    put_f64(out, "prompt_per_second", per_second((double)r->n_prompt, r->prompt_ns));
    mfi_buf_str(out, ",");
    put_f64(out, "decode_per_second", per_second(n_decoded(facts), r->decode_ns));
    mfi_buf_str(out, "},");
    put_json_experts(facts, out);
    mfi_buf_str(out, ",\"memory\":{");
    put_u64(out, "budget_bytes", facts->stats.budget_bytes);
    mfi_buf_str(out, ",");
    put_u64(out, "peak_bytes", facts->stats.peak_bytes);
    mfi_buf_str(out, ",");
    put_u64(out, "dense_bytes", facts->stats.dense_bytes);
    mfi_buf_str(out, "},\"model\":{");
    put_str(out, "family", facts->info.family, strlen(facts->info.family));
    mfi_buf_str(out, ",");
    put_str(out, "weights", facts->info.weights, strlen(facts->info.weights));
    mfi_buf_str(out, ",");
    put_str(out, "activations", facts->info.activations, strlen(facts->info.activations));
    mfi_buf_str(out, ",");
    put_str(out, "isa", facts->info.isa, strlen(facts->info.isa));
    mfi_buf_str(out, ",");
    put_str(out, "reader", facts->info.reader, strlen(facts->info.reader));
    mfi_buf_str(out, ",");
    put_str(out, "policy", facts->info.policy, strlen(facts->info.policy));
    mfi_buf_fmt(out, ",\"direct\":%s", facts->info.direct ? "true" : "false");
    mfi_buf_fmt(out, ",\"threads\":%u,\"ctx\":%u,\"chunk\":%u}}\n", facts->info.n_threads,
                facts->info.ctx, facts->info.chunk);
}

/* `moeflux replay`: what caches of several sizes and policies would have hit on a recorded trace,
 * beside the most that any could. As a table, as JSON, as a plot. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "cli.h"
#include "output.h"
#include "replay_plot.h"
#include "size.h"

static const char *const default_sizes = "5%,10%,20%,30%,40%,50%,60%,80%,100%";

typedef struct job {
    const cli_args *args;
    mf_replay *replay;
    mf_replay_info info;
    cli_replay_sweep sweep;
} job;

/* Calls for each word between commas. */
static int each_word(const char *list, int (*take)(job *j, const char *word), job *j)
{
    char word[64];
    int code = CLI_EXIT_OK;
    while (!code) {
        size_t len = strcspn(list, ",");
        if (len == 0 || len >= sizeof word)
            return cli_usage_error("'%s' is no list of words with commas between", list);
        memcpy(word, list, len);
        word[len] = 0;
        code = take(j, word);
        if (!list[len])
            break;
        list += len + 1;
    }
    return code;
}

/* A number of experts, a share of all, or bytes with a unit. */
static int take_size(job *j, const char *word)
{
    cli_replay_sweep *sweep = &j->sweep;
    uint64_t total = (uint64_t)j->info.n_layers * j->info.n_experts, n;
    if (!cli_parse_u64(word, &n)) {
        bool share = word[strlen(word) - 1] == '%';
        if (!cli_parse_size(word, total, &n))
            return cli_usage_error("--cache: '%s' is no size (512, 25%%, 8G)", word);
        if (!share && !j->info.expert_bytes)
            return cli_error(CLI_EXIT_RUNTIME,
                             "%s doesn't say how large an expert is: give --cache "
                             "in experts or percent",
                             j->args->positional[0]);
        if (!share)
            n /= j->info.expert_bytes;
    }
    if (n < j->info.top_k)
        return cli_error(CLI_EXIT_RUNTIME,
                         "a cache of %s holds %llu experts; a token wants %u at once", word,
                         (unsigned long long)n, j->info.top_k);
    if (sweep->n_points == CLI_REPLAY_POINTS_MAX)
        return cli_usage_error("--cache: at most %d sizes", CLI_REPLAY_POINTS_MAX);
    sweep->points[sweep->n_points++].n_slots = (uint32_t)(n < total ? n : total);
    return CLI_EXIT_OK;
}

static int take_policy(job *j, const char *word)
{
    cli_replay_sweep *sweep = &j->sweep;
    if (sweep->n_policies == CLI_REPLAY_POLICIES_MAX)
        return cli_usage_error("--policy: at most %d of them", CLI_REPLAY_POLICIES_MAX);
    snprintf(sweep->policies[sweep->n_policies++], sizeof *sweep->policies, "%s", word);
    return CLI_EXIT_OK;
}

static int replay_all(job *j)
{
    mf_error err = {0};
    for (size_t i = 0; i < j->sweep.n_points; i++) {
        cli_replay_point *point = &j->sweep.points[i];
        mf_status status = mf_replay_hits(j->replay, NULL, point->n_slots, &point->bound, &err);
        for (size_t k = 0; k < j->sweep.n_policies && status == MF_OK; k++)
            status = mf_replay_hits(j->replay, j->sweep.policies[k], point->n_slots,
                                    &point->hits[k], &err);
        if (status != MF_OK)
            return status == MF_ERR_ARGUMENT ? cli_usage_error("--policy: %s", err.message)
                                             : cli_report(status, &err, CLI_RUNNING);
    }
    return CLI_EXIT_OK;
}

/* ---- output ---- */

static double percent(const job *j, uint64_t hits)
{
    return 100.0 * (double)hits / (double)j->info.n_choices;
}

static void put_bytes(const job *j, uint64_t hits, mfi_buf *out)
{
    double misses = (double)(j->info.n_choices - hits) / (double)j->info.n_tokens;
    mfi_buf text = {0};
    if (j->info.expert_bytes)
        cli_put_size(&text, misses * (double)j->info.expert_bytes);
    else
        mfi_buf_fmt(&text, "%.1f experts", misses);
    mfi_buf_fmt(out, " %13s", text.failed ? "" : text.data);
    mfi_buf_free(&text);
}

static void put_table(const job *j, mfi_buf *out)
{
    const cli_replay_sweep *s = &j->sweep;
    uint64_t total = (uint64_t)j->info.n_layers * j->info.n_experts;
    mfi_buf_fmt(out, "%llu tokens, %u layers of %u experts, top-%u\n\n",
                (unsigned long long)j->info.n_tokens, j->info.n_layers, j->info.n_experts,
                j->info.top_k);
    mfi_buf_fmt(out, "%8s %7s", "cache", "of all");
    for (size_t k = 0; k < s->n_policies; k++)
        mfi_buf_fmt(out, " %7s %13s", s->policies[k], "read a token");
    mfi_buf_fmt(out, " %7s %13s\n", "bound", "read a token");
    for (size_t i = 0; i < s->n_points; i++) {
        const cli_replay_point *p = &s->points[i];
        mfi_buf_fmt(out, "%8u %5.1f %%", p->n_slots, 100.0 * p->n_slots / (double)total);
        for (size_t k = 0; k <= s->n_policies; k++) {
            uint64_t hits = k < s->n_policies ? p->hits[k] : p->bound;
            mfi_buf_fmt(out, " %5.1f %%", percent(j, hits));
            put_bytes(j, hits, out);
        }
        mfi_buf_str(out, "\n");
    }
}

static void put_json(const job *j, mfi_buf *out)
{
    const cli_replay_sweep *s = &j->sweep;
    mfi_buf_fmt(out,
                "{\"schema\":1,\"layers\":%u,\"experts\":%u,\"top_k\":%u,\"expert_bytes\":%llu,"
                "\"tokens\":%llu,\"choices\":%llu,\"sweep\":[",
                j->info.n_layers, j->info.n_experts, j->info.top_k,
                (unsigned long long)j->info.expert_bytes, (unsigned long long)j->info.n_tokens,
                (unsigned long long)j->info.n_choices);
    for (size_t i = 0; i < s->n_points; i++) {
        const cli_replay_point *p = &s->points[i];
        mfi_buf_fmt(out, "%s{\"cache\":%u,\"bound_hits\":%llu", i ? "," : "", p->n_slots,
                    (unsigned long long)p->bound);
        for (size_t k = 0; k < s->n_policies; k++)
            mfi_buf_fmt(out, ",\"%s_hits\":%llu", s->policies[k], (unsigned long long)p->hits[k]);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]}\n");
}

static int write_plot(const job *j)
{
    mfi_buf svg = {0};
    cli_outfile file;
    cli_output out;
    uint64_t total = (uint64_t)j->info.n_layers * j->info.n_experts;
    cli_replay_plot(&j->sweep, total, j->info.n_choices, &svg);
    int code = svg.failed ? cli_error(CLI_EXIT_ROOM, "out of memory")
                          : cli_outfile_open(&file, j->args->svg);
    if (!code) {
        cli_output_open(&out, file.fd, j->args->svg);
        cli_output_write(&out, svg.data, svg.len);
        code = cli_output_close(&out);
        if (!code)
            code = cli_outfile_commit(&file);
        cli_outfile_close(&file);
    }
    mfi_buf_free(&svg);
    return code;
}

static int print(const job *j)
{
    mfi_buf text = {0};
    if (j->args->json)
        put_json(j, &text);
    else
        put_table(j, &text);
    int code = text.failed ? cli_error(CLI_EXIT_ROOM, "out of memory") : cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

int cli_replay(const cli_args *args)
{
    job j = {.args = args};
    mf_error err = {0};
    int code = cli_report(mf_replay_open(&j.replay, args->positional[0], &err), &err, CLI_OPENING);
    if (code)
        return code;
    mf_replay_info_get(j.replay, &j.info);
    code = each_word(args->policy ? args->policy : "lru,lfu,odds", take_policy, &j);
    if (!code)
        code = each_word(args->cache ? args->cache : default_sizes, take_size, &j);
    if (!code)
        code = replay_all(&j);
    if (!code && args->svg)
        code = write_plot(&j);
    if (!code)
        code = print(&j);
    mf_replay_close(&j.replay);
    return code;
}

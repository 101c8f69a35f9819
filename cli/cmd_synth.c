/* `moeflux synth`: makes a model of a published shape with random weights. The library writes
 * beside FILE and renames at the end. */
#include <string.h>

#include "cli.h"

/* The library names what was wrong with the request, and what there is, as a field of its options.
 */
static bool is_request(const mf_error *err)
{
    static const char *const fields[] = {"arch:", "shape:", "quant:", "layers:"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(fields); i++)
        if (strncmp(err->message, fields[i], strlen(fields[i])) == 0)
            return true;
    return false;
}

int cli_synth(const cli_args *args)
{
    char quant[16];
    mf_synth_options options;
    mf_error err = {0};
    cli_progress progress;
    mf_synth_options_default(&options);
    options.arch = args->arch;
    options.shape = args->shape;
    cli_lower(args->quant, quant, sizeof quant);
    options.quant = quant;
    options.n_layers = (uint32_t)args->layers;
    if (args->routing && strcmp(args->routing, "skewed") == 0)
        options.routing = MF_ROUTING_SKEWED;
    if (CLI_GIVEN(args, seed))
        options.seed = args->seed;
    options.out_path = args->output;
    options.n_threads = (uint32_t)args->threads;
    if (strcmp(args->output, "-") == 0)
        return cli_usage_error("-o -: a GGUF file is not written in order; name a file");
    cli_progress_init(&progress, args->no_progress);
    options.progress = cli_progress_update;
    options.progress_user = &progress;
    mf_status status = mf_synth(&options, &err);
    cli_progress_clear(&progress);
    if (status == MF_ERR_ARGUMENT && is_request(&err))
        return cli_usage_error("%s", err.message);
    return cli_report(status, &err, CLI_RUNNING);
}

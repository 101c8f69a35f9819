/* `moeflux synth`: makes a model of a published shape with random weights. The library writes
 * beside FILE and renames at the end. */
#include <string.h>

#include "cli.h"

int cli_synth(const cli_args *args)
{
    mf_synth_options options;
    mf_error err = {0};
    cli_progress progress;
    mf_synth_options_default(&options);
    options.arch = args->arch;
    options.shape = args->shape;
    options.quant = args->quant;
    options.n_layers = (uint32_t)args->layers;
    if (args->routing && strcmp(args->routing, "skewed") == 0)
        options.routing = MF_ROUTING_SKEWED;
    if (CLI_GIVEN(args, seed))
        options.seed = args->seed;
    options.out_path = args->output;
    cli_progress_init(&progress, args->no_progress);
    options.progress = cli_progress_update;
    options.progress_user = &progress;
    mf_status status = mf_synth(&options, &err);
    cli_progress_clear(&progress);
    return cli_report(status, &err, CLI_RUNNING);
}

/* `moeflux pack`: writes a model as a pack, or checks one. The library writes beside OUT, goes on
 * where an interrupted try ended, and renames at the end. */
#include "cli.h"

static mf_status verify(const char *path, cli_progress *progress, mf_error *err)
{
    mf_status status = mf_pack_verify(path, cli_progress_update, progress, err);
    cli_progress_clear(progress);
    return status;
}

int cli_pack(const cli_args *args)
{
    mf_pack_options options;
    mf_error err = {0};
    cli_progress progress;
    const char *out = args->positional[1];
    if (!out && !args->verify)
        return cli_usage_error("OUT is missing");
    cli_progress_init(&progress, args->no_progress);
    if (!out)
        return cli_report(verify(args->positional[0], &progress, &err), &err, CLI_RUNNING);
    mf_pack_options_default(&options);
    options.in_path = args->positional[0];
    options.out_path = out;
    options.progress = cli_progress_update;
    options.progress_user = &progress;
    mf_status status = mf_pack(&options, &err);
    cli_progress_clear(&progress);
    if (status == MF_OK && args->verify)
        status = verify(out, &progress, &err);
    return cli_report(status, &err, CLI_RUNNING);
}

/* `moeflux plan`: prints the plan that an engine would follow. Loads no weights. */
#include <unistd.h>

#include "cli.h"
#include "output.h"

static bool write_stdout(void *user, const char *bytes, size_t len)
{
    return cli_output_write(user, bytes, len);
}

int cli_plan(const cli_args *args)
{
    mf_engine_options options;
    mf_error err = {0};
    cli_progress progress;
    cli_output out;
    cli_progress_init(&progress, true);
    cli_engine_options(args, 0, &progress, &options);
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    mf_status status = mf_plan_write(&options, args->json, write_stdout, &out, &err);
    int write_code = cli_output_close(&out);
    return write_code ? write_code : cli_report(status, &err, CLI_OPENING);
}

/* `moeflux inspect`: what a model's files hold, or one of its tensors as float32. */
#include <unistd.h>

#include "cli.h"
#include "output.h"
#include "signals.h"

static bool write_output(void *user, const char *bytes, size_t len)
{
    return !cli_signal_code() && cli_output_write(user, bytes, len);
}

static int inspect(const cli_args *args)
{
    mf_error err = {0};
    cli_output out;
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    mf_status status = mf_inspect_write(args->model, args->json, write_output, &out, &err);
    int write_code = cli_output_close(&out);
    return write_code ? write_code : cli_report(status, &err, CLI_OPENING);
}

static int write_tensor(const cli_args *args)
{
    mf_error err = {0};
    cli_outfile file;
    cli_output out;
    int code = cli_outfile_open(&file, args->f32);
    if (!code) {
        cli_output_open(&out, file.fd, args->f32);
        mf_status status = mf_tensor_read_f32(args->model, args->tensor, write_output, &out, &err);
        code = cli_output_close(&out);
        code = code ? code : cli_report(status, &err, CLI_OPENING);
    }
    if (!code)
        code = cli_outfile_commit(&file);
    cli_outfile_close(&file);
    return code;
}

int cli_inspect(const cli_args *args)
{
    if (!args->tensor != !args->f32)
        return cli_usage_error("--tensor and --f32 go together");
    if (args->tensor && args->json)
        return cli_usage_error("--json doesn't go with --tensor");
    return args->tensor ? write_tensor(args) : inspect(args);
}

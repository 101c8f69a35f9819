/* `moeflux families`, `moeflux devices` and `moeflux completion`: texts that need no model. */
#include <unistd.h>

#include "cli.h"
#include "output.h"

static bool write_text(void *user, const char *bytes, size_t len)
{
    return cli_output_write(user, bytes, len);
}

int cli_families(const cli_args *args)
{
    cli_output out;
    mf_error err = {0};
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    mf_status status = mf_families_write(args->json, write_text, &out, &err);
    int write_code = cli_output_close(&out);
    return write_code ? write_code : cli_report(status, &err, CLI_RUNNING);
}

int cli_devices(const cli_args *args)
{
    cli_output out;
    mf_error err = {0};
    cli_output_open(&out, STDOUT_FILENO, "standard output");
    mf_status status = mf_devices_write(args->json, write_text, &out, &err);
    int write_code = cli_output_close(&out);
    return write_code ? write_code : cli_report(status, &err, CLI_RUNNING);
}

int cli_completion(const cli_args *args)
{
    mfi_buf text = {0};
    if (!cli_completion_script(args->positional[0], &text))
        return cli_usage_error("no completion for '%s'; there is one for bash, zsh and fish",
                               args->positional[0]);
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

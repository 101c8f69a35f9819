/* `moeflux inspect`: what a model's files hold, or one of its tensors as float32. */
#include <string.h>
#include <unistd.h>

#include "base/json.h"
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

/* What was written, as one object. */
static int print_tensor(const cli_args *args, const mf_tensor_info *info)
{
    mfi_buf text = {0};
    uint64_t n = 1;
    mfi_buf_str(&text, "{\"schema\":1,\"tensor\":");
    mfi_json_put_str(&text, args->tensor, strlen(args->tensor));
    mfi_buf_fmt(&text, ",\"type\":\"%s\",\"shape\":[", info->type);
    for (uint32_t i = 0; i < info->n_dims; i++) {
        n *= info->dims[i];
        mfi_buf_fmt(&text, "%s%llu", i ? "," : "", (unsigned long long)info->dims[i]);
    }
    mfi_buf_fmt(&text,
                "],\"elements\":%llu,\"dtype\":\"float32\",\"file\":", (unsigned long long)n);
    mfi_json_put_str(&text, args->f32, strlen(args->f32));
    mfi_buf_str(&text, "}\n");
    int code = cli_print(&text);
    mfi_buf_free(&text);
    return code;
}

static int write_tensor(const cli_args *args)
{
    mf_error err = {0};
    mf_tensor_info info = {.struct_size = sizeof info};
    cli_outfile file;
    cli_output out;
    int code = cli_outfile_open(&file, args->f32);
    if (!code) {
        cli_output_open(&out, file.fd, args->f32);
        mf_status status = mf_tensor_read_f32(args->model, args->tensor, (uint32_t)args->threads,
                                              write_output, &out, &info, &err);
        code = cli_output_close(&out);
        code = code ? code : cli_report(status, &err, CLI_OPENING);
    }
    if (!code)
        code = cli_outfile_commit(&file);
    cli_outfile_close(&file);
    return code || !args->json ? code : print_tensor(args, &info);
}

int cli_inspect(const cli_args *args)
{
    if (!args->tensor != !args->f32)
        return cli_usage_error("--tensor and --f32 go together");
    if (args->f32 && args->json && strcmp(args->f32, "-") == 0)
        return cli_usage_error("--f32 - and --json both write to standard output");
    return args->tensor ? write_tensor(args) : inspect(args);
}

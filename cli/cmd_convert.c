/* `moeflux convert`: quantises a model into a folder (MLX) or a GGUF file. The library writes
 * beside OUT and renames at the end. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "size.h"

/* NULL, or what doesn't go together. */
static const char *mismatch(const cli_args *args, bool mlx)
{
    const char *out = args->positional[1];
    size_t len = strlen(out);
    bool gguf = len > 5 && strcmp(out + len - 5, ".gguf") == 0;
    if (mlx && gguf)
        return "MLX types are written into a folder, but OUT ends in .gguf";
    if (!mlx && !gguf)
        return "this type is written into a GGUF file: OUT must end in .gguf";
    if (!mlx && (args->group_size || args->dense_bits))
        return "--group-size and --dense-bits are for MLX types";
    if (mlx && args->imatrix)
        return "--imatrix is for GGUF types";
    return NULL;
}

/* Whether the folder that a path lies in can be written to; errno if not. */
static bool has_folder(const char *path)
{
    mfi_buf folder = {0};
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len && path[len - 1] != '/')
        len--;
    mfi_buf_append(&folder, len ? path : ".", len ? len : 1);
    bool ok = !folder.failed && access(folder.data, W_OK | X_OK) == 0;
    int reason = folder.failed ? ENOMEM : errno;
    mfi_buf_free(&folder);
    errno = reason;
    return ok;
}

int cli_convert(const cli_args *args)
{
    mf_convert_options options;
    mf_error err = {0};
    cli_progress progress;
    uint64_t group_size = 0, dense_bits = 0;
    struct stat st;
    char quant[16];
    cli_lower(args->quant, quant, sizeof quant);
    bool mlx = strncmp(quant, "mlx", strlen("mlx")) == 0;
    const char *wrong = mismatch(args, mlx);
    if (wrong)
        return cli_usage_error("--quant %s: %s", args->quant, wrong);
    if (lstat(args->positional[1], &st) == 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s exists already", args->positional[1]);
    if (!has_folder(args->positional[1]))
        return cli_error(CLI_EXIT_RUNTIME, "cannot write %s: %s", args->positional[1],
                         strerror(errno));
    if (args->group_size)
        cli_parse_u64(args->group_size, &group_size);
    if (args->dense_bits)
        cli_parse_u64(args->dense_bits, &dense_bits);
    mf_convert_options_default(&options);
    options.in_path = args->positional[0];
    options.out_path = args->positional[1];
    if (mlx)
        options.bits = (uint32_t)(quant[strlen("mlx")] - '0');
    else
        options.type = quant;
    options.imatrix_path = args->imatrix;
    options.n_threads = (uint32_t)args->threads;
    options.dense_bits = (uint32_t)dense_bits;
    options.group_size = (uint32_t)group_size;
    options.memory_bytes = args->memory;
    cli_progress_init(&progress, args->no_progress);
    options.progress = cli_progress_update;
    options.progress_user = &progress;
    mf_status status = mf_convert(&options, &err);
    cli_progress_clear(&progress);
    return cli_report(status, &err, CLI_RUNNING);
}

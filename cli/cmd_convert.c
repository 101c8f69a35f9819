/* `moeflux convert`: quantises a model folder. The library writes beside OUT and renames at the
 * end. */
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "size.h"

int cli_convert(const cli_args *args)
{
    mf_convert_options options;
    mf_error err = {0};
    cli_progress progress;
    uint64_t group_size = 0, dense_bits = 0;
    struct stat st;
    if (lstat(args->positional[1], &st) == 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s exists already", args->positional[1]);
    if (args->group_size)
        cli_parse_u64(args->group_size, &group_size);
    if (args->dense_bits)
        cli_parse_u64(args->dense_bits, &dense_bits);
    mf_convert_options_default(&options);
    options.in_path = args->positional[0];
    options.out_path = args->positional[1];
    options.bits = (uint32_t)(args->quant[strlen("mlx")] - '0');
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

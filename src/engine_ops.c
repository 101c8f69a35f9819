/* Times of ops, summed up by what ops do: a layer's like those of the other layers. Called by the
 * engine when somebody asks, on its thread; allocates nothing. */
#include <string.h>

#include "engine_int.h"
#include "op/op_bytes.h"

size_t mfi_engine_sum_ops(const mfi_program *program, const mfi_op_time *times, mf_op_time *out,
                          size_t n_max)
{
    char label[MFI_OP_LABEL_BYTES], other[MFI_OP_LABEL_BYTES];
    size_t n = 0;
    _Static_assert(sizeof out->name == MFI_OP_LABEL_BYTES, "a label fits");
    const uint32_t n_ops = program->n_ops + program->n_hint_ops;
    for (uint32_t i = 0; i < n_ops; i++) {
        uint32_t first = 0;
        mfi_op_label(&program->ops[i], label);
        for (mfi_op_label(&program->ops[0], other); strcmp(other, label) != 0;)
            mfi_op_label(&program->ops[++first], other);
        if (first < i)
            continue; /* counted with the first of its kind */
        mf_op_time sum = {0};
        memcpy(sum.name, label, sizeof sum.name);
        for (uint32_t k = i; k < n_ops; k++) {
            mfi_op_label(&program->ops[k], other);
            if (strcmp(other, label) != 0)
                continue;
            sum.n_runs += times[k].n_runs;
            sum.ns += times[k].ns;
            sum.bytes += times[k].bytes;
        }
        if (sum.n_runs == 0)
            continue; /* hints that nobody asked for */
        if (n < n_max)
            out[n] = sum;
        n++;
    }
    return n;
}

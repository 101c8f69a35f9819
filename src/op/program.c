/* Releasing a program, and asking it simple things; the plan builds it. Pure. */
#include "op/program.h"

#include <stdlib.h>

uint32_t mfi_program_expert_layer(const mfi_program *program)
{
    for (uint32_t i = 0; i < program->shape.n_layers; i++)
        if (program->experts[i].bytes)
            return i;
    MFI_ASSERT(!"a model without routed experts");
    return 0;
}

void mfi_program_free(mfi_program *program)
{
    free(program->ops);
    free(program->layer_end);
    free(program->weights);
    free(program->experts);
    free(program->state);
    *program = (mfi_program){0};
}

uint64_t mfi_program_weight_span(const mfi_program_weight *w)
{
    uint64_t end = w->offset[0];
    for (uint32_t p = 0; p < mfi_quant_n_planes(w->type); p++) {
        uint64_t at = w->offset[p] + mfi_quant_plane_bytes(w->type, p, w->rows, w->cols);
        end = MFI_MAX(end, at);
    }
    return end - w->offset[0];
}

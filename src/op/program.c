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
    free(program->hint_first);
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

uint32_t mfi_program_n_parts(const mfi_program *p)
{
    uint32_t most = MFI_EXPERT_PROJS * MFI_MAX_PLANES;
    for (uint32_t layer = 0; layer < p->shape.n_layers; layer++) {
        uint32_t n = 0;
        for (uint32_t proj = 0; proj < MFI_EXPERT_PROJS; proj++) {
            const mfi_expert_mat *mat = &p->experts[layer].proj[proj];
            n += (mat->rows ? mfi_quant_n_planes(mat->type) : 0) + (mat->n_bias > 0);
        }
        most = MFI_MAX(most, n);
    }
    return most;
}

uint64_t mfi_program_input_columns(const mfi_program *program)
{
    const mfi_shape *s = &program->shape;
    uint64_t most = 0;
    for (uint32_t i = 0; i < program->n_ops; i++) {
        const mfi_op *op = &program->ops[i];
        const mfi_program_buf *b = &program->bufs[op->src[0]];
        if (op->code == MFI_OP_EXPERTS)
            most = MFI_MAX(most, (uint64_t)program->chunk * s->top_k * s->expert_width);
        if (op->code == MFI_OP_EXPERTS || op->code == MFI_OP_MATMUL ||
            op->code == MFI_OP_LATENT_ABSORB || op->code == MFI_OP_LATENT_EXPAND)
            most = MFI_MAX(most, (uint64_t)b->rows * b->width);
    }
    return most;
}

/* Releasing a program; the plan builds it. */
#include "op/program.h"

#include <stdlib.h>

void mfi_program_free(mfi_program *program)
{
    free(program->ops);
    free(program->layer_end);
    free(program->weights);
    free(program->experts);
    free(program->state);
    *program = (mfi_program){0};
}

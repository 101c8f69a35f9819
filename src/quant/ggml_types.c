/* The GGML block types: number, name, elements and bytes of a block, and who decodes it. Facts of
 * the GGUF format (docs/formats.md); pure look-ups for any thread. Decoding is in ggml_*.c. */
#include "quant/ggml_decode.h"

static const struct {
    const char *name;
    uint16_t n_elements, n_bytes;
    mfi_block_decoder *decode;
} blocks[] = {
    /* by type number */
    /* clang-format off */
    [2] = {"q4_0", 32, 18, mfi_ggml_q4_0},
    [3] = {"q4_1", 32, 20, mfi_ggml_q4_1},
    [6] = {"q5_0", 32, 22, mfi_ggml_q5_0},
    [7] = {"q5_1", 32, 24, mfi_ggml_q5_1},
    [8] = {"q8_0", 32, 34, mfi_ggml_q8_0},
    [10] = {"q2_K", 256, 84, mfi_ggml_q2_k},
    [11] = {"q3_K", 256, 110, mfi_ggml_q3_k},
    [12] = {"q4_K", 256, 144, mfi_ggml_q4_k},
    [13] = {"q5_K", 256, 176, mfi_ggml_q5_k},
    [14] = {"q6_K", 256, 210, mfi_ggml_q6_k},
    [16] = {"iq2_xxs", 256, 66, mfi_ggml_iq2_xxs},
    [17] = {"iq2_xs", 256, 74, mfi_ggml_iq2_xs},
    [18] = {"iq3_xxs", 256, 98, mfi_ggml_iq3_xxs},
    [19] = {"iq1_s", 256, 50, mfi_ggml_iq1_s},
    [20] = {"iq4_nl", 32, 18, mfi_ggml_iq4_nl},
    [21] = {"iq3_s", 256, 110, mfi_ggml_iq3_s},
    [22] = {"iq2_s", 256, 82, mfi_ggml_iq2_s},
    [23] = {"iq4_xs", 256, 136, mfi_ggml_iq4_xs},
    [29] = {"iq1_m", 256, 56, mfi_ggml_iq1_m},
    [34] = {"tq1_0", 256, 54, mfi_ggml_tq1_0},
    [35] = {"tq2_0", 256, 66, mfi_ggml_tq2_0},
    [39] = {"mxfp4", 32, 17, mfi_ggml_mxfp4},
    [40] = {"nvfp4", 64, 36, mfi_ggml_nvfp4},
    [41] = {"q1_0", 128, 18, mfi_ggml_q1_0},
    [42] = {"q2_0", 64, 18, mfi_ggml_q2_0},
    /* clang-format on */
};

static bool known(uint32_t ggml_type)
{
    return ggml_type < MFI_ARRAY_LEN(blocks) && blocks[ggml_type].decode;
}

bool mfi_ggml_block(uint32_t ggml_type, uint32_t *n_elements, uint32_t *n_bytes)
{
    if (!known(ggml_type))
        return false;
    *n_elements = blocks[ggml_type].n_elements;
    *n_bytes = blocks[ggml_type].n_bytes;
    return true;
}

const char *mfi_ggml_name(uint32_t ggml_type)
{
    return known(ggml_type) ? blocks[ggml_type].name : "?";
}

mfi_block_decoder *mfi_ggml_decoder(uint32_t ggml_type)
{
    return known(ggml_type) ? blocks[ggml_type].decode : NULL;
}

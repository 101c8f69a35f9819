/* The GGML block types: number, name, elements and bytes of a block. Facts of the GGUF format
 * (docs/formats.md); pure look-ups for any thread. Decoding is in ggml_*.c. */
#include "quant/quant.h"

static const struct {
    uint8_t type;
    const char *name;
    uint16_t n_elements, n_bytes;
} blocks[] = {
    {2, "q4_0", 32, 18},
    {3, "q4_1", 32, 20},
    {6, "q5_0", 32, 22},
    {7, "q5_1", 32, 24},
    {8, "q8_0", 32, 34},
    {10, "q2_K", 256, 84},
    {11, "q3_K", 256, 110},
    {12, "q4_K", 256, 144},
    {13, "q5_K", 256, 176},
    {14, "q6_K", 256, 210},
    {16, "iq2_xxs", 256, 66},
    {17, "iq2_xs", 256, 74},
    {18, "iq3_xxs", 256, 98},
    {19, "iq1_s", 256, 50},
    {20, "iq4_nl", 32, 18},
    {21, "iq3_s", 256, 110},
    {22, "iq2_s", 256, 82},
    {23, "iq4_xs", 256, 136},
    {29, "iq1_m", 256, 56},
    {34, "tq1_0", 256, 54},
    {35, "tq2_0", 256, 66},
    {39, "mxfp4", 32, 17},
    {40, "nvfp4", 64, 36},
    {41, "q1_0", 128, 18},
    {42, "q2_0", 64, 18},
};

static int find(uint32_t ggml_type)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(blocks); i++)
        if (blocks[i].type == ggml_type)
            return (int)i;
    return -1;
}

bool mfi_ggml_block(uint32_t ggml_type, uint32_t *n_elements, uint32_t *n_bytes)
{
    int i = find(ggml_type);
    if (i < 0)
        return false;
    *n_elements = blocks[i].n_elements;
    *n_bytes = blocks[i].n_bytes;
    return true;
}

const char *mfi_ggml_name(uint32_t ggml_type)
{
    int i = find(ggml_type);
    return i < 0 ? "?" : blocks[i].name;
}

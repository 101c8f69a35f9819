/* How weights are stored: one small value type that says everything about a tensor's element
 * encoding, and the byte arithmetic that follows from it.
 *
 * A matrix [rows][cols] is stored in 1 to 3 planes, each row-major with a fixed row size, so that
 * any row range of any plane is one byte range. Float types have one plane. MLX affine types have
 * three: plane 0  weights: a little-endian bit stream of `bits` an element, rows of cols*bits/8
 * bytes plane 1  scales,  plane 2  biases: one of `scale` type per `group` elements of a row value
 * = q * scale + bias   (mlx: mx.dequantize, mode affine) GGML block types have one plane of whole
 * blocks, 32 or 256 elements each (gguf files). FP8 (E4M3 with block scales, DeepSeek) has two:
 *   plane 0  one byte an element,  plane 1  one scale of `scale` type for each 128 x 128 block;
 *   value = e4m3 * scale
 * MXFP4 in safetensors (gpt-oss) has two:
 *   plane 0  16 bytes for each 32 elements, low nibble first,  plane 1  one E8M0 exponent each;
 *   value = e2m1 * 2^(exponent - 127); exponent 255 is NaN
 */
#ifndef MFI_QUANT_QUANT_H
#define MFI_QUANT_QUANT_H

#include "base/status.h"

typedef enum mfi_qkind {
    MFI_Q_NONE = 0,
    MFI_Q_F32,
    MFI_Q_F16,
    MFI_Q_BF16,
    MFI_Q_MLX,   /* affine, see above */
    MFI_Q_GGML,  /* a GGML block type; its number stands in `bits` */
    MFI_Q_FP8,   /* E4M3, scales of 128 x 128 blocks */
    MFI_Q_MXFP4, /* E2M1 pairs and E8M0 exponents in planes of their own */
    MFI_Q_OTHER  /* stored elements that no kernel multiplies with: integers, bool, f64 */
} mfi_qkind;

typedef struct mfi_qtype {
    uint8_t kind;  /* mfi_qkind */
    uint8_t bits;  /* MLX: 2, 3, 4, 5, 6, 8; OTHER: bits an element; floats: 16 or 32; GGML: type */
    uint8_t scale; /* MLX, FP8: kind of scales and biases (F32, F16, BF16) */
    uint8_t group; /* MLX: 32, 64 or 128 */
} mfi_qtype;

#define MFI_FP8_BLOCK 128 /* rows and columns that share a scale */

static inline mfi_qtype mfi_qtype_float(mfi_qkind kind)
{
    return (mfi_qtype){(uint8_t)kind, kind == MFI_Q_F32 ? 32 : 16, 0, 0};
}

static inline bool mfi_qtype_equal(mfi_qtype a, mfi_qtype b)
{
    return a.kind == b.kind && a.bits == b.bits && a.scale == b.scale && a.group == b.group;
}

static inline bool mfi_qtype_is_float(mfi_qtype t)
{
    return t.kind == MFI_Q_F32 || t.kind == MFI_Q_F16 || t.kind == MFI_Q_BF16;
}

uint32_t mfi_quant_n_planes(mfi_qtype type); /* 1 to 3 */
/* True if rows of `cols` elements are whole in every plane. */
bool mfi_quant_cols_ok(mfi_qtype type, uint64_t cols);
/* Bytes of one row of a plane; cols_ok must hold. Where a plane has one row for several of the
 * matrix (FP8's scales), bytes of that one. */
uint64_t mfi_quant_row_bytes(mfi_qtype type, uint32_t plane, uint64_t cols);
/* Rows of the matrix that share a row of the plane: 1, or 128 for FP8's scales. */
uint32_t mfi_quant_rows_per_row(mfi_qtype type, uint32_t plane);
/* Bytes of a plane of a matrix. */
uint64_t mfi_quant_plane_bytes(mfi_qtype type, uint32_t plane, uint64_t rows, uint64_t cols);
/* True if `type` can be a factor in products: floats and every quantised type. */
bool mfi_quant_multiplies(mfi_qtype type);

/* Elements and bytes of a block of a GGML type number; false if it isn't known. */
bool mfi_ggml_block(uint32_t ggml_type, uint32_t *n_elements, uint32_t *n_bytes);
const char *mfi_ggml_name(uint32_t ggml_type); /* "q4_K"; "?" */
/* Decodes one block, to the bit as every reader of the format should. */
typedef void mfi_block_decoder(const uint8_t *block, float *out);
mfi_block_decoder *mfi_ggml_decoder(uint32_t ggml_type); /* NULL if the type isn't known */
/* "bf16", "mlx 4-bit group 64 (bf16)". Writes at most cap bytes with the NUL. */
void mfi_quant_name(mfi_qtype type, char *name, size_t cap);

/* Scalar conversions, exact both ways where the value fits; to_* round to nearest even. */
float mfi_f16_to_f32(uint16_t h);
uint16_t mfi_f32_to_f16(float f);
static inline float mfi_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};
    return v.f;
}
uint16_t mfi_f32_to_bf16(float f);
float mfi_e4m3_to_f32(uint8_t b); /* 0x7f and 0xff are NaN; there is no infinity */

/* Decodes n elements starting at element 0 of a row into out; n is whole blocks of GGML types and
 * MXFP4. planes[] point at that row (FP8: at its row of scales), unaligned. MLX types give
 * the very bits of mx.dequantize, which computes in the type of the scales: the product is rounded
 * to it, then the sum, and the result is widened. (Matrix kernels multiply with q * scale + bias in
 * float, which is nearer to the stored value; see kernels/kernels.h.) */
void mfi_dequant_row(mfi_qtype type, const void *const planes[], uint64_t n, float *out);
/* The same, but MLX types as matrix kernels take them: q * scale + bias in float. */
void mfi_dequant_row_wide(mfi_qtype type, const void *const planes[], uint64_t n, float *out);

/* True for the types that rows can be encoded as: the floats, q4_0, q8_0, q4_K, q6_K and
 * MXFP4 in GGML's blocks. */
bool mfi_quant_can_encode(mfi_qtype type);
/* Encodes a row of n finite elements, whole blocks, as such a type. importance[n], which may be
 * NULL, are the weights (finite, not negative) of the squared errors of the columns; q8_0 and
 * floats don't need them. */
void mfi_quant_encode_row(mfi_qtype type, const float *x, const float *importance, uint64_t n,
                          void *out);

/* Affine quantisation of one group of `group` elements, to the bit as mx.quantize does it on the
 * CPU: writes the codes (one byte each) and the scale and bias. The codes are chosen with the
 * float32 scale; what is written is rounded to `scale_kind` after that. NaN gets code 0 and doesn't
 * move the range; if the range overflows float32 the scale is infinite, so callers check what they
 * get. */
void mfi_mlx_quantize_group(const float *x, uint32_t group, uint32_t bits, mfi_qkind scale_kind,
                            uint8_t *codes, float *scale, float *bias);
/* Packs n codes of `bits` into the little-endian bit stream of plane 0; n*bits must be a multiple
 * of 32. */
void mfi_mlx_pack(const uint8_t *codes, uint64_t n, uint32_t bits, void *plane0);

#endif

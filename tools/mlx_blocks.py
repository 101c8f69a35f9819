#!/usr/bin/env python3
"""Writes tests/data/mlx/blocks.bin: what mx.quantize and mx.dequantize do, for small matrices.

Usage: mlx_blocks.py [OUT_DIR]     (needs the Python packages mlx and numpy)

The layout of the file is told in tests/data/mlx/README.md, which is written beside it.
"""
import os
import struct
import sys

import mlx.core as mx
import numpy as np

ROWS, COLS = 2, 256
KINDS = ((1, mx.float32, "float32"), (2, mx.float16, "float16"), (3, mx.bfloat16, "bfloat16"))
BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)

README = """# What MLX does with small matrices

`blocks.bin` was written by `tools/mlx_blocks.py` with mlx {version} (CPU) and seed {seed}. For each scale
type (float32, float16, bfloat16), width (2, 3, 4, 5, 6, 8 bits) and group (32, 64, 128) it has one case of
{rows} x {cols} random weights that went through `mx.quantize` and then `mx.dequantize`, mode affine.
Row 0 is normal noise; row 1 has stretches of 32 that are zero, constant, positive, negative, tiny, large,
one outlier, and noise on an offset.

All little-endian, no padding:

| bytes | what |
|---|---|
| 8 | `MFMLXBLK` |
| u32 | number of cases |

and each case:

| bytes | what |
|---|---|
| 5 x u32 | bits, group, scale type (1 float32, 2 float16, 3 bfloat16), rows, cols |
| rows x cols elements of the scale type | the weights that were quantised |
| rows x cols*bits/32 u32 | packed codes |
| rows x cols/group elements of the scale type | scales |
| rows x cols/group elements of the scale type | biases |
| rows x cols elements of the scale type | `mx.dequantize` of the three above |
"""


def raw(array):
    """The bytes of an mlx array; numpy has no bfloat16, so that goes as uint16."""
    if array.dtype in (mx.bfloat16, mx.float16):
        array = mx.view(array, mx.uint16)
    return np.ascontiguousarray(np.array(array)).tobytes()


def weights(rng):
    w = rng.standard_normal((ROWS, COLS)).astype(np.float32)
    part = w[1].reshape(8, 32)
    part[0] = 0
    part[1] = 0.375
    part[2] = np.abs(part[2]) + 0.01
    part[3] = -np.abs(part[3]) - 0.01
    part[4] *= 3e-4
    part[5] *= 200
    part[6, 5] = -25
    part[7] = part[7] * 0.05 + 4
    return w


def main():
    out_dir = sys.argv[1] if len(sys.argv) > 1 else "tests/data/mlx"
    seed = 20240607
    rng = np.random.default_rng(seed)
    mx.set_default_device(mx.cpu)
    chunks = []
    for kind, dtype, _ in KINDS:
        for bits in BITS:
            for group in GROUPS:
                w = mx.array(weights(rng)).astype(dtype)
                q, scales, biases = mx.quantize(w, group_size=group, bits=bits)
                back = mx.dequantize(q, scales, biases, group_size=group, bits=bits)
                assert q.dtype == mx.uint32 and q.shape == (ROWS, COLS * bits // 32)
                assert scales.dtype == biases.dtype == back.dtype == dtype
                chunks.append(struct.pack("<5I", bits, group, kind, ROWS, COLS))
                chunks += [raw(a) for a in (w, q, scales, biases, back)]
    os.makedirs(out_dir, exist_ok=True)
    n_cases = len(KINDS) * len(BITS) * len(GROUPS)
    with open(os.path.join(out_dir, "blocks.bin"), "wb") as f:
        f.write(b"MFMLXBLK" + struct.pack("<I", n_cases) + b"".join(chunks))
    with open(os.path.join(out_dir, "README.md"), "w") as f:
        f.write(README.format(version=mx.__version__, seed=seed, rows=ROWS, cols=COLS))


if __name__ == "__main__":
    main()

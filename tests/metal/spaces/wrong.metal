/* What spaces/metal_stdlib has to refuse. */
#include <metal_stdlib>
using namespace metal;

static inline float first(threadgroup const float *v)
{
    return v[0];
}

kernel void mfi_wrong(device const float *x [[buffer(0)]], device float *y [[buffer(1)]])
{
    y[0] = first(x);
    double twice = 2;
}

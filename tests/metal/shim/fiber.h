/* How the threads of a threadgroup meet: what metal_stdlib's barriers and simdgroup functions are
 * made of. For the shim only. */
#ifndef MFTM_FIBER_H
#define MFTM_FIBER_H

#include <cstdint>
#include <cstring>

namespace mftm
{

/* What a thread brings to a meeting of its simdgroup, and takes from it. */
struct value {
    alignas(16) unsigned char bytes[16];
};

typedef void resolve_fn(const value *in, value *out, unsigned arg); /* [32] each */

/* Waits for the other threads of the simdgroup; the last one resolves. `what` names the function,
 * and with the line tells one meeting from another. */
value meet_simdgroup(const char *what, int line, resolve_fn *resolve, unsigned arg, value mine);
void meet_threadgroup(int line);

template <class T> static inline value pack(T v)
{
    static_assert(sizeof(T) <= sizeof(value), "at most four floats");
    value to = {};
    std::memcpy(to.bytes, &v, sizeof v);
    return to;
}

template <class T> static inline T unpack(const value &from)
{
    T v;
    std::memcpy(&v, from.bytes, sizeof v);
    return v;
}

} // namespace mftm

#endif

/* The kernels' source compiled as C++, and a table by which they are called. It is the one
 * text that the library has in it (cmake/metal_source.cmake). */
#define __METAL_VERSION__ 240

#include <cstdio>
#include <cstring>
#include <utility>

#include "metal_source.metal"
#include "faults.metal"

/* The rest is C++. */
#undef kernel
#undef device
#undef threadgroup
#undef thread
#undef constant

#include "launch.h"

namespace
{

/* ---- calling a function by its parameters ---- */

/* Every kernel ends in these parameters (common.metal's MFI_AT). */
const size_t n_last = 7;

template <class P> struct param;
template <class T> struct param<T *> {
    static T *of(const mftm::launch &l, const mftm::place &p, size_t i, size_t n)
    {
        return static_cast<T *>(i < n ? l.buffers[i] : i == n ? l.stop : p.shared);
    }
};
template <> struct param<uint3> {
    static uint3 of(const mftm::launch &, const mftm::place &p, size_t i, size_t n)
    {
        return i == n + 2 ? uint3(p.group[0], p.group[1], p.group[2]) : uint3(p.n_threads, 1, 1);
    }
};
template <> struct param<uint> {
    static uint of(const mftm::launch &, const mftm::place &p, size_t i, size_t n)
    {
        return i == n + 3 ? p.thread : i == n + 4 ? p.thread % 32 : p.thread / 32;
    }
};

template <class F, F f> struct invoker;
template <class A, class... P, void (*f)(const A &, P...)>
struct invoker<void (*)(const A &, P...), f> {
    typedef A args;
    static const size_t n_buffers = sizeof...(P) - n_last;
    template <size_t... I>
    static void call(const mftm::launch &l, const mftm::place &p, std::index_sequence<I...>)
    {
        f(*static_cast<const A *>(l.args), param<P>::of(l, p, I, n_buffers)...);
    }
    static void go(const mftm::launch &l, const mftm::place &p)
    {
        call(l, p, std::index_sequence_for<P...>());
    }
};

struct entry {
    const char *name;
    size_t args_bytes, n_buffers;
    void (*invoke)(const mftm::launch &l, const mftm::place &p);
};

#define ENTRY(name, n, type)                                                                       \
    {"mfi_" #name, sizeof(invoker<decltype(&mfi_##name), &mfi_##name>::args),                      \
     invoker<decltype(&mfi_##name), &mfi_##name>::n_buffers,                                       \
     invoker<decltype(&mfi_##name), &mfi_##name>::go},
#define ENTRY_MM(d) MFI_METAL_MM_KERNELS(ENTRY, d)
const entry entries[] = {MFI_METAL_DECODERS(ENTRY_MM) MFI_METAL_OTHER_KERNELS(ENTRY)
                             ENTRY(fault, 1, mftm_fault)};

/* Kernels whose threads never meet need no fibers. */
bool meets(const char *name)
{
    static const char *const alone[] = {"mfi_add",      "mfi_scale",      "mfi_glu",
                                        "mfi_embed",    "mfi_rope_table", "mfi_combine",
                                        "mfi_mm_t",     "mfi_mm_cols",    "mfi_latent_tail",
                                        "mfi_gdn_conv", "mfi_attn_merge"};
    for (const char *other : alone)
        if (strcmp(name, other) == 0)
            return false;
    return true;
}

const entry *find(const char *name)
{
    for (const entry &e : entries)
        if (strcmp(e.name, name) == 0)
            return &e;
    return nullptr;
}

} // namespace

extern "C" bool mftm_has(const char *name)
{
    return find(name) != nullptr;
}

extern "C" bool mftm_dispatch(const char *name, const void *args, size_t args_bytes,
                              void *const *buffers, uint32_t n_buffers, const mftm_grid *grid,
                              mftm_order order, char *message, size_t message_bytes)
{
    const entry *e = find(name);
    const char *wrong = nullptr;
    if (!e)
        wrong = "no such kernel";
    else if (args_bytes != e->args_bytes)
        wrong = "not the size of its structure";
    else if (n_buffers < e->n_buffers)
        wrong = "not all buffers are bound";
    else if (grid->threads == 0 || grid->threads % 32 != 0 || grid->threads > 1024)
        wrong = "threads that aren't 1 to 32 simdgroups";
    else if (grid->shared_bytes == 0 || grid->shared_bytes % 16 != 0 || grid->shared_bytes > 32768)
        wrong = "threadgroup memory that isn't 16 bytes to 32 KiB";
    else if (grid->groups[0] == 0 || grid->groups[1] == 0 || grid->groups[2] == 0)
        wrong = "an empty grid";
    for (size_t i = 0; !wrong && i < e->n_buffers; i++)
        if (!buffers[i])
            wrong = "a buffer that is nothing";
    if (wrong) {
        snprintf(message, message_bytes, "%s: %s", name, wrong);
        return false;
    }
    uint32_t go_on = 0;
    mftm::launch l = {e->name, args, buffers, grid->stop ? grid->stop : &go_on, order, e->invoke};
    return mftm::run(l, *grid, meets(name), message, message_bytes);
}

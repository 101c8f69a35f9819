/* Threadgroups on the CPU: each thread a fiber with a stack of its own, and switching without a
 * call of the system. Fibers go round within a simdgroup: who comes to a meeting hands over to the
 * next, the last one resolves it and goes on. A thread that waits elsewhere than the others, or has
 * ended while others wait, is an error, which abandons the threadgroup. Everything belongs to the
 * OS thread that called mftm_dispatch. */
#include "launch.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "fiber.h"

#if defined(__SANITIZE_ADDRESS__)
#define MFTM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MFTM_ASAN 1
#endif
#endif
#ifdef MFTM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define SIMD        32
#define STACK_BYTES ((size_t)64 << 10)

/* Saves what a call has to keep, exchanges stacks, and goes on there. */
extern "C" void mftm_switch(void **save, void *to) __asm__("mftm_switch");

#if defined(__x86_64__)
#define N_SAVED 6
__asm__(".text\n.globl mftm_switch\nmftm_switch:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nretq\n");
#elif defined(__aarch64__)
#define N_SAVED 11 /* x30 stands behind x19 .. x29 */
__asm__(".text\n.globl mftm_switch\n.p2align 2\nmftm_switch:\n"
        "sub sp,sp,#160\n"
        "stp x19,x20,[sp]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\nstp x25,x26,[sp,#48]\n"
        "stp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\n"
        "stp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\n"
        "mov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
        "ldp x19,x20,[sp]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\nldp x25,x26,[sp,#48]\n"
        "ldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\n"
        "ldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\n"
        "add sp,sp,#160\nret\n");
#else
#error "switching stacks is written for x86-64 and aarch64"
#endif

namespace mftm
{

struct fiber {
    void *sp;
    char *stack;
    bool done;
};

struct simdgroup {
    value in[SIMD], out[SIMD];
    unsigned arrived, done, resume; /* resume: the lane that goes on when this simdgroup does */
    const char *what;               /* they wait for; NULL: nothing */
    int line;
};

struct machine {
    std::vector<fiber> fibers;
    std::vector<simdgroup> simds;
    std::vector<std::unique_ptr<char[]>> stacks;
    const launch *now = nullptr;
    uint32_t at[3] = {0, 0, 0};
    void *shared = nullptr;
    void *main_sp = nullptr;
    unsigned n_threads = 0, current = 0, simds_waiting = 0, simds_done = 0;
    bool plain = false; /* no fibers: kernels whose threads never meet */
    bool failed = false;
    char message[256] = "";
#ifdef MFTM_ASAN
    const void *main_bottom = nullptr;
    size_t main_bytes = 0;
#endif
};

/* This OS thread's. Found the fastest way there is, since kernels come by all the time. */
static __thread machine *me __attribute__((tls_model("initial-exec")));

/* ---- switching ---- */

static void leave(void **save, void *to, const char *stack, bool for_good)
{
#ifdef MFTM_ASAN
    void *fake = nullptr;
    const void *bottom = stack ? stack : me->main_bottom;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, bottom,
                                   stack ? STACK_BYTES : me->main_bytes);
    mftm_switch(save, to);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    (void)stack;
    (void)for_good;
    mftm_switch(save, to);
#endif
}

static void to_fiber(unsigned next, bool for_good)
{
    fiber &from = me->fibers[me->current];
    if (next == me->current)
        return;
    me->current = next;
    leave(&from.sp, me->fibers[next].sp, me->fibers[next].stack, for_good);
}

static void to_main(void)
{
    leave(&me->fibers[me->current].sp, me->main_sp, nullptr, true);
}

/* Never comes back. */
static void fail(const char *what, int line, const char *other, int other_line)
{
    snprintf(me->message, sizeof me->message,
             "%s: threadgroup (%u, %u, %u), thread %u: %s in line %d, while others: %s in line %d",
             me->now->name, me->at[0], me->at[1], me->at[2], me->current, what, line, other,
             other_line);
    me->failed = true;
    to_main();
}

static unsigned lane_after(unsigned lane)
{
    return (me->now->order == MFTM_FORWARD ? lane + 1 : lane + SIMD - 1) % SIMD;
}

/* The next lane of this simdgroup that hasn't ended. */
static unsigned next_in_simdgroup(void)
{
    unsigned simd = me->current / SIMD, lane = me->current % SIMD;
    do
        lane = lane_after(lane);
    while (me->fibers[simd * SIMD + lane].done);
    return simd * SIMD + lane;
}

/* Where the next simdgroup that hasn't ended goes on. */
static unsigned next_simdgroup(void)
{
    unsigned n = me->n_threads / SIMD, simd = me->current / SIMD;
    do
        simd = (me->now->order == MFTM_FORWARD ? simd + 1 : simd + n - 1) % n;
    while (me->simds[simd].done == SIMD);
    return simd * SIMD + me->simds[simd].resume;
}

/* ---- meetings ---- */

/* Counts this thread in; true for the last of its simdgroup. */
static bool arrive(simdgroup &g, const char *what, int line)
{
    if (g.done > 0)
        fail(what, line, "ended", 0);
    if (g.arrived > 0 && (line != g.line || (what != g.what && std::strcmp(what, g.what) != 0)))
        fail(what, line, g.what, g.line);
    g.what = what;
    g.line = line;
    return ++g.arrived == SIMD;
}

value meet_simdgroup(const char *what, int line, resolve_fn *resolve, unsigned arg, value mine)
{
    if (me->plain) {
        snprintf(me->message, sizeof me->message, "%s: said to have no %s", me->now->name, what);
        me->failed = true;
        return mine;
    }
    simdgroup &g = me->simds[me->current / SIMD];
    unsigned lane = me->current % SIMD;
    g.in[lane] = mine;
    if (arrive(g, what, line)) {
        resolve(g.in, g.out, arg);
        g.arrived = 0;
    } else {
        to_fiber(next_in_simdgroup(), false);
    }
    return g.out[lane];
}

void meet_threadgroup(int line)
{
    if (me->plain) {
        snprintf(me->message, sizeof me->message, "%s: said to have no barriers", me->now->name);
        me->failed = true;
        return;
    }
    simdgroup &g = me->simds[me->current / SIMD];
    if (!arrive(g, "threadgroup_barrier", line)) {
        to_fiber(next_in_simdgroup(), false);
        return;
    }
    g.arrived = 0;
    g.resume = me->current % SIMD;
    if (me->simds_done > 0)
        fail("threadgroup_barrier", line, "ended", 0);
    if (++me->simds_waiting == me->n_threads / SIMD)
        me->simds_waiting = 0;
    else
        to_fiber(next_simdgroup(), false);
}

/* ---- fibers ---- */

static void end_of_fiber(void)
{
    simdgroup &g = me->simds[me->current / SIMD];
    me->fibers[me->current].done = true;
    if (g.arrived > 0)
        fail("ends", 0, g.what, g.line);
    if (++g.done < SIMD)
        to_fiber(next_in_simdgroup(), true);
    if (me->simds_waiting > 0)
        fail("ends", 0, "threadgroup_barrier", 0);
    if (++me->simds_done < me->n_threads / SIMD)
        to_fiber(next_simdgroup(), true);
    to_main();
}

static void run_thread(unsigned thread)
{
    place p = {{me->at[0], me->at[1], me->at[2]}, thread, me->n_threads, me->shared};
    me->now->invoke(*me->now, p);
}

static void fiber_main(void)
{
#ifdef MFTM_ASAN
    const void *bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!me->main_bottom) {
        me->main_bottom = bottom;
        me->main_bytes = bytes;
    }
#endif
    run_thread(me->current);
    end_of_fiber();
    std::abort();
}

static void make_fiber(unsigned i)
{
    fiber &f = me->fibers[i];
    f.stack = me->stacks[i].get();
    f.done = false;
#ifdef MFTM_ASAN
    __asan_unpoison_memory_region(f.stack, STACK_BYTES);
#endif
    uintptr_t top = (uintptr_t)(f.stack + STACK_BYTES - 256) & ~(uintptr_t)63;
    void **sp = (void **)top;
#if defined(__x86_64__)
    sp -= N_SAVED; /* the address to return to stands at a multiple of 16 */
#else
    sp -= 20;
#endif
    memset((void *)sp, 0, 20 * sizeof *sp);
    sp[N_SAVED] = (void *)fiber_main;
    f.sp = sp;
}

static void run_threadgroup(void)
{
    me->simds_waiting = me->simds_done = 0;
    for (unsigned s = 0; s < me->n_threads / SIMD; s++) {
        me->simds[s].arrived = me->simds[s].done = 0;
        me->simds[s].resume = me->now->order == MFTM_FORWARD ? 0 : SIMD - 1;
        me->simds[s].what = "";
    }
    for (unsigned i = 0; i < me->n_threads; i++)
        make_fiber(i);
    me->current = me->now->order == MFTM_FORWARD ? 0 : me->n_threads - 1;
#ifdef MFTM_ASAN
    void *fake = nullptr;
    me->main_bottom = nullptr;
    __sanitizer_start_switch_fiber(&fake, me->fibers[me->current].stack, STACK_BYTES);
    mftm_switch(&me->main_sp, me->fibers[me->current].sp);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    mftm_switch(&me->main_sp, me->fibers[me->current].sp);
#endif
}

static void run_plainly(void)
{
    for (unsigned i = 0; i < me->n_threads; i++)
        run_thread(me->now->order == MFTM_FORWARD ? i : me->n_threads - 1 - i);
}

/* ---- grids ---- */

/* Threadgroup memory begins as NaNs for each threadgroup, and has a guard behind it. */
#define GUARD_BYTES 64

static void run_grid(const launch &l, const mftm_grid &grid, unsigned char *shared)
{
    size_t bytes = grid.shared_bytes;
    for (me->at[2] = 0; me->at[2] < grid.groups[2]; me->at[2]++)
        for (me->at[1] = 0; me->at[1] < grid.groups[1]; me->at[1]++)
            for (me->at[0] = 0; me->at[0] < grid.groups[0]; me->at[0]++) {
                memset(shared, 0xff, bytes);
                if (me->plain)
                    run_plainly();
                else
                    run_threadgroup();
                for (size_t i = 0; i < GUARD_BYTES && !me->failed; i++)
                    if (shared[bytes + i] != 0xa5) {
                        snprintf(me->message, sizeof me->message,
                                 "%s: wrote beyond its %zu bytes of threadgroup memory", l.name,
                                 bytes);
                        me->failed = true;
                    }
                if (me->failed)
                    return;
            }
}

bool run(const launch &l, const mftm_grid &grid, bool meets, char *message, size_t cap)
{
    static thread_local std::unique_ptr<machine> owner;
    void *shared = nullptr;
    if (!owner)
        owner.reset(new machine);
    me = owner.get();
    me->now = &l;
    me->failed = false;
    me->plain = !meets;
    me->n_threads = grid.threads;
    me->message[0] = 0;
    if (me->fibers.size() < grid.threads) {
        me->fibers.resize(grid.threads);
        me->simds.resize(grid.threads / SIMD);
    }
    while (meets && me->stacks.size() < grid.threads)
        me->stacks.emplace_back(new char[STACK_BYTES]);
    if (posix_memalign(&shared, 64, grid.shared_bytes + GUARD_BYTES) != 0) {
        snprintf(message, cap, "%s: no memory", l.name);
        return false;
    }
    memset((char *)shared + grid.shared_bytes, 0xa5, GUARD_BYTES);
    me->shared = shared;
    run_grid(l, grid, (unsigned char *)shared);
    free(shared);
    snprintf(message, cap, "%s", me->message);
    return !me->failed;
}

} // namespace mftm

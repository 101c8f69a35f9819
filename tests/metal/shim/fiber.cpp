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

static thread_local machine m;

/* ---- switching ---- */

static void leave(void **save, void *to, const char *stack, bool for_good)
{
#ifdef MFTM_ASAN
    void *fake = nullptr;
    const void *bottom = stack ? stack : m.main_bottom;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake, bottom,
                                   stack ? STACK_BYTES : m.main_bytes);
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
    fiber &from = m.fibers[m.current];
    if (next == m.current)
        return;
    m.current = next;
    leave(&from.sp, m.fibers[next].sp, m.fibers[next].stack, for_good);
}

static void to_main(void)
{
    leave(&m.fibers[m.current].sp, m.main_sp, nullptr, true);
}

/* Never comes back. */
static void fail(const char *what, int line, const char *other, int other_line)
{
    snprintf(m.message, sizeof m.message,
             "%s: threadgroup (%u, %u, %u), thread %u: %s in line %d, while others: %s in line %d",
             m.now->name, m.at[0], m.at[1], m.at[2], m.current, what, line, other, other_line);
    m.failed = true;
    to_main();
}

static unsigned lane_after(unsigned lane)
{
    return (m.now->order == MFTM_FORWARD ? lane + 1 : lane + SIMD - 1) % SIMD;
}

/* The next lane of this simdgroup that hasn't ended. */
static unsigned next_in_simdgroup(void)
{
    unsigned simd = m.current / SIMD, lane = m.current % SIMD;
    do
        lane = lane_after(lane);
    while (m.fibers[simd * SIMD + lane].done);
    return simd * SIMD + lane;
}

/* Where the next simdgroup that hasn't ended goes on. */
static unsigned next_simdgroup(void)
{
    unsigned n = m.n_threads / SIMD, simd = m.current / SIMD;
    do
        simd = (m.now->order == MFTM_FORWARD ? simd + 1 : simd + n - 1) % n;
    while (m.simds[simd].done == SIMD);
    return simd * SIMD + m.simds[simd].resume;
}

/* ---- meetings ---- */

/* Counts this thread in; true for the last of its simdgroup. */
static bool arrive(simdgroup &g, const char *what, int line)
{
    if (g.done > 0)
        fail(what, line, "ended", 0);
    if (g.arrived > 0 && (std::strcmp(what, g.what) != 0 || line != g.line))
        fail(what, line, g.what, g.line);
    g.what = what;
    g.line = line;
    return ++g.arrived == SIMD;
}

value meet_simdgroup(const char *what, int line, resolve_fn *resolve, unsigned arg, value mine)
{
    if (m.plain) {
        snprintf(m.message, sizeof m.message, "%s: said to have no %s", m.now->name, what);
        m.failed = true;
        return mine;
    }
    simdgroup &g = m.simds[m.current / SIMD];
    unsigned lane = m.current % SIMD;
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
    if (m.plain) {
        snprintf(m.message, sizeof m.message, "%s: said to have no barriers", m.now->name);
        m.failed = true;
        return;
    }
    simdgroup &g = m.simds[m.current / SIMD];
    if (!arrive(g, "threadgroup_barrier", line)) {
        to_fiber(next_in_simdgroup(), false);
        return;
    }
    g.arrived = 0;
    g.resume = m.current % SIMD;
    if (m.simds_done > 0)
        fail("threadgroup_barrier", line, "ended", 0);
    if (++m.simds_waiting == m.n_threads / SIMD)
        m.simds_waiting = 0;
    else
        to_fiber(next_simdgroup(), false);
}

/* ---- fibers ---- */

static void end_of_fiber(void)
{
    simdgroup &g = m.simds[m.current / SIMD];
    m.fibers[m.current].done = true;
    if (g.arrived > 0)
        fail("ends", 0, g.what, g.line);
    if (++g.done < SIMD)
        to_fiber(next_in_simdgroup(), true);
    if (m.simds_waiting > 0)
        fail("ends", 0, "threadgroup_barrier", 0);
    if (++m.simds_done < m.n_threads / SIMD)
        to_fiber(next_simdgroup(), true);
    to_main();
}

static void run_thread(unsigned thread)
{
    place p = {{m.at[0], m.at[1], m.at[2]}, thread, m.n_threads, m.shared};
    m.now->invoke(*m.now, p);
}

static void fiber_main(void)
{
#ifdef MFTM_ASAN
    const void *bottom = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!m.main_bottom) {
        m.main_bottom = bottom;
        m.main_bytes = bytes;
    }
#endif
    run_thread(m.current);
    end_of_fiber();
    std::abort();
}

static void make_fiber(unsigned i)
{
    fiber &f = m.fibers[i];
    f.stack = m.stacks[i].get();
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
    m.simds_waiting = m.simds_done = 0;
    for (unsigned s = 0; s < m.n_threads / SIMD; s++) {
        m.simds[s].arrived = m.simds[s].done = 0;
        m.simds[s].resume = m.now->order == MFTM_FORWARD ? 0 : SIMD - 1;
        m.simds[s].what = "";
    }
    for (unsigned i = 0; i < m.n_threads; i++)
        make_fiber(i);
    m.current = m.now->order == MFTM_FORWARD ? 0 : m.n_threads - 1;
#ifdef MFTM_ASAN
    void *fake = nullptr;
    m.main_bottom = nullptr;
    __sanitizer_start_switch_fiber(&fake, m.fibers[m.current].stack, STACK_BYTES);
    mftm_switch(&m.main_sp, m.fibers[m.current].sp);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    mftm_switch(&m.main_sp, m.fibers[m.current].sp);
#endif
}

static void run_plainly(void)
{
    for (unsigned i = 0; i < m.n_threads; i++)
        run_thread(m.now->order == MFTM_FORWARD ? i : m.n_threads - 1 - i);
}

/* ---- grids ---- */

/* Threadgroup memory begins as NaNs for each threadgroup, and has a guard behind it. */
#define GUARD_BYTES 64

static void run_grid(const launch &l, const mftm_grid &grid, unsigned char *shared)
{
    size_t bytes = grid.shared_bytes;
    for (m.at[2] = 0; m.at[2] < grid.groups[2]; m.at[2]++)
        for (m.at[1] = 0; m.at[1] < grid.groups[1]; m.at[1]++)
            for (m.at[0] = 0; m.at[0] < grid.groups[0]; m.at[0]++) {
                memset(shared, 0xff, bytes);
                if (m.plain)
                    run_plainly();
                else
                    run_threadgroup();
                for (size_t i = 0; i < GUARD_BYTES && !m.failed; i++)
                    if (shared[bytes + i] != 0xa5) {
                        snprintf(m.message, sizeof m.message,
                                 "%s: wrote beyond its %zu bytes of threadgroup memory", l.name,
                                 bytes);
                        m.failed = true;
                    }
                if (m.failed)
                    return;
            }
}

bool run(const launch &l, const mftm_grid &grid, bool meets, char *message, size_t cap)
{
    void *shared = nullptr;
    m.now = &l;
    m.failed = false;
    m.plain = !meets;
    m.n_threads = grid.threads;
    m.message[0] = 0;
    if (m.fibers.size() < grid.threads) {
        m.fibers.resize(grid.threads);
        m.simds.resize(grid.threads / SIMD);
    }
    while (meets && m.stacks.size() < grid.threads)
        m.stacks.emplace_back(new char[STACK_BYTES]);
    if (posix_memalign(&shared, 64, grid.shared_bytes + GUARD_BYTES) != 0) {
        snprintf(message, cap, "%s: no memory", l.name);
        return false;
    }
    memset((char *)shared + grid.shared_bytes, 0xa5, GUARD_BYTES);
    m.shared = shared;
    run_grid(l, grid, (unsigned char *)shared);
    free(shared);
    snprintf(message, cap, "%s", m.message);
    return !m.failed;
}

} // namespace mftm

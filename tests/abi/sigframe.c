// The frame of a signal handler: the extended state that it begins with, and what of the frame goes back when it returns.
#include "check.h"
#include <immintrin.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

// Round up, in both units.
enum { MXCSR = 0x5f80, CONTROL = 0x0b7f };
// So often that call sites are rewritten on the way.
enum { TIMES = 40 };

static unsigned mxcsr_in_handler;
static unsigned short control_in_handler;
static unsigned long long xmm_in_handler[2];
static void (*then)(ucontext_t *);

static unsigned short control(void) {
    unsigned short word;
    __asm__ volatile("fnstcw %0" : "=m"(word));
    return word;
}

static void set_control(unsigned short word) { __asm__ volatile("fldcw %0" ::"m"(word)); }

static void on_signal(int signal, siginfo_t *info, void *context) {
    __asm__ volatile("movups %%xmm15, %0" : "=m"(xmm_in_handler));
    (void)signal, (void)info;
    mxcsr_in_handler = _mm_getcsr();
    control_in_handler = control();
    _mm_setcsr(0x3f80);
    set_control(0x077f);
    if (then)
        then(context);
}

static void handle(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | flags};
    OK(sigaction(signal, &action, NULL));
}

// Raises a signal by a call or a fault with state of its own; gives what xmm15 is afterwards.
static unsigned long long with_state(int signal, unsigned long long value) {
    unsigned long long before[2] = {value, ~value}, after[2];
    long result = SYS_tgkill, pid = getpid(), tid = gettid(), number = signal;
    _mm_setcsr(MXCSR);
    set_control(CONTROL);
    if (signal == SIGILL)
        __asm__ volatile("movups %1, %%xmm15\nud2\nmovups %%xmm15, %0" : "=m"(after) : "m"(before) : "xmm15", "memory");
    else
        __asm__ volatile("movups %2, %%xmm15\nsyscall\nmovups %%xmm15, %1"
                         : "+a"(result), "=m"(after)
                         : "m"(before), "D"(pid), "S"(tid), "d"(number)
                         : "xmm15", "rcx", "r11", "memory");
    return after[0];
}

static void skip_instruction(ucontext_t *context) { context->uc_mcontext.gregs[REG_RIP] += 2; }

TEST(handlers_begin_with_the_state_of_a_new_program) {
    handle(SIGUSR1, 0);
    handle(SIGILL, 0);
    for (int i = 0; i < TIMES; i++) {
        int fault = i % 2;
        then = fault ? skip_instruction : NULL;
        CHECK_EQ(with_state(fault ? SIGILL : SIGUSR1, 100 + i), 100 + i);
        CHECK_EQ(mxcsr_in_handler, 0x1f80);
        CHECK_EQ(control_in_handler, 0x37f);
        CHECK_EQ(xmm_in_handler[0], 0);
        CHECK_EQ(xmm_in_handler[1], 0);
        CHECK_EQ(_mm_getcsr(), MXCSR);
        CHECK_EQ(control(), CONTROL);
    }
}

TEST(a_signal_from_elsewhere_finds_such_a_handler_too) {
    handle(SIGUSR1, 0);
    pid_t parent = getpid();
    _mm_setcsr(MXCSR);
    set_control(CONTROL);
    pid_t child = OK(fork());
    if (!child) {
        usleep(50000);
        kill(parent, SIGUSR1);
        _exit(0);
    }
    while (!*(volatile unsigned *)&mxcsr_in_handler)
        ;
    CHECK_EQ(mxcsr_in_handler, 0x1f80);
    CHECK_EQ(control_in_handler, 0x37f);
    CHECK_EQ(_mm_getcsr(), MXCSR);
    CHECK_EQ(control(), CONTROL);
    CHECK_EQ(waitpid(child, NULL, 0), child);
}

static unsigned long long *xmm15_of(fpregset_t state) { return (unsigned long long *)state->_xmm[15].element; }

static void change_in_place(ucontext_t *context) { *xmm15_of(context->uc_mcontext.fpregs) = 7; }

static unsigned state_size(fpregset_t state) {
    // struct _fpx_sw_bytes: magic1, extended_size, features, xstate_size.
    unsigned *software = (unsigned *)((char *)state + 464);
    return software[0] == 0x46505853 ? software[1] : 512;
}

static _Alignas(64) char elsewhere[16 << 10];

static void move_away(ucontext_t *context) {
    fpregset_t from = context->uc_mcontext.fpregs;
    CHECK(state_size(from) <= sizeof elsewhere);
    memcpy(elsewhere, from, state_size(from));
    memset(from, 0xff, 64);
    context->uc_mcontext.fpregs = (fpregset_t)elsewhere;
    *xmm15_of(context->uc_mcontext.fpregs) = 8;
}

static void take_away(ucontext_t *context) { context->uc_mcontext.fpregs = NULL; }

static void move_to_the_end_of_memory(ucontext_t *context) {
    fpregset_t from = context->uc_mcontext.fpregs;
    size_t size = state_size(from), room = (size + 4095) & ~4095UL;
    char *memory = mmap(NULL, room + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    OK(mprotect(memory + room, 4096, PROT_NONE));
    // Aligned for the processor: a part of the page stays free behind it.
    char *to = memory + ((room - size) & ~63UL);
    memcpy(to, from, size);
    context->uc_mcontext.fpregs = (fpregset_t)to;
    *xmm15_of(context->uc_mcontext.fpregs) = 9;
}

static void without_end(ucontext_t *context) {
    fpregset_t state = context->uc_mcontext.fpregs;
    *(unsigned *)((char *)state + state_size(state) - 4) = 0;
    *xmm15_of(state) = 10;
}

// struct _fpx_sw_bytes.
static void claim(ucontext_t *context, unsigned magic, unsigned size, unsigned long features) {
    unsigned *software = (unsigned *)((char *)context->uc_mcontext.fpregs + 464);
    software[0] = magic;
    memcpy(software + 2, &features, sizeof features);
    software[4] = size;
    if (size < 4096)
        *(unsigned *)((char *)context->uc_mcontext.fpregs + size) = 0x46505845;
}

// A program that knows SSE alone, with the header of xsave and without.
static void known_so_far(ucontext_t *context) {
    claim(context, 0x46505853, 576, 3);
    *xmm15_of(context->uc_mcontext.fpregs) = 11;
}

static void legacy_alone(ucontext_t *context) {
    claim(context, 0, 512, 3);
    *xmm15_of(context->uc_mcontext.fpregs) = 12;
}

static void too_large(ucontext_t *context) {
    claim(context, 0x46505853, 1 << 30, ~0UL);
    *xmm15_of(context->uc_mcontext.fpregs) = 13;
}

static void without_sse(ucontext_t *context) {
    claim(context, 0x46505853, 576, 1);
    *xmm15_of(context->uc_mcontext.fpregs) = 14;
}

TEST(a_handler_changes_the_state_that_goes_back) {
    static const struct {
        void (*then)(ucontext_t *);
        unsigned long long value;
        unsigned mxcsr;
    } cases[] = {
        {NULL, 77, MXCSR},
        {change_in_place, 7, MXCSR},
        {move_away, 8, MXCSR},
        {take_away, 0, 0x1f80},
        {move_to_the_end_of_memory, 9, MXCSR},
        {without_end, 10, MXCSR},
        {known_so_far, 11, MXCSR},
        {legacy_alone, 12, MXCSR},
        {too_large, 13, MXCSR},
        {without_sse, 0, 0x1f80},
    };
    handle(SIGUSR1, 0);
    for (int i = 0; i < TIMES; i++) {
        size_t n = i % (sizeof cases / sizeof *cases);
        then = cases[n].then;
        CHECK_EQ(with_state(SIGUSR1, 77), cases[n].value);
        CHECK_EQ(_mm_getcsr(), cases[n].mxcsr);
    }
}

TEST(a_frame_at_the_end_of_an_alternate_stack) {
    size_t size = 64 << 10;
    char *memory = mmap(NULL, size + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    OK(mprotect(memory + size, 4096, PROT_NONE));
    OK(sigaltstack(&(stack_t){.ss_sp = memory, .ss_size = size}, NULL));
    handle(SIGUSR1, SA_ONSTACK);
    for (int i = 0; i < TIMES; i++) {
        CHECK_EQ(with_state(SIGUSR1, i), i);
        CHECK_EQ(_mm_getcsr(), MXCSR);
    }
}

// One handler in another: each goes back to what it has interrupted.
static int depth;

static void nest(ucontext_t *context) {
    (void)context;
    if (depth++ == 0) {
        CHECK_EQ(with_state(SIGUSR2, 5), 5);
        CHECK_EQ(_mm_getcsr(), MXCSR);
    }
}

TEST(frames_nest) {
    handle(SIGUSR1, 0);
    handle(SIGUSR2, 0);
    then = nest;
    for (int i = 0; i < TIMES; i++) {
        depth = 0;
        CHECK_EQ(with_state(SIGUSR1, 200 + i), 200 + i);
        CHECK_EQ(depth, 2);
        CHECK_EQ(_mm_getcsr(), MXCSR);
        CHECK_EQ(control(), CONTROL);
    }
}

static jmp_buf back;

static void leave(int signal) {
    (void)signal;
    siglongjmp(back, 1);
}

static char *broken;

static void cut_off(ucontext_t *context) { context->uc_mcontext.fpregs = (fpregset_t)broken; }

static void reserved_flags(ucontext_t *context) { context->uc_mcontext.fpregs->mxcsr = ~0U; }

static void reserved_header(ucontext_t *context) { memset((char *)context->uc_mcontext.fpregs + 512 + 8, 0xff, 8); }

static void unknown_component(ucontext_t *context) { *((unsigned char *)context->uc_mcontext.fpregs + 512 + 7) |= 0x40; }

TEST(a_bad_frame_is_a_fault) {
    handle(SIGUSR1, 0);
    struct sigaction action = {.sa_handler = leave, .sa_flags = SA_NODEFER};
    OK(sigaction(SIGSEGV, &action, NULL));
    broken = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(broken != MAP_FAILED);
    void (*const cases[])(ucontext_t *) = {cut_off, reserved_flags, reserved_header, unknown_component};
    for (int i = 0; i < TIMES; i++) {
        then = cases[i % 4];
        if (sigsetjmp(back, 1) == 0) {
            with_state(SIGUSR1, 1);
            CHECK(!"came back");
        }
    }
}

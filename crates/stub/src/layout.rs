//! Memory that the sentry and the stub share, and the addresses of both: the contract between them.
//!
//! Compiled into the sentry and, by `build.rs`, into the freestanding program. Every field of
//! [`Control`] can be written by guest code at any time: the sentry reads each once, by volatile reads.

/// Where the stub's image is mapped in every guest process: above every address that the filter lets a guest change.
pub const STUB_BASE: u64 = 0x7fff_0000_0000;
/// The first thread's area.
pub const AREA_BASE: u64 = 0x7fff_1000_0000;
/// From one area to the next. The gap is a guard and keeps the host from merging neighbours, so that a
/// madvise of one whole area never has to split a mapping (and cannot fail for want of memory).
pub const AREA_STRIDE: u64 = 0x1_0000;
/// The board, a page that all guest processes can read and only the sentry can write.
pub const BOARD: u64 = AREA_BASE - 0x1_0000;
/// What the sentry says of rewritten call sites, one [`site`] word each: pages of the process, read-only for it.
pub const SITES: u64 = BOARD - 0x10_0000;
/// Call sites that one process can have rewritten.
pub const MAX_SITES: u32 = 2048;
/// The table that rewritten sites jump through, one word for each: their number's entry leads to its landing.
///
/// `06` in the third byte of each entry's address comes to lie where a site's `syscall` instruction began (see [`site::JUMP`]).
pub const JUMP_TABLE: u64 = 0x6_0000;
/// Bytes from one landing to the next.
pub const LANDING_STRIDE: u64 = 16;
/// Bytes of an area: [`Control`] and the parcel, then the signal stack.
pub const AREA_LEN: u64 = 0x9000;
/// Offset of the signal stack.
pub const STACK_OFFSET: u64 = 0x2000;
/// Offset of the parcel: bytes that a call brings along or takes back with it, so that nobody has to reach into the other's memory
/// for them. Few bytes lie in the page that the rest of [`Control`] is in.
pub const PARCEL: u64 = (size_of::<Control>() as u64).next_multiple_of(64);
/// Bytes that it has room for.
pub const PARCEL_LEN: u64 = STACK_OFFSET - PARCEL;
/// Areas in one process: more would run into the end of the host's address space.
pub const MAX_AREAS_PER_PROCESS: u32 = 0xd000;

/// The syscall number by which a stub waits for the sentry. No Linux call has it.
pub const DOORBELL: u64 = 0x004d_4f41;
/// The host signal of a kick. SIGURG: ignored by default, and never raised by the processor.
pub const KICK_SIGNAL: u32 = 23;

/// Orders in one reply.
pub const CELLS: usize = 32;

/// [`Control::stop`] when the orders of a reply are done or one has failed; else it is a host signal.
pub const STOP_ORDERS: u32 = 0x100;

/// [`Control::stop`]: a call from a rewritten site; what it is lies in [`Control::call`], and there is no frame.
pub const STOP_CALL: u32 = 0x101;
/// [`Control::stop`]: a call from a rewritten site, with the frame of one that trapped.
pub const STOP_FRAMED_CALL: u32 = 0x102;
/// [`Control::stop`]: the frame that [`REPLY_FRAME`] asked for.
pub const STOP_FRAME: u32 = 0x103;
/// [`Control::stop`]: a kick has ended a call that the host was to carry out, or kept it from being made: the frame is that of a call
/// that has trapped.
pub const STOP_UNFINISHED: u32 = 0x104;
/// [`Control::stop`]: a handler of a signal was to begin, and what it finds on its stack could not be written; the frame is that of the
/// handler's first instruction.
pub const STOP_UNWRITTEN: u32 = 0x105;

/// [`CallSlot::state`], by the stub: it has stopped, and looks for the reply for a while.
pub const STATE_REQUEST: u32 = 1;
/// By the stub: it rings. Only an answer to that wakes it.
pub const STATE_ASLEEP: u32 = 2;
/// By the sentry, in place of REQUEST only: the reply is there.
pub const STATE_REPLIED: u32 = 3;
/// By the sentry, before it answers a ring by [`RING_SLEEP`] or in place of REQUEST: the stub waits on this word until it changes.
pub const STATE_SLEEPS: u32 = 4;

/// By the sentry, in place of REQUEST of a call from a rewritten site only: the call is over and gives [`CallSlot::result`]. Nothing else
/// is to be done, and no other field of the reply counts: it travels in one cache line.
pub const STATE_PLAIN: u32 = 5;

/// The result of a ring: not the reply yet, wait by futex(2) for that. 0 is the reply; all else is the sentry's end.
pub const RING_SLEEP: i64 = 1;

/// [`Control::reply`]: go back to application code.
pub const REPLY_RESUME: u32 = 1;
/// [`Control::reply`]: stop again after the orders.
pub const REPLY_STOP: u32 = 2;
/// [`Control::reply`]: end the thread.
pub const REPLY_EXIT: u32 = 3;
/// [`Control::reply`]: make a frame of the state after the call, and stop again.
pub const REPLY_FRAME: u32 = 4;

/// [`Cell::op`]: clone a process; args are the flags, the descriptor with its token, and the area's offset.
pub const OP_FORK: u64 = 1 << 32;
/// [`Cell::op`]: clone a thread; args are the flags, the new area's address and the token.
pub const OP_SPAWN: u64 = 2 << 32;
/// [`Cell::op`]: an atomic operation; args are the address, the kind and two operands.
pub const OP_ATOMIC: u64 = 3 << 32;

/// Kinds of [`OP_ATOMIC`].
#[allow(missing_docs)]
pub mod atomic {
    pub const LOAD: u64 = 0;
    pub const SWAP: u64 = 1;
    pub const ADD: u64 = 2;
    pub const OR: u64 = 3;
    pub const AND_NOT: u64 = 4;
    pub const XOR: u64 = 5;
    pub const COMPARE_EXCHANGE: u64 = 6;
}

/// One order: a system call with its arguments, or an `OP_*`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cell {
    /// A syscall number or an `OP_*`.
    pub op: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// Written by the stub: the raw result.
    pub result: u64,
}

/// A rewritten call site: five bytes of one instruction, then `syscall`, seven in all.
pub mod site {
    /// Bytes of a site.
    pub const LEN: u64 = 7;
    /// Where in it the `syscall` instruction is.
    pub const SYSCALL: u64 = 5;
    /// `jmp [disp32]`: a site begins with these, then follow the low four bytes of its entry's address in
    /// [`super::JUMP_TABLE`], the last two of them `06 00`: who jumps to where `syscall` was meets an undefined instruction.
    pub const JUMP: [u8; 3] = [0xff, 0x24, 0x25];
    /// In the word of a site: its number is in the upper sixteen bits, the address behind it in the others.
    pub const NUMBER_SHIFT: u32 = 48;
    /// The number of a site of glibc's `syscall()`: rax has it already, and r9 is still to be loaded from `[rsp + 8]`.
    pub const GENERIC: u64 = 0xffff;
    /// The number of a short site, whose rax has it already: two bytes, `syscall` itself, that have become [`SHORT_JUMP`].
    pub const SHORT: u64 = 0xfffe;
    /// The number of a site that all of musl's cancellation points call from: rax has it already, and r11 is still to be stored at `[rsp + 8]`.
    /// It is the lowest that is none of a call.
    pub const STORES: u64 = 0xfffd;
    /// Sites that store may have this number of their own, and those from it on; no others do.
    pub const FIRST_STORING: u32 = super::MAX_SITES - 16;
    /// Bytes of a landing's store, with which those of such sites begin.
    pub const STORE_LEN: u64 = 5;
    /// Bytes of a short site.
    pub const SHORT_LEN: u64 = 2;
    /// `jmp rel8`, to bytes nearby that are never executed and hold [`JUMP`] now.
    pub const SHORT_JUMP: u8 = 0xeb;
}

/// A call from a rewritten site, and how the stub goes on after it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct CallSlot {
    /// `STATE_*`: how a reply finds the stub, also where it is not in a call.
    pub state: u32,
    /// Stub: the CPU that it stopped on, if [`FEATURE_RDPID`], and what else is to be known of a call ([`info`]).
    pub info: u32,
    /// Stub: rdi, rsi, rdx, r10, r8, r9.
    pub args: [u64; 6],
    /// Stub: the number, for the sentry. Sentry: what rax is to be.
    pub result: u64,
    /// Stub: the number.
    pub nr: u64,
    /// Stub: where it goes on.
    pub rip: u64,
    /// Stub: other registers.
    pub rsp: u64,
    #[allow(missing_docs)]
    pub rbx: u64,
    #[allow(missing_docs)]
    pub rbp: u64,
    #[allow(missing_docs)]
    pub r12: u64,
    #[allow(missing_docs)]
    pub r13: u64,
    #[allow(missing_docs)]
    pub r14: u64,
    #[allow(missing_docs)]
    pub r15: u64,
    /// Stub: the flags.
    pub rflags: u64,
    /// Stub: a kick has come while it waited.
    pub kicked: u64,
    /// Sentry: [`MAGIC`], by which the stub knows that %gs refers to an area.
    pub magic: u64,
    /// Stub: bytes of the parcel that hold what [`takes`] says, 0 if they could not be read.
    pub taken: u32,
    /// Sentry: how many of `gifts` there are, if the reply is [`REPLY_RESUME`].
    pub gift_count: u32,
    /// Sentry: where in the parcel the bytes of the first one begin; those of the others follow.
    pub gifts_at: u64,
    /// Sentry: what is to be copied to the application's memory.
    pub gifts: [Gift; GIFTS],
    /// Sentry: the timeout of a call that it has the host carry out.
    pub time: [u64; 2],
    /// Sentry: a handler of a signal begins, which is to find the extended state here; 0 if none does. The stub writes it behind all gifts
    /// and goes on with a fresh one.
    pub fpstate: u64,
    /// Sentry: the components that this consists of.
    pub xfeatures: u64,
}

/// The bits of [`CallSlot::info`]: with number and arguments, on the same line, nearly every call needs no more.
pub mod info {
    /// The CPU.
    pub const CPU: u32 = 0xfff;
    /// Where [`super::CallSlot::taken`] is.
    pub const TAKEN_SHIFT: u32 = 12;
    /// So many bytes can be told.
    pub const TAKEN: u32 = (1 << 13) - 1;
    /// The application has the trap flag set.
    pub const STEPS: u32 = 1 << 30;
    /// The stop is a call from a rewritten site ([`super::STOP_CALL`]). Else none of these but the CPU is there.
    pub const CALL: u32 = 1 << 31;
}

const _: () = assert!(PARCEL_LEN < 1 << 13);

/// Bytes for the application's memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Gift {
    /// Where they belong.
    pub addr: u64,
    /// How many there are.
    pub len: u64,
}

/// Most bytes of an extended state that the stub writes without a frame ([`CallSlot::fpstate`]).
pub const MAX_EXTENDED: usize = 4096;

/// Ranges that one call gives back at most.
pub const GIFTS: usize = 4;

/// [`CallSlot::magic`].
pub const MAGIC: u64 = 0x4d4f_4154;

const _: () =
    assert!(core::mem::offset_of!(CallSlot, nr) == 64, "what a plain reply changes is on the line of the arguments");
const _: () = assert!(core::mem::offset_of!(Control, cells) % 64 == 0);

/// The first page of an area.
#[repr(C, align(64))]
pub struct Control {
    /// Stub: why it stopped, a signal number or [`STOP_ORDERS`].
    pub stop: u32,
    /// Sentry: what to do after the orders, `REPLY_*`.
    pub reply: u32,
    /// Stub: where the signal frame is. Sentry, for a new thread: the same.
    pub frame: u64,
    /// Both ways.
    pub fs_base: u64,
    /// Both ways.
    pub gs_base: u64,
    /// Sentry: not 0 if the bases have changed.
    pub set_bases: u32,
    /// Sentry: cells to carry out.
    pub order_count: u32,
    /// Stub: cells carried out without an error.
    pub orders_done: u32,
    /// Not 0 while a host thread uses this area; the host clears it when the thread ends (CLONE_CHILD_CLEARTID).
    pub alive: u32,
    /// Sentry: how the stub waits and what this CPU can do, `FEATURE_*`.
    pub features: u64,
    /// Stub: the cycle counter when it took the last reply.
    pub resumed_at: u64,
    /// Stub: and when it stopped.
    pub stopped_at: u64,
    /// Sentry: not 0 if the stub may have the host carry out calls ([`own_call`]).
    pub own_calls: u32,
    /// Stub: 1 while it does, by [`Control::began`].
    pub in_host: u32,
    /// Stub: the cycle counter when it began that.
    pub began: u64,
    /// For later use: keeps the cells on lines of their own.
    pub reserved: [u64; 5],
    /// The orders.
    pub cells: [Cell; CELLS],
    /// The call of a rewritten site.
    pub call: CallSlot,
    /// Sentry: what calls with these numbers give, plus 1; 0 if the sentry is to be asked.
    pub answers: [u32; ANSWERS],
}

/// Numbers of calls that the stub may have an answer to: those below.
pub const ANSWERS: usize = 192;

/// Calls that the host carries out, without the sentry: sched_yield(2), and futex(2) for words that are the process's alone.
///
/// The host tells such a word by address space and address, so that no other process's waiters can be meant, and it tells them from
/// words that processes share and from locks that inherit priorities, which are the sentry's.
pub mod own_call {
    /// The number of futex(2).
    pub const FUTEX: u64 = 202;
    /// The number of sched_yield(2).
    pub const SCHED_YIELD: u64 = 24;
    /// futex_waitv(2), which the stub makes by order only.
    pub const WAITV: u64 = 449;
    /// FUTEX_PRIVATE_FLAG.
    pub const PRIVATE: u32 = 0x80;
    /// FUTEX_WAIT_BITSET, private, with a time of CLOCK_REALTIME.
    pub const WAIT_REALTIME: u32 = 0x189;
    /// The greatest number of a command that is among them.
    pub const LAST: u32 = 10;
    /// FUTEX_WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET and WAKE_BITSET, each as the bit of its number.
    pub const COMMANDS: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 10;

    /// Whether futex(2) with this second argument is one.
    #[must_use]
    pub const fn is_own(op: u32) -> bool {
        let command = op ^ PRIVATE;
        op == WAIT_REALTIME || command <= LAST && COMMANDS >> command & 1 != 0
    }
}

/// What a call brings along in the parcel: bytes that one of its arguments refers to.
pub mod takes {
    /// A string, with its NUL, or as much of it as [`STRING_LEN`] allows.
    pub const STRING: u16 = 1 << 15;
    /// Most bytes of a string.
    pub const STRING_LEN: u64 = 256;
    /// Where the number of the argument with the address is, three bits.
    pub const ADDR: u32 = 0;
    /// Where the number of the argument with the length is, three bits.
    pub const LEN: u32 = 3;
    /// Where the logarithm of what it counts is, three bits.
    pub const SHIFT: u32 = 6;
    /// Where a length is that is always the same, in words of four bytes, six bits; 0 if there is none.
    pub const WORDS: u32 = 9;

    /// rt_sigreturn(2), which brings the frame that it takes back, from eight bytes below the stack pointer on: so many bytes at least, or
    /// with the extended state behind it as many as the parcel has room for.
    pub const RT_SIGRETURN: u64 = 15;
    /// Bytes of `struct rt_sigframe`.
    pub const FRAME_LEN: u64 = 440;

    /// Numbers of calls that bring something: those below.
    pub const CALLS: usize = 440;

    const fn string(addr: u16) -> u16 {
        STRING | addr << ADDR
    }

    const fn bytes(addr: u16, len: u16, shift: u16) -> u16 {
        addr << ADDR | len << LEN | shift << SHIFT
    }

    const fn fixed(addr: u16, len: u16) -> u16 {
        addr << ADDR | (len / 4) << WORDS
    }

    /// By the number of the call; 0 is nothing.
    pub const TABLE: [u16; CALLS] = {
        let mut table = [0; CALLS];
        table[1] = bytes(1, 2, 0); // write
        table[2] = string(0); // open
        table[4] = string(0); // stat
        table[6] = string(0); // lstat
        table[7] = bytes(0, 1, 3); // poll
        table[13] = fixed(1, 32); // rt_sigaction
        table[14] = fixed(1, 8); // rt_sigprocmask
        table[18] = bytes(1, 2, 0); // pwrite64
        table[19] = bytes(1, 2, 4); // readv
        table[20] = bytes(1, 2, 4); // writev
        table[21] = string(0); // access
        table[35] = fixed(0, 16); // nanosleep
        table[42] = bytes(1, 2, 0); // connect
        table[44] = bytes(1, 2, 0); // sendto
        table[46] = fixed(1, 56); // sendmsg
        table[47] = fixed(1, 56); // recvmsg
        table[49] = bytes(1, 2, 0); // bind
        table[54] = bytes(3, 4, 0); // setsockopt
        table[55] = fixed(4, 4); // getsockopt
        table[76] = string(0); // truncate
        table[80] = string(0); // chdir
        table[82] = string(0); // rename
        table[83] = string(0); // mkdir
        table[84] = string(0); // rmdir
        table[85] = string(0); // creat
        table[87] = string(0); // unlink
        table[89] = string(0); // readlink
        table[90] = string(0); // chmod
        table[137] = string(0); // statfs
        table[230] = fixed(2, 16); // clock_nanosleep
        table[233] = fixed(3, 12); // epoll_ctl
        table[257] = string(1); // openat
        table[258] = string(1); // mkdirat
        table[262] = string(1); // newfstatat
        table[263] = string(1); // unlinkat
        table[267] = string(1); // readlinkat
        table[268] = string(1); // fchmodat
        table[269] = string(1); // faccessat
        table[271] = bytes(0, 1, 3); // ppoll
        table[332] = string(1); // statx
        table[437] = string(1); // openat2
        table[439] = string(1); // faccessat2
        table
    };
}

/// [`Control::features`]: rdfsbase and its like may be used by user code.
pub const FEATURE_FSGSBASE: u64 = 1;

/// [`Control::features`]: the instruction rdpid exists.
pub const FEATURE_RDPID: u64 = 2;

/// How often a stub looks for its reply before it rings (some 60 us), while a sentry thread looks or is busy.
pub const PATIENCE: u32 = 1800;

/// How often it does whatever the sentry does (some 20 us).
pub const FIRM_PATIENCE: u32 = 600;

/// The contents of the page at [`BOARD`].
#[repr(C)]
pub struct Board {
    /// 0, or 1 + the CPU on which a sentry thread is looking at areas: stubs elsewhere wait for its reply awake.
    pub watcher: u32,
    /// How often a stub looks before it rings.
    pub patience: u32,
}

/// What the template's first code needs, at [`STACK_OFFSET`] of its area.
#[repr(C)]
pub struct Init {
    /// The first byte to keep below the stub (the vDSO), and one past the last.
    pub keep: [u64; 2],
    /// One past the stub's image.
    pub stub_end: u64,
    /// Stub: 1 if call sites can be rewritten, their tables being mapped.
    pub rewrites: u64,
    /// Stub: 1 if this process and its children take part in the barriers of membarrier(2)'s GLOBAL_EXPEDITED.
    pub barriers: u64,
    /// The descriptor of the areas' memfd, to be kept open.
    pub areas_fd: u32,
    /// Stub: 0 until the filter is installed, then 1 + the listener's number, or -errno.
    pub listener: i32,
    /// seccomp(2) flags.
    pub filter_flags: u32,
    /// Instructions in `filter`.
    pub filter_len: u32,
    /// The filter, `struct sock_filter` each.
    pub filter: [u64; 320],
}

/// What the image begins with.
#[repr(C)]
pub struct Header {
    /// First instruction of the template: rdi is its area.
    pub init: u64,
    /// First byte of the stub's text.
    pub text_start: u64,
    /// One past its last.
    pub text_end: u64,
    /// Where a thread whose registers are in its [`CallSlot`] asks for orders: rbx is its area.
    pub asks: u64,
}

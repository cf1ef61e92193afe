//! [`Shared`]: what handles and the tracer share: the command queue, its doorbell, the pool of blank processes.
//!
//! The doorbell is SIGCHLD, by which the host also tells of stops: the tracer has it blocked and sleeps in
//! sigwaitinfo(2), so that neither a stop nor a command can be missed between its last look and its sleep.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::SyncSender;
use std::task::{Context, Poll, Waker};

use moat_abi::{Errno, Result};
use moat_platform::{NewProcess, Order, Regs};
use moat_sync::{LockClass, Mutex};

use crate::fpu;
use crate::layout::Layout;

/// The name of a tracee, never reused. That of a process is the one of its first thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id(pub u64);

/// A change of the extended state.
#[derive(Clone, Debug)]
pub(crate) enum FpuChange {
    /// To what a signal frame's image says.
    Image(Vec<u8>),
    /// To that of a fresh program.
    Reset,
}

/// What a handle has changed since the last command: carried out before the command.
#[derive(Default)]
pub(crate) struct Changes {
    /// All registers.
    pub regs: Option<Box<Regs>>,
    /// The result register.
    pub ret: Option<u64>,
    /// The extended state.
    pub fpu: Option<FpuChange>,
    /// Deferred orders, in order.
    pub orders: Vec<Order>,
}

/// What the tracer is asked to do.
pub(crate) enum Command {
    /// Resume application code.
    Resume(Id, Changes),
    /// Carry out an order.
    Order(Id, Changes, Order),
    /// Copy the process.
    Fork(Id, Changes),
    /// Make a sibling thread.
    Spawn(Id, Changes),
    /// Read the extended state as the host gives it.
    Fpu(Id, SyncSender<Result<Vec<u8>>>),
    /// Write to the memory of a process whatever its protection; gives the bytes written.
    Poke { space: Id, addr: u64, bytes: Vec<u8>, reply: SyncSender<Result<usize>> },
    /// End the switch of a thread.
    Kick(Id),
    /// The handle of a thread is gone.
    DropThread(Id),
    /// Kill a process.
    Kill(Id),
    /// Kill the process of a thread, unless that is parked.
    End(Id),
    /// Somebody waits for a blank process.
    Refill,
}

/// Blank processes that are ready, and who waits for one.
#[derive(Default)]
pub(crate) struct Pool {
    ready: VecDeque<Result<NewProcess>>,
    waiting: Vec<Waker>,
}

/// How many blank processes are kept ready.
const POOL_SIZE: usize = 2;

/// See the module's documentation.
pub(crate) struct Shared {
    pub layout: Layout,
    /// The extended state of a fresh program.
    pub fresh_fpu: Vec<u8>,
    queue: Mutex<VecDeque<Command>>,
    pool: Mutex<Pool>,
    sleeping: AtomicBool,
    tracer_tid: AtomicI32,
}

/// The tracer's thread id, for the signal handler.
static TRACER_TID: AtomicI32 = AtomicI32::new(0);

fn ring(tid: i32) {
    // SAFETY: a system call on numbers. Signalling the own process cannot harm memory; the signal has a handler.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGCHLD) };
}

/// Runs in a thread that has SIGCHLD unblocked: passes it on to the tracer, which has it blocked.
extern "C" fn forward(_signal: i32) {
    let tid = TRACER_TID.load(Ordering::Relaxed);
    if tid != 0 {
        // SAFETY: errno is this thread's own; the interrupted code must find it unchanged.
        let errno = unsafe { *libc::__errno_location() };
        ring(tid);
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }
}

impl Shared {
    pub fn new(layout: Layout) -> Shared {
        Shared {
            layout,
            fresh_fpu: fpu::fresh(),
            queue: Mutex::new(LockClass::Platform, VecDeque::new()),
            pool: Mutex::new(LockClass::Platform, Pool::default()),
            sleeping: AtomicBool::new(false),
            tracer_tid: AtomicI32::new(0),
        }
    }

    /// Makes the calling thread the one that the doorbell wakes.
    pub fn adopt_tracer(&self) -> Result<()> {
        block_sigchld()?;
        // SAFETY: gettid has no arguments; the sigaction is fully initialised and its handler async-signal-safe.
        unsafe {
            let tid = libc::gettid();
            self.tracer_tid.store(tid, Ordering::SeqCst);
            TRACER_TID.store(tid, Ordering::SeqCst);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = forward as extern "C" fn(i32) as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            if libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(Errno::EINVAL);
            }
        }
        Ok(())
    }

    /// Queues a command.
    pub fn send(&self, command: Command) {
        self.queue.lock().push_back(command);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            ring(self.tracer_tid.load(Ordering::SeqCst));
        }
    }

    /// The next command.
    pub fn next(&self) -> Option<Command> {
        self.queue.lock().pop_front()
    }

    /// Sleeps until a command or a stop, unless there is a command.
    pub fn sleep(&self) {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.queue.lock().is_empty() {
            let set = sigchld();
            // SAFETY: `set` is a live signal set; no siginfo is asked for. An early return is harmless.
            unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
        }
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Takes a blank process, or asks for one.
    pub fn poll_blank(&self, cx: &Context<'_>) -> Poll<Result<NewProcess>> {
        let taken = {
            let mut pool = self.pool.lock();
            let taken = pool.ready.pop_front();
            if taken.is_none() {
                pool.waiting.push(cx.waker().clone());
            }
            taken
        };
        self.send(Command::Refill);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// How many blank processes are missing, and whether somebody waits for one.
    pub fn missing(&self) -> (usize, bool) {
        let pool = self.pool.lock();
        let want = POOL_SIZE + pool.waiting.len().min(POOL_SIZE);
        (want.saturating_sub(pool.ready.len()), !pool.waiting.is_empty())
    }

    /// Adds a blank process, or the reason why there is none, and wakes those who wait.
    ///
    /// They are all woken: a waiter may be gone, and one that finds nothing asks again.
    pub fn add_blank(&self, made: Result<NewProcess>) {
        let woken = {
            let mut pool = self.pool.lock();
            pool.ready.push_back(made);
            std::mem::take(&mut pool.waiting)
        };
        for waker in woken {
            waker.wake();
        }
    }
}

/// Blocks SIGCHLD in the calling thread.
pub(crate) fn block_sigchld() -> Result<()> {
    let set = sigchld();
    // SAFETY: `set` is a live signal set; the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } {
        0 => Ok(()),
        raw => Err(Errno::from_raw(raw)),
    }
}

fn sigchld() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set, sigaddset changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        set.assume_init()
    }
}

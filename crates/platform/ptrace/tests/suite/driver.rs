//! Running a platform without an executor, and [`Guest`]: a process with a place for code, stack and data.

use std::future::{Future, poll_fn};
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use moat_abi::Result;

use moat_platform::{AddressSpace, Event, Fault, GuestThread, MapSource, NewProcess, Order, PAGE_SIZE, Platform, Regs, execute, switch};

/// PROT_READ.
pub const R: u32 = 1;
/// PROT_READ | PROT_WRITE.
pub const RW: u32 = 3;
/// PROT_READ | PROT_EXEC.
pub const RX: u32 = 5;

/// Where [`Guest::load`] puts a program.
pub const CODE: u64 = 0x10_0000;
/// One past the stack, which has [`SIZE`] bytes.
pub const STACK_TOP: u64 = 0x30_0000;
/// Readable and writable memory of [`SIZE`] bytes.
pub const DATA: u64 = 0x40_0000;
/// Bytes in each of the three areas.
pub const SIZE: u64 = 4 * PAGE_SIZE;
/// An address at which nothing is mapped.
pub const HOLE: u64 = 0x1234_5678_9000;

/// No case takes that long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(30);

struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future to its end, taking in the platform's events as the executor does.
///
/// # Panics
/// If it takes too long.
pub fn block_on<F: Future>(platform: &dyn Platform, future: F) -> F::Output {
    let parker = Arc::new(Parker { thread: std::thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&parker));
    let mut future = pin!(future);
    let deadline = Instant::now() + PATIENCE;
    loop {
        parker.woken.store(false, Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        while !parker.woken.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "a guest thread reports nothing");
            match platform.event_fd() {
                None => std::thread::park_timeout(Duration::from_millis(100)),
                Some(fd) => {
                    if !platform.spin() {
                        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                        // SAFETY: one live pollfd.
                        unsafe { libc::poll(&raw mut poll, 1, 10) };
                    }
                    platform.dispatch();
                }
            }
        }
    }
}

/// A process under test.
pub struct Guest<'a> {
    /// The platform.
    pub platform: &'a dyn Platform,
    /// The process.
    pub space: Arc<dyn AddressSpace>,
    /// The thread that the methods use.
    pub thread: Box<dyn GuestThread>,
}

impl<'a> Guest<'a> {
    /// A blank process.
    pub fn blank(platform: &'a dyn Platform) -> Guest<'a> {
        let made = block_on(platform, poll_fn(|cx| platform.poll_new_process(cx))).expect("a new process");
        Guest::of(platform, made)
    }

    /// A guest of a process just made.
    pub fn of(platform: &'a dyn Platform, made: NewProcess) -> Guest<'a> {
        Guest { platform, space: made.space, thread: made.thread }
    }

    /// A process with the three areas, about to run `program`.
    pub fn load(platform: &'a dyn Platform, program: &[u8]) -> Guest<'a> {
        let mut guest = Guest::blank(platform);
        guest.map(CODE, SIZE, RW);
        guest.map(STACK_TOP - SIZE, SIZE, RW);
        guest.map(DATA, SIZE, RW);
        assert_eq!(guest.space.write(CODE, program), Ok(program.len()));
        guest.order(Order::Mprotect { addr: CODE, len: SIZE, prot: RX }).expect("mprotect");
        guest.go(CODE);
        guest
    }

    /// Has the thread continue at `rip`, other registers zero, stack empty.
    pub fn go(&mut self, rip: u64) {
        self.thread.set_regs(&Regs { rip, rsp: STACK_TOP, rflags: 0x202, orig_rax: u64::MAX, ..Regs::default() });
    }

    /// Carries out an order.
    pub fn order(&mut self, order: Order) -> Result<u64> {
        block_on(self.platform, execute(&mut *self.thread, order))
    }

    /// Maps private anonymous memory.
    pub fn map(&mut self, addr: u64, len: u64, prot: u32) {
        self.order(Order::Mmap { addr, len, prot, source: MapSource::AnonPrivate { noreserve: false } }).expect("mmap");
    }

    /// Runs until the next event; an interruption that nobody asked for is allowed and passed over.
    pub fn run(&mut self) -> Event {
        loop {
            match self.switch() {
                Event::Interrupted => {}
                event => return event,
            }
        }
    }

    /// One switch.
    pub fn switch(&mut self) -> Event {
        block_on(self.platform, switch(&mut *self.thread))
    }

    /// Runs until a system call; gives its number and arguments.
    ///
    /// # Panics
    /// At another event.
    pub fn syscall(&mut self) -> (u64, [u64; 6]) {
        match self.run() {
            Event::Syscall { nr, args } => (nr, args),
            event => panic!("{event:?} at {:x?}", self.thread.regs()),
        }
    }

    /// Runs until a processor exception.
    ///
    /// # Panics
    /// At another event.
    pub fn fault(&mut self) -> Fault {
        match self.run() {
            Event::Fault(fault) => fault,
            event => panic!("{event:?} at {:x?}", self.thread.regs()),
        }
    }

    /// Copies the process.
    pub fn fork(&mut self) -> Guest<'a> {
        let thread = &mut self.thread;
        Guest::of(self.platform, block_on(self.platform, poll_fn(|cx| thread.poll_fork(cx))).expect("fork"))
    }

    /// Makes a sibling thread.
    pub fn spawn(&mut self) -> Guest<'a> {
        let thread = &mut self.thread;
        let sibling = block_on(self.platform, poll_fn(|cx| thread.poll_spawn(cx))).expect("spawn");
        Guest { platform: self.platform, space: Arc::clone(&self.space), thread: sibling }
    }

    /// A word of guest memory.
    pub fn word(&self, addr: u64) -> u32 {
        let mut bytes = [0; 4];
        assert_eq!(self.space.read(addr, &mut bytes), Ok(4));
        u32::from_ne_bytes(bytes)
    }

    /// Stores a word to guest memory.
    pub fn set_word(&self, addr: u64, value: u32) {
        assert_eq!(self.space.write(addr, &value.to_ne_bytes()), Ok(4));
    }
}

/// Waits until `done`.
///
/// # Panics
/// If that takes too long.
pub fn eventually(platform: &dyn Platform, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        platform.dispatch();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the host still has a process or thread of this id (a zombie counts).
#[must_use]
pub fn exists_on_host(tid: i32) -> bool {
    // SAFETY: a system call on numbers, and signal 0 is no signal.
    unsafe { libc::syscall(libc::SYS_kill, tid, 0) == 0 }
}

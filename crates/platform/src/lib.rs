//! What a platform is: how guest code runs on the host and how the sentry is told of its events.
//!
//! A [`Platform`] has [`Stock`]s, which make guest processes; an [`AddressSpace`] is one host process; a [`GuestThread`] is
//! one host thread, owned by the future of one guest task. The guest runs natively until an
//! [`Event`]; the sentry changes its memory by [`Order`]s that the thread carries out itself, and
//! reads and writes its memory through [`AddressSpace`]. Nothing here knows Linux tasks or files.
//!
//! # Invariants
//! - Whatever a guest thread reports is hostile; an implementation snapshots shared memory once.
//! - A `GuestThread` is used by one future at a time, and each `poll_*` runs to `Ready` before the next begins.
//! - Dropping a `GuestThread` makes its host thread exit; dropping the last reference to an `AddressSpace` kills
//!   and reaps its host process.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod event;
mod futex;
mod handler;
pub mod order;
pub mod parcel;
pub mod peak;
pub mod regs;

use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use moat_abi::{Errno, Result};
use moat_sync::executor::EventSource;

pub use event::{Event, Fault, ForeignAbi};
pub use futex::{HostFutex, host_futex};
pub use handler::HandlerEntry;
pub use order::{Atomic32, MapSource, Order};
pub use parcel::{Gifts, Parcel, ParcelMemory};
pub use peak::PeakResident;
pub use regs::Regs;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// One past the last address a guest can use. Everything above belongs to the platform's stub.
pub const GUEST_TOP: u64 = 0x7ffe_0000_0000;
/// Where the vDSO ends, on all platforms alike: programs have pointers into it, and may go on on another platform.
pub const VDSO_TOP: u64 = GUEST_TOP - PAGE_SIZE;
/// Guests get no page below this: above the host's default `vm.mmap_min_addr`, and tables of the platform's.
pub const GUEST_BOTTOM: u64 = 0x8_0000;

/// Calls without arguments that change nothing and concern the caller alone, so that a platform may give what the sentry has
/// said beforehand instead of asking it ([`GuestThread::publish`]): getuid, getgid, geteuid, getegid, getpid, getppid, gettid.
pub const ANSWERABLE: [u32; 7] = [102, 104, 107, 108, 39, 110, 186];

/// What a thread need not ask the sentry for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// What each of [`ANSWERABLE`] gives; `None` if the sentry is to be asked.
    pub ids: [Option<u32>; ANSWERABLE.len()],
    /// Whether the host may carry out what [`HostFutex`] is about, and sched_yield(2), unseen.
    pub host_calls: bool,
}

/// Where the host's vDSO is mapped in every blank process. Both ranges are below [`GUEST_TOP`].
#[derive(Clone, Debug)]
pub struct VdsoLayout {
    /// `[vvar]` and its like: read-only data pages.
    pub vvar: Range<u64>,
    /// `[vdso]`: the ELF image; AT_SYSINFO_EHDR is its start.
    pub vdso: Range<u64>,
}

/// A way to run guest code.
pub trait Platform: Send + Sync {
    /// "systrap", "ptrace".
    fn name(&self) -> &'static str;

    /// The stock that is there from the start.
    fn stock(&self) -> Arc<dyn Stock>;

    /// Makes another stock. It has a template and no other process until it is asked for one.
    ///
    /// # Errors
    /// EAGAIN or ENOMEM from the host; ESRCH if the template of the first stock is dead.
    fn new_stock(&self) -> Made<'_, Arc<dyn Stock>>;

    /// The vDSO of blank processes.
    fn vdso(&self) -> VdsoLayout;

    /// A descriptor that is readable when [`Platform::dispatch`] has something to do, if there is one.
    ///
    /// The executor that leads waits on it by poll(2) itself, not through an epoll, so that the host can wake
    /// it on the CPU of the guest thread.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Takes in at least one event if there is one and wakes the futures concerned. Never blocks.
    fn dispatch(&self);

    /// Looks for events without a host call, for as long as that pays, and wakes the futures concerned.
    ///
    /// Gives true if it found one. Called by an executor that has nothing to do, before it sleeps.
    fn spin(&self) -> bool {
        false
    }

    /// How often guest threads have been handed over since the start, by the way that it was done.
    fn hand_offs(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// What is being made: a future.
pub type Made<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Where the guest processes of one container come from.
///
/// All of them descend by fork from one host process, the template, and so are in its cgroups. Those of two stocks share no
/// memory with each other but what the sentry keeps for all to read.
pub trait Stock: Send + Sync {
    /// Takes a blank guest process: nothing mapped below [`GUEST_TOP`] but the vDSO, one thread, parked.
    ///
    /// # Errors
    /// EAGAIN or ENOMEM from the host; ESRCH if the stock is closed or its template dead.
    fn new_process(&self) -> Made<'_, NewProcess>;

    /// A pidfd of the template, for whoever is to move it to another cgroup before a process is asked for.
    ///
    /// # Errors
    /// ESRCH if it is gone; EMFILE.
    fn template(&self) -> Result<OwnedFd>;

    /// Ends the template and the blank processes. Those that were handed out stay.
    fn close(&self);
}

/// A process just made: [`Stock::new_process`] or a clone.
pub struct NewProcess {
    /// The host process.
    pub space: Arc<dyn AddressSpace>,
    /// Its only thread.
    pub thread: Box<dyn GuestThread>,
}

/// One guest address space, which is one host process.
pub trait AddressSpace: Send + Sync {
    /// Copies out of guest memory; gives the bytes copied before the first inaccessible one.
    ///
    /// # Errors
    /// EFAULT if not one byte could be read; ESRCH if the process is gone.
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize>;

    /// Copies into guest memory; gives the bytes copied before the first inaccessible one.
    ///
    /// # Errors
    /// As [`AddressSpace::read`].
    fn write(&self, addr: u64, buf: &[u8]) -> Result<usize>;

    /// Copies out of several ranges of guest memory, address and length, one after the other; gives the bytes copied. Where that is
    /// less than there is room for, [`AddressSpace::read`] of what follows says how far it goes.
    ///
    /// # Errors
    /// As there.
    fn read_ranges(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<usize> {
        let (addr, len) = *ranges.first().ok_or(Errno::EFAULT)?;
        let len = len.min(buf.len());
        self.read(addr, &mut buf[..len])
    }

    /// Copies into several ranges of guest memory, as [`AddressSpace::read_ranges`] does out of them.
    ///
    /// # Errors
    /// As there.
    fn write_ranges(&self, ranges: &[(u64, usize)], buf: &[u8]) -> Result<usize> {
        let (addr, len) = *ranges.first().ok_or(Errno::EFAULT)?;
        self.write(addr, &buf[..len.min(buf.len())])
    }

    /// Copies in ignoring protections, as ptrace(2) POKEDATA does (breaks copy-on-write of private text).
    ///
    /// # Errors
    /// As [`AddressSpace::write`].
    fn write_forced(&self, addr: u64, buf: &[u8]) -> Result<usize>;

    /// Has the call site that ends before `behind` ([`GuestThread::hot_site`]) enter the sentry without a trap, if it can be
    /// rewritten. Its thread is parked.
    ///
    /// The caller vouches that the site lies in private text of a file that the guest can't write to. Reads by [`AddressSpace::read`]
    /// give what was there before.
    fn rewrite(&self, _behind: u64) {}

    /// Undoes all rewriting, for good: somebody follows the process instruction by instruction.
    fn keep_text(&self) {}

    /// Has every CPU that runs a guest process of this platform pass a memory barrier, without waiting for any of them.
    ///
    /// # Errors
    /// ENOSYS if the platform or its host can't.
    fn pass_barrier(&self) -> Result<()> {
        Err(Errno::ENOSYS)
    }

    /// The host process id, in the sentry's pid namespace.
    fn host_pid(&self) -> i32;

    /// Where the host process's peak of resident memory will stand when it has been reaped, after the last reference to this is
    /// gone. `None` where the platform can't say: it has to be asked for before.
    fn last_peak(&self) -> Option<Arc<PeakResident>> {
        None
    }

    /// Kills the host process. Every thread then reports [`Event::Died`].
    fn kill(&self);
}

/// One guest thread, which is one host thread.
///
/// A thread is parked when it is not inside a `poll_*` call that has returned `Pending`.
pub trait GuestThread: Send {
    /// The registers at the last stop, from one snapshot.
    fn regs(&mut self) -> Regs;

    /// Replaces the registers that the next switch resumes with.
    ///
    /// `rflags` is masked with [`regs::USER_RFLAGS`]; a non-canonical `rip` or base makes the next switch report a SIGSEGV.
    fn set_regs(&mut self, regs: &Regs);

    /// Sets the result register only: the common end of a syscall, cheaper than [`GuestThread::set_regs`].
    fn set_ret(&mut self, rax: u64);

    /// The extended state (XSAVE image, as the kernel puts it in a signal frame, `sw_reserved` included).
    ///
    /// # Errors
    /// EFAULT or ESRCH if the thread's memory is gone or overwritten.
    fn fpu(&mut self) -> Result<Vec<u8>>;

    /// Replaces the extended state. The host checks it; a bad image makes the next switch report a SIGSEGV.
    ///
    /// # Errors
    /// EINVAL for an image of a wrong size.
    fn set_fpu(&mut self, image: &[u8]) -> Result<()>;

    /// Sets the extended state to that of a fresh program.
    fn reset_fpu(&mut self);

    /// The extended state of a fresh program, in the shape of all that [`GuestThread::fpu`] gives.
    fn fresh_fpu(&self) -> &[u8];

    /// Has the thread write what a handler of a signal finds on its stack itself when it goes on, its extended state among it, and begin
    /// there with a fresh one. False if it can't from where it is: nothing has happened then.
    ///
    /// The caller says that all of it can be written. If that has changed when the thread comes to it, the next switch
    /// reports [`Event::Unwritten`].
    fn enter_handler(&mut self, _entry: &HandlerEntry<'_>) -> bool {
        // The caller writes it all.
        false
    }

    /// The address behind the `syscall` instruction of the last event, if it traps so often that [`AddressSpace::rewrite`] pays.
    fn hot_site(&mut self) -> Option<u64> {
        None
    }

    /// Says what calls give from here on that the thread need not ask for. It is parked.
    ///
    /// A platform may ask all the same.
    fn publish(&mut self, _answers: &Answers) {}

    /// Makes the extended state accessible, which a call from a rewritten site leaves in the processor: before
    /// [`GuestThread::fpu`] and its like.
    ///
    /// # Errors
    /// ESRCH if the thread died.
    fn poll_whole(&mut self, _cx: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Resumes application code with the registers set, after the deferred orders, until the next event.
    ///
    /// The first poll resumes; later polls only look for the event.
    fn poll_switch(&mut self, cx: &mut Context<'_>) -> Poll<Event>;

    /// Has the thread carry out the deferred orders and then this one, and waits for it.
    ///
    /// # Errors
    /// The host's errno, also that of a deferred order (this one is then not tried); ESRCH if the thread died.
    fn poll_order(&mut self, cx: &mut Context<'_>, order: &Order) -> Poll<Result<u64>>;

    /// Whether waiters for words that are a process's alone are the host's ([`HostFutex`]), always the same on a platform: the sentry's own
    /// queues would not be seen by calls that the host carries out.
    fn has_host_futexes(&self) -> bool {
        false
    }

    /// Has the host carry out a call, after the deferred orders; a kick ends it.
    ///
    /// # Errors
    /// The call's own; EINTR if the thread was kicked; ESRCH if it died.
    fn poll_futex(&mut self, _cx: &mut Context<'_>, _call: &HostFutex) -> Poll<Result<u64>> {
        Poll::Ready(Err(Errno::ENOSYS))
    }

    /// Adds an order to be carried out, in turn, before the next switch, order or clone; without a round trip.
    fn defer(&mut self, order: Order);

    /// Has the thread, after the deferred orders, make a copy of its process (copy-on-write), parked, with the same registers.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM from the host; ESRCH if the thread died.
    fn poll_fork(&mut self, cx: &mut Context<'_>) -> Poll<Result<NewProcess>>;

    /// Has the thread make a sibling thread in the same process, parked, with the same registers and extended state.
    ///
    /// # Errors
    /// As [`GuestThread::poll_fork`].
    fn poll_spawn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<dyn GuestThread>>>;

    /// How it was handed over at the last switch, if the platform knows. For traces: it costs a look at the clock.
    fn stay(&self) -> Option<Stay> {
        None
    }

    /// What the call that the thread is stopped in has brought along, if the platform does such things and it has entered in a way that
    /// allows for them.
    fn parcel(&mut self) -> Option<Parcel> {
        None
    }

    /// What the thread is to take back at the next switch, in which nothing else of it is changed but [`GuestThread::set_ret`].
    /// Anything else that is asked of it first has them written at once.
    fn take_back(&mut self, mut gifts: Gifts) {
        gifts.write_out();
    }

    /// A handle by which others make this thread leave application code.
    fn kicker(&self) -> Arc<dyn Kick>;

    /// The host thread id, in the sentry's pid namespace. The caller may change what the host thread is, which then stays with this guest thread alone.
    fn host_tid(&mut self) -> i32;
}

/// When a thread went to application code and came back from it, by its own word: any number can be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stay {
    /// When it saw that it was to go on, on the host's monotonic clock.
    pub taken_ns: u64,
    /// When it had stopped.
    pub stopped_ns: u64,
    /// How the sentry was told.
    pub way: &'static str,
}

/// A guest thread for others than its owner: makes it leave application code soon, says what it has used, and acts on the
/// host process where it doesn't answer.
pub trait Kick: Send + Sync {
    /// If the thread runs application code its switch ends with [`Event::Interrupted`] (or another event); if it is
    /// parked or about to stop, the next switch may end so at once. Idempotent, never blocks.
    fn kick(&self);

    /// CPU time that the host thread has used since it is this guest thread, in nanoseconds; a dead thread's last word.
    ///
    /// Some microseconds of host calls: for those who ask, not for every system call.
    fn cpu_time_ns(&self) -> u64;

    /// Takes back what [`GuestThread::publish`] has said: calls that begin from here on are asked for.
    fn forget(&self) {}

    /// Whether it waits in a call that the host carries out, by its own word.
    fn rests(&self) -> bool {
        false
    }

    /// Whether the host thread is where the guest can keep it: in application code, or in the middle of an order.
    fn is_away(&self) -> bool;

    /// Kills the host process if the thread is away. It asks nothing of the guest, which may have seen to it that kicks
    /// don't reach it or that an order never ends.
    fn end(&self);

    /// Stops the host process from outside if the thread is away, until [`Kick::release`]. False if the platform
    /// needs no such thing: there no guest can keep a kick from its thread.
    fn hold(&self) -> bool;

    /// Lets the host process go on.
    fn release(&self);
}

/// A platform as the executor's source of events.
pub struct PlatformEvents(pub Arc<dyn Platform>);

impl EventSource for PlatformEvents {
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.event_fd()
    }

    fn dispatch(&self) {
        self.0.dispatch();
    }

    fn spin(&self) -> bool {
        self.0.spin()
    }
}

/// Runs `thread` until its next event.
pub async fn switch(thread: &mut dyn GuestThread) -> Event {
    std::future::poll_fn(|cx| thread.poll_switch(cx)).await
}

/// Makes all of the thread's state accessible.
///
/// # Errors
/// Those of [`GuestThread::poll_whole`].
pub async fn whole(thread: &mut dyn GuestThread) -> Result<()> {
    std::future::poll_fn(|cx| thread.poll_whole(cx)).await
}

/// Carries out one order on `thread`.
///
/// # Errors
/// Those of [`GuestThread::poll_order`].
pub async fn execute(thread: &mut dyn GuestThread, order: Order) -> Result<u64, Errno> {
    std::future::poll_fn(|cx| thread.poll_order(cx, &order)).await
}

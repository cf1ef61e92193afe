//! The test suite that every [`Platform`] must pass, with guests written as machine code.
//!
//! [`Rig`] owns a platform and a small single-threaded executor; [`Guest`] is one blank process with a
//! page of code and a page of data. A platform crate calls [`crate::conformance_tests!`] in its `tests/`.
//! Every wait has a limit, so that a lost event is a failure and not a hang.

mod basic;
mod details;
mod escape;
mod family;
mod lifetimes;
mod memory;
mod stock;
mod together;

use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::{AddressSpace, Event, GuestThread, MapSource, Order, Platform, Regs, Stock, execute, switch};

pub use basic::*;
pub use details::*;
pub use escape::*;
pub use family::*;
pub use lifetimes::*;
pub use memory::*;
pub use stock::*;
pub use together::*;

/// Where a [`Guest`] has its code (one page, read and execute).
pub const CODE: u64 = 0x1000_0000;
/// Where a [`Guest`] has its data (16 pages, read and write).
pub const DATA: u64 = 0x2000_0000;
/// Bytes at [`DATA`].
pub const DATA_LEN: u64 = 0x1_0000;
/// The initial stack pointer of a [`Guest`].
pub const STACK: u64 = DATA + DATA_LEN - 64;

/// How long a test waits for an event before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A platform and the loop that drives it.
pub struct Rig {
    /// What is tested.
    pub platform: Arc<dyn Platform>,
    bell: Arc<Bell>,
}

/// Wakes [`Rig::run`] from any thread.
struct Bell {
    rung: AtomicBool,
    fd: OwnedFd,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}

impl Rig {
    /// A rig around `platform`.
    #[must_use]
    pub fn new(platform: Arc<dyn Platform>) -> Rig {
        let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
        Rig { platform, bell: Arc::new(Bell { rung: AtomicBool::new(false), fd }) }
    }

    /// Runs `future` to its end, dispatching the platform's events.
    ///
    /// # Panics
    /// If nothing happens for 20 seconds.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        loop {
            let deadline = Instant::now() + PATIENCE;
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            loop {
                assert!(Instant::now() < deadline, "no event from the platform");
                let rung = self.bell.rung.swap(false, Ordering::AcqRel);
                self.wait(if rung { Duration::ZERO } else { Duration::from_millis(100) });
                if rung || self.bell.rung.load(Ordering::Acquire) {
                    break;
                }
            }
        }
    }

    /// Dispatches for `time` without polling any future.
    pub fn dispatch_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.wait(Duration::from_millis(1));
        }
    }

    /// Dispatches some events, or none where there are no more, without polling any future.
    pub fn dispatch_some(&self, events: u32) {
        for _ in 0..events {
            self.wait(Duration::from_millis(1));
        }
    }

    fn wait(&self, limit: Duration) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        if self.platform.spin() {
            return;
        }
        let event_fd = self.platform.event_fd();
        let mut fds = vec![PollFd::new(&self.bell.fd, PollFlags::IN)];
        if let Some(fd) = &event_fd {
            fds.push(PollFd::new(fd, PollFlags::IN));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
        let _ = poll(&mut fds, Some(&timeout));
        let (rung, event) = (!fds[0].revents().is_empty(), fds.len() > 1 && !fds[1].revents().is_empty());
        if rung {
            let _ = rustix::io::read(&self.bell.fd, &mut [0u8; 8]);
        }
        if event {
            self.platform.dispatch();
        }
    }

    /// A guest whose code page holds `code`.
    pub async fn guest(&self, code: &[u8]) -> Guest {
        self.guest_of(&*self.platform.stock(), code).await
    }

    /// As [`Rig::guest`], of a certain stock.
    pub async fn guest_of(&self, stock: &dyn Stock, code: &[u8]) -> Guest {
        let new = stock.new_process().await.expect("a blank process");
        let mut guest = Guest { space: new.space, thread: new.thread };
        guest.map_anon(CODE, 0x1000, RW).await;
        guest.map_anon(DATA, DATA_LEN, RW).await;
        guest.write(CODE, code);
        execute(&mut *guest.thread, Order::Mprotect { addr: CODE, len: 0x1000, prot: RX }).await.expect("mprotect");
        guest.thread.set_regs(&start_regs());
        guest.thread.reset_fpu();
        guest
    }
}

/// PROT_READ | PROT_WRITE.
pub const RW: u32 = 3;
/// PROT_READ | PROT_EXEC.
pub const RX: u32 = 5;

/// Registers at the start of the code page.
#[must_use]
pub fn start_regs() -> Regs {
    Regs { rip: CODE, rsp: STACK, rflags: 0x202, ..Regs::default() }
}

/// A guest process with one thread.
pub struct Guest {
    /// Its memory.
    pub space: Arc<dyn AddressSpace>,
    /// Its thread.
    pub thread: Box<dyn GuestThread>,
}

impl Guest {
    /// Maps fresh private memory.
    pub async fn map_anon(&mut self, addr: u64, len: u64, prot: u32) {
        let source = MapSource::AnonPrivate { noreserve: false };
        let order = Order::Mmap { addr, len, prot, source };
        execute(&mut *self.thread, order).await.expect("mmap of anonymous memory");
    }

    /// Writes all of `bytes`.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        assert_eq!(self.space.write(addr, bytes), Ok(bytes.len()), "write at {addr:#x}");
    }

    /// Writes a word.
    pub fn write_u64(&self, addr: u64, value: u64) {
        self.write(addr, &value.to_ne_bytes());
    }

    /// Reads a word.
    #[must_use]
    pub fn read_u64(&self, addr: u64) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(self.space.read(addr, &mut bytes), Ok(8), "read at {addr:#x}");
        u64::from_ne_bytes(bytes)
    }

    /// Runs to the next event.
    pub async fn go(&mut self) -> Event {
        switch(&mut *self.thread).await
    }

    /// Runs to the next event with some registers changed.
    pub async fn go_with(&mut self, change: impl FnOnce(&mut Regs)) -> Event {
        let mut regs = self.thread.regs();
        change(&mut regs);
        self.thread.set_regs(&regs);
        self.go().await
    }

    /// Carries out an order that must succeed.
    pub async fn order(&mut self, order: Order) -> u64 {
        let text = format!("{order:?}");
        execute(&mut *self.thread, order).await.unwrap_or_else(|errno| panic!("{text}: {errno:?}"))
    }
}

/// Asserts that an event is a syscall and gives its number and arguments.
///
/// # Panics
/// If it is another event.
#[must_use]
pub fn syscall_of(event: &Event) -> (u64, [u64; 6]) {
    match event {
        Event::Syscall { nr, args } => (*nr, *args),
        other => panic!("expected a syscall, got {other:?}"),
    }
}

/// Asserts that an event is a processor exception and gives it.
///
/// # Panics
/// If it is another event.
#[must_use]
pub fn fault_of(event: Event) -> crate::Fault {
    match event {
        Event::Fault(fault) => fault,
        other => panic!("expected a fault, got {other:?}"),
    }
}

/// Polls two futures side by side until both have ended.
pub async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (None, None);
    std::future::poll_fn(move |cx| {
        if a_done.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            a_done = Some(value);
        }
        if b_done.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            b_done = Some(value);
        }
        match (a_done.take(), b_done.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (a_done, b_done) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

/// A memfd of `len` bytes.
fn memfd(len: u64) -> Arc<OwnedFd> {
    let fd = rustix::fs::memfd_create("conformance", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, len).expect("ftruncate");
    Arc::new(fd)
}

/// True while the host process has not been reaped.
fn host_process_exists(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

/// A pidfd-like poll for a host process to vanish; false if it is still there after many looks.
fn vanishes(rig: &Rig, pid: i32) -> bool {
    let mut looks = 0..2500;
    while host_process_exists(pid) {
        if looks.next().is_none() {
            return false;
        }
        rig.dispatch_for(Duration::from_millis(2));
    }
    true
}

/// Makes one `#[test]` of each conformance test; `$make` gives an `Arc<dyn Platform>`.
#[macro_export]
macro_rules! conformance_tests {
    ($make:expr; $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            $crate::conformance::$name(&$crate::conformance::Rig::new($make));
        })*
    };
    ($make:expr) => {
        $crate::conformance_tests!($make;
            syscalls_carry_number_and_arguments, all_registers_round_trip, faults_are_told_apart,
            non_canonical_state_is_a_fault, single_step_and_odd_flags_work, any_stack_pointer_will_do,
            kick_interrupts_a_loop, kick_of_a_parked_thread_is_not_lost, foreign_entries_are_told_apart,
            fpu_state_round_trips, fs_and_gs_bases_round_trip, vdso_is_mapped, many_syscalls_in_a_row,
            memory_orders_work, a_watch_is_a_descriptor_of_the_process, ranges_are_copied_one_after_the_other, order_errors_are_the_hosts, large_mappings_work, deferred_orders_run_in_sequence,
            failing_deferred_order_stops, file_mappings_work, shared_memory_joins_two_processes,
            atomics_work_and_fault, copies_are_partial_at_holes, forced_writes_ignore_protection,
            fork_copies_memory_and_registers, fork_of_a_fork_works, fork_of_a_threaded_process_works,
            spawn_shares_memory, threads_come_and_go, a_later_thread_has_nothing_of_an_earlier_one, forked_child_survives_its_parent, death_is_reported,
            dropping_frees_the_host_process, outside_kill_is_reported,
            first_thread_may_go, dropped_threads_are_reaped, dropped_while_running_stops, killed_while_parked,
            killed_at_any_time, kick_storm_changes_nothing,
            blank_process_is_empty, deferred_orders_come_before_awaited_ones, remapping_and_advice,
            files_as_text_and_in_number, writable_memory_is_readable, large_copies_are_exact, forced_writes_are_private,
            extended_state_is_inherited, rseq_area_is_kept, name_shows_on_the_host, atomics_are_atomic, odd_selectors_work,
            many_guests_run_at_once, vdso_tells_the_time,
            a_stock_descends_from_its_template, a_closed_stock_leaves_what_it_gave,
            a_stock_is_made_at_any_moment,
            restartable_sequences_do_not_divert_orders, raw_host_syscalls_stay_inside, arguments_never_reach_the_host, memory_above_the_guest_is_out_of_reach,
        );
    };
}

/// Duplicates a descriptor for an order.
fn share(fd: &Arc<OwnedFd>) -> Arc<OwnedFd> {
    debug_assert!(fd.as_fd().as_raw_fd() >= 0);
    Arc::clone(fd)
}

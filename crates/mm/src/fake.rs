//! A platform without a host process: guest memory is a map of pages in this process. For unit tests.
//!
//! Orders act as the host's calls would, so that a test can compare what the VMA tree says with what the "host" has mapped.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll};

use moat_abi::{Errno, Result};
use moat_platform::{AddressSpace, Atomic32, Event, GuestThread, Kick, MapSource, NewProcess, Order, Regs, VdsoLayout};
use moat_sync::{LockClass, Mutex};

use crate::{MemoryManager, MmLimits, PAGE_SIZE};

const READ: u32 = 1;
const WRITE: u32 = 2;
const PAGE: usize = PAGE_SIZE as usize;

/// What backs a page.
#[derive(Clone)]
enum Contents {
    Private(Box<[u8; PAGE]>),
    Shared(Arc<OwnedFd>, u64),
}

#[derive(Clone)]
struct Page {
    prot: u32,
    contents: Contents,
    dont_fork: bool,
}

#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, Page>);

/// Guest memory in this process.
pub struct FakeSpace {
    pages: Mutex<Pages>,
    /// Orders fail with this errno from here on, if set.
    failure: Mutex<Option<Errno>>,
    orders: Mutex<usize>,
}

impl FakeSpace {
    fn new(pages: Pages) -> Arc<FakeSpace> {
        Arc::new(FakeSpace {
            pages: Mutex::new(LockClass::Leaf, pages),
            failure: Mutex::new(LockClass::Leaf, None),
            orders: Mutex::new(LockClass::Leaf, 0),
        })
    }

    /// Makes all orders fail, or work again.
    pub fn fail_orders(&self, errno: Option<Errno>) {
        *self.failure.lock() = errno;
    }

    /// How many orders have been carried out.
    pub fn orders(&self) -> usize {
        *self.orders.lock()
    }

    /// The mapped stretches: start, end, protection.
    pub fn mapped(&self) -> Vec<(u64, u64, u32)> {
        let mut stretches: Vec<(u64, u64, u32)> = Vec::new();
        for (&at, page) in &self.pages.lock().0 {
            match stretches.last_mut() {
                Some(last) if last.1 == at && last.2 == page.prot => last.1 = at + PAGE_SIZE,
                _ => stretches.push((at, at + PAGE_SIZE, page.prot)),
            }
        }
        stretches
    }

    fn copy(
        &self,
        addr: u64,
        len: usize,
        need: u32,
        mut part: impl FnMut(&mut Page, usize, usize, usize),
    ) -> Result<usize> {
        let mut pages = self.pages.lock();
        let mut done = 0;
        while done < len {
            let at = addr + done as u64;
            let within = usize::try_from(at % PAGE_SIZE).expect("a page offset");
            let n = (PAGE - within).min(len - done);
            match pages.0.get_mut(&(at - at % PAGE_SIZE)) {
                Some(page) if page.prot & need == need => part(page, within, done, n),
                _ => break,
            }
            done += n;
        }
        if done == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    fn carry_out(&self, order: &Order) -> Result<u64> {
        *self.orders.lock() += 1;
        if let Some(errno) = *self.failure.lock() {
            return Err(errno);
        }
        let mut pages = self.pages.lock();
        match order {
            Order::Mmap { addr, len, prot, source } => pages.map(*addr, *len, *prot, source)?,
            Order::Munmap { addr, len } => pages.each(*addr, *len, |_| None),
            Order::Mprotect { addr, len, prot } => {
                pages.require(*addr, *len)?;
                pages.each(*addr, *len, |p| Some(Page { prot: *prot, ..p }));
            }
            Order::Mremap { old_addr, old_len, new_addr, new_len, dont_unmap } => {
                pages.require(*old_addr, *old_len)?;
                pages.remap((*old_addr, *old_len), (*new_addr, *new_len), *dont_unmap);
            }
            Order::Madvise { addr, len, advice: 4 } => {
                pages.each(*addr, *len, |p| match p.contents {
                    Contents::Private(_) => Some(Page { contents: zero_page(), ..p }),
                    Contents::Shared(..) => Some(p),
                });
            }
            Order::Madvise { addr, len, advice: advice @ (10 | 11) } => {
                pages.each(*addr, *len, |p| Some(Page { dont_fork: *advice == 10, ..p }));
            }
            Order::Madvise { .. }
            | Order::Mlock { .. }
            | Order::Rseq { .. }
            | Order::SetName(_)
            | Order::EndWatch(_) => {}
            Order::WatchWrites => return Err(Errno::ENOSYS),
            Order::Atomic32 { addr, op } => {
                drop(pages);
                return self.atomic(*addr, *op);
            }
        }
        Ok(0)
    }

    fn atomic(&self, addr: u64, op: Atomic32) -> Result<u64> {
        let mut word = [0; 4];
        self.read(addr, &mut word)?;
        let old = u32::from_ne_bytes(word);
        let new = match op {
            Atomic32::Load => return Ok(u64::from(old)),
            Atomic32::Swap(v) => v,
            Atomic32::Add(v) => old.wrapping_add(v),
            Atomic32::Or(v) => old | v,
            Atomic32::AndNot(v) => old & !v,
            Atomic32::Xor(v) => old ^ v,
            Atomic32::CompareExchange { old: expected, new } => {
                if old == expected {
                    new
                } else {
                    old
                }
            }
        };
        self.write(addr, &new.to_ne_bytes())?;
        Ok(u64::from(old))
    }
}

fn zero_page() -> Contents {
    Contents::Private(Box::new([0; PAGE]))
}

impl Pages {
    fn map(&mut self, addr: u64, len: u64, prot: u32, source: &MapSource) -> Result<()> {
        for at in (addr..addr + len).step_by(PAGE) {
            let contents = match source {
                MapSource::AnonPrivate { .. } => zero_page(),
                MapSource::File { fd, offset, shared: true } => Contents::Shared(fd.clone(), offset + (at - addr)),
                MapSource::File { fd, offset, shared: false } => {
                    let mut bytes = Box::new([0; PAGE]);
                    rustix::io::pread(&**fd, &mut bytes[..], offset + (at - addr)).map_err(|_| Errno::EACCES)?;
                    Contents::Private(bytes)
                }
            };
            self.0.insert(at, Page { prot, contents, dont_fork: false });
        }
        Ok(())
    }

    fn each(&mut self, addr: u64, len: u64, mut change: impl FnMut(Page) -> Option<Page>) {
        for at in (addr..addr + len).step_by(PAGE) {
            if let Some(page) = self.0.remove(&at).and_then(&mut change) {
                self.0.insert(at, page);
            }
        }
    }

    fn require(&self, addr: u64, len: u64) -> Result<()> {
        let all = (addr..addr + len).step_by(PAGE).all(|at| self.0.contains_key(&at));
        if all { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn remap(&mut self, (old, old_len): (u64, u64), (new, new_len): (u64, u64), dont_unmap: bool) {
        let mut last = None;
        for at in (old..old + old_len).step_by(PAGE) {
            let Some(page) = self.0.remove(&at) else { continue };
            if dont_unmap {
                self.0.insert(at, Page { contents: zero_page(), ..page.clone() });
            }
            last = Some(page.clone());
            self.0.insert(new + (at - old), page);
        }
        let Some(last) = last else { return };
        for at in (new + old_len..new + new_len).step_by(PAGE) {
            let contents = match &last.contents {
                Contents::Private(_) => zero_page(),
                Contents::Shared(fd, offset) => Contents::Shared(fd.clone(), offset + PAGE_SIZE + (at - new - old_len)),
            };
            self.0.insert(at, Page { contents, ..last.clone() });
        }
    }
}

impl AddressSpace for FakeSpace {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len();
        self.copy(addr, len, READ, |page, within, done, n| match &page.contents {
            Contents::Private(bytes) => buf[done..done + n].copy_from_slice(&bytes[within..within + n]),
            Contents::Shared(fd, offset) => {
                rustix::io::pread(&**fd, &mut buf[done..done + n], offset + within as u64).expect("a memfd");
            }
        })
    }

    fn write(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        self.copy(addr, buf.len(), WRITE, |page, within, done, n| match &mut page.contents {
            Contents::Private(bytes) => bytes[within..within + n].copy_from_slice(&buf[done..done + n]),
            Contents::Shared(fd, offset) => {
                rustix::io::pwrite(&**fd, &buf[done..done + n], *offset + within as u64).expect("a memfd");
            }
        })
    }

    fn write_forced(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        self.write(addr, buf)
    }

    fn host_pid(&self) -> i32 {
        1
    }

    fn kill(&self) {}
}

/// A thread that carries out orders and runs no code: each switch ends as interrupted.
pub struct FakeThread {
    space: Arc<FakeSpace>,
    regs: Regs,
    deferred: Vec<Order>,
}

impl FakeThread {
    /// A thread of `space`.
    #[must_use]
    pub fn new(space: Arc<FakeSpace>) -> FakeThread {
        FakeThread { space, regs: Regs::default(), deferred: Vec::new() }
    }

    /// Carries out what was deferred.
    ///
    /// # Errors
    /// Those of the orders.
    pub fn flush(&mut self) -> Result<()> {
        for order in std::mem::take(&mut self.deferred) {
            self.space.carry_out(&order)?;
        }
        Ok(())
    }
}

impl GuestThread for FakeThread {
    fn regs(&mut self) -> Regs {
        self.regs
    }

    fn set_regs(&mut self, regs: &Regs) {
        self.regs = *regs;
    }

    fn set_ret(&mut self, rax: u64) {
        self.regs.rax = rax;
    }

    fn fpu(&mut self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn set_fpu(&mut self, _image: &[u8]) -> Result<()> {
        Ok(())
    }

    fn reset_fpu(&mut self) {}

    fn fresh_fpu(&self) -> &[u8] {
        &[]
    }

    fn poll_switch(&mut self, _cx: &mut Context<'_>) -> Poll<Event> {
        Poll::Ready(self.flush().map_or_else(Event::OrderFailed, |()| Event::Interrupted))
    }

    fn poll_order(&mut self, _cx: &mut Context<'_>, order: &Order) -> Poll<Result<u64>> {
        Poll::Ready(self.flush().and_then(|()| self.space.carry_out(order)))
    }

    fn defer(&mut self, order: Order) {
        self.deferred.push(order);
    }

    fn poll_fork(&mut self, _cx: &mut Context<'_>) -> Poll<Result<NewProcess>> {
        if let Err(errno) = self.flush() {
            return Poll::Ready(Err(errno));
        }
        let mut pages = self.space.pages.lock().clone();
        pages.0.retain(|_, p| !p.dont_fork);
        let space = FakeSpace::new(pages);
        let thread = FakeThread { regs: self.regs, ..FakeThread::new(space.clone()) };
        Poll::Ready(Ok(NewProcess { space, thread: Box::new(thread) }))
    }

    fn poll_spawn(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Box<dyn GuestThread>>> {
        let thread = FakeThread { regs: self.regs, ..FakeThread::new(self.space.clone()) };
        Poll::Ready(Ok(Box::new(thread)))
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        Arc::new(NoKick)
    }

    fn host_tid(&mut self) -> i32 {
        1
    }
}

struct NoKick;

impl Kick for NoKick {
    fn kick(&self) {}

    fn cpu_time_ns(&self) -> u64 {
        0
    }

    fn is_away(&self) -> bool {
        false
    }

    fn end(&self) {}

    fn hold(&self) -> bool {
        false
    }

    fn release(&self) {}
}

/// The vDSO of fake processes: only a place.
#[must_use]
pub fn vdso() -> VdsoLayout {
    let base = moat_platform::GUEST_TOP - 0x10_0000;
    VdsoLayout { vvar: base..base + 0x4000, vdso: base + 0x4000..base + 0x6000 }
}

/// An empty address space with its thread.
#[must_use]
pub fn new_process() -> (Arc<FakeSpace>, MemoryManager, FakeThread) {
    let space = FakeSpace::new(Pages::default());
    let thread = FakeThread::new(space.clone());
    (space.clone(), MemoryManager::new(space, &vdso(), MmLimits::default(), &Arc::default()), thread)
}

/// Runs a future that never waits.
///
/// # Panics
/// If it does.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future waits on the fake platform"),
    }
}

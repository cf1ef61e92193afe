//! [`Thread`]: one guest thread, as the future of its task holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll};

use libc::pid_t;
use moat_abi::{Errno, Result};
use moat_platform::{Event, GuestThread, Kick, NewProcess, Order, Regs, regs::USER_RFLAGS};

use crate::cell::{Cell, Outcome};
use crate::command::{Changes, Command, FpuChange, Id, Shared};
use crate::fpu;
use crate::regs::FIXED_RFLAGS;

pub(crate) struct Thread {
    id: Id,
    tid: pid_t,
    cell: Arc<Cell>,
    shared: Arc<Shared>,
    regs: Regs,
    changes: Changes,
    /// A command was sent and its outcome not taken yet.
    waiting: bool,
}

impl Thread {
    pub fn new(id: Id, tid: pid_t, cell: Arc<Cell>, shared: Arc<Shared>, regs: Regs) -> Thread {
        Thread { id, tid, cell, shared, regs, changes: Changes::default(), waiting: false }
    }

    /// Sends the command of the first poll; later polls look for its outcome.
    fn poll_command(&mut self, cx: &Context<'_>, command: impl FnOnce(Id, Changes) -> Command) -> Poll<Outcome> {
        if !self.waiting {
            if !self.cell.begin(cx) {
                return Poll::Ready(Outcome::Dead);
            }
            self.waiting = true;
            self.shared.send(command(self.id, std::mem::take(&mut self.changes)));
            return Poll::Pending;
        }
        let outcome = self.cell.poll(cx);
        self.waiting = outcome.is_pending();
        outcome
    }
}

impl GuestThread for Thread {
    fn regs(&mut self) -> Regs {
        self.regs
    }

    fn set_regs(&mut self, regs: &Regs) {
        self.regs = Regs { rflags: regs.rflags & USER_RFLAGS | FIXED_RFLAGS, ..*regs };
        self.changes.regs = Some(Box::new(self.regs));
        self.changes.ret = None;
    }

    fn set_ret(&mut self, rax: u64) {
        self.regs.rax = rax;
        match &mut self.changes.regs {
            Some(regs) => regs.rax = rax,
            None => self.changes.ret = Some(rax),
        }
    }

    fn fpu(&mut self) -> Result<Vec<u8>> {
        match &self.changes.fpu {
            Some(FpuChange::Image(image)) => return Ok(image.clone()),
            Some(FpuChange::Reset) => return Ok(self.shared.fresh_fpu.clone()),
            None => {}
        }
        let (reply, answer) = sync_channel(1);
        self.shared.send(Command::Fpu(self.id, reply));
        let image = answer.recv().unwrap_or(Err(Errno::ESRCH))?;
        fpu::to_frame(image).ok_or(Errno::EFAULT)
    }

    fn set_fpu(&mut self, image: &[u8]) -> Result<()> {
        let image = fpu::accept(image).ok_or(Errno::EINVAL)?;
        self.changes.fpu = Some(FpuChange::Image(image));
        Ok(())
    }

    fn reset_fpu(&mut self) {
        self.changes.fpu = Some(FpuChange::Reset);
    }

    fn fresh_fpu(&self) -> &[u8] {
        &self.shared.fresh_fpu
    }

    fn poll_switch(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.poll_command(cx, Command::Resume).map(|outcome| match outcome {
            Outcome::Event(event, regs) => {
                self.regs = regs;
                event
            }
            _ => Event::Died,
        })
    }

    fn poll_order(&mut self, cx: &mut Context<'_>, order: &Order) -> Poll<Result<u64>> {
        self.poll_command(cx, |id, changes| Command::Order(id, changes, order.clone())).map(|outcome| match outcome {
            Outcome::Order(result) => result,
            _ => Err(Errno::ESRCH),
        })
    }

    fn defer(&mut self, order: Order) {
        self.changes.orders.push(order);
    }

    fn poll_fork(&mut self, cx: &mut Context<'_>) -> Poll<Result<NewProcess>> {
        self.poll_command(cx, Command::Fork).map(|outcome| match outcome {
            Outcome::Fork(result) => result,
            _ => Err(Errno::ESRCH),
        })
    }

    fn poll_spawn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<dyn GuestThread>>> {
        self.poll_command(cx, Command::Spawn).map(|outcome| match outcome {
            Outcome::Spawn(result) => result,
            _ => Err(Errno::ESRCH),
        })
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        let (cell, shared) = (Arc::clone(&self.cell), Arc::clone(&self.shared));
        Arc::new(Kicker { id: self.id, tid: self.tid, cell, shared, cpu_time_ns: AtomicU64::new(0) })
    }

    fn host_tid(&mut self) -> i32 {
        self.tid
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.send(Command::DropThread(self.id));
    }
}

struct Kicker {
    id: Id,
    tid: pid_t,
    cell: Arc<Cell>,
    shared: Arc<Shared>,
    /// What was given last.
    cpu_time_ns: AtomicU64,
}

impl Kick for Kicker {
    fn kick(&self) {
        if self.cell.kick() {
            self.shared.send(Command::Kick(self.id));
        }
    }

    fn cpu_time_ns(&self) -> u64 {
        let now = if self.cell.is_dead() { None } else { moat_host::procfs::cpu_time_ns(self.tid) };
        let now = now.unwrap_or(0);
        self.cpu_time_ns.fetch_max(now, Ordering::Relaxed).max(now)
    }

    fn is_away(&self) -> bool {
        self.cell.is_running()
    }

    fn end(&self) {
        self.shared.send(Command::End(self.id));
    }

    fn hold(&self) -> bool {
        // PTRACE_INTERRUPT can't be blocked.
        false
    }

    fn release(&self) {}
}

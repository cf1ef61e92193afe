//! Signals about files that became ready: F_SETOWN, F_SETSIG and O_ASYNC of fcntl(2).

use std::sync::Arc;

use moat_abi::PollEvents;
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_vfs::open_file::{Owner, OwnerId};
use moat_vfs::vfs::IoSignals;

use crate::kernel::Kernel;
use crate::process::group::ThreadGroup;
use crate::signal::send::{Origin, Target};
use crate::task::Task;

impl IoSignals for Kernel {
    fn send_io_signal(&self, owner: &Owner, signal: u32, fd: i32, band: u32) {
        // File locks may be held here, and signals have an outer lock: a task of its own sends.
        let (owner, band) = (owner.clone(), i64::from(band));
        if let Some(kernel) = self.me.upgrade() {
            moat_sync::spawn(async move { send(&kernel, &owner, signal, fd, band) });
        }
    }
}

fn may_signal(owner: &Owner, task: &Task) -> bool {
    // `sigio_perm`.
    let c = task.creds();
    owner.euid == 0 || [owner.uid, owner.euid].iter().any(|id| *id == c.suid || *id == c.uid)
}

fn send(kernel: &Kernel, owner: &Owner, signal: u32, fd: i32, band: i64) {
    let number = i32::try_from(signal).ok().and_then(Signal::new);
    // A lease that is broken, or a file that is ready.
    let is_message = band & i64::from(PollEvents::MSG.bits()) != 0;
    let code = if is_message { moat_abi::siginfo::POLL_MSG } else { moat_abi::siginfo::POLL_IN };
    let info = SigInfo::poll(number.unwrap_or(Signal::SIGIO), code, band, fd);
    let to_group = |g: &Arc<ThreadGroup>| {
        if g.any_thread().is_some_and(|t| may_signal(owner, &t)) {
            // Too many queued: the event is lost, as on Linux, which then sends SIGIO; poll(2) tells the rest.
            let _ = g.send(Target::Process, info, Origin::Inside);
        }
    };
    match &owner.id {
        OwnerId::None => {}
        OwnerId::Thread(pid) => {
            if let Some(t) = kernel.task_of(pid).filter(|t| may_signal(owner, t)) {
                let _ = t.group.send(Target::Thread(t.id), info, Origin::Inside);
            }
        }
        OwnerId::Process(pid) => {
            if let Some(g) = kernel.process_of(pid) {
                to_group(&g);
            }
        }
        OwnerId::Group(pid) => kernel.group_members(pid).iter().for_each(to_group),
    }
}

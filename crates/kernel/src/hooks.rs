//! What the vfs asks of the kernel: the time, and signals about files.

use std::sync::{Arc, Weak};

use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_abi::time::Timespec;
use moat_vfs::caller::Hooks;
use moat_vfs::open_file::{Owner, OwnerId};

use crate::kernel::Kernel;
use crate::process::group::ThreadGroup;
use crate::signal::send::{Origin, Target};
use crate::task::Task;

/// The kernel's side of [`Hooks`].
pub struct VfsHooks {
    kernel: Weak<Kernel>,
    total_memory: u64,
}

impl VfsHooks {
    /// The hooks of `kernel`.
    #[must_use]
    pub fn new(kernel: &Arc<Kernel>) -> VfsHooks {
        VfsHooks { kernel: Arc::downgrade(kernel), total_memory: kernel.total_memory }
    }
}

impl Hooks for VfsHooks {
    fn now(&self) -> Timespec {
        Timespec::from_nanos(moat_host::clock::realtime_ns())
    }

    fn total_memory(&self) -> u64 {
        self.total_memory
    }

    fn send_io_signal(&self, owner: &Owner, signal: u32, fd: i32, band: u32) {
        // File locks may be held here, and signals have an outer lock: a task of its own sends.
        let (owner, band) = (*owner, i64::from(band));
        if let Some(kernel) = self.kernel.upgrade() {
            moat_sync::spawn(async move { send(&kernel, &owner, signal, fd, band) });
        }
    }
}

fn may_signal(owner: &Owner, task: &Task) -> bool {
    let c = task.creds();
    owner.euid == 0 || [owner.uid, owner.euid].iter().any(|id| *id == c.suid || *id == c.uid)
}

fn send(kernel: &Kernel, owner: &Owner, signal: u32, fd: i32, band: i64) {
    let ns = &kernel.root_pid_ns;
    let number = i32::try_from(signal).ok().and_then(Signal::new);
    let info = match number {
        Some(s) => SigInfo::poll(s, moat_abi::siginfo::POLL_IN, band, fd),
        None => SigInfo::poll(Signal::SIGIO, moat_abi::siginfo::POLL_IN, band, fd),
    };
    let to_group = |g: &Arc<ThreadGroup>| {
        if g.any_thread().is_some_and(|t| may_signal(owner, &t)) {
            // Too many queued: the event is lost, as on Linux, which then sends SIGIO; poll(2) tells the rest.
            let _ = g.send(Target::Process, info, Origin::Inside);
        }
    };
    match owner.id {
        OwnerId::None => {}
        OwnerId::Thread(tid) => {
            if let Some(t) = kernel.task(ns, tid).filter(|t| may_signal(owner, t)) {
                let _ = t.group.send(Target::Thread(t.id), info, Origin::Inside);
            }
        }
        OwnerId::Process(pid) => {
            if let Some(g) = kernel.process(ns, pid) {
                to_group(&g);
            }
        }
        OwnerId::Group(pgid) => {
            let Some(pid) = ns.lookup(pgid) else { return };
            let members = kernel.family.lock().members(pid.id);
            members.iter().for_each(to_group);
        }
    }
}

//! Core files: core(5), `do_coredump` in `fs/coredump.c`.
//!
//! The thread that the signal kills takes the whole process down first. The other threads leave their registers as they end;
//! once it is alone it writes the file, and the process's status says whether it could.

mod image;

use std::sync::Arc;
use std::task::Poll;

use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Resource;
use moat_mm::PAGE_SIZE;
use moat_vfs::ops::{self, OpenHow};
use moat_vfs::{OpenFile, View};

use crate::process::core_pattern::CoreNames;
use crate::process::group::{Dumpable, ThreadGroup};
use crate::ptrace::regs;
use crate::signal::state::{GroupExit, ThreadImage};
use crate::task::CurrentTask;

/// Ends the process by `signal`, with a core file if it is to have one.
pub(crate) async fn die(t: &mut CurrentTask, signal: Signal, info: &SigInfo) {
    let number = u8::try_from(signal.number()).unwrap_or(0);
    let limit = t.group.limits.get(Resource::Core).soft;
    // Linux makes no core below a page (`min_coredump` of binfmt_elf).
    let wanted = limit >= PAGE_SIZE && t.group.dumpable() == Dumpable::Yes;
    {
        let mut s = t.group.signals.lock();
        // Another end came first; its status stands.
        if s.exit.is_some() {
            return;
        }
        // From here on threads that end leave their registers: see `leave_image`.
        s.dump = wanted.then(Vec::new);
        s.start_exit(WaitStatus::Signaled { signal: number, core: CoreDump::NotDumped });
    }
    if !wanted {
        return;
    }
    let others = others(t.group.clone()).await;
    let written = ThreadImage::of(t).and_then(|own| write(t, signal, info, &own, &others, limit));
    match written {
        // Only a file that is complete counts as a core in the status.
        Ok(()) => {
            let status = WaitStatus::Signaled { signal: number, core: CoreDump::Dumped };
            t.group.signals.lock().exit = Some(GroupExit { status });
        }
        Err(e) => tracing::debug!(tid = t.tid(), %e, "no core file"),
    }
}

impl ThreadImage {
    /// The calling thread.
    ///
    /// # Errors
    /// Those of asking for its registers.
    fn of(t: &mut CurrentTask) -> Result<ThreadImage> {
        let regs = regs::to_user(&t.thread().regs());
        let xstate = regs::xstate(t.thread().fpu()?)?;
        let (usage, blocked) = (t.usage.get(), t.blocked());
        let (user_ns, system_ns) = (usage.user_ns, usage.system_ns);
        Ok(ThreadImage { tid: t.tid(), regs, xstate, pending: t.pending_blocked(), blocked, user_ns, system_ns })
    }
}

/// Leaves the registers of a thread that ends while its process is dumped.
pub(crate) fn leave_image(t: &mut CurrentTask) {
    if t.group.signals.lock().dump.is_none() {
        return;
    }
    // Made with the lock released, which `pending_blocked` takes.
    let image = ThreadImage::of(t);
    if let (Ok(image), Some(dump)) = (image, &mut t.group.signals.lock().dump) {
        dump.push(image);
    }
}

/// Waits until no other thread lives; gives what they have left.
async fn others(group: Arc<ThreadGroup>) -> Vec<ThreadImage> {
    group
        .exit_queue
        .until(PollEvents::all(), || {
            let mut s = group.signals.lock();
            if s.threads.len() > 1 { Poll::Pending } else { Poll::Ready(s.dump.take().unwrap_or_default()) }
        })
        .await
}

fn write(
    t: &mut CurrentTask,
    signal: Signal,
    info: &SigInfo,
    own: &ThreadImage,
    others: &[ThreadImage],
    limit: u64,
) -> Result<()> {
    let file = open(t, signal, limit)?;
    image::write(t, &file, info, own, others, limit)
}

/// Opens the core file by the rules of core(5): a regular file of one name that belongs to the process's user.
fn open(t: &CurrentTask, signal: Signal, limit: u64) -> Result<Arc<OpenFile>> {
    let (root, base) = {
        let fs = t.fs().lock();
        (fs.root.clone(), fs.cwd.clone())
    };
    let creds = t.creds();
    let names = CoreNames {
        pid: t.tgid(),
        tid: t.tid(),
        uid: creds.user_ns.show_uid(creds.uid),
        gid: creds.user_ns.show_gid(creds.gid),
        signal: signal.number(),
        time_s: moat_vfs::clock::now().tv_sec,
        host: t.namespaces().uts.host_name(),
        comm: t.comm(),
        exe: t.group.exe().map_or_else(Vec::new, |exe| exe.path().text(Some(&root))),
        limit,
    };
    // An empty pattern turns core files off.
    let path = t.kernel().core_pattern.path(&names).ok_or(Errno::ENOENT)?;
    let base = if path.starts_with(b"/") { root.clone() } else { base };
    let view = View { caller: t, root: &root, base: &base, umask: 0 };
    // Whoever has an older file open, or another name of it, keeps it.
    let _ = ops::unlink(&view, &path);
    // Another user may have planted a link or a FIFO: neither is to be followed or waited for.
    let flags = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::WRONLY | OpenFlags::NOFOLLOW | OpenFlags::NONBLOCK;
    let file = ops::open(&view, &path, &OpenHow::new(flags, 0o600))?;
    let meta = file.metadata()?;
    if meta.file_type() != FileType::Regular || meta.nlink != 1 || meta.uid != creds.fsuid {
        return Err(Errno::EPERM);
    }
    Ok(file)
}

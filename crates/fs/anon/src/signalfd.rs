//! signalfd(2): pending signals as a file.
//!
//! It reads the signals of the process that made it and of the thread that did, as long as that lives. (Linux takes those
//! of whoever reads; they differ only for a descriptor that has crossed a fork.)

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::siginfo::SignalfdSiginfo;
use moat_abi::signal::SigSet;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::PidNamespace;
use moat_image::state::{OpenFileKind, SignalFdState};
use moat_image::{ImageError, Refusal};
use moat_kernel::process::group::ThreadGroup;
use moat_kernel::task::TaskId;
use moat_kernel::{CurrentTask, Kernel};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Credentials, File, OpenFile, Seekable};
use zerocopy::IntoBytes;

/// Bytes of one signal.
const RECORD: usize = size_of::<SignalfdSiginfo>();

/// Signals of a process, as a file.
pub struct SignalFd {
    mask: Mutex<SigSet>,
    group: Arc<ThreadGroup>,
    thread: TaskId,
}

impl SignalFd {
    /// Opens one for the signals in `mask`.
    #[must_use]
    pub fn open(mask: SigSet, t: &CurrentTask, flags: OpenFlags) -> Arc<OpenFile> {
        let file = Arc::new(SignalFd { mask: Mutex::new(LockClass::Leaf, mask), group: t.group.clone(), thread: t.id });
        t.kernel().vfs.open_anon("[signalfd]", file, flags | OpenFlags::RDWR, t.creds())
    }

    /// Replaces the mask.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask;
        // Others may be wanted from here on.
        self.group.signalfd_queue.wake_all();
    }

    fn take(&self, wanted: SigSet) -> Option<SignalfdSiginfo> {
        self.group.take_pending(self.thread, wanted).map(|info| info.to_signalfd())
    }
}

impl SignalFd {
    /// A signalfd out of an image, of a process that is one of those in `ns`.
    ///
    /// # Errors
    /// A process that is not there.
    pub fn restore(
        kernel: &Kernel,
        ns: &PidNamespace,
        saved: &SignalFdState,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> std::result::Result<Arc<OpenFile>, ImageError> {
        let missing = || ImageError::state(format!("a signalfd of process {}", saved.process));
        let group = kernel.process(ns, saved.process).ok_or_else(missing)?;
        let thread = saved.thread.and_then(|number| kernel.task(ns, number)).filter(|t| Arc::ptr_eq(&t.group, &group));
        // Without the thread it reads signals of the process alone: no thread has this id.
        let thread = thread.map_or(TaskId(u64::MAX), |t| t.id);
        // As signalfd(2): these two can't be had.
        let mask = Mutex::new(LockClass::Leaf, SigSet(saved.mask).difference(SigSet::UNBLOCKABLE));
        let file = Arc::new(SignalFd { mask, group, thread });
        Ok(kernel.vfs.open_anon("[signalfd]", file, flags, creds))
    }
}

impl File for SignalFd {
    fn save(&self, _f: &OpenFile, _saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        let threads = self.group.threads();
        if threads.is_empty() {
            return Err(Refusal::new("a signalfd of a process that is gone"));
        }
        let thread = threads.iter().find(|t| t.id == self.thread).map(|t| t.pid().number());
        let mask = self.mask.lock().0;
        Ok(OpenFileKind::SignalFd(SignalFdState { mask, process: self.group.pid().number(), thread }))
    }

    fn seekable(&self) -> Seekable {
        Seekable::Noop
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        if buf.len() < RECORD {
            return Err(Errno::EINVAL);
        }
        let wanted = *self.mask.lock();
        let mut n = 0;
        for to in buf.chunks_exact_mut(RECORD) {
            let Some(record) = self.take(wanted) else { break };
            to.copy_from_slice(record.as_bytes());
            n += RECORD;
        }
        if n == 0 { Err(Errno::EAGAIN) } else { Ok(n) }
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let wanted = *self.mask.lock();
        let ready = !self.group.pending_for(self.thread).intersection(wanted).is_empty();
        if ready { PollEvents::IN } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.signalfd_queue)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }
}

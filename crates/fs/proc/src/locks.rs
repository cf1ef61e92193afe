//! /proc/locks: the locks on files, proc_locks(5).

use std::fmt::Write;

use moat_abi::Result;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::Text;
use moat_vfs::locks::{LockCall, LockKind};

use crate::mount::ProcMount;

pub(crate) struct Locks {
    pub(crate) proc: ProcMount,
}

impl Locks {
    /// The holder as the readers of this mount know it; `None` if they don't see it.
    fn holder(&self, pid: i32) -> Option<i32> {
        if pid < 0 {
            return Some(pid);
        }
        let pid = self.proc.kernel.root_pid_ns.lookup(pid)?;
        Some(pid.number_in(&self.proc.pid_ns)).filter(|number| *number > 0)
    }
}

impl Text for Locks {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        let mut text = String::new();
        let locks = self.proc.kernel.vfs.locks.all();
        let seen = locks.iter().filter_map(|l| Some((l, self.holder(l.pid)?)));
        for (n, (l, pid)) in (1u64..).zip(seen) {
            let call = match l.call {
                LockCall::Flock => "FLOCK ",
                LockCall::Posix => "POSIX ",
                LockCall::Ofd => "OFDLCK",
            };
            let kind = if l.kind == LockKind::Read { "READ" } else { "WRITE" };
            let (dev, ino, start) = (l.file.dev, l.file.ino, l.range.start);
            let end = if l.range.end == u64::MAX { "EOF".to_owned() } else { l.range.end.to_string() };
            let (major, minor) = (dev.major, dev.minor);
            // Writing to a string can't fail.
            let _ = writeln!(text, "{n}: {call} ADVISORY  {kind} {pid} {major:02x}:{minor:02x}:{ino} {start} {end}");
        }
        Ok(text.into_bytes())
    }
}

//! The requests of ioctl_tty(2) that are about a pty's queues and its two ends; the rest is in
//! [`moat_tty::ioctl`].

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::OpenFlags;
use moat_abi::signal::Signal;
use moat_abi::tty::{
    FIONREAD, TCFLSH, TCIFLUSH, TCIOFF, TCIOFLUSH, TCION, TCOFLUSH, TCOOFF, TCOON, TCSBRK, TCSBRKP, TCSETA, TCSETAF,
    TCSETAW, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW, TCSETSW2, TCXONC, TIOCCBRK, TIOCCONS, TIOCEXCL, TIOCGEXCL,
    TIOCGPKT, TIOCGPTLCK, TIOCGPTN, TIOCGPTPEER, TIOCNXCL, TIOCOUTQ, TIOCPKT, TIOCSBRK, TIOCSIG, TIOCSPGRP, TIOCSPTLCK,
    TIOCSTI, TIOCVHANGUP,
};
use moat_abi::{Errno, Result};
use moat_tty::Terminal;
use moat_tty::ioctl::{get, put};
use moat_vfs::caller::Caller;
use moat_vfs::fd_table::OnExec;
use moat_vfs::{OpenFile, Path};

use crate::ldisc::packet::{FlowAction, Flush, PacketMode};
use crate::pty::{Exclusive, Pty, SlaveLock};

/// The requests to the master that change the slave, and so are under the slave's job control.
pub(crate) fn changes_slave(cmd: u32) -> bool {
    matches!(cmd, TCSETS | TCSETSW | TCSETSF | TCSETS2 | TCSETSW2 | TCSETSF2 | TCSETA | TCSETAW | TCSETAF | TIOCSPGRP)
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn privileged(caller: &dyn Caller) -> bool {
    caller.creds().has_root_cap(Cap::SYS_ADMIN)
}

fn queue(arg: u64) -> Result<Flush> {
    match u32::try_from(arg) {
        Ok(TCIFLUSH) => Ok(Flush::Input),
        Ok(TCOFLUSH) => Ok(Flush::Output),
        Ok(TCIOFLUSH) => Ok(Flush::Both),
        _ => Err(Errno::EINVAL),
    }
}

fn flow(arg: u64) -> Result<FlowAction> {
    match u32::try_from(arg) {
        Ok(TCOOFF) => Ok(FlowAction::StopOutput),
        Ok(TCOON) => Ok(FlowAction::StartOutput),
        Ok(TCIOFF) => Ok(FlowAction::SendStop),
        Ok(TCION) => Ok(FlowAction::SendStart),
        _ => Err(Errno::EINVAL),
    }
}

/// Requests to the slave.
///
/// # Errors
/// ENOTTY for others; EINVAL, EFAULT; EPERM and EIO without CAP_SYS_ADMIN.
pub(crate) fn slave(pty: &Pty, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    match cmd {
        FIONREAD => put(caller, arg, &count(pty.look(|s| s.ldisc.slave_bytes()))),
        TCFLSH => {
            let what = queue(arg)?;
            pty.change(|s| (Ok(0), s.ldisc.flush(what)))
        }
        TCXONC => {
            let action = flow(arg)?;
            pty.change(|s| (Ok(0), s.ldisc.control_flow(action)))
        }
        _ => either(pty, caller, cmd, arg),
    }
}

/// Requests to the master of a pty in the devpts with this root.
///
/// # Errors
/// As [`slave`]; those of open(2) for TIOCGPTPEER.
pub(crate) fn master(
    pty: &Arc<Pty>,
    root: &Path,
    f: &OpenFile,
    caller: &dyn Caller,
    cmd: u32,
    arg: u64,
) -> Result<u64> {
    match cmd {
        FIONREAD => put(caller, arg, &count(pty.look(|s| s.ldisc.master_bytes()))),
        TCFLSH => {
            let what = queue(arg)?;
            pty.change(|s| (Ok(0), s.ldisc.flush_master(what)))
        }
        // The master's own output is never stopped, and it sends no characters of its own.
        TCXONC => flow(arg).map(|_| 0),
        TIOCGPTN => put(caller, arg, &pty.index),
        TIOCSPTLCK => {
            let lock = if get::<i32>(caller, arg)? == 0 { SlaveLock::Unlocked } else { SlaveLock::Locked };
            pty.look(|s| s.lock = lock);
            Ok(0)
        }
        TIOCGPTLCK => put(caller, arg, &i32::from(pty.look(|s| s.lock == SlaveLock::Locked))),
        TIOCPKT => {
            let mode = if get::<i32>(caller, arg)? == 0 { PacketMode::Off } else { PacketMode::On };
            pty.look(|s| s.ldisc.set_packet_mode(mode));
            Ok(0)
        }
        TIOCGPKT => put(caller, arg, &i32::from(pty.look(|s| s.ldisc.packet_mode() == PacketMode::On))),
        TIOCSIG => {
            let number = i32::try_from(arg).map_err(|_| Errno::EINVAL)?;
            // The only ones that a character could send (`pty_signal`).
            let signal =
                Signal::new(number).filter(|s| matches!(*s, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGTSTP));
            pty.job_control().signal_foreground(signal.ok_or(Errno::EINVAL)?);
            Ok(0)
        }
        TIOCGPTPEER => open_peer(pty, root, f, caller, arg),
        _ => either(pty, caller, cmd, arg),
    }
}

fn either(pty: &Pty, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    match cmd {
        // A pty has no line to break and hands its output on at once.
        TCSBRK | TCSBRKP | TIOCSBRK | TIOCCBRK => Ok(0),
        TIOCOUTQ => put(caller, arg, &0i32),
        TIOCEXCL => {
            pty.look(|s| s.exclusive = Exclusive::Yes);
            Ok(0)
        }
        TIOCNXCL => {
            pty.look(|s| s.exclusive = Exclusive::No);
            Ok(0)
        }
        TIOCGEXCL => put(caller, arg, &i32::from(pty.look(|s| s.exclusive == Exclusive::Yes))),
        // As with dev.tty.legacy_tiocsti = 0.
        TIOCSTI if !privileged(caller) => Err(Errno::EIO),
        TIOCSTI => {
            let byte: u8 = get(caller, arg)?;
            pty.change(|s| (Ok(0), s.ldisc.inject(byte)))
        }
        TIOCVHANGUP if privileged(caller) => {
            pty.hang_up_slaves();
            Ok(0)
        }
        TIOCVHANGUP | TIOCCONS => Err(Errno::EPERM),
        _ => Err(Errno::ENOTTY),
    }
}

/// TIOCGPTPEER: opens the slave without a path.
fn open_peer(pty: &Arc<Pty>, root: &Path, f: &OpenFile, caller: &dyn Caller, arg: u64) -> Result<u64> {
    let t = caller.task().ok_or(Errno::ENOTTY)?;
    let bits = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits_truncate(bits);
    // In the master's own devpts: others have other terminals of that name.
    let dentry = root.dentry.lookup(pty.index.to_string().as_bytes()).map_err(|_| Errno::EIO)?;
    let path = Path { mount: root.mount.clone(), dentry };
    let file = pty.open_slave(flags, caller)?;
    let description = OpenFile::new(file, path, flags, f.creds().clone());
    let fd = t.install(description, OnExec::close_if(flags.contains(OpenFlags::CLOEXEC)))?;
    Ok(i64::from(fd.0).cast_unsigned())
}

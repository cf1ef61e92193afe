//! The devices that stand for a terminal found otherwise: /dev/tty, /dev/console, /dev/ptmx (major number 5).

use std::sync::{Arc, Weak};

use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_kernel::Kernel;
use moat_vfs::file::File;
use moat_vfs::inode::OpenContext;
use moat_vfs::{Path, Registry};

use crate::fs::{PTMX, open_master};
use crate::pty::SLAVE_MAJOR;

const TTY: DeviceId = DeviceId::new(5, 0);
const CONSOLE: DeviceId = DeviceId::new(5, 1);

pub(crate) fn register(registry: &mut Registry, kernel: Weak<Kernel>) {
    registry.char_device(TTY, open_tty);
    registry.char_device(CONSOLE, move |_, ctx| open_console(&*kernel.upgrade().ok_or(Errno::ENXIO)?, ctx));
    registry.char_device(PTMX, open_ptmx);
    registry.char_major(SLAVE_MAJOR, open_stray_slave);
}

/// tty(4): the controlling terminal of the caller's session.
fn open_tty(_dev: DeviceId, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    let t = ctx.caller.task().ok_or(Errno::ENXIO)?;
    moat_tty::controlling_terminal(t).ok_or(Errno::ENXIO)?.open(ctx)
}

/// console(4): the terminal of the container, if it has one.
fn open_console(kernel: &Kernel, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    let t = ctx.caller.task().ok_or(Errno::ENXIO)?;
    let process = kernel.process_of(t.process_pid()).ok_or(Errno::ENXIO)?;
    process.container.console().ok_or(Errno::ENXIO)?.clone().open(ctx)
}

/// pts(4): a ptmx that is a device node makes ptys in the devpts that is mounted at `pts` beside it.
fn open_ptmx(_dev: DeviceId, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    // The directory beside the node, not one of the caller's (`devpts_mntget`).
    let beside = ctx.path.dentry.parent().ok_or(Errno::ENODEV)?;
    let dentry = beside.lookup(b"pts").map_err(|_| Errno::ENODEV)?;
    // What is mounted on it.
    let root = Path { mount: ctx.path.mount.clone(), dentry }.topmost();
    open_master(root, ctx)
}

/// A slave's node that was made by mknod(2), on whatever file system, leads nowhere.
fn open_stray_slave(_dev: DeviceId, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    Err(Errno::EIO)
}

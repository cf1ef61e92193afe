//! ioctl(2): the requests that every file has; the rest are the file's own.

use moat_abi::Errno;
use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::tty::{FIGETBSZ, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD, FIOQSIZE};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::fd_table::OnExec;
use moat_vfs::file::JobControlAccess;
use moat_vfs::{Fd, Seekable};

syscalls! { pub static TABLE;
    16 ioctl(fd: Fd, request: u32, arg: u64) sys_ioctl, full;
}

fn sys_ioctl(t: &mut CurrentTask, fd: Fd, request: u32, arg: u64) -> SyscallResult {
    let f = t.fds().get(fd)?;
    let ptr = UserAddr::new(arg);
    match request {
        FIOCLEX => t.fds().set_on_exec(fd, OnExec::Close)?,
        FIONCLEX => t.fds().set_on_exec(fd, OnExec::Keep)?,
        FIONBIO | FIOASYNC => {
            let on: i32 = t.mm().read(ptr.cast())?;
            let flag = if request == FIONBIO { OpenFlags::NONBLOCK } else { OpenFlags::ASYNC };
            let mut flags = f.flags();
            flags.set(flag, on != 0);
            // The descriptor that the flag is set through is what the signal names.
            if request == FIOASYNC {
                f.set_async_fd(fd.0);
            }
            f.set_flags(flags);
        }
        // Files without an inode of their own have no type, and answer for themselves.
        FIONREAD if f.inode().file_type() == FileType::Regular && f.file().seekable() != Seekable::Noop => {
            let left = f.metadata()?.size.saturating_sub(f.pos());
            t.mm().write(ptr.cast(), &i32::try_from(left).unwrap_or(i32::MAX))?;
        }
        FIOQSIZE if matches!(f.inode().file_type(), FileType::Regular | FileType::Directory | FileType::Symlink) => {
            t.mm().write(ptr.cast(), &f.metadata()?.size)?;
        }
        FIGETBSZ => {
            let size = i32::try_from(f.metadata()?.blksize).map_err(|_| Errno::EINVAL)?;
            t.mm().write(ptr.cast(), &size)?;
        }
        _ => {
            // A background process may be stopped for changing its terminal.
            super::io::admit(t, &f, JobControlAccess::Ioctl(request))?;
            return Ok(f.file().ioctl(&f, t, request, arg)?);
        }
    }
    Ok(0)
}

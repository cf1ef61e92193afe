//! pipe(2).

use moat_abi::Errno;
use moat_abi::fs::OpenFlags;
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserPtr;
use moat_vfs::fd_table::OnExec;

use super::open::fd_limit;

syscalls! { pub static TABLE;
    22 pipe(fds: UserPtr<[i32; 2]>) sys_pipe, full;
    293 pipe2(fds: UserPtr<[i32; 2]>, flags: OpenFlags) sys_pipe2, full;
}

fn sys_pipe(t: &mut CurrentTask, fds: UserPtr<[i32; 2]>) -> SyscallResult {
    sys_pipe2(t, fds, OpenFlags::empty())
}

fn sys_pipe2(t: &mut CurrentTask, fds: UserPtr<[i32; 2]>, flags: OpenFlags) -> SyscallResult {
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let limit = fd_limit(t);
    // Before the pipe is made; installing can still fail, since other threads take numbers too.
    t.fds().check_free(2, limit)?;
    let on_exec = OnExec::close_if(flags.contains(OpenFlags::CLOEXEC));
    let (reader, writer) = moat_fs_anon::new_pipe(&t.kernel().vfs, flags - OpenFlags::CLOEXEC, t.creds());
    let r = t.fds().install(reader, limit, on_exec)?;
    let w = match t.fds().install(writer, limit, on_exec) {
        Ok(w) => w,
        Err(e) => {
            t.fds().close(r)?;
            return Err(e.into());
        }
    };
    // Nobody knows the numbers, so both go again.
    if let Err(e) = t.mm().write(fds, &[r.0, w.0]) {
        t.fds().close(r)?;
        t.fds().close(w)?;
        return Err(e.into());
    }
    Ok(0)
}

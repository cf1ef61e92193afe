//! Joining namespaces that exist: setns(2).

use moat_abi::Errno;
use moat_abi::clone::CloneFlags;
use moat_kernel::nsfs::{Link, Namespace, NsFile};
use moat_kernel::process::pidfd::PidFd;
use moat_kernel::ptrace::access::{self, Ids};
use moat_kernel::task::setns::join;
use moat_kernel::{CurrentTask, SyscallResult, Task};
use moat_vfs::Fd;

syscalls! { pub static TABLE;
    308 setns(fd: Fd, kinds: CloneFlags) sys_setns, full;
}

/// Which namespaces of a process a flag stands for.
const KINDS: [(CloneFlags, Link); 8] = [
    (CloneFlags::NEWUSER, Link::User),
    (CloneFlags::NEWNS, Link::Mount),
    (CloneFlags::NEWUTS, Link::Uts),
    (CloneFlags::NEWIPC, Link::Ipc),
    (CloneFlags::NEWPID, Link::Pid),
    (CloneFlags::NEWCGROUP, Link::Cgroup),
    (CloneFlags::NEWNET, Link::Net),
    (CloneFlags::NEWTIME, Link::Time),
];

fn sys_setns(t: &mut CurrentTask, fd: Fd, kinds: CloneFlags) -> SyscallResult {
    let file = t.fds().get(fd)?;
    if let Some(file) = file.downcast::<NsFile>() {
        let namespace = file.namespace().clone();
        // Without flags any kind will do.
        if !kinds.is_empty() && kinds != namespace.flag() {
            return Err(Errno::EINVAL.into());
        }
        join(t, &[namespace])?;
        return Ok(0);
    }
    let pidfd = file.downcast::<PidFd>().ok_or(Errno::EINVAL)?;
    if kinds.is_empty() || !(CloneFlags::NAMESPACES | CloneFlags::NEWTIME).contains(kinds) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = namespaces_of(t, &*pidfd.task()?, kinds)?;
    join(t, &wanted)?;
    Ok(0)
}

/// The namespaces of `target` that `kinds` names.
fn namespaces_of(t: &CurrentTask, target: &Task, kinds: CloneFlags) -> Result<Vec<Namespace>, Errno> {
    access::check(t.task(), t.creds(), target, Ids::Real)?;
    let wanted = KINDS.iter().filter(|(kind, _)| kinds.contains(*kind));
    // A process that has ended is in none.
    wanted.map(|(_, link)| Namespace::of(target, *link).map_err(|_| Errno::ESRCH)).collect()
}

//! execve(2), execveat(2).

use moat_abi::Errno;
use moat_abi::fs::{AT_FDCWD, AtFlags, FileType};
use moat_kernel::task::exec::{ExecArgs, exec, open_executable};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::copy::StringReader;
use moat_mm::{PAGE_SIZE, UserAddr};
use moat_vfs::Fd;
use moat_vfs::fd_table::OnExec;
use moat_vfs::walk::{LookupFlags, View};

use crate::arg::PathArg;

syscalls! { pub static TABLE;
    59 execve(path: PathArg, argv: UserAddr, envp: UserAddr) async sys_execve, full;
    322 execveat(dir: Fd, path: PathArg, argv: UserAddr, envp: UserAddr, flags: AtFlags) async sys_execveat, full;
}

/// Longest argument or environment string (`MAX_ARG_STRLEN`).
const MAX_STRING: usize = 128 << 10;
/// Most bytes of all strings together, whatever RLIMIT_STACK says.
const MAX_TOTAL: usize = 6 << 20;

async fn sys_execve(t: &mut CurrentTask, path: PathArg, argv: UserAddr, envp: UserAddr) -> SyscallResult {
    execveat(t, Fd(AT_FDCWD), path, argv, envp, AtFlags::empty()).await
}

async fn sys_execveat(
    t: &mut CurrentTask,
    dir: Fd,
    path: PathArg,
    argv: UserAddr,
    envp: UserAddr,
    flags: AtFlags,
) -> SyscallResult {
    if !(AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    execveat(t, dir, path, argv, envp, flags).await
}

async fn execveat(
    t: &mut CurrentTask,
    dir: Fd,
    path: PathArg,
    argv: UserAddr,
    envp: UserAddr,
    flags: AtFlags,
) -> SyscallResult {
    let name = t.mm().read_cstr(path.0, 4096)?;
    let (file, filename) = find(t, dir, &name, flags)?;
    // One budget for both arrays (`bprm_stack_limits`).
    let mut left = MAX_TOTAL;
    let argv = read_strings(t, argv, &mut left)?;
    let envp = read_strings(t, envp, &mut left)?;
    exec(t, ExecArgs { file, filename, argv, envp }).await?;
    Ok(0)
}

fn find(
    t: &CurrentTask,
    dir: Fd,
    name: &[u8],
    flags: AtFlags,
) -> Result<(std::sync::Arc<moat_vfs::OpenFile>, Vec<u8>), Errno> {
    // Copied: the walk must not hold the lock of root and working directory.
    let fs = t.fs().lock().clone();
    let mut lookup = LookupFlags::empty();
    lookup.set(LookupFlags::FOLLOW, !flags.contains(AtFlags::SYMLINK_NOFOLLOW));
    lookup.set(LookupFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    let by_descriptor = dir.0 != AT_FDCWD && !name.starts_with(b"/");
    if !by_descriptor {
        let view = View { caller: t, root: &fs.root, base: &fs.cwd, umask: fs.umask };
        return Ok((open_executable(&view, name, lookup)?, name.to_vec()));
    }
    let base = t.fds().get_any(dir)?;
    // An empty name means the descriptor itself, whatever it is.
    if !name.is_empty() && base.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let view = View { caller: t, root: &fs.root, base: base.path(), umask: fs.umask };
    let file = open_executable(&view, name, lookup)?;
    // What a script's interpreter gets as the path: the only name that leads to the file for sure.
    let mut shown = format!("/dev/fd/{}", dir.0).into_bytes();
    if !name.is_empty() {
        shown.push(b'/');
        shown.extend_from_slice(name);
    }
    // A script's interpreter would find the name gone.
    if t.fds().on_exec(dir)? == OnExec::Close && is_script(&file) {
        return Err(Errno::ENOENT);
    }
    Ok((file, shown))
}

fn is_script(file: &moat_vfs::OpenFile) -> bool {
    let mut head = [0; 2];
    file.read_at(&mut head, 0).is_ok_and(|n| n == 2) && &head == b"#!"
}

/// Reads an array of strings; a null array counts as empty, as on Linux.
fn read_strings(t: &CurrentTask, array: UserAddr, left: &mut usize) -> Result<Vec<Vec<u8>>, Errno> {
    let mut strings = Vec::new();
    if array.is_null() {
        return Ok(strings);
    }
    let mut reader = StringReader::<{ PAGE_SIZE as usize }>::new(t.mm());
    let mut at = array;
    loop {
        // Several pointers at a time, as far as they are readable.
        let mut raw = [0u8; 512];
        // The array may end at the last mapped page, so a short read is no error.
        let got = t.mm().read_partial(at, &mut raw)?;
        let whole = got / 8 * 8;
        if whole == 0 {
            return Err(Errno::EFAULT);
        }
        for chunk in raw.get(..whole).unwrap_or_default().chunks_exact(8) {
            let pointer = chunk.try_into().map_or(0, u64::from_ne_bytes);
            if pointer == 0 {
                return Ok(strings);
            }
            let text = reader
                .read(UserAddr::new(pointer), MAX_STRING)
                // A single string that is too long is E2BIG too, as is the sum.
                .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::E2BIG } else { e })?;
            // The zero byte and the pointer count too (`bprm_stack_limits`).
            *left = left.checked_sub(text.len() + 9).ok_or(Errno::E2BIG)?;
            strings.push(text);
        }
        at = at.add(whole as u64)?;
    }
}

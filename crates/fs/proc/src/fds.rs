//! /proc/PID/fd and fdinfo: the descriptors of a process.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_kernel::process::pidfd::PidFd;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::fd_table::{Fd, OnExec};
use moat_vfs::generated::{Attributes, Entry, Listing, Text, TextFile};
use moat_vfs::inode::{Inode, Metadata};
use moat_vfs::open_file::OpenFile;
use moat_vfs::path::Path;

use crate::mount::ProcMount;
use crate::mount::dir;
use crate::who::{Who, owned};

/// The descriptor that a name stands for.
fn parse_fd(name: &[u8]) -> Option<Fd> {
    let text = std::str::from_utf8(name).ok()?;
    // A leading zero would give a file a second name.
    if !text.bytes().all(|b| b.is_ascii_digit()) || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().map(Fd)
}

fn open_file(who: &Who, fd: Fd) -> Result<Arc<OpenFile>> {
    let table = who.task()?.fds_of().ok_or(Errno::ENOENT)?;
    table.get_any(fd).map_err(|_| Errno::ENOENT)
}

fn entries(proc: &ProcMount, who: &Who, kind: &str, file_type: FileType) -> Result<Vec<Entry>> {
    let Some(table) = who.task()?.fds_of() else { return Ok(Vec::new()) };
    let entry = |fd: i32| Entry {
        name: fd.to_string().into_bytes(),
        // As in `lookup`, so that both give the same number.
        ino: owned(proc, who, kind, 0).ino ^ proc.ino(fd),
        file_type,
    };
    Ok(table.snapshot().iter().map(|(fd, ..)| entry(fd.0)).collect())
}

struct FdDir {
    proc: ProcMount,
    who: Who,
}

pub(crate) fn fd_dir(proc: &ProcMount, who: &Who) -> Arc<dyn Inode> {
    dir(owned(proc, who, "fd", 0o500), FdDir { proc: proc.clone(), who: who.clone() })
}

impl Listing for FdDir {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let fd = parse_fd(name).ok_or(Errno::ENOENT)?;
        let file = open_file(&self.who, fd)?;
        // The link's bits say how the file is open: lrwx------ for both.
        let access = file.access_mode();
        let mut mode = 0;
        if access.can_read() {
            mode |= 0o500;
        }
        if access.can_write() {
            mode |= 0o300;
        }
        let attributes = Attributes { mode, ..owned(&self.proc, &self.who, "fd", 0) };
        let ino = attributes.ino ^ self.proc.ino(fd.0);
        Ok(Arc::new(FdLink { attributes: Attributes { ino, ..attributes }, who: self.who.clone(), fd }))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        entries(&self.proc, &self.who, "fd", FileType::Symlink)
    }

    fn grants(&self, caller: &dyn Caller) -> bool {
        self.who.is_own(caller)
    }

    fn may_open(&self, caller: &dyn Caller) -> Result<()> {
        self.who.may_inspect(caller)
    }
}

/// /proc/PID/fd/N: a magic link to the open file.
struct FdLink {
    attributes: Attributes,
    who: Who,
    fd: Fd,
}

impl Inode for FdLink {
    fn metadata(&self) -> Result<Metadata> {
        // The size that Linux gives these links.
        Ok(Metadata { size: 64, ..self.attributes.metadata(FileType::Symlink) })
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        // What it shows depends on the caller: see `read_link_for`.
        Err(Errno::EACCES)
    }

    fn read_link_for(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.who.may_inspect(caller)?;
        let root = caller.task().map(|t| t.start_of_paths().root);
        Ok(open_file(&self.who, self.fd)?.path().text(root.as_ref()))
    }

    fn follow(&self, caller: &dyn Caller) -> Result<Option<Path>> {
        self.who.may_inspect(caller)?;
        Ok(Some(open_file(&self.who, self.fd)?.path().clone()))
    }
}

struct FdInfoDir {
    proc: ProcMount,
    who: Who,
}

pub(crate) fn fdinfo_dir(proc: &ProcMount, who: &Who) -> Arc<dyn Inode> {
    dir(owned(proc, who, "fdinfo", 0o500), FdInfoDir { proc: proc.clone(), who: who.clone() })
}

impl Listing for FdInfoDir {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let fd = parse_fd(name).ok_or(Errno::ENOENT)?;
        open_file(&self.who, fd)?;
        let attributes = owned(&self.proc, &self.who, "fdinfo", 0o400);
        let ino = attributes.ino ^ self.proc.ino(fd.0);
        Ok(TextFile::new(
            Attributes { ino, ..attributes },
            FdInfo { proc: self.proc.clone(), who: self.who.clone(), fd },
        ))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        entries(&self.proc, &self.who, "fdinfo", FileType::Regular)
    }

    fn grants(&self, caller: &dyn Caller) -> bool {
        self.who.is_own(caller)
    }

    fn may_open(&self, caller: &dyn Caller) -> Result<()> {
        self.who.may_inspect(caller)
    }
}

struct FdInfo {
    proc: ProcMount,
    who: Who,
    fd: Fd,
}

impl Text for FdInfo {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        let table = self.who.task()?.fds_of().ok_or(Errno::ENOENT)?;
        let file = table.get_any(self.fd).map_err(|_| Errno::ENOENT)?;
        let mut flags = file.flags().bits();
        // A flag of the descriptor, shown among those of the file.
        if table.on_exec(self.fd) == Ok(OnExec::Close) {
            flags |= moat_abi::fs::OpenFlags::CLOEXEC.bits();
        }
        let ino = file.metadata().map_or(0, |m| m.ino);
        let mut text =
            format!("pos:\t{}\nflags:\t0{flags:o}\nmnt_id:\t{}\nino:\t{ino}\n", file.pos(), file.path().mount.id());
        // A pidfd alone depends on which /proc is read.
        text += &match file.downcast::<PidFd>() {
            Some(pidfd) => pidfd.fdinfo_in(&self.proc.pid_ns),
            None => file.file().fdinfo(&file),
        };
        Ok(text.into_bytes())
    }

    fn may_open(&self, caller: &dyn Caller) -> Result<()> {
        self.who.may_inspect(caller)
    }
}

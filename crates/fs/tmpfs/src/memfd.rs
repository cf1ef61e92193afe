//! memfd_create(2): a file of a tmpfs that is mounted nowhere.

use std::sync::{Arc, OnceLock};

use moat_abi::fs::{MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, OpenFlags, SealFlags};
use moat_abi::{Errno, Result};
use moat_vfs::anon::Pseudo;
use moat_vfs::{Credentials, OpenFile};

use crate::inode::TmpInode;
use crate::superblock::{TmpFs, TmpOptions};

fn shmem() -> Result<&'static Arc<TmpFs>> {
    static SHMEM: OnceLock<Option<Arc<TmpFs>>> = OnceLock::new();
    let none = TmpOptions { size: 0, inodes: 0, mode: 0o755, uid: 0, gid: 0 };
    SHMEM.get_or_init(|| TmpFs::with_dev(Pseudo::Shmem.dev(), &none).ok()).as_ref().ok_or(Errno::ENOMEM)
}

/// Opens a new memfd called `name`; `flags` are checked `MFD_*`.
///
/// # Errors
/// ENOMEM.
pub fn new_memfd(name: &[u8], flags: u32, creds: &Arc<Credentials>) -> Result<Arc<OpenFile>> {
    let noexec = flags & MFD_NOEXEC_SEAL != 0;
    let seals = match flags & MFD_ALLOW_SEALING != 0 {
        _ if noexec => SealFlags::EXEC,
        true => SealFlags::empty(),
        false => SealFlags::SEAL,
    };
    let mode = if noexec { 0o666 } else { 0o777 };
    let inode = TmpInode::sealable(shmem()?.shared(), mode, creds.fsuid, creds.fsgid, seals)?;
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    shown.extend_from_slice(b" (deleted)");
    let path = Pseudo::Shmem.path(inode.clone(), &shown);
    Ok(OpenFile::new(inode, path, OpenFlags::RDWR | OpenFlags::LARGEFILE, creds.clone()))
}

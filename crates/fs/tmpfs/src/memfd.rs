//! memfd_create(2): a file of a tmpfs that is mounted nowhere.

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::fs::{MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, OpenFlags, SealFlags};
use moat_vfs::anon::Pseudo;
use moat_vfs::{Credentials, OpenFile, Tables, Vfs};

use crate::inode::TmpInode;
use crate::superblock::{TmpFs, TmpOptions};

/// The tmpfs that memfds of a kernel are in.
struct Shmem(Arc<TmpFs>);

/// The file system of memfds.
///
/// # Errors
/// ENOSPC.
pub fn shmem(tables: &Tables) -> Result<Arc<TmpFs>> {
    if let Some(known) = tables.extensions.get::<Shmem>() {
        return Ok(known.0.clone());
    }
    // Without limits of its own, as on Linux.
    let none = TmpOptions { size: 0, inodes: 0, mode: 0o755, uid: 0, gid: 0, memory: 0 };
    let new = TmpFs::new(Pseudo::Shmem.dev(), &none)?;
    Ok(tables.extensions.get_or_init(|| Shmem(new)).0.clone())
}

/// Opens a new memfd called `name`; `flags` are checked `MFD_*`.
///
/// # Errors
/// ENOMEM.
pub fn new_memfd(vfs: &Vfs, name: &[u8], flags: u32, creds: &Arc<Credentials>) -> Result<Arc<OpenFile>> {
    let noexec = flags & MFD_NOEXEC_SEAL != 0;
    let seals = match flags & MFD_ALLOW_SEALING != 0 {
        // MFD_NOEXEC_SEAL implies MFD_ALLOW_SEALING (memfd_create(2)).
        _ if noexec => SealFlags::EXEC,
        true => SealFlags::empty(),
        false => SealFlags::SEAL,
    };
    let mode = if noexec { 0o666 } else { 0o777 };
    let inode = TmpInode::sealable(shmem(vfs)?.shared(), mode, creds.fsuid, creds.fsgid, seals)?;
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    shown.extend_from_slice(b" (deleted)");
    let path = vfs.pseudo_path(Pseudo::Shmem, inode.clone(), &shown);
    Ok(OpenFile::new(inode, path, OpenFlags::RDWR | OpenFlags::LARGEFILE, creds.clone()))
}

//! Changes of credentials that exec makes: set-user-ID programs, file capabilities, capabilities(7).
//!
//! Source: `bprm_fill_uid`, `cap_bprm_creds_from_file` in `fs/exec.c` and `security/commoncap.c`.

use std::sync::Arc;

use moat_abi::cap::{CapSet, SECBIT_KEEP_CAPS, SECBIT_NOROOT, VFS_CAP_FLAGS_EFFECTIVE, VFS_CAP_REVISION_MASK};
use moat_abi::fs::{S_ISGID, S_ISUID, S_IXGRP};
use moat_abi::{Errno, Result};
use moat_vfs::OpenFile;
use moat_vfs::cred::{Credentials, UserNamespace};
use moat_vfs::inode::Access;
use moat_vfs::mount::{MountFlags, MountNamespace};

/// Who a task is after exec.
pub struct Elevation {
    /// The new credentials.
    pub creds: Credentials,
    /// AT_SECURE.
    pub secure: bool,
    /// The caller may not read the program: it must not be dumped or traced.
    pub unreadable: bool,
    /// Whose capabilities open its memory all the same: the user namespace, or the first above it that knows the owners of a
    /// program that is not readable (`would_dump`).
    pub exec_user_ns: Arc<UserNamespace>,
}

/// Capabilities of a file: `security.capability`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FileCaps {
    permitted: CapSet,
    inheritable: CapSet,
    effective: bool,
}

impl Elevation {
    /// The credentials of `old` after it executes `file`.
    ///
    /// # Errors
    /// EPERM if the file's capabilities can't be given in full; those of reading its attributes.
    pub fn compute(
        old: &Arc<Credentials>,
        file: &OpenFile,
        mounts: &MountNamespace,
        traced: bool,
    ) -> Result<Elevation> {
        let meta = file.metadata()?;
        let mut new = (**old).clone();
        let may_elevate = may_elevate(old, file, mounts) && !old.no_new_privs && !traced;
        // Ids that the namespace has no number for can't be taken on.
        let mapped = old.user_ns.maps_both(meta.uid, meta.gid);
        if may_elevate && mapped {
            if meta.mode & S_ISUID != 0 {
                new.euid = meta.uid;
            }
            // Without execute permission for the group the bit stands for mandatory locking.
            if meta.mode & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP {
                new.egid = meta.gid;
            }
        }
        let file_caps = if may_elevate { read_file_caps(file, &old.user_ns)? } else { None };
        // The bounding set limits what files give, not what is inherited.
        let given = |caps: &FileCaps| {
            let inherited = caps.inheritable.intersection(old.inheritable);
            caps.permitted.intersection(old.bounding).union(inherited)
        };
        // A program that relies on its capabilities must not run with half of them, whoever runs it (`bprm_caps_from_vfs_caps`).
        if file_caps.is_some_and(|caps| caps.effective && !given(&caps).contains_all(caps.permitted)) {
            return Err(Errno::EPERM);
        }
        let changed = new.euid != old.euid || new.egid != old.egid;
        if file_caps.is_some() || changed {
            // Ambient capabilities are for programs that know nothing of privileges.
            new.ambient = CapSet::EMPTY;
        }
        let root = old.user_ns.kernel_uid(0);
        let noroot = old.securebits & SECBIT_NOROOT != 0;
        let is_root = |uid: u32| Some(uid) == root;
        let mut caps = file_caps.unwrap_or_default();
        let has_file_caps = file_caps.is_some();
        // A set-user-ID-root program with capabilities of its own gets only those (`handle_privileged_root`).
        let root_rule = !(noroot || has_file_caps && !is_root(new.uid) && is_root(new.euid));
        if root_rule && (is_root(new.euid) || is_root(new.uid)) {
            caps.permitted = CapSet::FULL;
            caps.inheritable = CapSet::FULL;
            // With the real id alone they are permitted, but not effective.
            if is_root(new.euid) {
                caps.effective = true;
            }
        }
        new.permitted = given(&caps).union(new.ambient);
        new.effective = if caps.effective { new.permitted } else { new.ambient };
        new.suid = new.euid;
        new.fsuid = new.euid;
        new.sgid = new.egid;
        new.fsgid = new.egid;
        // It is meant for a change of ids by the program that set it.
        new.securebits &= !SECBIT_KEEP_CAPS;
        let setid = new.euid != old.uid || new.egid != old.gid;
        let grew = !new.ambient.contains_all(new.permitted);
        // AT_SECURE: the loader must not trust an environment that a less privileged user set up.
        let secure = setid || (!is_root(new.uid) && (caps.effective || grew));
        // Its memory must not be readable by other means either: no dumps, no tracing by the user.
        let unreadable = file.inode().permission(old, Access::READ).is_err();
        let mut exec_user_ns = old.user_ns.clone();
        while unreadable
            && !exec_user_ns.maps_both(meta.uid, meta.gid)
            && let Some(parent) = exec_user_ns.parent.clone()
        {
            exec_user_ns = parent;
        }
        Ok(Elevation { creds: new, secure, unreadable, exec_user_ns })
    }
}

/// Whether the file system of a program is trusted with set-id bits and capabilities (`mnt_may_suid`): it is in the caller's
/// tree of mounts, and was mounted in the caller's user namespace or above.
fn may_elevate(old: &Credentials, file: &OpenFile, mounts: &MountNamespace) -> bool {
    let mount = &file.path().mount;
    !mount.flags().contains(MountFlags::NOSUID) && mounts.contains(mount) && old.user_ns.is_within(mount.user_ns())
}

/// Whether the user `root` is root of `ns` or above it (`rootid_owns_currentns`): capabilities that it gave a file count there.
fn owns(root: u32, ns: &Arc<UserNamespace>) -> bool {
    let mut at = Some(ns);
    while let Some(ns) = at {
        if ns.kernel_uid(0) == Some(root) {
            return true;
        }
        at = ns.parent.as_ref();
    }
    false
}

/// Reads `security.capability`; `None` if the file has none that count in `user_ns`.
fn read_file_caps(file: &OpenFile, user_ns: &Arc<UserNamespace>) -> Result<Option<FileCaps>> {
    let raw = match file.inode().get_xattr(b"security.capability") {
        Ok(raw) => raw,
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => return Ok(None),
        Err(e) => return Err(e),
    };
    let word = |i: usize| raw.get(i * 4..i * 4 + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let Some(magic) = word(0) else { return Err(Errno::EINVAL) };
    // Revision 1 has 32 capabilities, later ones 64.
    let words = match magic & VFS_CAP_REVISION_MASK {
        0x0100_0000 => 1,
        0x0200_0000 => 2,
        0x0300_0000 => {
            // Revision 3 names the root user of the namespace that it holds in; elsewhere it is as if there were none.
            if !owns(word(5).ok_or(Errno::EINVAL)?, user_ns) {
                return Ok(None);
            }
            2
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut caps = FileCaps { effective: magic & VFS_CAP_FLAGS_EFFECTIVE != 0, ..FileCaps::default() };
    for i in 0..words {
        let permitted = u64::from(word(1 + 2 * i).ok_or(Errno::EINVAL)?);
        let inheritable = u64::from(word(2 + 2 * i).ok_or(Errno::EINVAL)?);
        caps.permitted = caps.permitted.union(CapSet(permitted << (32 * i)));
        caps.inheritable = caps.inheritable.union(CapSet(inheritable << (32 * i)));
    }
    caps.permitted = caps.permitted.intersection(CapSet::FULL);
    caps.inheritable = caps.inheritable.intersection(CapSet::FULL);
    Ok(Some(caps))
}

//! Who may do what with a file, by its mode bits, its access control list and capabilities.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};

use crate::acl::{self, Acl};
use crate::cred::Credentials;
use crate::metadata::{Access, Metadata};

/// The permission check by mode bits and capabilities (`generic_permission`).
///
/// # Errors
/// EACCES.
pub fn generic_permission(meta: &Metadata, creds: &Credentials, access: Access) -> Result<()> {
    permission_by_acl(meta, creds, access, || Ok(None))
}

/// As [`generic_permission`], with the file's access control list, which is asked for only where it matters.
///
/// # Errors
/// EACCES; those of `list`.
pub fn permission_by_acl(
    meta: &Metadata,
    creds: &Credentials,
    access: Access,
    list: impl FnOnce() -> Result<Option<Arc<Acl>>>,
) -> Result<()> {
    let granted = match acl::decides(meta, creds, access, list)? {
        // A list that names nobody of the caller's leaves the decision to the mode.
        Some(granted) => granted,
        None => mode_grants(meta, creds, access),
    };
    if granted { Ok(()) } else { capability_grants(meta, creds, access) }
}

fn mode_grants(meta: &Metadata, creds: &Credentials, access: Access) -> bool {
    // The first class that fits decides, even if a later one would grant more (`acl_permission_check`).
    let shift = if creds.fsuid == meta.uid {
        6
    } else if creds.in_group(meta.gid) {
        3
    } else {
        0
    };
    Access::from_bits_truncate((meta.mode >> shift) & 7).contains(access)
}

fn capability_grants(meta: &Metadata, creds: &Credentials, access: Access) -> Result<()> {
    let cap = |c| creds.has_cap_for(meta.uid, meta.gid, c);
    let fine = if meta.file_type() == FileType::Directory {
        // Reading and searching are one right, changing another.
        (!access.contains(Access::WRITE) && cap(Cap::DAC_READ_SEARCH)) || cap(Cap::DAC_OVERRIDE)
    } else {
        // Execution needs one execute bit, whoever asks.
        (access == Access::READ && cap(Cap::DAC_READ_SEARCH))
            || ((!access.contains(Access::EXEC) || meta.mode & 0o111 != 0) && cap(Cap::DAC_OVERRIDE))
    };
    if fine { Ok(()) } else { Err(Errno::EACCES) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_identity::UserNamespace;

    fn user(uid: u32, gid: u32) -> Credentials {
        Credentials::user(uid, gid, Arc::from([]), moat_abi::cap::CapSet::EMPTY, UserNamespace::root())
    }

    #[test]
    fn the_first_class_that_matches_decides() {
        let meta = Metadata { mode: 0o100_047, uid: 5, gid: 6, ..Metadata::default() };
        let check = |uid, gid, access| generic_permission(&meta, &user(uid, gid), access);
        assert_eq!(check(5, 6, Access::READ), Err(Errno::EACCES), "the owner has no rights though others have");
        assert_eq!(check(7, 6, Access::READ), Ok(()));
        assert_eq!(check(7, 6, Access::WRITE), Err(Errno::EACCES));
        assert_eq!(check(7, 7, Access::READ | Access::WRITE | Access::EXEC), Ok(()));
    }

    #[test]
    fn root_needs_one_execute_bit() {
        let mut meta = Metadata { mode: 0o100_600, ..Metadata::default() };
        assert_eq!(
            generic_permission(&meta, &Credentials::root(UserNamespace::root()), Access::EXEC),
            Err(Errno::EACCES)
        );
        meta.mode = 0o100_601;
        meta.uid = 9;
        assert_eq!(generic_permission(&meta, &Credentials::root(UserNamespace::root()), Access::EXEC), Ok(()));
        meta.mode = 0o040_000;
        assert_eq!(generic_permission(&meta, &Credentials::root(UserNamespace::root()), Access::all()), Ok(()));
    }
}

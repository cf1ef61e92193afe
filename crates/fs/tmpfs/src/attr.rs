//! Attributes of an inode: what stat(2) says, extended attributes, access control lists.

use std::collections::BTreeMap;

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_vfs::acl::{Acl, AclKind};

/// Names and values of the extended attributes of one inode together, in bytes.
const XATTR_LIMIT: usize = 256 * 1024;

/// What changes about an inode outside its contents.
pub(crate) struct Attr {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) atime: Timespec,
    pub(crate) mtime: Timespec,
    pub(crate) ctime: Timespec,
    /// Without a name, but it may get one: O_TMPFILE.
    pub(crate) linkable: bool,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) xattr_bytes: usize,
}

impl Attr {
    /// Removes an extended attribute; `None` if there is none of this name.
    pub(crate) fn remove_xattr(&mut self, name: &[u8]) -> Option<()> {
        let gone = self.xattrs.remove(name)?;
        self.xattr_bytes -= name.len() + gone.len();
        Some(())
    }

    /// The file's capabilities are for what it was before a change (`security_inode_killpriv`).
    pub(crate) fn drop_capabilities(&mut self) {
        let _ = self.remove_xattr(b"security.capability");
    }

    /// Replaces an attribute, within the limit.
    pub(crate) fn put_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<()> {
        let old = self.xattrs.get(name).map_or(0, |v| name.len() + v.len());
        let bytes = self.xattr_bytes - old + name.len() + value.len();
        // They count in no quota: without this limit a guest could fill the sentry's memory with them.
        if bytes > XATTR_LIMIT {
            return Err(Errno::ENOSPC);
        }
        self.xattr_bytes = bytes;
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// The access control list of a kind.
    pub(crate) fn acl(&self, kind: AclKind) -> Option<Acl> {
        self.xattrs.get(kind.attribute()).and_then(|value| Acl::parse(value).ok().flatten())
    }

    /// Gives the file a list. An access list changes the mode, which may say all of it.
    pub(crate) fn set_acl(&mut self, kind: AclKind, acl: &Acl) -> Result<()> {
        if kind == AclKind::Access {
            // A list that says no more than the mode bits is none (`posix_acl_equiv_mode`).
            if acl.is_mode() {
                let _ = self.remove_xattr(kind.attribute());
            } else {
                self.put_xattr(kind.attribute(), &acl.encode())?;
            }
            self.mode = (self.mode & !0o777) | acl.mode();
            return Ok(());
        }
        self.put_xattr(kind.attribute(), &acl.encode())
    }
}

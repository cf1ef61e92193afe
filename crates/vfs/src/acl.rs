//! POSIX access control lists: acl(5), `fs/posix_acl.c`. Their form is that of the attributes `system.posix_acl_access` and
//! `system.posix_acl_default`; ids are the kernel's.

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};

use crate::cred::Credentials;
use crate::metadata::{Access, Metadata};

/// Which of the two lists of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    /// Who may do what with the file.
    Access,
    /// What files made in the directory get.
    Default,
}

impl AclKind {
    /// The attribute that carries the list.
    #[must_use]
    pub fn attribute(self) -> &'static [u8] {
        match self {
            AclKind::Access => b"system.posix_acl_access",
            AclKind::Default => b"system.posix_acl_default",
        }
    }

    /// The list that an attribute carries.
    #[must_use]
    pub fn of_attribute(name: &[u8]) -> Option<AclKind> {
        [AclKind::Access, AclKind::Default].into_iter().find(|kind| kind.attribute() == name)
    }
}

/// Whom an entry is about; the order is that of a valid list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Owner,
    User(u32),
    OwningGroup,
    Group(u32),
    Mask,
    Other,
}

/// A list that is valid: owner, owning group and others once each, a mask if anybody is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Sorted.
    entries: Vec<(Who, u32)>,
}

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
const UNDEFINED_ID: u32 = u32::MAX;

const TAG_OWNER: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_OWNING_GROUP: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

impl Acl {
    /// Decodes an attribute's value; `None` for a list without entries, which is none at all.
    ///
    /// # Errors
    /// EINVAL for a list that is malformed or not valid; EOPNOTSUPP for another version.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>> {
        let (header, rest) = value.split_first_chunk::<HEADER_BYTES>().ok_or(Errno::EINVAL)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(Errno::EOPNOTSUPP);
        }
        // The value is a packed array: left-over bytes are no entry.
        let (raw, left) = rest.as_chunks::<ENTRY_BYTES>();
        if !left.is_empty() {
            return Err(Errno::EINVAL);
        }
        let entries = raw.iter().map(decode).collect::<Result<Vec<_>>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl { entries };
        acl.check()?;
        Ok(Some(acl))
    }

    /// `posix_acl_valid`: each entry after those before it, and the three of every mode there.
    fn check(&self) -> Result<()> {
        // By class, as Linux wants it; within one no id may come twice in a row.
        let ordered =
            self.entries.is_sorted_by(|a, b| class(a.0) < class(b.0) || (class(a.0) == class(b.0) && a.0 != b.0));
        let named = self.entries.iter().any(|(who, _)| matches!(who, Who::User(_) | Who::Group(_)));
        let has = |who| self.permissions_of(who).is_some();
        let complete = has(Who::Owner) && has(Who::OwningGroup) && has(Who::Other) && (!named || has(Who::Mask));
        // Ids of one class may stand in any order, so a repetition further away shows only here.
        let mut sorted: Vec<Who> = self.entries.iter().map(|e| e.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        if ordered && complete && sorted.len() == self.entries.len() { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// The attribute's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (who, permissions) in &self.entries {
            let (tag, id) = match who {
                Who::Owner => (TAG_OWNER, UNDEFINED_ID),
                Who::User(id) => (TAG_USER, *id),
                Who::OwningGroup => (TAG_OWNING_GROUP, UNDEFINED_ID),
                Who::Group(id) => (TAG_GROUP, *id),
                Who::Mask => (TAG_MASK, UNDEFINED_ID),
                Who::Other => (TAG_OTHER, UNDEFINED_ID),
            };
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&u16::try_from(*permissions).unwrap_or(0).to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    fn permissions_of(&self, who: Who) -> Option<u32> {
        self.entries.iter().find(|e| e.0 == who).map(|e| e.1)
    }

    // With a mask, chmod(2) changes the mask and leaves the owning group's entry alone.
    fn set(&mut self, who: Who, permissions: u32) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.0 == who) {
            entry.1 = permissions;
        }
    }

    /// The entry that the group bits of a mode stand for: the mask where there is one.
    fn group_class(&self) -> Who {
        if self.permissions_of(Who::Mask).is_some() { Who::Mask } else { Who::OwningGroup }
    }

    /// The permission bits (0777) that the list amounts to.
    #[must_use]
    pub fn mode(&self) -> u32 {
        let of = |who| self.permissions_of(who).unwrap_or(0);
        of(Who::Owner) << 6 | of(self.group_class()) << 3 | of(Who::Other)
    }

    /// Whether the mode says all of it (`posix_acl_equiv_mode`).
    #[must_use]
    pub fn is_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The list after chmod(2) to `mode`.
    #[must_use]
    pub fn with_mode(&self, mode: u32) -> Acl {
        let mut new = self.clone();
        new.set(Who::Owner, mode >> 6 & 7);
        new.set(self.group_class(), mode >> 3 & 7);
        new.set(Who::Other, mode & 7);
        new
    }

    /// The mode of a file made with `mode` in a directory whose default list this is; the umask plays no part.
    #[must_use]
    pub fn mode_of_new(&self, mode: u32) -> u32 {
        // Only permissions are taken away; set-id and sticky bits stay as asked.
        mode & (self.mode() | !0o777)
    }

    /// Whether the list grants `access`; the owner of the file and its group are in `meta` (`posix_acl_permission`).
    fn grants(&self, meta: &Metadata, creds: &Credentials, access: Access) -> bool {
        let wanted = access.bits() & 7;
        let mask = self.permissions_of(Who::Mask).unwrap_or(7);
        let allows = |permissions: u32| permissions & wanted == wanted;
        // The owner's entry is not subject to the mask.
        if creds.fsuid == meta.uid {
            return allows(self.permissions_of(Who::Owner).unwrap_or(0));
        }
        if let Some(permissions) = self.permissions_of(Who::User(creds.fsuid)) {
            return allows(permissions & mask);
        }
        // Any one group that grants suffices, but a member of a group that does not is not "other".
        let mut in_a_group = false;
        for (who, permissions) in &self.entries {
            let member = match who {
                Who::OwningGroup => creds.in_group(meta.gid),
                Who::Group(id) => creds.in_group(*id),
                _ => false,
            };
            in_a_group |= member;
            if member && allows(*permissions & mask) {
                return true;
            }
        }
        !in_a_group && allows(self.permissions_of(Who::Other).unwrap_or(0))
    }
}

fn class(who: Who) -> u8 {
    match who {
        Who::Owner => 0,
        Who::User(_) => 1,
        Who::OwningGroup => 2,
        Who::Group(_) => 3,
        Who::Mask => 4,
        Who::Other => 5,
    }
}

fn decode(raw: &[u8; ENTRY_BYTES]) -> Result<(Who, u32)> {
    let [t0, t1, p0, p1, i0, i1, i2, i3] = *raw;
    let id = u32::from_le_bytes([i0, i1, i2, i3]);
    let permissions = u32::from(u16::from_le_bytes([p0, p1]));
    // A higher bit has no meaning and is not dropped in silence.
    if permissions & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let named = |who: fn(u32) -> Who| if id == UNDEFINED_ID { Err(Errno::EINVAL) } else { Ok(who(id)) };
    let who = match u16::from_le_bytes([t0, t1]) {
        TAG_OWNER => Who::Owner,
        TAG_USER => named(Who::User)?,
        TAG_OWNING_GROUP => Who::OwningGroup,
        TAG_GROUP => named(Who::Group)?,
        TAG_MASK => Who::Mask,
        TAG_OTHER => Who::Other,
        _ => return Err(Errno::EINVAL),
    };
    Ok((who, permissions))
}

/// What the list of a file says where the mode alone does not: `None` if there is nothing to ask, since the caller owns the file
/// or its group class may do nothing (`acl_permission_check`).
pub(crate) fn decides(
    meta: &Metadata,
    creds: &Credentials,
    access: Access,
    list: impl FnOnce() -> Result<Option<std::sync::Arc<Acl>>>,
) -> Result<Option<bool>> {
    // A symbolic link has no list.
    if creds.fsuid == meta.uid || meta.mode & 0o070 == 0 || meta.file_type() == FileType::Symlink {
        return Ok(None);
    }
    Ok(list()?.map(|acl| acl.grants(meta, creds, access)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::cap::CapSet;
    use std::sync::Arc;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend_from_slice(&tag.to_le_bytes());
            value.extend_from_slice(&permissions.to_le_bytes());
            value.extend_from_slice(&id.to_le_bytes());
        }
        value
    }

    const NONE: u32 = UNDEFINED_ID;
    const NAMED: [(u16, u16, u32); 5] = [(1, 6, NONE), (2, 5, 1000), (4, 4, NONE), (16, 4, NONE), (32, 0, NONE)];

    #[test]
    fn lists_are_checked() {
        let good = list(&NAMED);
        let acl = Acl::parse(&good).unwrap().unwrap();
        assert_eq!(acl.encode(), good);
        assert_eq!(acl.mode(), 0o640);
        assert_eq!(Acl::parse(&list(&[])), Ok(None));
        let bad: [&[(u16, u16, u32)]; 7] = [
            &[(1, 6, NONE)],
            &[(1, 6, NONE), (4, 4, NONE), (4, 4, NONE), (32, 0, NONE)],
            &[(1, 6, NONE), (2, 6, 5), (4, 4, NONE), (32, 0, NONE)],
            &[(1, 8, NONE), (4, 4, NONE), (32, 0, NONE)],
            &[(4, 4, NONE), (1, 6, NONE), (32, 0, NONE)],
            &[(1, 6, NONE), (2, 6, 5), (2, 4, 5), (4, 4, NONE), (16, 7, NONE), (32, 0, NONE)],
            &[(1, 6, NONE), (4, 4, NONE), (32, 0, NONE), (64, 0, NONE)],
        ];
        for bad in bad {
            assert_eq!(Acl::parse(&list(bad)), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(Acl::parse(&good[..good.len() - 1]), Err(Errno::EINVAL));
        assert_eq!(Acl::parse(b"\x01\0\0\0"), Err(Errno::EOPNOTSUPP));
    }

    #[test]
    fn the_mask_limits_who_is_named() {
        let acl = Acl::parse(&list(&NAMED)).unwrap().unwrap();
        let meta = Metadata { mode: 0o100_640, uid: 1, gid: 2, ..Metadata::default() };
        let ns = crate::cred::UserNamespace::root();
        let user = |uid, gid| Credentials::user(uid, gid, Arc::from([]), CapSet::EMPTY, ns.clone());
        assert!(acl.grants(&meta, &user(1000, 9), Access::READ));
        assert!(!acl.grants(&meta, &user(1000, 9), Access::EXEC), "masked");
        assert!(acl.grants(&meta, &user(5, 2), Access::READ));
        assert!(!acl.grants(&meta, &user(5, 3), Access::READ));
        assert!(acl.grants(&meta, &user(1, 3), Access::READ | Access::WRITE));
    }

    #[test]
    fn chmod_moves_the_mask() {
        let acl = Acl::parse(&list(&NAMED)).unwrap().unwrap().with_mode(0o751);
        assert_eq!(acl.mode(), 0o751);
        assert_eq!(acl.permissions_of(Who::OwningGroup), Some(4), "behind the mask");
        assert_eq!(acl.mode_of_new(0o1666), 0o1640);
    }
}

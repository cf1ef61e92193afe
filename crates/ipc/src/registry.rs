//! [`Registry`]: the ids and keys of one kind of object; [`Permissions`]: who owns an object and who may use it.
//!
//! Source: `ipcget`, `ipc_addid`, `ipcperms`, `ipc_update_perm` in `ipc/util.c`.

mod persist;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::ipc::{IPC_CREAT, IPC_EXCL, IPC_PRIVATE, Ipc64Perm};
use moat_abi::{Errno, Result};
use moat_identity::UserNamespace;
use moat_vfs::cred::Credentials;

/// Read permission, as a mode for all three classes.
pub const READ: u32 = 0o444;
/// Write ("alter") permission.
pub const WRITE: u32 = 0o222;
/// Execute permission, which only shmat(2) asks for.
pub const EXEC: u32 = 0o111;

/// An id is a sequence number above this many bits of index (`IPCMNI_SHIFT`).
const INDEX_BITS: u32 = 15;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// `struct kern_ipc_perm`.
#[derive(Clone, Debug)]
pub struct Permissions {
    /// The key, `IPC_PRIVATE` for none.
    pub key: i32,
    /// The owner.
    pub uid: u32,
    /// The owner's group.
    pub gid: u32,
    /// The creator.
    pub cuid: u32,
    /// The creator's group.
    pub cgid: u32,
    /// Permission bits, and flags above them.
    pub mode: u32,
    seq: u16,
    /// The user namespace that owns the IPC namespace: capabilities count towards it.
    user_ns: Arc<UserNamespace>,
}

impl Permissions {
    fn new(key: i32, mode: i32, creds: &Credentials, user_ns: &Arc<UserNamespace>) -> Permissions {
        let mode = mode.cast_unsigned() & 0o777;
        let (uid, gid) = (creds.euid, creds.egid);
        Permissions { key, uid, gid, cuid: uid, cgid: gid, mode, seq: 0, user_ns: user_ns.clone() }
    }

    /// Whether `creds` may do all of `wanted`: read, write, execute bits of any class (`ipcperms`).
    ///
    /// # Errors
    /// EACCES.
    pub fn check(&self, creds: &Credentials, wanted: u32) -> Result<()> {
        // A bit of any class asks for the same right.
        let wanted = ((wanted >> 6) | (wanted >> 3) | wanted) & 0o7;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted == 0 || creds.has_cap_in(&self.user_ns, Cap::IPC_OWNER) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }

    /// Whether `creds` is the owner or the creator.
    #[must_use]
    pub fn is_owner(&self, creds: &Credentials) -> bool {
        creds.euid == self.uid || creds.euid == self.cuid
    }

    /// Whether `creds` may remove the object or change its owner (`ipcctl_obtain_check`).
    ///
    /// # Errors
    /// EPERM.
    pub fn check_control(&self, creds: &Credentials) -> Result<()> {
        if self.is_owner(creds) || creds.has_cap_in(&self.user_ns, Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// IPC_SET: owner, group and permission bits.
    ///
    /// # Errors
    /// EINVAL for an id that is none.
    pub fn set(&mut self, new: &Ipc64Perm) -> Result<()> {
        if new.uid == u32::MAX || new.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        self.uid = new.uid;
        self.gid = new.gid;
        self.mode = (self.mode & !0o777) | (new.mode & 0o777);
        Ok(())
    }

    /// As IPC_STAT shows it.
    #[must_use]
    pub fn show(&self) -> Ipc64Perm {
        Ipc64Perm {
            key: self.key,
            uid: self.uid,
            gid: self.gid,
            cuid: self.cuid,
            cgid: self.cgid,
            mode: self.mode,
            seq: self.seq,
            ..Ipc64Perm::default()
        }
    }
}

/// One object with its owner.
pub struct Entry<T> {
    /// Who owns it and may use it.
    pub perm: Permissions,
    /// The object.
    pub object: T,
    id: i32,
    weight: usize,
}

impl<T> Entry<T> {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.id
    }
}

/// How an `*_STAT` command names an object and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// IPC_STAT: by id.
    ById,
    /// `*_STAT`: by index.
    ByIndex,
    /// `*_STAT_ANY`: by index, whatever the permissions.
    ByIndexAny,
}

/// What `ipcget` found.
pub enum Found {
    /// An object with the key, which the caller may use.
    Existing(i32),
    /// None: one is to be made.
    Create,
}

/// The objects of one kind.
pub struct Registry<T> {
    entries: BTreeMap<u32, Entry<T>>,
    keys: BTreeMap<i32, u32>,
    free: BTreeSet<u32>,
    next_index: u32,
    last_index: Option<u32>,
    seq: u16,
    weight: usize,
    capacity: usize,
    /// That of the IPC namespace.
    user_ns: Arc<UserNamespace>,
}

impl<T> Registry<T> {
    /// An empty one for at most `capacity` objects.
    #[must_use]
    pub fn new(capacity: usize, user_ns: Arc<UserNamespace>) -> Registry<T> {
        Registry {
            entries: BTreeMap::new(),
            keys: BTreeMap::new(),
            free: BTreeSet::new(),
            next_index: 0,
            last_index: None,
            seq: 0,
            weight: 0,
            capacity,
            user_ns,
        }
    }

    /// Changes how many objects there may be; those beyond stay.
    pub fn set_capacity(&mut self, capacity: u64) {
        self.capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
    }

    /// Looks for `key` as the flags say; `fits` refuses an object that is too small.
    ///
    /// # Errors
    /// ENOENT, EEXIST, EACCES, and those of `fits`.
    pub fn find(&self, key: i32, flags: i32, creds: &Credentials, fits: impl Fn(&T) -> Result<()>) -> Result<Found> {
        if key == IPC_PRIVATE {
            return Ok(Found::Create);
        }
        let Some(entry) = self.keys.get(&key).and_then(|index| self.entries.get(index)) else {
            return if flags & IPC_CREAT != 0 { Ok(Found::Create) } else { Err(Errno::ENOENT) };
        };
        if flags & IPC_CREAT != 0 && flags & IPC_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        // The size before the permission (`ipcget_public`).
        fits(&entry.object)?;
        entry.perm.check(creds, flags.cast_unsigned() & 0o777)?;
        Ok(Found::Existing(entry.id))
    }

    /// Whether there is no room for another object.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    /// Adds what `make` gives for the new id, and counts `weight` for it.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn add(
        &mut self,
        key: i32,
        mode: i32,
        creds: &Credentials,
        weight: usize,
        make: impl FnOnce(i32) -> T,
    ) -> Result<i32> {
        if self.is_full() {
            return Err(Errno::ENOSPC);
        }
        // The lowest free index (`ipc_idr_alloc`).
        let index = self.free.pop_first().unwrap_or_else(|| {
            self.next_index += 1;
            self.next_index - 1
        });
        // An index that is used again gives another id (`ipc_idr_alloc`).
        if self.last_index.is_some_and(|last| index <= last) {
            self.seq = self.seq.wrapping_add(1);
        }
        self.last_index = Some(index);
        // 16 bits above 15: ids are never negative.
        let id = ((u32::from(self.seq) << INDEX_BITS) | (index & INDEX_MASK)).cast_signed();
        let mut perm = Permissions::new(key, mode, creds, &self.user_ns);
        perm.seq = self.seq;
        self.entries.insert(index, Entry { perm, object: make(id), id, weight });
        self.weight = self.weight.saturating_add(weight);
        if key != IPC_PRIVATE {
            self.keys.insert(key, index);
        }
        Ok(id)
    }

    /// The object `id`.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get(&self, id: i32) -> Result<&Entry<T>> {
        let index = u32::try_from(id).map_err(|_| Errno::EINVAL)? & INDEX_MASK;
        self.entries.get(&index).filter(|e| e.id == id).ok_or(Errno::EINVAL)
    }

    /// As [`Registry::get`], to change it.
    ///
    /// # Errors
    /// EINVAL.
    pub fn get_mut(&mut self, id: i32) -> Result<&mut Entry<T>> {
        let index = u32::try_from(id).map_err(|_| Errno::EINVAL)? & INDEX_MASK;
        self.entries.get_mut(&index).filter(|e| e.id == id).ok_or(Errno::EINVAL)
    }

    /// The object that an `*_STAT` command names, if the caller may read it.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn stat(&self, id: i32, how: Stat, creds: &Credentials) -> Result<&Entry<T>> {
        let entry = match how {
            Stat::ById => self.get(id)?,
            Stat::ByIndex | Stat::ByIndexAny => {
                let index = u32::try_from(id).map_err(|_| Errno::EINVAL)? & INDEX_MASK;
                self.entries.get(&index).ok_or(Errno::EINVAL)?
            }
        };
        if how != Stat::ByIndexAny {
            entry.perm.check(creds, READ)?;
        }
        Ok(entry)
    }

    /// Lets the key go: the object can be found by its id only (`ipc_set_key_private`).
    pub fn forget_key(&mut self, id: i32) {
        if let Ok(entry) = self.get_mut(id) {
            let key = std::mem::replace(&mut entry.perm.key, IPC_PRIVATE);
            if key != IPC_PRIVATE {
                self.keys.remove(&key);
            }
        }
    }

    /// Takes the object `id` out.
    ///
    /// # Errors
    /// EINVAL.
    pub fn remove(&mut self, id: i32) -> Result<Entry<T>> {
        self.forget_key(id);
        self.get(id)?;
        let index = id.cast_unsigned() & INDEX_MASK;
        let entry = self.entries.remove(&index).ok_or(Errno::EINVAL)?;
        self.weight = self.weight.saturating_sub(entry.weight);
        self.free.insert(index);
        Ok(entry)
    }

    /// Takes the object `id` out for `creds`, who must own it: IPC_RMID.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove_by(&mut self, id: i32, creds: &Credentials) -> Result<Entry<T>> {
        self.get(id)?.perm.check_control(creds)?;
        self.remove(id)
    }

    /// All objects by index.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.values()
    }

    /// All objects by index, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry<T>> {
        self.entries.values_mut()
    }

    /// What all objects were given as their weight: semaphores, pages.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The highest index in use, 0 without one: what the `*_INFO` commands return.
    #[must_use]
    pub fn highest_index(&self) -> u32 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::cap::CapSet;
    use moat_identity::user_ns::Setfcap;

    fn user(uid: u32) -> Credentials {
        Credentials::user(uid, uid, Arc::from([]), CapSet::EMPTY, moat_identity::UserNamespace::root())
    }

    #[test]
    fn ids_are_not_used_again_but_indexes_are() {
        let mut r = Registry::new(2, UserNamespace::root());
        let a = r.add(7, 0o600, &user(1), 1, |_| 'a').unwrap();
        let b = r.add(IPC_PRIVATE, 0o600, &user(1), 1, |_| 'b').unwrap();
        assert_eq!((a, b), (0, 1));
        assert_eq!(r.add(8, 0o600, &user(1), 1, |_| 'c'), Err(Errno::ENOSPC));
        assert_eq!(r.remove(a).unwrap().object, 'a');
        assert!(matches!(r.find(7, 0, &user(1), |_| Ok(())), Err(Errno::ENOENT)));
        let c = r.add(7, 0o600, &user(1), 1, |_| 'c').unwrap();
        assert_eq!(c, 1 << INDEX_BITS);
        assert_eq!(r.get(a).err(), Some(Errno::EINVAL));
        assert_eq!(r.stat(0, Stat::ByIndex, &user(1)).unwrap().id(), c);
        assert_eq!((r.highest_index(), r.weight()), (1, 2));
    }

    #[test]
    fn classes_of_users() {
        let root = UserNamespace::root();
        let mut r = Registry::new(9, root.clone());
        let id = r.add(7, 0o640, &user(1), 1, |_| ()).unwrap();
        let perm = r.get(id).unwrap().perm.clone();
        assert_eq!(perm.check(&user(1), READ | WRITE), Ok(()));
        assert_eq!(perm.check(&user(2), READ), Err(Errno::EACCES));
        let grouped = Credentials::user(2, 2, Arc::from([1]), CapSet::EMPTY, moat_identity::UserNamespace::root());
        assert_eq!(perm.check(&grouped, READ), Ok(()));
        assert_eq!(perm.check(&grouped, WRITE), Err(Errno::EACCES));
        let privileged = |ns| Credentials::user(3, 3, Arc::from([]), CapSet::FULL, ns);
        assert_eq!(perm.check(&privileged(root.clone()), WRITE), Ok(()));
        let below = UserNamespace::child(1, root, (1, 1), Setfcap::Held).unwrap();
        assert_eq!(perm.check(&privileged(below), WRITE), Err(Errno::EACCES));
        assert_eq!((perm.check_control(&grouped), perm.check_control(&user(1))), (Err(Errno::EPERM), Ok(())));
        assert!(matches!(r.find(7, IPC_CREAT | IPC_EXCL, &user(2), |()| Ok(())), Err(Errno::EEXIST)));
        assert!(matches!(r.find(7, 0o600, &user(2), |()| Ok(())), Err(Errno::EACCES)));
        assert!(matches!(r.find(7, 0, &user(2), |()| Ok(())), Ok(Found::Existing(_))));
    }
}

//! The objects of one kind in an image, and out of it.

use moat_abi::ipc::IPC_PRIVATE;
use moat_image::ImageError;
use moat_image::state::{IpcObjectState, RegistryState};

use super::{Entry, INDEX_BITS, INDEX_MASK, Permissions, Registry};

impl<T> Registry<T> {
    /// All objects, as `save` says each of them; those that it gives nothing for are left out.
    pub(crate) fn save<S>(&self, mut save: impl FnMut(&T) -> Option<S>) -> RegistryState<S> {
        let object = |entry: &Entry<T>| {
            let p = &entry.perm;
            let object = save(&entry.object)?;
            let Permissions { key, uid, gid, cuid, cgid, mode, seq, .. } = *p;
            Some(IpcObjectState { id: entry.id, key, uid, gid, cuid, cgid, mode, seq, object })
        };
        RegistryState {
            objects: self.entries.values().filter_map(object).collect(),
            next_index: self.next_index,
            last_index: self.last_index,
            seq: self.seq,
        }
    }

    /// Fills an empty registry; `restore` gives each object and its weight.
    ///
    /// # Errors
    /// Ids and keys that can't be; those of `restore`.
    pub(crate) fn restore<S>(
        &mut self,
        saved: &RegistryState<S>,
        mut restore: impl FnMut(&IpcObjectState<S>) -> Result<(T, usize), ImageError>,
    ) -> Result<(), ImageError> {
        let wrong = |id: i32| ImageError::state(format!("the System V object {id}"));
        // Each unused index below it is kept in a list.
        if saved.next_index > INDEX_MASK {
            return Err(ImageError::state("more System V objects than there can be"));
        }
        self.next_index = saved.next_index;
        self.last_index = saved.last_index;
        self.seq = saved.seq;
        for saved in &saved.objects {
            let index = u32::try_from(saved.id).map_err(|_| wrong(saved.id))? & INDEX_MASK;
            let fits = index < self.next_index && saved.id.cast_unsigned() >> INDEX_BITS == u32::from(saved.seq);
            if !fits || self.entries.contains_key(&index) {
                return Err(wrong(saved.id));
            }
            if saved.key != IPC_PRIVATE && self.keys.insert(saved.key, index).is_some() {
                return Err(wrong(saved.id));
            }
            let perm = Permissions {
                key: saved.key,
                uid: saved.uid,
                gid: saved.gid,
                cuid: saved.cuid,
                cgid: saved.cgid,
                mode: saved.mode,
                seq: saved.seq,
                user_ns: self.user_ns.clone(),
            };
            let (object, weight) = restore(saved)?;
            self.weight = self.weight.saturating_add(weight);
            self.entries.insert(index, Entry { perm, object, id: saved.id, weight });
        }
        self.free = (0..self.next_index).filter(|index| !self.entries.contains_key(index)).collect();
        Ok(())
    }
}

//! [`Extensions`]: state that a subsystem of a higher layer keeps with an object of this crate.
//!
//! A network namespace owns the ports of TCP, an IPC namespace its semaphores, a session its terminal; but the types of these
//! belong to crates above. Each subsystem keeps one value of a type of its own, which it alone can name
//! (Linux: `net_generic`).

use std::any::{Any, TypeId};
use std::sync::Arc;

use moat_sync::{LockClass, RwLock};

type Entry = (TypeId, Arc<dyn Any + Send + Sync>);

/// One value for each type that somebody has asked for.
pub struct Extensions {
    /// A handful at most: a list is searched faster than a map.
    entries: RwLock<Vec<Entry>>,
}

impl Default for Extensions {
    fn default() -> Extensions {
        Extensions { entries: RwLock::new(LockClass::Table, Vec::new()) }
    }
}

impl Extensions {
    /// The value of type `T`, if there is one yet.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let entries = self.entries.read();
        let (_, found) = entries.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        found.clone().downcast().ok()
    }

    /// Whether nobody has asked for any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.read().is_empty()
    }

    /// The value of type `T`, made by `make` if there is none yet. No lock is held while it is made; of two that are made at
    /// once, one is dropped.
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(found) = self.get() {
            return found;
        }
        let new = Arc::new(make());
        let mut entries = self.entries.write();
        let known = entries.iter().find(|(id, _)| *id == TypeId::of::<T>());
        // A value of another type cannot stand under the id of `T`.
        if let Some(found) = known.and_then(|(_, found)| found.clone().downcast().ok()) {
            return found;
        }
        entries.push((TypeId::of::<T>(), new.clone()));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_for_each_type() {
        let e = Extensions::default();
        assert!(e.get::<u32>().is_none());
        let first = e.get_or_init(|| 5u32);
        assert!(Arc::ptr_eq(&first, &e.get_or_init(|| 6u32)));
        assert_eq!((*e.get_or_init(|| 7u64), e.get::<u32>().as_deref()), (7, Some(&5)));
    }
}

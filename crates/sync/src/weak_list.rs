//! [`WeakList`]: values that others own, for as long as they live.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::lock::{LockClass, Mutex};

/// A list that keeps none of its values alive. What has gone is dropped from it when one is added or removed.
pub struct WeakList<T: ?Sized> {
    values: Mutex<Vec<Weak<T>>>,
    /// Whether `values` has any; changed with it locked.
    any: AtomicBool,
}

impl<T: ?Sized> Default for WeakList<T> {
    fn default() -> WeakList<T> {
        WeakList::new(LockClass::Table)
    }
}

impl<T: ?Sized> WeakList<T> {
    /// An empty one whose lock is of `class`.
    #[must_use]
    pub fn new(class: LockClass) -> WeakList<T> {
        WeakList { values: Mutex::new(class, Vec::new()), any: AtomicBool::new(false) }
    }

    /// Adds a value at the end.
    pub fn add(&self, value: Weak<T>) {
        self.change(|values| values.push(value));
    }

    /// Removes a value.
    pub fn remove(&self, value: &Weak<T>) {
        self.change(|values| values.retain(|v| !v.ptr_eq(value)));
    }

    fn change(&self, f: impl FnOnce(&mut Vec<Weak<T>>)) {
        let mut values = self.values.lock();
        values.retain(|v| v.strong_count() > 0);
        f(&mut values);
        self.any.store(!values.is_empty(), Ordering::Release);
    }

    /// Whether there is nothing in it: no more than a look, for where it is asked often. What has gone may still count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Those that live, in the order in which they were added. They are dropped, if they were the last, with no lock held.
    #[must_use]
    pub fn alive(&self) -> Vec<Arc<T>> {
        self.values.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_or_removed_is_not_listed() {
        let list = WeakList::default();
        let (a, b, c) = (Arc::new(1), Arc::new(2), Arc::new(3));
        [&a, &b, &c].iter().for_each(|v| list.add(Arc::downgrade(v)));
        drop(a);
        assert_eq!(list.alive(), [b.clone(), c.clone()]);
        list.remove(&Arc::downgrade(&b));
        assert!(!list.is_empty());
        assert_eq!(list.alive(), std::slice::from_ref(&c));
        list.remove(&Arc::downgrade(&c));
        assert!(list.is_empty());
    }
}

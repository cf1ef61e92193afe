//! [`Ref`] and [`Table`]: how state names shared objects; [`Interner`]: how each is saved once.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::ImageError;

/// What the objects of a table are called in errors.
pub trait Named {
    /// "process", "open file".
    const WHAT: &'static str;
}

/// The number of an object in the table of its kind.
pub struct Ref<T> {
    index: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    /// The first object of a table.
    pub const FIRST: Ref<T> = Ref { index: 0, of: PhantomData };

    fn new(index: u32) -> Ref<T> {
        Ref { index, of: PhantomData }
    }

    /// The number.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.index.cmp(&other.index)
    }
}

impl<T> std::hash::Hash for Ref<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.index.hash(state);
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.index)
    }
}

impl<T> Serialize for Ref<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.index.serialize(s)
    }
}

impl<'de, T> Deserialize<'de> for Ref<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        u32::deserialize(d).map(Ref::new)
    }
}

/// All objects of one kind, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table<T>(Vec<T>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Vec::new())
    }
}

impl<T> Table<T> {
    /// Adds an object.
    pub fn push(&mut self, object: T) -> Ref<T> {
        let index = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push(object);
        Ref::new(index)
    }

    /// The objects in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.0.iter()
    }

    /// The objects in order, each with its name.
    pub fn named(&self) -> impl DoubleEndedIterator<Item = (Ref<T>, &T)> {
        self.0.iter().enumerate().map(|(i, object)| (Ref::new(u32::try_from(i).unwrap_or(u32::MAX)), object))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Named> Table<T> {
    /// The object that `name` stands for.
    ///
    /// # Errors
    /// [`ImageError::Dangling`].
    pub fn get(&self, name: Ref<T>) -> Result<&T, ImageError> {
        find(&self.0, name)
    }
}

/// The element of `list`, which has one for each object of the table of `T`.
///
/// # Errors
/// [`ImageError::Dangling`].
pub fn find<T: Named, L>(list: &[L], name: Ref<T>) -> Result<&L, ImageError> {
    let found = usize::try_from(name.index).ok().and_then(|i| list.get(i));
    found.ok_or(ImageError::Dangling { what: T::WHAT, index: name.index })
}

/// Whether an object was met before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met<T> {
    /// It is saved, or is being saved.
    Before(T),
    /// It is to be saved under this name, by [`Interner::fill`].
    First(T),
}

/// Gives each live object a name when it is first met, and collects what is saved of it. An object is known by its address: whoever
/// uses an interner keeps what it has met alive.
pub struct Interner<T> {
    names: HashMap<usize, Ref<T>>,
    slots: Vec<Option<T>>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Interner { names: HashMap::new(), slots: Vec::new() }
    }
}

impl<T> Interner<T> {
    /// The name of the object at `address`.
    pub fn meet(&mut self, address: usize) -> Met<Ref<T>> {
        if let Some(name) = self.names.get(&address) {
            return Met::Before(*name);
        }
        let name = Ref::new(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        // Named before it is saved, because what it refers to may refer to it.
        self.names.insert(address, name);
        self.slots.push(None);
        Met::First(name)
    }

    /// The name of an object that has been met.
    #[must_use]
    pub fn name_of(&self, address: usize) -> Option<Ref<T>> {
        self.names.get(&address).copied()
    }

    /// Sets what is saved of an object.
    pub fn fill(&mut self, name: Ref<T>, object: T) {
        if let Some(slot) = usize::try_from(name.index).ok().and_then(|i| self.slots.get_mut(i)) {
            *slot = Some(object);
        }
    }

    /// The name of the object at `address`, which `save` turns into data when it is first met. For objects that lead to no others of
    /// their kind.
    ///
    /// # Errors
    /// Those of `save`.
    pub fn save<E>(&mut self, address: usize, save: impl FnOnce() -> Result<T, E>) -> Result<Ref<T>, E> {
        match self.meet(address) {
            Met::Before(name) => Ok(name),
            Met::First(name) => {
                self.fill(name, save()?);
                Ok(name)
            }
        }
    }

    /// The table of all that was saved.
    ///
    /// # Errors
    /// An object that was met and never filled.
    pub fn finish(self) -> Result<Table<T>, ImageError>
    where
        T: Named,
    {
        let count = self.slots.len();
        // A gap would shift the numbers of all that follow.
        let objects: Vec<T> = self.slots.into_iter().flatten().collect();
        if objects.len() == count {
            Ok(Table(objects))
        } else {
            Err(ImageError::Unfit(format!("a {} was met and not saved", T::WHAT)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for u8 {
        const WHAT: &'static str = "byte";
    }

    #[test]
    fn each_object_is_saved_once() {
        let mut all = Interner::<u8>::default();
        let save = |value| move || Ok::<u8, ()>(value);
        assert_eq!(all.save(0x1000, save(7)), all.save(0x1000, || panic!("a second time")));
        assert_eq!(all.save(0x2000, save(8)).map(Ref::index), Ok(1));
        let Met::First(third) = all.meet(0x3000) else { panic!("it was never met") };
        assert_eq!(all.meet(0x3000), Met::Before(third));
        all.fill(third, 9);
        let table = all.finish().unwrap();
        assert_eq!(table.get(third).unwrap(), &9);
        assert_eq!(table.get(Ref::new(3)).unwrap_err().to_string(), "the image names byte 3, which it does not have");
    }

    #[test]
    fn what_was_met_has_to_be_saved() {
        let mut all = Interner::<u8>::default();
        all.meet(1);
        assert!(all.finish().is_err());
    }
}

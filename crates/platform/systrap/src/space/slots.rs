//! [`Slots`]: the areas of one guest process, and the threads in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use moat_stub::layout::MAX_AREAS_PER_PROCESS;

use crate::area::{Area, control};

/// How far an area is on its way to be kept out of children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its mapping has been or will be asked for.
    Listed,
    /// It is mapped.
    Mapped,
    /// It is mapped and not inherited.
    Protected,
}

/// An area for a new thread.
#[derive(Clone, Copy, Debug)]
pub struct FreeSlot {
    /// Its place in the process.
    pub slot: u32,
    /// Its memory.
    pub area: Area,
    /// Whether it is mapped there already.
    pub stage: Stage,
}

/// Areas without a thread that are looked at for a new one.
const LOOKS: usize = 8;

struct Slot<T> {
    area: Area,
    stage: Stage,
    thread: Weak<T>,
}

/// The areas by their place in the process, with threads of type `T`; no place is ever given up.
pub struct Slots<T> {
    all: BTreeMap<u32, Slot<T>>,
    /// Those that threads have left, or are about to.
    left: BTreeSet<u32>,
    /// Those that a child might inherit.
    open: BTreeSet<u32>,
    /// There is none below that is not listed.
    next: u32,
}

impl<T> Slots<T> {
    /// One area, which is taken.
    pub fn new(first: FreeSlot) -> Slots<T> {
        let mut slots = Slots { all: BTreeMap::new(), left: BTreeSet::new(), open: BTreeSet::new(), next: 0 };
        slots.list(first);
        slots
    }

    /// Whether there has never been more than one.
    pub fn is_single(&self) -> bool {
        self.all.len() == 1
    }

    fn list(&mut self, free: FreeSlot) {
        if free.stage != Stage::Protected {
            self.open.insert(free.slot);
        }
        self.all.insert(free.slot, Slot { area: free.area, stage: free.stage, thread: Weak::new() });
    }

    fn at(&self, slot: u32) -> Option<FreeSlot> {
        self.all.get(&slot).map(|s| FreeSlot { slot, area: s.area, stage: s.stage })
    }

    /// Takes an area that a thread has left.
    pub fn take(&mut self) -> Option<FreeSlot> {
        // The host clears the word when the old thread is through with its memory.
        let is_free = |slot: &&u32| self.all.get(slot).is_some_and(|s| s.area.read32(control!(alive)) == 0);
        let slot = *self.left.iter().take(LOOKS).find(is_free)?;
        self.left.remove(&slot);
        self.at(slot)
    }

    /// Lists a new area, which is taken, in the first free place; `None` if there are too many.
    pub fn add(&mut self, area: Area) -> Option<FreeSlot> {
        // A fork has its first area at its parent's place, which may be any.
        while self.all.contains_key(&self.next) {
            self.next = self.next.saturating_add(1);
        }
        let free = FreeSlot { slot: self.next, area, stage: Stage::Listed };
        let fits = free.slot < MAX_AREAS_PER_PROCESS;
        if fits {
            self.list(free);
        }
        fits.then_some(free)
    }

    /// The thread in a slot is ending, or there will be none.
    pub fn release(&mut self, slot: u32) {
        if self.all.contains_key(&slot) {
            self.left.insert(slot);
        }
    }

    /// The memory of a slot.
    pub fn area(&self, slot: u32) -> Option<Area> {
        self.all.get(&slot).map(|s| s.area)
    }

    /// The stage of a slot.
    pub fn stage(&self, slot: u32) -> Option<Stage> {
        self.all.get(&slot).map(|s| s.stage)
    }

    /// Moves a slot on.
    pub fn set_stage(&mut self, slot: u32, stage: Stage) {
        if let Some(s) = self.all.get_mut(&slot) {
            s.stage = s.stage.max(stage);
            if s.stage == Stage::Protected {
                self.open.remove(&slot);
            }
        }
    }

    /// Whether a child would inherit no area.
    pub fn all_protected(&self) -> bool {
        self.open.is_empty()
    }

    /// Those that a fork has to see to first, but for those of threads that are just being made.
    pub fn unprotected(&self) -> Vec<FreeSlot> {
        let open = self.open.iter().filter_map(|slot| self.at(*slot));
        open.filter(|s| s.stage == Stage::Mapped || self.left.contains(&s.slot)).collect()
    }

    /// Notes the thread in a slot. The one before has ended.
    pub fn enter(&mut self, slot: u32, thread: &Arc<T>) {
        if let Some(slot) = self.all.get_mut(&slot) {
            slot.thread = Arc::downgrade(thread);
        }
    }

    /// The threads, which are no longer noted.
    pub fn take_threads(&mut self) -> Vec<Arc<T>> {
        self.all.values_mut().filter_map(|slot| std::mem::take(&mut slot.thread).upgrade()).collect()
    }

    /// Takes all areas out.
    pub fn take_areas(&mut self) -> Vec<Area> {
        self.left.clear();
        self.open.clear();
        std::mem::take(&mut self.all).into_values().map(|slot| slot.area).collect()
    }
}

//! [`Kept`]: what inodes of an exclusive tree keep after its use, bounded over the whole tree.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use moat_sync::{LockClass, Mutex};

/// Who keeps something, in the order of its coming.
pub(crate) struct Kept<I> {
    most: usize,
    state: Mutex<KeptState<I>>,
}

struct KeptState<I> {
    queue: VecDeque<(Weak<I>, usize)>,
    weight: usize,
}

impl<I> Kept<I> {
    /// Room for things of this weight together.
    pub(crate) fn new(most: usize) -> Kept<I> {
        Kept { most, state: Mutex::new(LockClass::Table, KeptState { queue: VecDeque::new(), weight: 0 }) }
    }

    /// Notes that `owner` keeps something; gives those who have done so for longest and are to let go of theirs.
    pub(crate) fn note(&self, owner: &Arc<I>, weight: usize) -> Vec<Arc<I>> {
        let mut old = Vec::new();
        let mut s = self.state.lock();
        s.queue.push_back((Arc::downgrade(owner), weight));
        s.weight = s.weight.saturating_add(weight);
        while s.weight > self.most {
            let Some((owner, weight)) = s.queue.pop_front() else { break };
            s.weight = s.weight.saturating_sub(weight);
            old.push(owner);
        }
        drop(s);
        // Unlocked: what turns out to have had its last use here takes itself out of tables.
        old.into_iter().filter_map(|owner| owner.upgrade()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_let_go_first() {
        let kept = Kept::new(10);
        let owners: Vec<Arc<u32>> = (0..4).map(Arc::new).collect();
        let gone: Vec<Vec<u32>> =
            owners.iter().map(|owner| kept.note(owner, 4).iter().map(|owner| **owner).collect()).collect();
        assert_eq!(gone, [vec![], vec![], vec![0], vec![1]]);
        // What alone is too much is not kept at all.
        assert_eq!(kept.note(&owners[0], 11).len(), 3);
    }
}

//! Semaphore sets in an image, and out of it. Who waits is not saved: the calls are made again.

use std::collections::BTreeMap;

use moat_abi::ipc::SEMVMX;
use moat_identity::GroupId;
use moat_image::state::{ProcessState, RegistryState, SemSetState};
use moat_image::{ImageError, Ref};

use super::Semaphores;
use crate::sem_set::{Sem, Set};

impl Semaphores {
    /// All sets; `process` gives the name of a process in the image.
    pub fn save(&self, process: impl Fn(GroupId) -> Option<Ref<ProcessState>>) -> RegistryState<SemSetState> {
        self.registry.lock().save(|set| {
            // A process that is gone has nothing to take back.
            let undo = set.undo.iter().filter_map(|(group, adjust)| Some((process(*group)?, adjust.clone())));
            Some(SemSetState {
                sems: set.sems.iter().map(|sem| (sem.value, sem.pid)).collect(),
                undo: undo.collect(),
                otime: set.otime,
                ctime: set.ctime,
            })
        })
    }

    /// Makes the sets of an image, of which there are none yet.
    ///
    /// # Errors
    /// What is wrong with one; those of `group`.
    pub fn restore(
        &self,
        saved: &RegistryState<SemSetState>,
        group: impl Fn(Ref<ProcessState>) -> Result<GroupId, ImageError>,
    ) -> Result<(), ImageError> {
        self.registry.lock().restore(saved, |saved| {
            let wrong = || ImageError::state(format!("the semaphores of set {}", saved.id));
            let SemSetState { sems, undo: noted, otime, ctime } = &saved.object;
            if sems.is_empty() || sems.iter().any(|(value, _)| !(0..=SEMVMX).contains(value)) {
                return Err(wrong());
            }
            let mut undo = BTreeMap::new();
            for (process, adjust) in noted {
                // One for each semaphore, as operations count on.
                if adjust.len() != sems.len() {
                    return Err(wrong());
                }
                undo.insert(group(*process)?, adjust.clone());
            }
            let sems = sems.iter().map(|(value, pid)| Sem { value: *value, pid: *pid }).collect();
            let weight = saved.object.sems.len();
            Ok((Set { sems, undo, otime: *otime, ctime: *ctime, ..Set::new(0) }, weight))
        })
    }
}

//! SEM_UNDO: the end of a process takes back its operations on semaphores (`exit_sem`).

use moat_abi::ipc::SEMVMX;

use crate::now;
use crate::sem::Semaphores;
use moat_identity::GroupId;

impl Semaphores {
    /// Adds to each semaphore what the operations of process `group` took from it under SEM_UNDO, within the range of values.
    pub fn exit(&self, group: GroupId, pid: i32) {
        let mut woken = Vec::new();
        {
            let mut registry = self.registry.lock();
            for entry in registry.iter_mut() {
                let set = &mut entry.object;
                let Some(undo) = set.undo.remove(&group) else { continue };
                for (sem, adjust) in set.sems.iter_mut().zip(undo) {
                    if adjust != 0 {
                        // An exit can't fail and does not wait: a value that would leave its range stops at the end of
                        // it (semop(2)).
                        sem.value = (sem.value + i32::from(adjust)).clamp(0, SEMVMX);
                        sem.pid = pid;
                    }
                }
                set.otime = now();
                woken.push(set.update(0..set.sems.len()));
            }
        }
        // With the registry unlocked.
        for w in woken {
            w.tell();
        }
    }
}

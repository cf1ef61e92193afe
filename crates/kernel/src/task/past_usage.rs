//! What threads, processes and waited-for children have used that have ended.
//!
//! Times and counters are known when a thread ends. The peak of a process's memory is the host's to say: it costs nothing where it
//! comes with the host process's reaping, which is some time after the guest's process has ended and its parent may know it.
//! So a sum keeps the peaks that are still to come, and whoever has to tell them to a guest waits (`CurrentTask::settled`).

use std::sync::Arc;

use moat_platform::PeakResident;

use crate::task::usage::Usage;

/// A sum over those that have ended.
#[derive(Clone, Default)]
pub struct PastUsage {
    known: Usage,
    /// Peaks that were not known when they were last looked at.
    to_come: Vec<Arc<PeakResident>>,
}

impl PastUsage {
    /// A sum that has only this so far.
    #[must_use]
    pub fn new(known: Usage) -> PastUsage {
        PastUsage { known, to_come: Vec::new() }
    }

    /// Adds what is known already.
    pub fn add(&mut self, used: &Usage) {
        self.known.add(used);
    }

    /// Adds a peak.
    pub fn add_peak(&mut self, peak: Arc<PeakResident>) {
        self.to_come.push(peak);
        // Here, so that the list is no longer than the host processes that are just ending.
        self.collect();
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &PastUsage) {
        self.known.add(&other.known);
        self.to_come.extend_from_slice(&other.to_come);
        self.collect();
    }

    /// What is known now.
    pub fn known(&mut self) -> Usage {
        self.collect();
        self.known
    }

    /// One of the peaks that are still to come.
    #[must_use]
    pub fn next_peak(&self) -> Option<Arc<PeakResident>> {
        self.to_come.first().cloned()
    }

    fn collect(&mut self) {
        let known = &mut self.known;
        self.to_come.retain(|peak| match peak.get() {
            Some(bytes) => {
                known.max_rss_kib = known.max_rss_kib.max(bytes / 1024);
                false
            }
            None => true,
        });
    }
}

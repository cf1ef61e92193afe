//! [`StraceSwitch`]: which system calls are logged, and whose.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_identity::GroupId;
use moat_sync::{LockClass, Mutex};

/// Which system calls are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strace {
    /// None.
    Off,
    /// All.
    All,
    /// These.
    Only(Vec<u32>),
}

impl Strace {
    /// Whether call `nr` is logged.
    #[must_use]
    pub fn wants(&self, nr: u64) -> bool {
        match self {
            Strace::Off => false,
            Strace::All => true,
            Strace::Only(list) => list.iter().any(|n| u64::from(*n) == nr),
        }
    }
}

/// Whose system calls are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's; what was said of containers and processes before is forgotten.
    All,
    /// Those of a container's processes.
    Container(String),
    /// Those of a process.
    Process(GroupId),
}

/// What is said of whom; of a process counts what was said of itself, else of its container, else of all.
struct Rules {
    all: Strace,
    containers: BTreeMap<String, Strace>,
    processes: BTreeMap<GroupId, Strace>,
}

/// Which system calls are logged at the moment.
pub struct StraceSwitch {
    /// Whether any is: all that a call costs when none is.
    on: AtomicBool,
    rules: Mutex<Rules>,
}

impl StraceSwitch {
    pub(crate) fn new(all: Strace) -> StraceSwitch {
        let on = AtomicBool::new(all != Strace::Off);
        let rules = Rules { all, containers: BTreeMap::new(), processes: BTreeMap::new() };
        StraceSwitch { on, rules: Mutex::new(LockClass::Leaf, rules) }
    }

    /// Whether any call is logged.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether call `nr` of a process of `container` is logged.
    pub(crate) fn wants(&self, process: GroupId, container: &str, nr: u64) -> bool {
        if !self.is_on() {
            return false;
        }
        let rules = self.rules.lock();
        let rule = rules.processes.get(&process).or_else(|| rules.containers.get(container)).unwrap_or(&rules.all);
        rule.wants(nr)
    }

    /// Changes what is logged; what was said of processes that have ended (`is_alive`) is forgotten.
    pub fn set(&self, whose: Whose, which: Strace, is_alive: impl Fn(GroupId) -> bool) {
        // Asked unlocked: the answer is under a lock that comes before this one.
        let known: Vec<GroupId> = self.rules.lock().processes.keys().copied().collect();
        let ended: Vec<GroupId> = known.into_iter().filter(|process| !is_alive(*process)).collect();
        let mut rules = self.rules.lock();
        rules.processes.retain(|process, _| !ended.contains(process));
        match whose {
            Whose::All => *rules = Rules { all: which, containers: BTreeMap::new(), processes: BTreeMap::new() },
            Whose::Container(id) => drop(rules.containers.insert(id, which)),
            Whose::Process(id) => drop(rules.processes.insert(id, which)),
        }
        let said = rules.containers.values().chain(rules.processes.values()).chain([&rules.all]);
        let on = said.into_iter().any(|which| *which != Strace::Off);
        drop(rules);
        // The flag may lag behind the rules: a call more or less in the log is no harm.
        self.on.store(on, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearest_counts() {
        let switch = StraceSwitch::new(Strace::Off);
        let (one, two) = (GroupId(1), GroupId(2));
        assert!(!switch.is_on() && !switch.wants(one, "a", 0));
        switch.set(Whose::Container("a".into()), Strace::Only(vec![1]), |_| true);
        assert!(
            switch.is_on() && switch.wants(one, "a", 1) && !switch.wants(one, "a", 0) && !switch.wants(one, "b", 1)
        );
        switch.set(Whose::Process(one), Strace::All, |_| true);
        assert!(switch.wants(one, "a", 0) && !switch.wants(two, "a", 0));
        switch.set(Whose::Process(two), Strace::Off, |_| true);
        assert!(!switch.wants(two, "a", 1));
        // The first process has ended.
        switch.set(Whose::Container("a".into()), Strace::Off, |process| process == two);
        assert!(!switch.is_on() && !switch.wants(one, "a", 0));
        switch.set(Whose::All, Strace::All, |_| true);
        assert!(switch.wants(two, "a", 0));
        switch.set(Whose::All, Strace::Off, |_| true);
        assert!(!switch.is_on());
    }
}

//! [`DeviceRules`]: which devices a container may make and open, whatever its credentials: devices(7) of cgroups v1.

use bitflags::bitflags;
use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;

bitflags! {
    /// What is done with a device.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DeviceAccess: u8 {
        /// Opening it for reading.
        const READ = 1;
        /// Opening it for writing.
        const WRITE = 2;
        /// Making a node of it.
        const MAKE = 4;
    }
}

/// Devices: of a type, or of both; of one number each, or of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Devices {
    pub file_type: FileType,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    fn contain(&self, file_type: FileType, device: DeviceId) -> bool {
        self.file_type == file_type
            && self.major.is_none_or(|major| major == device.major)
            && self.minor.is_none_or(|minor| minor == device.minor)
    }
}

/// What is done where no exception says otherwise, and the exceptions (`struct dev_cgroup`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRules {
    allows: bool,
    exceptions: Vec<(Devices, DeviceAccess)>,
}

impl DeviceRules {
    /// All is allowed, or nothing.
    #[must_use]
    pub fn new(verdict: Verdict) -> DeviceRules {
        DeviceRules { allows: verdict == Verdict::Allow, exceptions: Vec::new() }
    }

    /// Adds a rule, which comes after all others (`devcgroup_update_access`).
    // Only the rule's own direction counts: what agrees with the default takes an exception back.
    pub fn add(&mut self, verdict: Verdict, devices: Devices, access: DeviceAccess) {
        let same = self.exceptions.iter().position(|(known, _)| *known == devices);
        let taken_back = self.allows == (verdict == Verdict::Allow);
        match (same.and_then(|at| self.exceptions.get_mut(at)), taken_back) {
            (Some((_, known)), true) => known.remove(access),
            (Some((_, known)), false) => known.insert(access),
            (None, true) => {}
            (None, false) => self.exceptions.push((devices, access)),
        }
        // An exception without access left would never fit anything.
        self.exceptions.retain(|(_, access)| !access.is_empty());
    }

    /// Whether a device may be used so.
    #[must_use]
    pub fn allow(&self, file_type: FileType, device: DeviceId, access: DeviceAccess) -> bool {
        let mut fitting = self.exceptions.iter().filter(|(devices, _)| devices.contain(file_type, device));
        if self.allows {
            // Nothing of it may be an exception; else one exception must grant all.
            !fitting.any(|(_, denied)| denied.intersects(access))
        } else {
            fitting.any(|(_, granted)| granted.contains(access))
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verdict {
    Allow,
    Deny,
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_WRITE: DeviceAccess = DeviceAccess::READ.union(DeviceAccess::WRITE);
    const CHAR: FileType = FileType::CharDevice;

    fn char(major: u32, minor: Option<u32>) -> Devices {
        Devices { file_type: CHAR, major: Some(major), minor }
    }

    #[test]
    fn what_is_granted() {
        let mut rules = DeviceRules::new(Verdict::Deny);
        let every = Devices { file_type: CHAR, major: None, minor: None };
        rules.add(Verdict::Allow, every, DeviceAccess::MAKE);
        rules.add(Verdict::Allow, char(1, Some(3)), DeviceAccess::all());
        rules.add(Verdict::Allow, char(136, None), DeviceAccess::READ);
        let null = DeviceId::new(1, 3);
        assert!(rules.allow(CHAR, null, READ_WRITE));
        assert!(!rules.allow(FileType::BlockDevice, null, DeviceAccess::READ));
        assert!(rules.allow(CHAR, DeviceId::new(9, 9), DeviceAccess::MAKE));
        assert!(!rules.allow(CHAR, DeviceId::new(9, 9), DeviceAccess::READ));
        assert!(rules.allow(CHAR, DeviceId::new(136, 7), DeviceAccess::READ));
        assert!(!rules.allow(CHAR, DeviceId::new(136, 7), READ_WRITE));
        rules.add(Verdict::Deny, char(1, Some(3)), DeviceAccess::WRITE);
        assert!(!rules.allow(CHAR, null, READ_WRITE) && rules.allow(CHAR, null, DeviceAccess::READ));
    }

    #[test]
    fn what_is_denied() {
        let mut rules = DeviceRules::new(Verdict::Allow);
        rules.add(Verdict::Deny, char(1, None), DeviceAccess::WRITE);
        let null = DeviceId::new(1, 3);
        assert!(rules.allow(CHAR, null, DeviceAccess::READ) && !rules.allow(CHAR, null, READ_WRITE));
        assert!(rules.allow(FileType::BlockDevice, null, READ_WRITE));
        rules.add(Verdict::Allow, char(1, None), DeviceAccess::WRITE);
        assert!(rules.allow(CHAR, null, READ_WRITE));
    }
}

//! Capabilities and privileges of the calling thread: capget(2), capset(2), the bounding and ambient sets.

use moat_abi::cap::{CapData, CapHeader, LINUX_CAPABILITY_VERSION_3};
use moat_abi::{Cap, CapSet, Errno, Result, prctl};

use crate::result::check;

/// The three sets that capset(2) changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What is checked.
    pub effective: CapSet,
    /// What may be made effective.
    pub permitted: CapSet,
    /// What exec may keep.
    pub inheritable: CapSet,
}

/// The calling thread's sets.
///
/// # Errors
/// None that the host documents for these arguments.
pub fn get() -> Result<CapSets> {
    let mut header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: header and the two data elements that version 3 has live through the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let (effective, permitted, inheritable) = CapData::decode(data);
    Ok(CapSets { effective, permitted, inheritable })
}

/// Replaces the calling thread's sets.
///
/// # Errors
/// EPERM for a capability that may not be gained.
pub fn set(sets: CapSets) -> Result<()> {
    let mut header = CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: 0 };
    let data = CapData::encode(sets.effective, sets.permitted, sets.inheritable);
    // SAFETY: header and the two data elements that version 3 has live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Drops every capability outside `keep` from the bounding set of the calling thread.
///
/// Capabilities that the host kernel does not know are passed over.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn limit_bounding(keep: CapSet) -> Result<()> {
    for cap in CapSet::FULL.difference(keep).iter() {
        match prctl_number(prctl::PR_CAPBSET_DROP, cap as u64) {
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The calling thread's bounding set.
#[must_use]
pub fn bounding() -> CapSet {
    Cap::ALL.iter().copied().filter(|c| prctl_number(prctl::PR_CAPBSET_READ, *c as u64) == Ok(1)).collect()
}

/// Makes `caps` the ambient set of the calling thread; they must be permitted and inheritable.
///
/// # Errors
/// EPERM for a capability that is not.
pub fn set_ambient(caps: CapSet) -> Result<()> {
    prctl4(prctl::PR_CAP_AMBIENT, u64::from(prctl::PR_CAP_AMBIENT_CLEAR_ALL), 0)?;
    for cap in caps.iter() {
        prctl4(prctl::PR_CAP_AMBIENT, u64::from(prctl::PR_CAP_AMBIENT_RAISE), cap as u64)?;
    }
    Ok(())
}

/// A prctl(2) whose arguments are numbers. Not for options that take an address.
fn prctl_number(option: u32, arg: u64) -> Result<u64> {
    prctl4(option, arg, 0)
}

fn prctl4(option: u32, arg2: u64, arg3: u64) -> Result<u64> {
    // SAFETY: the options passed in this module take numbers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, arg2, arg3, 0u64, 0u64) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_round_trip_and_dropping_is_for_good() {
        // On a thread of its own, which takes its capabilities with it.
        let run = || {
            let before = get().expect("capget");
            let less = CapSets { effective: CapSet::EMPTY, ..before };
            set(less).expect("capset");
            assert_eq!(get(), Ok(less));
            let none = CapSets::default();
            set(none).expect("capset");
            assert_eq!(get(), Ok(none));
            if !before.permitted.is_empty() {
                assert_eq!(set(before), Err(Errno::EPERM));
            }
        };
        std::thread::spawn(run).join().expect("thread");
    }

    #[test]
    fn bounding_set_is_readable() {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("status");
        let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).expect("CapBnd");
        let all = u64::from_str_radix(line, 16).expect("hexadecimal");
        assert_eq!(bounding().0, all & CapSet::FULL.0);
    }
}

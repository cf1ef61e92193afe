//! Giving up what a process does not need.

use std::io;

use moat_control::BootError;
use moat_control::spec::{JailSpec, RunAs};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The capabilities that direct file access needs, all of them over the ids mapped into the process's user namespace:
/// who has them makes, owns and opens files in the name of guest users. SETFCAP is for `security.capability`, and gives no more
/// than the right to make files that are set-user-id.
pub const DIRECT_FILE_ACCESS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

/// No capability at all.
pub const NONE: CapabilitySet = CapabilitySet::empty();

/// The capabilities over the host's network that a guest's sockets can need: privileged ports and ICMP. NET_ADMIN is not
/// among them: nothing that takes it is passed through, and it would let a sentry that is taken over change the host's network.
const NETWORK: CapabilitySet = CapabilitySet::NET_BIND_SERVICE.union(CapabilitySet::NET_RAW);

/// The capabilities that `spec` keeps besides those for file access; none that is not over a network namespace, whoever asks.
#[must_use]
pub fn over_network(spec: &JailSpec) -> CapabilitySet {
    CapabilitySet::from_bits_retain(spec.capabilities) & NETWORK
}

/// uid and gid of "nobody".
const NOBODY: u32 = 65534;

/// The highest capability that a kernel could know; unknown ones give EINVAL.
const MAX_CAPABILITY: u32 = 63;

/// Becomes `run_as` with exactly the capabilities `keep`, for good, and sets resource limits.
pub fn drop_all_but(run_as: RunAs, keep: CapabilitySet) -> Result<(), BootError> {
    // Files are made with the mode that the guest asked for, less the guest's own mask.
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_file_limit().map_err(|e| BootError::host("raising RLIMIT_NOFILE", &e))?;
    // A core file of the sentry would be the guest's memory in a host directory.
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|e| BootError::host("setting RLIMIT_CORE", &e.into()))?;
    drop_bounding_set().map_err(|e| BootError::host("dropping the capability bounding set", &e))?;
    if run_as == RunAs::Nobody {
        become_nobody().map_err(|e| BootError::host("becoming nobody", &e))?;
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(|e| BootError::host("dropping capabilities", &e.into()))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| BootError::host("setting no_new_privs", &e.into()))?;
    // Changing ids made the process undumpable, which would forbid process_vm_readv(2) on its own children. Nobody
    // outside gains by it: that needs CAP_SYS_PTRACE over this user namespace.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|e| BootError::host("setting PR_SET_DUMPABLE", &e.into()))
}

/// Asks for SIGKILL when the creator dies; the request made before exec is lost when ids change.
///
/// If it is dead already, the next write to the start pipe fails.
pub fn die_with_parent() -> Result<(), BootError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| BootError::host("setting PR_SET_PDEATHSIG", &e.into()))
}

fn raise_file_limit() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    // While no filter forbids to look.
    moat_host::descriptors::limit();
    Ok(())
}

fn drop_bounding_set() -> io::Result<()> {
    for number in 0..=MAX_CAPABILITY {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn become_nobody() -> io::Result<()> {
    let (uid, gid) = (rustix::process::Uid::from_raw(NOBODY), rustix::process::Gid::from_raw(NOBODY));
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

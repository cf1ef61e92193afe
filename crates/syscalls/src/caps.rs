//! capget(2), capset(2). Source: capabilities(7), `kernel/capability.c`.

use moat_abi::cap::{
    Cap, CapData, CapHeader, CapSet, LINUX_CAPABILITY_VERSION_1, LINUX_CAPABILITY_VERSION_2, LINUX_CAPABILITY_VERSION_3,
};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};

syscalls! { pub static TABLE;
    125 capget(header: UserPtr<CapHeader>, data: UserAddr) sys_capget, full;
    126 capset(header: UserPtr<CapHeader>, data: UserAddr) sys_capset, full;
}

/// How many halves the caller's version has; an unknown version is answered with the newest.
fn halves(t: &CurrentTask, header: UserPtr<CapHeader>, h: &CapHeader) -> Result<usize> {
    // The first version has 32 capabilities, the others two words of 32 bits.
    match h.version {
        LINUX_CAPABILITY_VERSION_1 => Ok(1),
        LINUX_CAPABILITY_VERSION_2 | LINUX_CAPABILITY_VERSION_3 => Ok(2),
        _ => {
            t.mm().write(header, &CapHeader { version: LINUX_CAPABILITY_VERSION_3, pid: h.pid })?;
            Err(Errno::EINVAL)
        }
    }
}

fn sys_capget(t: &mut CurrentTask, header: UserPtr<CapHeader>, data: UserAddr) -> SyscallResult {
    let h = t.mm().read(header)?;
    let n = match halves(t, header, &h) {
        Ok(n) => n,
        // A null pointer asks for the version only.
        Err(Errno::EINVAL) if data.is_null() => return Ok(0),
        Err(e) => return Err(e.into()),
    };
    if h.pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    // Another task's may be read by everybody (capget(2)).
    let creds =
        if h.pid == 0 { t.creds().clone() } else { t.kernel().task(&t.pid_ns(), h.pid).ok_or(Errno::ESRCH)?.creds() };
    if data.is_null() {
        return Ok(0);
    }
    let words = CapData::encode(creds.effective, creds.permitted, creds.inheritable);
    t.mm().write_array(data, words.get(..n).unwrap_or_default())?;
    Ok(0)
}

fn sys_capset(t: &mut CurrentTask, header: UserPtr<CapHeader>, data: UserAddr) -> SyscallResult {
    let h = t.mm().read(header)?;
    let n = halves(t, header, &h)?;
    // Only a thread itself changes its capabilities.
    if h.pid != 0 && h.pid != t.tid() {
        return Err(Errno::EPERM.into());
    }
    let given = t.mm().read_array::<CapData>(data, n, 2)?;
    let mut words = [CapData::default(); 2];
    // A version 1 caller gives one word; the other is empty.
    words.iter_mut().zip(given).for_each(|(to, from)| *to = from);
    let (effective, permitted, inheritable) = CapData::decode(words);
    // Bits of capabilities that don't exist are dropped, not refused.
    let known = |s: CapSet| s.intersection(CapSet::FULL);
    let (effective, permitted, inheritable) = (known(effective), known(permitted), known(inheritable));
    let old = t.creds().clone();
    // The inheritable set may grow by what is permitted; beyond that only with CAP_SETPCAP, and never past the bounding set.
    let may_inherit = if old.has_cap(Cap::SETPCAP) { inheritable } else { old.inheritable.union(old.permitted) };
    let allowed = may_inherit.contains_all(inheritable)
        && old.inheritable.union(old.bounding).contains_all(inheritable)
        && old.permitted.contains_all(permitted)
        && permitted.contains_all(effective);
    if !allowed {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.effective = effective;
    new.permitted = permitted;
    new.inheritable = inheritable;
    // Ambient capabilities are always permitted and inheritable.
    new.ambient = new.ambient.intersection(permitted).intersection(inheritable);
    t.set_creds(new);
    Ok(0)
}

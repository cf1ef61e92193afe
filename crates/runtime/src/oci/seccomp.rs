//! config.json's `linux.seccomp`: a profile becomes the program that runc's libseccomp would load.
//!
//! Source: `libcontainer/seccomp` of runc for what a profile means (names that are not known are passed over, a rule that says
//! what the default says anyway too, and calls newer than all that the profile names give ENOSYS); libseccomp's `db.c` for
//! which of several rules holds.

mod numbers;
mod program;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use moat_abi::Errno;
use moat_abi::ptrace::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG,
    SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use moat_control::spec::SeccompSpec;
use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};

use crate::error::{Error, Result};
use numbers::Abi;
use program::{Background, Range};
use rules::{CallRules, Rule};

/// EPERM: what ERRNO and TRACE carry if the profile does not say.
const DEFAULT_DATA: u32 = 1;

/// Checks a profile and compiles it.
///
/// # Errors
/// SCMP_ACT_NOTIFY, which is not supported; an argument's index that does not exist; rules that contradict each other; a profile that
/// makes a program of more than 4096 instructions.
pub(super) fn convert(profile: &LinuxSeccomp, warnings: &mut Vec<String>) -> Result<SeccompSpec> {
    let calls = profile.syscalls().as_deref().unwrap_or_default();
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notifies(profile.default_action()) || calls.iter().any(|call| notifies(call.action())) {
        let why = "moat hands calls to no listener (linux.seccomp.listenerPath)";
        return Err(Error::unsupported("linux.seccomp: SCMP_ACT_NOTIFY", why));
    }
    if profile.listener_path().is_some() {
        warnings.push("linux.seccomp.listenerPath is ignored: no action is SCMP_ACT_NOTIFY".into());
    }
    let default = result(profile.default_action(), profile.default_errno_ret());
    let listed = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    let native = resolve(calls, default, Abi::X86_64)?;
    let x32 = listed(Arch::ScmpArchX32).then(|| resolve(calls, default, Abi::X32)).transpose()?;
    let foreign = if listed(Arch::ScmpArchX86) { SECCOMP_RET_ALLOW } else { SECCOMP_RET_KILL_THREAD };
    let background = Background { default, ranges: ranges(default, &native, x32.as_ref()) };
    let mut calls = native.calls;
    calls.extend(x32.map(|x32| x32.calls).into_iter().flatten());
    let program = program::assemble(&background, calls, foreign)
        .ok_or_else(|| Error::Invalid("linux.seccomp: the profile is longer than the kernel takes".into()))?;
    // The other flags make no difference: a process has one thread when it gets its profile, nobody listens, and how the
    // processor speculates is the host's affair.
    let log = profile.flags().iter().flatten().any(|flag| *flag == LinuxSeccompFilterFlag::SeccompFilterFlagLog);
    Ok(SeccompSpec { program, log })
}

/// The rules of one table of system calls.
struct Resolved {
    calls: BTreeMap<u32, CallRules>,
    /// The highest number that the profile names.
    newest: Option<u32>,
}

fn resolve(calls: &[LinuxSyscall], default: u32, abi: Abi) -> Result<Resolved> {
    let mut resolved = Resolved { calls: BTreeMap::new(), newest: None };
    for call in calls {
        let result = result(call.action(), call.errno_ret());
        for name in call.names() {
            let Some(nr) = numbers::number(name, abi) else {
                tracing::debug!("linux.seccomp: there is no call {name:?}");
                continue;
            };
            resolved.newest = resolved.newest.max(Some(nr));
            if result == default {
                continue;
            }
            for rule in Rule::of(call, result).map_err(|why| Error::Invalid(format!("linux.seccomp: {name}: {why}")))? {
                let rules = resolved.calls.entry(nr).or_default();
                rules.add(rule).map_err(|why| Error::Invalid(format!("linux.seccomp: {name}: {why}")))?;
            }
        }
    }
    Ok(resolved)
}

/// What numbers without a rule get.
fn ranges(default: u32, native: &Resolved, x32: Option<&Resolved>) -> Vec<Range> {
    // A program that finds a new call refused with EPERM does not fall back to the old one; with ENOSYS it does.
    let newer = match default {
        SECCOMP_RET_ALLOW | SECCOMP_RET_LOG => default,
        _ if default & !DATA == SECCOMP_RET_TRACE => default,
        _ => SECCOMP_RET_ERRNO | Errno::ENOSYS.raw().cast_unsigned(),
    };
    let mut ranges = vec![Range { first: 0, result: default }];
    let mut newer_than =
        |newest: Option<u32>| ranges.extend(newest.map(|nr| Range { first: nr.saturating_add(1), result: newer }));
    // runc takes 0 for "names no call".
    newer_than(native.newest.filter(|nr| *nr != 0));
    match x32 {
        Some(x32) => {
            ranges.push(Range { first: numbers::X32_BIT, result: default });
            ranges.extend(x32.newest.map(|nr| Range { first: nr.saturating_add(1), result: newer }));
        }
        None => {
            ranges.push(Range { first: numbers::X32_BIT, result: SECCOMP_RET_KILL_THREAD });
            // The number by which a tracer says that there is nothing to do.
            ranges.push(Range { first: u32::MAX, result: default });
        }
    }
    ranges
}

const DATA: u32 = moat_abi::ptrace::SECCOMP_RET_DATA;

/// What a filter returns for an action.
fn result(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(DEFAULT_DATA) & DATA;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActErrno => SECCOMP_RET_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => SECCOMP_RET_TRACE | data,
        LinuxSeccompAction::ScmpActLog => SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => SECCOMP_RET_ALLOW,
        // Refused before.
        LinuxSeccompAction::ScmpActNotify => SECCOMP_RET_ERRNO | Errno::ENOSYS.raw().cast_unsigned(),
    }
}

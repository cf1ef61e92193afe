//! The seccomp filter of the sandbox process: what is left to a sentry that an attacker has taken over.
//!
//! It stands behind the namespaces, the empty root and the dropped capabilities. The calls are listed in [`rules`];
//! anything else ends the process. Guest processes are not under this filter but under their platform's own: they
//! descend from a template that the platform made before [`install`].
//!
//! # Invariants
//! - No execve, no new process, no new socket, no executable memory, no new namespace or mount.
//! - Files are opened from a donated directory only, and those cannot be left by `..`.

mod program;
mod rule;
mod rules;

use std::collections::BTreeMap;

use moat_control::spec::PlatformKind;
use moat_control::{BootError, SandboxSpec};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use program::Part;

/// How many calls are compared one after the other, once their part of the program is found.
const CALLS_IN_PART: usize = 8;

/// clone3 fails with ENOSYS: its flags are in memory, where a filter cannot look, and the C library then makes its
/// threads with clone, whose flags are checked. The number is the same on every architecture.
const CLONE3: u32 = 435;

/// openat fails with EACCES for absolute paths and the working directory: the C library's malloc looks for
/// /proc/sys/vm/overcommit_memory before it gives memory back, and does without if it can't.
const OPENAT: u32 = 257;

/// Puts all threads of the process under the filter, for good.
///
/// To be called when the platform has made its template process and before guest code runs. With debug logging a
/// refused call is named in the panic log before the process ends; else it is a plain SIGSYS.
///
/// # Errors
/// Of seccomp(2).
pub fn install(spec: &SandboxSpec) -> Result<(), BootError> {
    let refusal = if spec.logging.debug { SeccompAction::Trap } else { SeccompAction::KillProcess };
    if spec.logging.debug {
        super::logging::report_refused_calls().map_err(|e| BootError::host("handling SIGSYS", &e))?;
    }
    let program = compile(spec.platform, refusal)?;
    seccompiler::apply_filter_all_threads(&program)
        .map_err(|e| BootError::new(format!("installing the seccomp filter: {e}")))
}

fn compile(platform: PlatformKind, refusal: SeccompAction) -> Result<BpfProgram, BootError> {
    let failed = |e: seccompiler::BackendError| BootError::new(format!("compiling the seccomp filter: {e}"));
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules::for_platform(platform) {
        let conditions = calls.entry(rule.call).or_default();
        if !rule.args.is_empty() {
            conditions.push(rule.to_seccomp().map_err(failed)?);
        }
    }
    let mut parts = Vec::new();
    while let Some((&first, _)) = calls.first_key_value() {
        let rest = calls.keys().nth(CALLS_IN_PART).copied().map(|next| calls.split_off(&next)).unwrap_or_default();
        let part = SeccompFilter::new(calls, refusal.clone(), SeccompAction::Allow, TargetArch::x86_64);
        parts.push(Part { first, program: part.and_then(BpfProgram::try_from).map_err(failed)? });
        calls = rest;
    }
    let mut program = program::errno_for(CLONE3, libc::ENOSYS);
    program.extend(program::errno_for_argument(OPENAT, libc::AT_FDCWD.cast_unsigned(), libc::EACCES));
    program.extend(program::dispatch(&parts));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::rule::Rule;
    use super::*;

    fn rules() -> Vec<Rule> {
        [PlatformKind::Systrap, PlatformKind::Ptrace].into_iter().flat_map(rules::for_platform).copied().collect()
    }

    #[test]
    fn compiles_into_a_program_that_the_kernel_takes() {
        for platform in [PlatformKind::Systrap, PlatformKind::Ptrace] {
            let program = compile(platform, SeccompAction::KillProcess).unwrap();
            assert!(program.len() < 4096, "{} instructions", program.len());
        }
    }

    #[test]
    fn dangerous_calls_are_not_listed() {
        let never = [
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_clone3,
            libc::SYS_open,
            libc::SYS_creat,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_open_by_handle_at,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_setuid,
            libc::SYS_capset,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_keyctl,
            libc::SYS_perf_event_open,
            libc::SYS_userfaultfd,
            libc::SYS_pidfd_getfd,
        ];
        for rule in rules() {
            assert!(!never.contains(&rule.call), "{} is allowed", rule.call);
        }
    }

    #[test]
    fn a_call_is_not_listed_both_with_and_without_conditions() {
        let rules = rules();
        for rule in &rules {
            let clash = rules.iter().any(|other| other.call == rule.call && other.args.is_empty());
            assert!(rule.args.is_empty() || !clash, "call {}", rule.call);
        }
    }
}

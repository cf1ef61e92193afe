//! Filters of host calls, compiled from tables of [`Rule`]s.
//!
//! A call that no rule allows ends the process. Two calls fail instead, because the C library makes them and does
//! without: clone3, and open by path.

mod base;
mod program;
mod rule;

use std::collections::BTreeMap;

use moat_control::BootError;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use program::Part;

pub use base::{
    AT_FDCWD, BASE, DIRECT_TREE, HOST_CONNECTIONS, HOST_FIFOS, HOST_LISTENERS, HOST_NAMES, HOST_SOCKETS, WATCHES,
};
pub use rule::{Arg, Rule, any, is, is_int, is_not, when, with, without};

/// How many calls are compared one after the other, once their part of the program is found.
const CALLS_IN_PART: usize = 8;

/// clone3 fails with ENOSYS: its flags are in memory, where a filter cannot look, and the C library then makes its
/// threads with clone, whose flags are checked. The number is the same on every architecture.
const CLONE3: u32 = 435;

/// openat fails with EACCES for absolute paths and the working directory: the C library's malloc looks for
/// /proc/sys/vm/overcommit_memory before it gives memory back, and does without if it can't.
const OPENAT: u32 = 257;

/// What happens at a call that no rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// SIGSYS ends the process.
    Kill,
    /// The call is named in the panic log before the process ends.
    Report,
}

/// Puts all threads of the process under a filter of `rules`, for good.
///
/// # Errors
/// Of seccomp(2).
pub fn install<'a>(rules: impl IntoIterator<Item = Rule<'a>>, refusal: Refusal) -> Result<(), BootError> {
    if refusal == Refusal::Report {
        crate::logging::report_refused_calls().map_err(|e| BootError::host("handling SIGSYS", &e))?;
    }
    let program = compile(rules, refusal)?;
    seccompiler::apply_filter_all_threads(&program)
        .map_err(|e| BootError::new(format!("installing the seccomp filter: {e}")))
}

/// The program of the filter.
///
/// # Errors
/// A rule that seccompiler does not take.
pub fn compile<'a>(rules: impl IntoIterator<Item = Rule<'a>>, refusal: Refusal) -> Result<BpfProgram, BootError> {
    let failed = |e: seccompiler::BackendError| BootError::new(format!("compiling the seccomp filter: {e}"));
    let refusal = match refusal {
        Refusal::Kill => SeccompAction::KillProcess,
        Refusal::Report => SeccompAction::Trap,
    };
    let mut calls: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
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

/// Calls that no process of moat has any business with once it is under its filter, for the tests of rule tables.
pub const NEVER: &[i64] = &[
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
];

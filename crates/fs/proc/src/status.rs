//! /proc/PID/status, proc_pid_status(5).

use std::fmt::Write;

use moat_abi::Result;
use moat_abi::ptrace::{SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER, SECCOMP_MODE_STRICT};
use moat_kernel::seccomp::Mode;
use moat_vfs::cred::Credentials;

use crate::mount::ProcMount;
use crate::who::{Who, state_of};

fn join(ids: impl Iterator<Item = u32>) -> String {
    let mut text = String::new();
    for id in ids {
        let _ = write!(text, "{id} ");
    }
    text
}

/// Escapes what would break the line, as `proc_task_name` does.
fn name(comm: &[u8]) -> String {
    String::from_utf8_lossy(comm).replace('\\', "\\\\").replace('\n', "\\n")
}

/// The contents.
///
/// # Errors
/// ESRCH.
pub(crate) fn status(proc: &ProcMount, who: &Who, reader: &Credentials) -> Result<Vec<u8>> {
    let task = who.task()?;
    let ns = &proc.pid_ns;
    let group = &task.group;
    let (letter, word) = state_of(&task);
    let creds = task.creds();
    let umask = task.fs_of().map_or(0, |fs| fs.lock().umask);
    let parent = group.parent().map_or(0, |p| p.pid().number_in(ns));
    let signals = task.signal_report();
    let tracer = signals.tracer.map_or(0, |pid| pid.number_in(ns));
    // In Linux's order: programs look for lines, but some count them.
    let mut o = String::with_capacity(1500);
    let _ = writeln!(o, "Name:\t{}", name(&task.comm()));
    let _ = writeln!(o, "Umask:\t{umask:04o}");
    let _ = writeln!(o, "State:\t{letter} ({word})");
    let tgid = group.pid().number_in(ns);
    let _ = writeln!(o, "Tgid:\t{tgid}\nNgid:\t0\nPid:\t{}\nPPid:\t{parent}\nTracerPid:\t{tracer}", task.tid_in(ns));
    let [uid, euid, suid, fsuid] =
        [creds.uid, creds.euid, creds.suid, creds.fsuid].map(|id| reader.user_ns.show_uid(id));
    let _ = writeln!(o, "Uid:\t{uid}\t{euid}\t{suid}\t{fsuid}");
    let [gid, egid, sgid, fsgid] =
        [creds.gid, creds.egid, creds.sgid, creds.fsgid].map(|id| reader.user_ns.show_gid(id));
    let _ = writeln!(o, "Gid:\t{gid}\t{egid}\t{sgid}\t{fsgid}");
    // A task that has ended has given its table back.
    let slots = task.fds_of().map_or(0, |f| f.size());
    let _ =
        writeln!(o, "FDSize:\t{slots}\nGroups:\t{}", join(creds.groups.iter().map(|id| reader.user_ns.show_gid(*id))));
    let list =
        |pid: &moat_identity::Pid| pid.numbers_from(ns).iter().map(i32::to_string).collect::<Vec<_>>().join("\t");
    let (pgrp, session) = match group.process_group() {
        Some(p) => (p.pid().clone(), p.session.pid().clone()),
        // It has been reaped meanwhile.
        None => (group.pid().clone(), group.pid().clone()),
    };
    let _ = writeln!(o, "NStgid:\t{}\nNSpid:\t{}", list(group.pid()), list(&task.pid()));
    let _ = writeln!(o, "NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0", list(&pgrp), list(&session));
    // A zombie has no memory, and Linux leaves these lines out.
    if let Some(mm) = task.mm_of() {
        let u = mm.usage();
        let kb = |bytes: u64| bytes / 1024;
        for (label, bytes) in [
            ("VmPeak", u.peak),
            ("VmSize", u.size),
            ("VmLck", u.locked),
            ("VmPin", 0),
            ("VmHWM", mm.peak_rss().max(u.rss)),
            ("VmRSS", u.rss),
            ("RssAnon", u.rss.saturating_sub(u.rss_file)),
            ("RssFile", u.rss_file),
            ("RssShmem", 0),
            ("VmData", u.data),
            ("VmStk", u.stack),
            ("VmExe", u.code),
            ("VmLib", u.lib),
            // An entry of 8 bytes for each page of 4096.
            ("VmPTE", u.rss / 512),
            ("VmSwap", 0),
        ] {
            let _ = writeln!(o, "{label}:\t{:>8} kB", kb(bytes));
        }
    }
    let limit = group.limits.get(moat_identity::Resource::SigPending).soft;
    let _ = writeln!(
        o,
        "CoreDumping:\t0\nTHP_enabled:\t1\nThreads:\t{}\nSigQ:\t{}/{limit}",
        // A zombie counts as one.
        group.thread_count().max(1),
        signals.queued
    );
    for (label, set) in [
        ("SigPnd", signals.pending),
        ("ShdPnd", signals.shared),
        ("SigBlk", signals.blocked),
        ("SigIgn", signals.ignored),
        ("SigCgt", signals.caught),
    ] {
        let _ = writeln!(o, "{label}:\t{:016x}", set.0);
    }
    for (label, set) in [
        ("CapInh", creds.inheritable),
        ("CapPrm", creds.permitted),
        ("CapEff", creds.effective),
        ("CapBnd", creds.bounding),
        ("CapAmb", creds.ambient),
    ] {
        let _ = writeln!(o, "{label}:\t{:016x}", set.0);
    }
    let (mode, filters) = match &task.state().seccomp {
        None => (SECCOMP_MODE_DISABLED, 0),
        Some(Mode::Strict) => (SECCOMP_MODE_STRICT, 0),
        Some(Mode::Filter(filter)) => (SECCOMP_MODE_FILTER, filter.count()),
    };
    let no_new_privs = u8::from(creds.no_new_privs);
    let _ = writeln!(o, "NoNewPrivs:\t{no_new_privs}\nSeccomp:\t{mode}\nSeccomp_filters:\t{filters}");
    let cpus = task.group.container.allowance().cpu_count();
    let _ = writeln!(
        o,
        "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}",
        crate::system::cpu_mask(cpus),
        crate::system::cpu_list(cpus)
    );
    let _ = writeln!(o, "Mems_allowed:\t1\nMems_allowed_list:\t0");
    let usage = task.usage.get();
    let _ = writeln!(o, "voluntary_ctxt_switches:\t{}\nnonvoluntary_ctxt_switches:\t0", usage.voluntary_switches);
    Ok(o.into_bytes())
}

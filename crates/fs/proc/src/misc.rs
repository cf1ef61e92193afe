//! The smaller files of a process, each a line or a few.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_identity::Resource;
use moat_identity::limits::INFINITY;
use moat_kernel::task::Login;
use moat_vfs::cred::Credentials;

use crate::mount::ProcMount;
use crate::who::Who;

fn line(text: impl std::fmt::Display) -> Vec<u8> {
    format!("{text}\n").into_bytes()
}

/// A number as `kstrtoint` takes it: white space around it is fine.
fn parse<T: std::str::FromStr>(data: &[u8]) -> Result<T> {
    std::str::from_utf8(data).ok().and_then(|t| t.trim_matches(['\n', ' ', '\0']).parse().ok()).ok_or(Errno::EINVAL)
}

pub(crate) fn comm(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let mut name = who.task()?.comm();
    name.push(b'\n');
    Ok(name)
}

pub(crate) fn set_comm(who: &Who, _caller: &Credentials, data: &[u8]) -> Result<()> {
    // TASK_COMM_LEN less the final zero.
    let end = data.iter().position(|b| *b == 0 || *b == b'\n').unwrap_or(data.len()).min(15);
    who.task()?.set_comm(data[..end].to_vec());
    Ok(())
}

/// One cgroup of the unified hierarchy, seen as the root.
pub(crate) fn cgroup(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    who.task()?;
    Ok(b"0::/\n".to_vec())
}

pub(crate) fn coredump_filter(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(line(format_args!("{:08x}", who.task()?.group.coredump_filter.load(Ordering::Relaxed))))
}

pub(crate) fn set_coredump_filter(who: &Who, _caller: &Credentials, data: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?.trim();
    let value = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // `MMF_DUMP_FILTER_MASK`: nine bits exist.
    who.task()?.group.coredump_filter.store(value.map_err(|_| Errno::EINVAL)? & 0x1ff, Ordering::Relaxed);
    Ok(())
}

/// The sentry counts system calls, not bytes: what it does not know is 0.
pub(crate) fn io(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    who.task()?;
    Ok(b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n".to_vec())
}

pub(crate) fn limits(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let task = who.task()?;
    let value = |v: u64| if v == INFINITY { "unlimited".to_owned() } else { v.to_string() };
    let mut o = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for r in Resource::ALL {
        let (name, unit) = r.describe();
        let l = task.group.limits.get(r);
        let _ = writeln!(o, "{name:<25} {:<20} {:<20} {unit:<10}", value(l.soft), value(l.hard));
    }
    Ok(o.into_bytes())
}

pub(crate) fn loginuid(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let uid = who.task()?.state().login.uid;
    Ok(uid.to_string().into_bytes())
}

pub(crate) fn sessionid(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let session = who.task()?.state().login.session;
    Ok(session.to_string().into_bytes())
}

/// Takes note of who has logged in (`audit_set_loginuid`): once it is said, it takes CAP_AUDIT_CONTROL to say otherwise.
pub(crate) fn set_loginuid(who: &Who, caller: &Credentials, data: &[u8]) -> Result<()> {
    let uid: u32 = parse(data)?;
    let task = who.task()?;
    // A number as in the user namespace of the writer.
    let uid = if uid == Login::NONE.uid { uid } else { caller.user_ns.kernel_uid(uid).ok_or(Errno::EINVAL)? };
    let session = task.kernel().ids.logins.next();
    let mut state = task.state();
    if state.login != Login::NONE && !caller.has_root_cap(Cap::AUDIT_CONTROL) {
        return Err(Errno::EPERM);
    }
    state.login = match uid {
        uid if uid == Login::NONE.uid => Login::NONE,
        uid => Login { uid, session: u32::try_from(session).unwrap_or(u32::MAX) },
    };
    Ok(())
}

/// There are no bits of use to be cleared, and the peaks that it could reset are not kept.
pub(crate) fn clear_refs(who: &Who, _caller: &Credentials, data: &[u8]) -> Result<()> {
    let what: i32 = parse(data)?;
    who.task()?;
    if (1..=5).contains(&what) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// A file that is only written.
pub(crate) fn nothing(_core: &ProcMount, _who: &Who) -> Result<Vec<u8>> {
    Err(Errno::EINVAL)
}

/// Resets the counters of the scheduler, of which none is kept apart from the usage.
pub(crate) fn reset_sched(who: &Who, _caller: &Credentials, _data: &[u8]) -> Result<()> {
    who.task().map(drop)
}

pub(crate) fn oom_score_adj(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(line(who.task()?.group.oom_score_adj.load(Ordering::Relaxed)))
}

pub(crate) fn set_oom_score_adj(who: &Who, caller: &Credentials, data: &[u8]) -> Result<()> {
    let value: i32 = parse(data)?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let group = &who.task()?.group;
    if value < group.oom_score_adj.load(Ordering::Relaxed) && !caller.has_root_cap(Cap::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    group.oom_score_adj.store(value, Ordering::Relaxed);
    Ok(())
}

/// The old scale, -17 to 15.
pub(crate) fn oom_adj(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let adj = who.task()?.group.oom_score_adj.load(Ordering::Relaxed);
    // The end of the new scale would come out as 17.
    Ok(line(if adj == 1000 { 15 } else { adj * 17 / 1000 }))
}

/// The old scale, -17 (never) to 15, on which 15 and -17 are the ends of the new one.
pub(crate) fn set_oom_adj(who: &Who, caller: &Credentials, data: &[u8]) -> Result<()> {
    let value: i32 = parse(data)?;
    let scaled = match value {
        -17..=14 => value.saturating_mul(1000) / 17,
        15 => 1000,
        _ => return Err(Errno::EINVAL),
    };
    set_oom_score_adj(who, caller, scaled.to_string().as_bytes())
}

pub(crate) fn oom_score(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let adj = who.task()?.group.oom_score_adj.load(Ordering::Relaxed);
    // Linux's formula for a process without memory.
    Ok(line(((1000 + adj) * 2 / 3).max(0)))
}

pub(crate) fn personality(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(line(format_args!("{:08x}", who.task()?.state().personality)))
}

pub(crate) fn sched(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let task = who.task()?;
    let usage = task.usage.get();
    let ms = |ns: u64| format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
    let name = String::from_utf8_lossy(&task.comm()).into_owned();
    let mut o = format!("{name} ({}, #threads: {})\n{}\n", task.tid(), task.group.thread_count(), "-".repeat(67));
    let _ = writeln!(o, "{:<45}:{:>21}", "se.sum_exec_runtime", ms(usage.user_ns + usage.system_ns));
    let _ = writeln!(o, "{:<45}:{:>21}", "nr_switches", usage.voluntary_switches);
    Ok(o.into_bytes())
}

pub(crate) fn schedstat(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let usage = who.task()?.usage.get();
    // Time on a CPU, time waited for one (not known), times that it ran.
    Ok(line(format_args!("{} 0 {}", usage.user_ns + usage.system_ns, usage.voluntary_switches)))
}

/// The registers of a thread are its own affair: what runs says so, and what waits gives no arguments away.
pub(crate) fn syscall(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    who.task()?;
    Ok(b"running\n".to_vec())
}

pub(crate) fn timerslack(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(line(who.task()?.state().timer_slack_ns))
}

/// Another process's slack is set by who could set its priority; 0 is the default.
pub(crate) fn set_timerslack(who: &Who, _caller: &Credentials, data: &[u8]) -> Result<()> {
    let value: u64 = parse(data)?;
    who.task()?.state().timer_slack_ns = if value == 0 { 50_000 } else { value };
    Ok(())
}

pub(crate) fn wchan(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let waiting = who.task()?.waits_in();
    // What does not wait shows 0, as on Linux.
    Ok(waiting.unwrap_or("0").as_bytes().to_vec())
}

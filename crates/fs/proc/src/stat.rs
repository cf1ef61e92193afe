//! /proc/PID/stat and statm, proc_pid_stat(5), proc_pid_statm(5).

use moat_abi::Result;
use moat_identity::Resource;

use crate::mount::ProcMount;
use crate::who::{Kind, Who, state_of};

/// Nanoseconds in a clock tick (USER_HZ is 100).
const TICK_NS: u64 = 10_000_000;
const PAGE: u64 = 4096;

/// The contents of `stat`.
///
/// # Errors
/// ESRCH.
pub(crate) fn stat(proc: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let task = who.task()?;
    let ns = &proc.pid_ns;
    let group = &task.group;
    let (state, _) = state_of(&task);
    let parent = group.parent().map_or(0, |p| p.pid().number_in(ns));
    let exit_code = group.zombie_status().map_or(0, |z| z.to_raw());
    let (pgrp, session, tty) = match group.process_group() {
        Some(p) => (p.pid().number_in(ns), p.session.pid().number_in(ns), moat_tty::terminal_of(&p.session)),
        None => (0, 0, None),
    };
    let tty_nr = tty.as_ref().map_or(0, |t| t.device_number());
    let tpgid = tty.and_then(|t| t.job_control().foreground()).map_or(-1, |p| p.pid().number_in(ns));
    let usage = if who.kind == Kind::Process { group.usage() } else { task.usage.get() };
    let children = group.children_usage.lock().known();
    let signals = task.signal_report();
    let (vm, image, heap) = match task.mm_of() {
        Some(mm) => (mm.usage(), mm.image(), mm.heap()),
        None => Default::default(),
    };
    let (nice, priority) = {
        let s = task.state();
        // As for SCHED_NORMAL (`task_prio`).
        (i64::from(s.sched.nice), 20 + i64::from(s.sched.nice))
    };
    let start = task.start_boot_ns.saturating_sub(proc.kernel.boot_boottime_ns) / TICK_NS;
    let rss_limit = group.limits.get(Resource::Rss).soft;
    // In bytes: a name need not be UTF-8.
    let head = format!("{} (", task.tid_in(ns)).into_bytes();
    // The flags are PF_RANDOMIZE; page faults are not counted; 17 is the signal to the parent.
    let tail = format!(
        ") {state} {parent} {pgrp} {session} {tty_nr} {tpgid} 4194304 0 0 0 0 {utime} {stime} {cutime} {cstime} {priority} {nice} \
         {threads} 0 {start} {vsize} {rss} {rss_limit} {code_start} {code_end} {stack} 0 0 {own} {blocked} {ignored} {caught} 0 0 0 17 0 0 0 0 0 0 \
         {data_start} {data_end} {brk} {arg_start} {arg_end} {env_start} {env_end} {exit_code}\n",
        utime = usage.user_ticks(),
        stime = usage.system_ticks(),
        cutime = children.user_ticks(),
        cstime = children.system_ticks(),
        threads = group.thread_count(),
        vsize = vm.size,
        rss = vm.rss / PAGE,
        code_start = image.code.start,
        code_end = image.code.end,
        stack = image.start_stack,
        own = signals.pending.0,
        blocked = signals.blocked.0,
        ignored = signals.ignored.0,
        caught = signals.caught.0,
        data_start = image.data.start,
        data_end = image.data.end,
        brk = heap.start,
        arg_start = image.args.start,
        arg_end = image.args.end,
        env_start = image.env.start,
        env_end = image.env.end,
    );
    Ok([head, task.comm(), tail.into_bytes()].concat())
}

/// The contents of `statm`.
///
/// # Errors
/// ESRCH.
pub(crate) fn statm(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let u = who.mm()?.map_or_else(Default::default, |mm| mm.usage());
    let pages = |bytes: u64| bytes / PAGE;
    Ok(format!(
        "{} {} {} {} 0 {} 0\n",
        pages(u.size),
        pages(u.rss),
        pages(u.rss_file),
        pages(u.code),
        pages(u.data + u.stack)
    )
    .into_bytes())
}

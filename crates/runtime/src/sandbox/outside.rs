//! What the host says of a sandbox that does not answer: its threads, and the processes that run its guest.
//!
//! Only files of /proc are read that no lock of the process looked at guards, so that one which hangs holds up nobody who looks.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{HostPids, Sandbox};

/// Threads of one process, and processes, that are shown.
const MAX_SHOWN: usize = 512;
/// Lines of a kernel stack.
const MAX_FRAMES: usize = 24;

/// Text for people about a sandbox process and everything below it; `why` it is asked from outside.
#[must_use]
pub fn report(sandbox: &Sandbox, why: &str) -> String {
    let mut text = format!("the sandbox does not answer ({why}); what the host says of it\n");
    let _ = writeln!(text, "sandbox process {}", sandbox.process.pid);
    heading(&mut text);
    threads(&mut text, sandbox.process.pid);
    let _ = writeln!(text, "processes that run the guest");
    heading(&mut text);
    match HostPids::of_sandbox(sandbox.process.pid) {
        Ok(pids) => {
            let mut pids: Vec<i32> = pids.all().filter(|pid| *pid != sandbox.process.pid).collect();
            pids.sort_unstable();
            pids.iter().take(MAX_SHOWN).for_each(|pid| threads(&mut text, *pid));
            if pids.len() > MAX_SHOWN {
                let _ = writeln!(text, "  and {} more", pids.len().saturating_sub(MAX_SHOWN));
            }
        }
        Err(error) => {
            let _ = writeln!(text, "  not to be found: {error}");
        }
    }
    text
}

fn heading(text: &mut String) {
    let _ = writeln!(text, "  {:>7} {:>7} {:<15} S {:>9} {:<24} CALL", "PID", "TID", "NAME", "CPU", "WCHAN");
}

/// A line for each thread of a process, with its stack in the host's kernel where that may be seen.
fn threads(text: &mut String, pid: i32) {
    let tasks = format!("/proc/{pid}/task");
    // Gone since it was listed. A sandbox that hangs may still lose processes.
    let Ok(entries) = fs::read_dir(&tasks) else { return };
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut tids: Vec<i32> = tids.collect();
    tids.sort_unstable();
    for tid in tids.iter().take(MAX_SHOWN) {
        // Each file by itself: some take rights that the caller may lack.
        let of = |file: &str| read(&Path::new(&tasks).join(tid.to_string()).join(file));
        let Some(stat) = of("stat") else { continue };
        let Seen { state, cpu_seconds } = Seen::parse(&stat);
        let name = printable(of("comm").unwrap_or_default().trim_end());
        let wchan = of("wchan").filter(|wchan| wchan != "0").unwrap_or_else(|| "-".into());
        let call = of("syscall").map_or_else(|| "?".into(), |line| call(&line));
        let _ = writeln!(text, "  {pid:>7} {tid:>7} {name:<15} {state} {cpu_seconds:>8.2}s {wchan:<24} {call}");
        for frame in of("stack").unwrap_or_default().lines().take(MAX_FRAMES) {
            let _ = writeln!(text, "{:>20}{}", "", printable(frame));
        }
    }
    if tids.len() > MAX_SHOWN {
        let _ = writeln!(text, "  and {} threads more", tids.len().saturating_sub(MAX_SHOWN));
    }
}

/// What /proc/PID/stat says.
struct Seen {
    state: char,
    cpu_seconds: f64,
}

impl Seen {
    fn parse(stat: &str) -> Seen {
        // The name in parentheses may have any characters in it.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next().and_then(|state| state.chars().next()).unwrap_or('?');
        // Fields 14 and 15 of the file, in clock ticks, of which every Linux has 100 a second.
        let ticks: u32 =
            fields.skip(10).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()).fold(0, u32::saturating_add);
        Seen { state, cpu_seconds: f64::from(ticks) / 100.0 }
    }
}

/// The call that a thread of the host is in: its name and arguments, as far as /proc/PID/syscall says.
fn call(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let Some(first) = words.next() else { return "?".into() };
    let Ok(number) = first.parse::<u32>() else { return printable(line.trim_end()) };
    let name = moat_abi::nr::name(number).map_or_else(|| number.to_string(), str::to_owned);
    let arguments: Vec<&str> = words.take(6).collect();
    format!("{name}({})", arguments.join(", "))
}

fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Names are the guest's: control characters are not for the caller's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_understood() {
        let seen = Seen::parse("12 (a) R (b) T 1 1 1 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 1 0 9");
        assert_eq!((seen.state, seen.cpu_seconds), ('T', 1.75));
        assert_eq!(Seen::parse("nonsense").state, '?');
        assert_eq!(call("0 0x3 0x7f 0x10 0x0 0x0 0x0 0x7ffd 0x7f00\n"), "read(0x3, 0x7f, 0x10, 0x0, 0x0, 0x0)");
        assert_eq!((call("running\n"), call("")), ("running".into(), "?".into()));
        assert_eq!(printable("a\u{1b}[2Jb"), "a?[2Jb");
    }

    #[test]
    fn the_test_itself_is_seen() {
        let mut text = String::new();
        threads(&mut text, std::process::id().cast_signed());
        assert!(text.contains("sandbox::outsid") && text.lines().count() >= 2, "{text}");
    }
}

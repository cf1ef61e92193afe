//! Finds and ends what a run left behind on the host.
//!
//! Processes are found as descendants of this one, which is a child subreaper; mounts and cgroups by
//! the container's id or the job's directory in their names. So runs of others are never touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

/// A sandbox's processes die with it, but the host needs a moment to end them.
const GRACE: Duration = Duration::from_millis(500);

/// Waits for the descendants to end, kills those that don't, and names these.
pub fn reap_descendants() -> Vec<String> {
    let deadline = Instant::now() + GRACE;
    while !living().is_empty() {
        if Instant::now() >= deadline {
            let survivors = living();
            kill_descendants();
            return survivors.into_iter().map(|(_, text)| format!("process {text}")).collect();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Vec::new()
}

/// Kills every descendant, by pid, until none is left.
pub fn kill_descendants() {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let processes = living();
        if processes.is_empty() || Instant::now() >= deadline {
            return;
        }
        for (pid, _) in processes {
            // It may have ended since.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The descendants that are not zombies, each with its pid and command line. Reaps zombies on the way.
pub fn living() -> Vec<(Pid, String)> {
    let own = getpid().as_raw_pid();
    let table = process_table();
    let mut found = Vec::new();
    let mut parents = vec![own];
    while let Some(parent) = parents.pop() {
        for (&pid, entry) in table.iter().filter(|(_, e)| e.parent == parent) {
            parents.push(pid);
            let Some(id) = Pid::from_raw(pid) else {
                continue;
            };
            if entry.is_zombie {
                // The child that supervise() waits for is among them only after that wait.
                if parent == own {
                    let _ = waitpid(Some(id), WaitOptions::NOHANG);
                }
            } else {
                found.push((id, format!("{pid} {}", command_line(pid, &entry.name))));
            }
        }
    }
    found
}

/// CPU time of the guest processes of sandboxes that are children of this one, by pid, in clock ticks.
pub fn guest_cpu_ticks() -> BTreeMap<i32, u64> {
    let own = getpid().as_raw_pid();
    let table = process_table();
    let guests = table.iter().filter(|(_, e)| table.get(&e.parent).is_some_and(|sandbox| sandbox.parent == own));
    guests.map(|(pid, entry)| (*pid, entry.cpu_ticks)).collect()
}

struct Entry {
    parent: i32,
    name: String,
    is_zombie: bool,
    cpu_ticks: u64,
}

fn process_table() -> BTreeMap<i32, Entry> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse_stat(&stat)?))
    })
    .collect()
}

/// `PID (NAME) STATE PPID ...`; the name may hold anything, so its end is the last parenthesis.
fn parse_stat(stat: &str) -> Option<Entry> {
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut fields = tail.split(' ');
    let is_zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    // utime and stime.
    let cpu_ticks = fields.skip(9).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Entry { parent, name: name.to_string(), is_zombie, cpu_ticks })
}

fn command_line(pid: i32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    if text.is_empty() { format!("[{name}]") } else { text }
}

/// Mounts below the job's directory, cgroups with the container's id.
pub fn on_host(id: &str, directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = directory.display().to_string();
    found.extend(mounts.lines().filter(|l| l.contains(&place)).map(|l| format!("mount {l}")));
    cgroups_named(Path::new("/sys/fs/cgroup"), id, &mut found);
    found
}

fn cgroups_named(directory: &Path, id: &str, found: &mut Vec<String>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else {
            cgroups_named(&entry.path(), id, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_parentheses() {
        let entry = parse_stat("12 (a) b) S 7 12 12").unwrap();
        assert_eq!((entry.parent, entry.name.as_str(), entry.is_zombie), (7, "a) b", false));
        let entry = parse_stat("1 (a) R 2 3 4 5 6 7 8 9 10 11 120 13 14 15").unwrap();
        assert_eq!(entry.cpu_ticks, 133);
        assert!(parse_stat("12 (a) Z 7 12").unwrap().is_zombie);
        assert!(parse_stat("nonsense").is_none());
    }
}

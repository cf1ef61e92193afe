//! [`HostPids`]: which host processes run the guest's.

use std::collections::HashMap;
use std::fs;
use std::io;

/// Host pids of a sandbox's processes, by their pid in the sandbox's own pid namespace.
#[derive(Debug, Default)]
pub struct HostPids(HashMap<i32, i32>);

/// What /proc/PID/status says.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    parent: i32,
    /// The pid in each pid namespace, from this process's inwards.
    pids: Vec<i32>,
}

impl HostPids {
    /// Looks for the processes that descend from `sandbox`, the pid of a sandbox process.
    ///
    /// # Errors
    /// Of reading /proc.
    pub fn of_sandbox(sandbox: i32) -> io::Result<Self> {
        let found = match descendants(sandbox) {
            Some(found) => found,
            None => everybody()?,
        };
        Ok(HostPids::select(&found, sandbox))
    }

    fn select(all: &HashMap<i32, Status>, sandbox: i32) -> Self {
        let mut found = HashMap::new();
        let Some(depth) = all.get(&sandbox).map(|status| status.pids.len()) else { return HostPids(found) };
        for (&pid, status) in all {
            if !descends(all, pid, sandbox) {
                continue;
            }
            // The sandbox is the first process of its namespace, the last one that it is in.
            if let Some(&inside) = depth.checked_sub(1).and_then(|index| status.pids.get(index)) {
                found.insert(inside, pid);
            }
        }
        HostPids(found)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = i32> + '_ {
        self.0.values().copied()
    }

    /// The host pid of the process with this pid in the sandbox's namespace.
    #[must_use]
    pub fn get(&self, sandbox_pid: i32) -> Option<i32> {
        self.0.get(&sandbox_pid).copied()
    }
}

/// The process and its descendants; `None` if the host's kernel does not list children, or it is gone.
fn descendants(ancestor: i32) -> Option<HashMap<i32, Status>> {
    let mut found = HashMap::new();
    let mut left = vec![ancestor];
    while let Some(pid) = left.pop() {
        // One that has ended meanwhile has no children any more.
        let Some(status) = status(pid) else { continue };
        if found.insert(pid, status).is_some() {
            continue;
        }
        // A child is listed with the thread that made it.
        for task in fs::read_dir(format!("/proc/{pid}/task")).ok().into_iter().flatten().flatten() {
            match fs::read_to_string(task.path().join("children")) {
                Ok(children) => {
                    left.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()))
                }
                // The process is there, but not the file: a kernel without CONFIG_PROC_CHILDREN.
                Err(_) if pid == ancestor => return None,
                Err(_) => {}
            }
        }
    }
    Some(found)
}

/// All processes of the host.
fn everybody() -> io::Result<HashMap<i32, Status>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Some(status) = status(pid) {
            all.insert(pid, status);
        }
    }
    Ok(all)
}

/// `None` if the process has ended.
fn status(pid: i32) -> Option<Status> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn descends(all: &HashMap<i32, Status>, mut pid: i32, ancestor: i32) -> bool {
    // A process that ends between two looks can make no ring of parents longer than the table.
    for _ in 0..=all.len() {
        if pid == ancestor {
            return true;
        }
        match all.get(&pid) {
            Some(status) if status.parent > 0 => pid = status.parent,
            _ => return false,
        }
    }
    false
}

fn parse(text: &str) -> Option<Status> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let parent = field("PPid:")?.trim().parse().ok()?;
    let pids = field("NSpid:")?.split_ascii_whitespace().map(|pid| pid.parse().ok()).collect::<Option<_>>()?;
    Some(Status { parent, pids })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_sandbox() {
        let status = |parent, pids: &[i32]| Status { parent, pids: pids.to_vec() };
        let all = HashMap::from([
            (1, status(0, &[1])),
            (10, status(1, &[10, 1])),
            (11, status(10, &[11, 2])),
            (12, status(11, &[12, 3])),
            (20, status(1, &[20, 1])),
            (21, status(20, &[21, 2])),
        ]);
        let pids = HostPids::select(&all, 10);
        assert_eq!((pids.get(1), pids.get(2), pids.get(3), pids.get(4)), (Some(10), Some(11), Some(12), None));
        assert_eq!(HostPids::select(&all, 20).get(2), Some(21));
        assert_eq!(HostPids::select(&all, 99).get(1), None);
    }

    #[test]
    fn children_are_found_both_ways() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(descendants(own).is_none_or(|found| found.contains_key(&pid) && found.contains_key(&own)));
        assert!(everybody().unwrap().contains_key(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn status_is_parsed() {
        let text = "Name:\tx\nPid:\t7\nPPid:\t3\nNSpid:\t7\t2\n";
        assert_eq!(parse(text), Some(Status { parent: 3, pids: vec![7, 2] }));
        assert_eq!(parse("PPid:\t3\n"), None);
    }
}

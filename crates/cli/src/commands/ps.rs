//! `moat ps`.

use std::time::Duration;

use moat_runtime::Config;
use moat_runtime::container::ListedProcess;

use crate::args::{ListFormat, Ps};

pub(super) fn run(config: &Config, flags: &Ps) -> anyhow::Result<u8> {
    let processes = super::load(config, &flags.id)?.processes()?;
    match flags.format {
        ListFormat::Json => {
            let pids: Vec<i32> = processes.iter().filter_map(|process| process.host_pid).collect();
            // Go writes an empty list so.
            let text = if pids.is_empty() { "null".into() } else { serde_json::to_string(&pids)? };
            super::print(&format!("{text}\n"))?;
        }
        ListFormat::Table => super::print(&table(&processes))?,
    }
    Ok(0)
}

/// The guest's own pids; HOST is the pid of the host process that runs one.
pub(super) fn table(processes: &[ListedProcess]) -> String {
    let mut text =
        format!("{:<8} {:>7} {:>7} {:>7} {:>3} {:>8} COMMAND\n", "UID", "PID", "PPID", "HOST", "THR", "TIME");
    for ListedProcess { guest, host_pid } in processes {
        let host = host_pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let seconds = Duration::from_nanos(guest.cpu_time_ns).as_secs();
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let command = if guest.args.is_empty() { format!("[{}]", guest.command) } else { guest.args.join(" ") };
        // The guest chose these words: control characters are not for the caller's terminal.
        let command: String = command.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let (uid, pid, parent, threads) = (guest.uid, guest.pid, guest.parent_pid, guest.threads);
        text += &format!("{uid:<8} {pid:>7} {parent:>7} {host:>7} {threads:>3} {time:>8} {command}\n");
    }
    text
}

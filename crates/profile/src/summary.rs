//! [`Summary`]: what `strace -c` and `time -v` say of a command, and where its time went.

use std::fmt::{self, Display, Formatter};
use std::io::{self, BufReader, Read};

use moat_control::profile::{CallTime, Record, Totals};

use crate::trace::call_name;

/// What a command has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its system calls, those that took longest first.
    pub calls: Vec<CallTime>,
    /// What all of it used.
    pub totals: Totals,
    /// How long it took.
    pub duration_ns: u64,
}

impl Summary {
    /// Reads the records of a sandbox to their end.
    ///
    /// # Errors
    /// Of the pipe; InvalidData for what no sandbox writes.
    pub fn read(from: impl Read) -> io::Result<Summary> {
        let mut from = BufReader::new(from);
        let mut summary = Summary::default();
        while let Some(record) = Record::read(&mut from)? {
            match record {
                Record::Calls(calls) => summary.calls.extend(calls),
                Record::Totals(totals) => summary.totals = totals,
                Record::End { duration_ns, .. } => summary.duration_ns = duration_ns,
                // All kinds of profiles have one form: the others are not of this one.
                _ => {}
            }
        }
        summary.calls.sort_by_key(|call| std::cmp::Reverse(call.time_ns));
        Ok(summary)
    }
}

/// A share in tenths of a percent.
fn share(part: u64, whole: u64) -> String {
    let permille = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    format!("{}.{}", permille / 10, permille % 10)
}

/// Seconds with six digits.
fn seconds(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let totals = &self.totals;
        let time: u64 = self.calls.iter().map(|call| call.time_ns).sum();
        writeln!(f, "% time     seconds  usecs/call     calls    errors syscall")?;
        writeln!(f, "------ ----------- ----------- --------- --------- ----------------")?;
        for call in &self.calls {
            let each = call.time_ns.checked_div(call.calls).unwrap_or(0) / 1000;
            let errors = if call.errors == 0 { String::new() } else { call.errors.to_string() };
            let (part, seconds, calls) = (share(call.time_ns, time), seconds(call.time_ns), call.calls);
            writeln!(f, "{part:>6} {seconds:>11} {each:>11} {calls:>9} {errors:>9} {}", call_name(call.number))?;
        }
        let (calls, errors) = self.calls.iter().fold((0u64, 0u64), |(calls, errors), call| {
            (calls.saturating_add(call.calls), errors.saturating_add(call.errors))
        });
        writeln!(f, "------ ----------- ----------- --------- --------- ----------------")?;
        writeln!(f, " 100.0 {:>11} {:>11} {calls:>9} {errors:>9} total", seconds(time), "")?;
        // Time between handing a thread over and having it back that its own code did not use.
        let hand_off = totals.guest_wall_ns.saturating_sub(totals.guest_ns);
        let parts = [
            ("guest", totals.guest_ns, "CPU time of the command's own code, its page faults and traps"),
            ("hand-off", hand_off, "ways from the sentry to the code and back, and waits for a CPU there"),
            ("sentry", totals.sentry_ns, "CPU time of the sentry"),
            ("host", totals.host_ns, "CPU time of the host's kernel for the sentry"),
        ];
        let all: u64 = parts.iter().map(|(_, ns, _)| ns).sum();
        writeln!(f, "\n     share     seconds")?;
        for (name, ns, what) in parts {
            writeln!(f, "{name:>9} {:>5}% {:>9} {what}", share(ns, all), seconds(ns))?;
        }
        writeln!(f, "\n{:>11} elapsed seconds", seconds(self.duration_ns))?;
        writeln!(f, "{:>11} seconds in which tasks slept, all together", seconds(totals.wait_ns))?;
        writeln!(f, "{:>11} KiB resident at most in one process", totals.max_resident_bytes / 1024)?;
        writeln!(f, "{:>11} processes and threads made", totals.processes)?;
        let (voluntary, involuntary) = (totals.voluntary_switches, totals.involuntary_switches);
        writeln!(f, "{voluntary:>11} voluntary and {involuntary} involuntary context switches of the sentry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_come_first_and_shares_add_up() {
        let call = |number, calls, errors, time_ns| CallTime { number, calls, errors, time_ns };
        let totals = Totals {
            guest_ns: 500_000,
            guest_wall_ns: 700_000,
            sentry_ns: 200_000,
            host_ns: 100_000,
            ..Totals::default()
        };
        let records = [
            Record::Calls(vec![call(0, 2, 1, 1_000_000), call(39, 3, 0, 3_000_000)]),
            Record::Totals(totals),
            Record::End { dropped: 0, duration_ns: 2_000_000_000 },
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.encode().unwrap()).collect();
        let text = Summary::read(bytes.as_slice()).unwrap().to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "  75.0    0.003000        1000         3           getpid");
        assert_eq!(lines[3], "  25.0    0.001000         500         2         1 read");
        assert_eq!(lines[5], " 100.0    0.004000                     5         1 total");
        assert!(
            text.contains("guest  50.0%") && text.contains("hand-off  20.0%") && text.contains("host  10.0%"),
            "{text}"
        );
        assert!(text.contains("2.000000 elapsed"));
    }
}

//! A trace as a file that ui.perfetto.dev and chrome://tracing open: the JSON of Chrome's trace events.
//!
//! Processes and threads are the guest's, each a track with its system calls, waits, faults, signals and the times in application code; one
//! process more, [`SENTRY`], has the threads of the sandbox process, with what task each was busy with and the locks that it waited for.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Write};

use moat_abi::signal::Signal;
use moat_abi::{Errno, nr};
use moat_control::profile::{Event, EventKind, Record};
use serde_json::{Value, json};

/// The number that the sandbox process has in the file: no guest process comes so far.
pub const SENTRY: u64 = 1_000_000_000;

/// What a trace had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Events in the file.
    pub events: u64,
    /// Events that were forgotten for want of room.
    pub dropped: u64,
}

/// Writes the records of a sandbox as such a file.
///
/// # Errors
/// Of `from` and `to`; InvalidData for what no sandbox writes.
pub fn write(from: impl Read, to: impl Write) -> io::Result<Written> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let mut file = File { to, written: Written::default(), processes: HashSet::new() };
    file.to.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    file.event(&json!({"ph": "M", "pid": SENTRY, "name": "process_name", "args": {"name": "sentry"}}))?;
    while let Some(record) = Record::read(&mut from)? {
        match record {
            Record::Thread { thread, name } => {
                file.event(
                    &json!({"ph": "M", "pid": SENTRY, "tid": thread, "name": "thread_name", "args": {"name": name}}),
                )?;
            }
            Record::Events { thread, events } => events.iter().try_for_each(|event| file.add(thread, event))?,
            Record::End { dropped, .. } => file.written.dropped = dropped,
            _ => {}
        }
    }
    file.to.write_all(b"\n]}\n")?;
    file.to.flush()?;
    Ok(file.written)
}

struct File<W> {
    to: W,
    written: Written,
    /// Processes that have a name.
    processes: HashSet<u64>,
}

impl<W: Write> File<W> {
    fn event(&mut self, event: &Value) -> io::Result<()> {
        let separator: &[u8] = if self.written.events == 0 { b"\n" } else { b",\n" };
        self.written.events = self.written.events.saturating_add(1);
        self.to.write_all(separator)?;
        serde_json::to_writer(&mut self.to, event).map_err(io::Error::from)
    }

    fn add(&mut self, thread: i32, event: &Event) -> io::Result<()> {
        match event.kind {
            EventKind::Name => {
                let Event { process, task, number, result, label, .. } = event;
                // The thread that is the process names it; any other does until then.
                if number == result || self.processes.insert(*process) {
                    let args = json!({"name": format!("{label} [{number}]")});
                    self.event(&json!({"ph": "M", "pid": process, "name": "process_name", "args": args}))?;
                }
                let args = json!({"name": format!("{label} [{result}]")});
                self.event(&json!({"ph": "M", "pid": process, "tid": task, "name": "thread_name", "args": args}))
            }
            // What the sentry's threads do is shown as a process of its own, with a line for each.
            EventKind::Poll => {
                let args = json!({"process": event.process, "task": event.task});
                self.span(event, (SENTRY, u64::from(thread.unsigned_abs())), "task", "worker", args)
            }
            EventKind::Lock => {
                let name = format!("lock {}", event.label);
                self.span(event, (SENTRY, u64::from(thread.unsigned_abs())), &name, "lock", json!({}))
            }
            EventKind::Call => {
                let name = call_name(event.number);
                let args: Vec<String> = event.values.iter().map(|value| format!("{value:#x}")).collect();
                let args = json!({"args": args, "result": result(event.result)});
                self.span(event, (event.process, event.task), &name, "syscall", args)
            }
            EventKind::Guest => self.stay(event),
            EventKind::Wait => {
                let by = if event.result == 0 { json!(null) } else { json!(event.result) };
                self.span(event, (event.process, event.task), &event.label, "wait", json!({"woken_by": by}))
            }
            EventKind::Fault => {
                let [address, ..] = event.values;
                let args = json!({"address": format!("{address:#x}"), "exception": event.number});
                self.span(event, (event.process, event.task), "fault", "fault", args)
            }
            EventKind::Signal => {
                let number = i32::try_from(event.number).ok();
                let name = number.and_then(Signal::new).and_then(Signal::name).unwrap_or("signal");
                self.event(&json!({
                    "ph": "i", "s": "t", "name": name, "cat": "signal",
                    "pid": event.process, "tid": event.task, "ts": us(event.start_ns),
                }))
            }
        }
    }

    /// The way to application code, that code, and the way back.
    fn stay(&mut self, event: &Event) -> io::Result<()> {
        let track = (event.process, event.task);
        let [there, back, ..] = event.values;
        let there = there.min(event.duration_ns);
        let back = back.min(event.duration_ns.saturating_sub(there));
        let begun = event.start_ns.saturating_add(there);
        let inside = event.duration_ns.saturating_sub(there).saturating_sub(back);
        let part = |start_ns, duration_ns| Event { start_ns, duration_ns, ..event.clone() };
        if there > 0 {
            self.span(&part(event.start_ns, there), track, "to application code", "hand-off", json!({}))?;
        }
        self.span(&part(begun, inside), track, "application code", "guest", json!({}))?;
        if back > 0 {
            let from = part(begun.saturating_add(inside), back);
            self.span(&from, track, "from application code", "hand-off", json!({"way": event.label}))?;
        }
        Ok(())
    }

    fn span(&mut self, event: &Event, (pid, tid): (u64, u64), name: &str, cat: &str, args: Value) -> io::Result<()> {
        let (ts, dur) = (us(event.start_ns), us(event.duration_ns));
        self.event(&json!({
            "ph": "X", "name": name, "cat": cat, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args,
        }))
    }
}

/// Nanoseconds as microseconds, the unit of this format, with their fraction.
fn us(ns: u64) -> Value {
    let text = format!("{}.{:03}", ns / 1000, ns % 1000);
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// A system call's name.
pub(crate) fn call_name(number: u64) -> String {
    let name = u32::try_from(number).ok().and_then(nr::name);
    name.map_or_else(|| format!("call {number}"), str::to_owned)
}

/// The value of a call's register: a number, or the name of an error.
fn result(register: u64) -> Value {
    let value = register.cast_signed();
    match i32::try_from(value) {
        Ok(errno @ -4095..=-1) => json!(format!("-1 {}", Errno::from_raw(errno.saturating_neg()).name())),
        _ => json!(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_json_with_names() {
        let call = Event {
            kind: EventKind::Call,
            process: 7,
            task: 8,
            start_ns: 1_500_001,
            duration_ns: 2_000,
            number: nr::OPENAT.into(),
            values: [1, 2, 3, 4, 5, 6],
            result: 2u64.wrapping_neg(),
            label: String::new(),
        };
        let name = Event { kind: EventKind::Name, number: 3, result: 3, label: "a\"b".into(), ..call.clone() };
        // 1 us there, 3 us back of 10 us; and one that says more than there was.
        let stay = |there, back| Event {
            kind: EventKind::Guest,
            start_ns: 2_000_000,
            duration_ns: 10_000,
            values: [there, back, 0, 0, 0, 0],
            label: "doorbell".into(),
            ..call.clone()
        };
        let events = vec![name, stay(1_000, 3_000), stay(u64::MAX, u64::MAX), call];
        let records = [Record::Events { thread: 5, events }, Record::End { dropped: 2, duration_ns: 1 }];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.encode().unwrap()).collect();
        let mut text = Vec::new();
        assert_eq!(write(bytes.as_slice(), &mut text).unwrap(), Written { events: 9, dropped: 2 });
        let all: Value = serde_json::from_slice(&text).unwrap();
        let events = all["traceEvents"].as_array().unwrap();
        assert_eq!(events[1]["args"]["name"], "a\"b [3]");
        let spans = |range: std::ops::Range<usize>| {
            let of = |event: &Value| (event["name"].to_string(), event["ts"].as_f64(), event["dur"].as_f64());
            events[range].iter().map(of).collect::<Vec<_>>()
        };
        let [to, code, from] =
            ["to application code", "application code", "from application code"].map(|n| json!(n).to_string());
        assert_eq!(
            spans(3..6),
            [
                (to.clone(), Some(2000.0), Some(1.0)),
                (code.clone(), Some(2001.0), Some(6.0)),
                (from, Some(2007.0), Some(3.0))
            ]
        );
        assert_eq!(events[5]["args"]["way"], "doorbell");
        assert_eq!(spans(6..8), [(to, Some(2000.0), Some(10.0)), (code, Some(2010.0), Some(0.0))]);
        let call = &events[8];
        assert_eq!(
            (call["name"].as_str(), call["ts"].as_f64(), call["dur"].as_f64()),
            (Some("openat"), Some(1500.001), Some(2.0))
        );
        assert_eq!(
            (call["args"]["result"].as_str(), call["args"]["args"][5].as_str()),
            (Some("-1 ENOENT"), Some("0x6"))
        );
    }
}

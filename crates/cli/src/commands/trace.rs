//! `moat trace`: sessions of security events.

use std::fmt::Write as _;

use moat_control::spec::TraceConflict;
use moat_monitor::Point;
use moat_runtime::{Config, monitor};

use crate::args::{Trace, TraceCommand};

pub(super) fn run(config: &Config, flags: &Trace) -> anyhow::Result<u8> {
    match &flags.command {
        TraceCommand::Create(flags) => {
            // Sinks are opened by this command: the sandbox can open no file of the host.
            let session = monitor::read_config(&flags.config)?;
            let container = super::load(config, &flags.id)?;
            let conflict = if flags.force { TraceConflict::Replace } else { TraceConflict::Refuse };
            let name = container.sandbox()?.create_trace_session(monitor::open(session)?, conflict)?;
            super::print(&format!("Trace session {name:?} created.\n"))?;
        }
        TraceCommand::Delete(flags) => {
            super::load(config, &flags.id)?.sandbox()?.delete_trace_session(&flags.name)?;
            super::print(&format!("Trace session {:?} deleted.\n", flags.name))?;
        }
        TraceCommand::List(flags) => {
            let sessions = super::load(config, &flags.id)?.sandbox()?.trace_sessions()?;
            let mut text = format!("SESSIONS ({})\n", sessions.len());
            for session in sessions {
                let _ = writeln!(text, "{:?}", session.name);
                for sink in session.sinks {
                    let _ = writeln!(text, "\tSink: {:?}, dropped: {}, sent: {}", sink.name, sink.dropped, sink.sent);
                }
            }
            super::print(&text)?;
        }
        TraceCommand::Metadata => super::print(&metadata())?,
    }
    Ok(0)
}

/// As runsc's, line by line.
fn metadata() -> String {
    let points = Point::all();
    let mut text = format!("POINTS ({})\n", points.len());
    let names = |fields: moat_monitor::Fields| fields.names().collect::<Vec<_>>().join("|");
    for point in points {
        let (name, optional, context) = (point.name(), names(point.optional()), names(point.context()));
        let _ = writeln!(text, "Name: {name}, optional fields: [{optional}], context fields: [{context}]");
    }
    text.push_str("\nSINKS (3)\nName: remote\nName: file\nName: null\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_runscs() {
        let text = metadata();
        let line = "Name: syscall/accept/enter, optional fields: [fd_path], context fields: [time|thread_id|task_start_time|group_id|thread_group_start_time|container_id|credentials|cwd|process_name|parent_thread_group_id|is_exec_session]\n";
        assert!(text.starts_with("POINTS (") && text.contains(line), "{text}");
    }
}

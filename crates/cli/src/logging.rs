//! Messages for the caller: errors on standard error and in the log, in the formats of Go's logrus, which container
//! managers read.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use moat_control::start::STEPS;
use moat_jail::startup::StartupTimes;
use moat_runtime::timestamp::rfc3339_seconds;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

use crate::args::{Global, LogFormat};

/// Where errors go.
pub(crate) struct Log {
    file: Option<Arc<File>>,
    format: LogFormat,
}

/// Opens the log, and starts tracing into it if debug messages are wanted. The command began at `began_ns` of CLOCK_MONOTONIC.
pub(crate) fn start(flags: &Global, began_ns: u64) -> anyhow::Result<Log> {
    let file = flags.log.as_deref().map(open).transpose()?.map(Arc::new);
    let level = if flags.debug { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let writer = match &file {
        Some(file) => Some(BoxMakeWriter::new(Arc::clone(file))),
        None => flags.debug.then(|| BoxMakeWriter::new(std::io::stderr)),
    };
    let events = writer.map(|writer| {
        let format = Logrus(flags.log_format);
        tracing_subscriber::fmt::layer().with_ansi(false).event_format(format).with_writer(writer).with_filter(level)
    });
    let steps = flags.trace_startup.then(|| steps(began_ns)).transpose()?;
    if events.is_some() || steps.is_some() {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(events).with(steps))?;
        tracing::info!(target: STEPS, "the command line is read");
    }
    Ok(Log { file, format: flags.log_format })
}

fn steps(began_ns: u64) -> anyhow::Result<StartupTimes> {
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().context("duplicating standard error")?;
    Ok(StartupTimes::new("moat", began_ns, File::from(stderr)))
}

fn open(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.with_context(|| format!("opening the log {}", path.display()))
}

impl Log {
    /// Reports what ended the command.
    pub(crate) fn error(&self, message: &str) {
        eprintln!("moat: {message}");
        let Some(mut file) = self.file.as_deref() else { return };
        // Docker and containerd show the last line of level "error" to their user.
        let _ = file.write_all(line(self.format, "error", message).as_bytes());
    }
}

/// One line of a log, as logrus writes it.
fn line(format: LogFormat, level: &str, message: &str) -> String {
    let time = rfc3339_seconds(SystemTime::now());
    match format {
        LogFormat::Json => {
            let mut line = serde_json::json!({ "level": level, "msg": message, "time": time }).to_string();
            line.push('\n');
            line
        }
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
    }
}

/// Writes events as logrus does.
struct Logrus(LogFormat);

impl<S, N> FormatEvent<S, N> for Logrus
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let from = event.metadata();
        // It warns of each controller of the host that it has no limits for.
        if from.target().starts_with("libcgroups") && *from.level() != Level::ERROR {
            return Ok(());
        }
        let level = match *from.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut text = Text::default();
        event.record(&mut text);
        writer.write_str(&line(self.0, level, &(text.message + &text.fields)))
    }
}

/// The words of an event: its message, then its other fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logrus() {
        let json = line(LogFormat::Json, "error", "a \"b\"\n");
        let value: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
        assert_eq!((value["level"].as_str(), value["msg"].as_str()), (Some("error"), Some("a \"b\"\n")));
        assert_eq!(value["time"].as_str().unwrap().len(), "2026-11-23T16:09:28Z".len());
        let text = line(LogFormat::Text, "error", "a \"b\"\n");
        assert!(text.ends_with(" level=error msg=\"a \\\"b\\\"\\n\"\n"), "{text}");
    }
}

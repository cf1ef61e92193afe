//! The shim's log: lines in the format of Go's logrus on standard error, which is containerd's own log.

use std::fmt;
use std::io::Write as _;
use std::time::SystemTime;

use moat_runtime::timestamp::rfc3339_seconds;

/// Something that went wrong and has no consequence for a call.
pub(crate) fn warning(message: fmt::Arguments<'_>) {
    line("warning", message);
}

/// Something that went wrong.
pub(crate) fn error(message: fmt::Arguments<'_>) {
    line("error", message);
}

fn line(level: &str, message: fmt::Arguments<'_>) {
    let time = rfc3339_seconds(SystemTime::now());
    let text = format!("time=\"{time}\" level={level} msg={:?} runtime={}\n", message.to_string(), crate::RUNTIME);
    // Nobody may read it, or not fast enough.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

//! Messages for the caller: errors on standard error and in the log, in the format that container managers read.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tracing::Level;

use crate::args::{Global, LogFormat};

/// Where errors go.
pub(crate) struct Log {
    file: Option<Arc<File>>,
    format: LogFormat,
}

/// Opens the log, and starts tracing into it if debug messages are wanted.
pub(crate) fn start(flags: &Global) -> anyhow::Result<Log> {
    let file = flags.log.as_deref().map(open).transpose()?.map(Arc::new);
    if let Some(file) = &file {
        let level = if flags.debug { Level::DEBUG } else { Level::WARN };
        let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(Arc::clone(file));
        match flags.log_format {
            LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish())?,
            LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().finish())?,
        }
    } else if flags.debug {
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(std::io::stderr);
        tracing::subscriber::set_global_default(subscriber.finish())?;
    }
    Ok(Log { file, format: flags.log_format })
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
        let line = match self.format {
            LogFormat::Json => serde_json::json!({ "level": "error", "msg": message }).to_string(),
            LogFormat::Text => format!("error: {message}"),
        };
        let _ = writeln!(file, "{line}");
    }
}

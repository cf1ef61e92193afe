//! A process's logs: tracing into the donated debug log, and last words into the panic log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Arc, OnceLock};

use moat_control::spec::LogSpec;
use tracing::Level;

static PANIC_LOG: OnceLock<File> = OnceLock::new();

/// Sends events to `file`.
pub fn start(spec: &LogSpec, file: File) {
    let level = if spec.debug { Level::DEBUG } else { Level::INFO };
    let subscriber = tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(Arc::new(file));
    // A second subscriber cannot be set; the first one then stays.
    if spec.json {
        let _ = tracing::subscriber::set_global_default(subscriber.json().finish());
    } else {
        let _ = tracing::subscriber::set_global_default(subscriber.finish());
    }
}

/// Has the names of functions read for backtraces, while the program's file can still be opened. Slow.
pub fn load_symbols() {
    drop(Backtrace::force_capture().to_string());
}

/// Makes a panic end the process, with a report in `file`.
///
/// A sandbox is the init of its pid namespace, so that every guest process dies with it.
pub fn install_panic_hook(file: File) {
    let _ = PANIC_LOG.set(file);
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let mut report = format!("{info}\nin thread {}", thread.name().unwrap_or("?"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = write!(report, "\n{backtrace}");
        }
        write_panic_log(&report);
        moat_host::process::exit_now(crate::EXIT_FAILURE)
    }));
}

/// Makes a host call that the seccomp filter traps end the sandbox with the call's number in the panic log.
pub fn report_refused_calls() -> std::io::Result<()> {
    match PANIC_LOG.get() {
        Some(log) => moat_host::sigsys::report_to(log.as_fd()),
        None => Ok(()),
    }
}

/// Writes last words. Callable at any time; nothing can be done if it fails.
pub fn write_panic_log(text: &str) {
    if let Some(mut log) = PANIC_LOG.get() {
        let _ = log.write_all(text.as_bytes());
        let _ = log.write_all(b"\n");
    }
}

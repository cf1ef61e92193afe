//! A process's logs: tracing into the donated debug log, and last words into the panic log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use moat_control::spec::LogSpec;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::startup::StartupTimes;

static PANIC_LOG: OnceLock<File> = OnceLock::new();

/// What a report has besides what Rust says.
static MORE: OnceLock<fn() -> String> = OnceLock::new();

/// Where events go, and which; changed while they come.
struct Log {
    file: RwLock<Arc<File>>,
    level: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Sends steps of the start to `steps`, and no other events anywhere: for a process that has no log. One that has is told of them by
/// [`start`].
pub fn start_with_steps(steps: StartupTimes) {
    // A second subscriber cannot be set; the first one then stays.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(steps));
}

/// Sends events to `file` from here on, and steps of the start to `steps`, too; both that and whether they are JSON is decided by the first
/// call.
pub fn start(spec: &LogSpec, file: File, steps: Option<StartupTimes>) {
    let file = Arc::new(file);
    if let Some(log) = LOG.get() {
        *log.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        set_level(spec);
        return;
    }
    let (filter, handle) = tracing_subscriber::reload::Layer::new(level(spec));
    let registry = tracing_subscriber::registry().with(filter).with(steps);
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    // A log that can't be changed is one of a process that is ending.
    let level = Box::new(move |level| drop(handle.reload(level)));
    let _ = LOG.set(Log { file: RwLock::new(file), level });
    // A second subscriber cannot be set; the first one then stays.
    if spec.json {
        let _ = tracing::subscriber::set_global_default(registry.with(format.json()));
    } else {
        let _ = tracing::subscriber::set_global_default(registry.with(format));
    }
}

/// Whether events go anywhere.
#[must_use]
pub fn is_started() -> bool {
    LOG.get().is_some()
}

/// Changes which events are logged. False if they go nowhere, for want of a file.
pub fn set_level(spec: &LogSpec) -> bool {
    let Some(log) = LOG.get() else { return false };
    (log.level)(level(spec));
    true
}

fn level(spec: &LogSpec) -> LevelFilter {
    if spec.debug { LevelFilter::DEBUG } else { LevelFilter::INFO }
}

fn writer() -> Box<dyn Write> {
    match LOG.get() {
        Some(log) => Box::new(log.file.read().unwrap_or_else(PoisonError::into_inner).clone()),
        None => Box::new(std::io::sink()),
    }
}

/// Has the names of functions read for backtraces, while the program's file can still be opened. Slow.
pub fn load_symbols() {
    drop(Backtrace::force_capture().to_string());
}

/// Has reports of panics begin with what `more` says.
pub fn report_more(more: fn() -> String) {
    // The first one stays.
    let _ = MORE.set(more);
}

/// Makes a panic end the process, with a report in `file`.
///
/// A sandbox is the init of its pid namespace, so that every guest process dies with it.
pub fn install_panic_hook(file: File) {
    let _ = PANIC_LOG.set(file);
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let mut report = format!("moat {} failed\n", env!("CARGO_PKG_VERSION"));
        // What goes wrong in here is the end too: a panic in a panic aborts.
        if let Some(more) = MORE.get() {
            report += &more();
        }
        report += &addresses();
        // Last: commands that tell of a death show the end of the log.
        let _ = write!(report, "{info}\nin thread {}", thread.name().unwrap_or("?"));
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

/// The stack of the calling thread as addresses in the program's file, which addr2line(1) takes, with the program's build id.
fn addresses() -> String {
    let modules = moat_host::sampling::modules::own();
    let mut text = String::new();
    if let Some(program) = modules.first() {
        let id: String = program.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "calls, in the program with build id {id}:");
    }
    for address in moat_host::sampling::calls::here() {
        let module = modules.iter().find(|module| (module.start..module.end).contains(&address));
        let (name, bias) = module.map_or(("?", 0), |module| (module.path.as_str(), module.bias));
        let name = if name.is_empty() { "moat" } else { name };
        let _ = writeln!(text, "  {name} {:#x}", address.wrapping_sub(bias));
    }
    text
}

/// Writes last words. Callable at any time; nothing can be done if it fails.
pub fn write_panic_log(text: &str) {
    if let Some(mut log) = PANIC_LOG.get() {
        let _ = log.write_all(text.as_bytes());
        let _ = log.write_all(b"\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "MOAT_PANIC_LOG_TEST";

    /// The part of a process that panics. Without [`LOG`] it is a test that passes.
    #[test]
    fn panicking() {
        let Ok(path) = std::env::var(LOG) else { return };
        report_more(|| "its last calls\n".into());
        install_panic_hook(File::create(path).unwrap());
        panic!("boom");
    }

    #[test]
    fn a_report_has_version_calls_addresses_and_the_message() {
        let path = std::env::temp_dir().join(format!("moat-panic-log-{}", std::process::id()));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "logging::tests::panicking"]).env(LOG, &path);
        let output = child.output().unwrap();
        assert_eq!(output.status.code(), Some(crate::EXIT_FAILURE), "{output:?}");
        let report = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let version = format!("moat {} failed", env!("CARGO_PKG_VERSION"));
        let lines: Vec<&str> = report.lines().collect();
        assert!(lines[0] == version && lines[1] == "its last calls", "{report}");
        assert!(lines[2].starts_with("calls, in the program with build id "), "{report}");
        assert!(lines.iter().filter(|line| line.starts_with("  moat 0x")).count() > 3, "{report}");
        assert!(report.contains("boom") && report.contains("in thread logging::tests::panicking"), "{report}");
    }
}

//! The `moat` command line.
//!
//! Processes of a sandbox that are this program, executed again, are no commands for people: they are recognised by
//! `argv[0]` before anything else is set up.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod configuration;
mod descriptors;
mod logging;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use args::{Arguments, Command};
use configuration::Configuration;
use moat_host::clock::monotonic_ns;
use moat_host::sampling::heap::Sampled;

/// For profiles of the heap: the C library's, with one load and branch more while there is none.
#[global_allocator]
static ALLOCATOR: Sampled = Sampled;

/// Whether containerd calls this program as a shim: by the name of a link to it, of whatever path, or, where a client names this
/// program itself (Docker's `runtimeType`), by containerd's first flag, which no command of moat's has.
fn is_shim(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|name| name == moat_shim::PROGRAM)
        || std::env::args_os().nth(1).is_some_and(|word| moat_shim::FLAGS.iter().any(|flag| word == *flag))
}

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let name = argv.next().unwrap_or_default();
    if is_shim(&name) {
        return ExitCode::from(moat_shim::main(argv));
    }
    if name == moat_runtime::waiter::PROCESS_NAME {
        return ExitCode::from(moat_runtime::waiter::main(argv));
    }
    if name == moat_runtime::network::watcher::PROCESS_NAME {
        return ExitCode::from(moat_runtime::network::watcher::main(argv));
    }
    if name == moat_sentry::boot::PROCESS_NAME && argv.next().is_some_and(|command| command == "boot") {
        moat_sentry::boot::main(argv);
    }
    if name == moat_gofer::PROCESS_NAME && argv.next().is_some_and(|command| command == "gofer") {
        moat_gofer::main(argv);
    }
    let began_ns = monotonic_ns();
    let configuration = Configuration::load();
    let arguments = match parse(configuration.as_ref().ok()) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    // Before anything opens a descriptor, which might get the number of one that is missing.
    let inherited = descriptors::claim(&arguments.command);
    let log = match logging::start(&arguments.global, began_ns) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("moat: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let exec = matches!(arguments.command, args::Command::Exec(_));
    let create = matches!(arguments.command, args::Command::Create(_));
    let outcome =
        configuration.and_then(|configuration| commands::run(arguments, inherited?, &configuration, began_ns));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let hint = commands::hint(&error);
            log.error(&format!("{}{error:#}{hint}", if exec { "exec failed: " } else { "" }));
            // Those of runc; its callers tell from the message what was wrong. The status that `run` and `do` end with
            // is seen by people and shells.
            ExitCode::from(match (exec, create) {
                (true, _) => 255,
                (_, true) => 1,
                _ => error.downcast_ref::<moat_runtime::Error>().map_or(1, moat_runtime::Error::exit_code),
            })
        }
    }
}

/// The command line, with what the configuration adds to it; if it is none, what to end with.
fn parse(configuration: Option<&Configuration>) -> Result<Arguments, ExitCode> {
    let given: Vec<OsString> = std::env::args_os().collect();
    let parse = |args: Vec<OsString>| {
        Arguments::parse_line(args).map_err(|error| {
            if error.use_stderr()
                && let Some(Err(error)) = configuration.map(Configuration::check)
            {
                eprintln!("moat: {error:#}");
                return ExitCode::FAILURE;
            }
            let _ = error.print();
            // Container tools know no other code for a command line that is wrong.
            if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        })
    };
    let Some(configuration) = configuration else { return parse(given) };
    let arguments = parse(configuration.complete(&given, &[]))?;
    let bundle = match &arguments.command {
        Command::Create(create) => &create.bundle,
        Command::Run(run) => &run.create.bundle,
        Command::Restore(restore) => &restore.run.create.bundle,
        _ => return Ok(arguments),
    };
    let annotated = configuration.annotated(bundle);
    if annotated.is_empty() { Ok(arguments) } else { parse(configuration.complete(&given, &annotated)) }
}

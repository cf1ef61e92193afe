//! The `moat` command line.
//!
//! Processes of a sandbox that are this program, executed again, are no commands for people: they are recognised by
//! `argv[0]` before anything else is set up.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod descriptors;
mod logging;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let name = argv.next().unwrap_or_default();
    if name == moat_runtime::waiter::PROCESS_NAME {
        return ExitCode::from(moat_runtime::waiter::main(argv));
    }
    if name == moat_sentry::boot::PROCESS_NAME && argv.next().is_some_and(|command| command == "boot") {
        moat_sentry::boot::main(argv);
    }
    if name == moat_gofer::PROCESS_NAME && argv.next().is_some_and(|command| command == "gofer") {
        moat_gofer::main(argv);
    }
    let arguments = match args::Arguments::parse_line(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Container tools know no other code for a command line that is wrong.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // Before anything opens a descriptor, which might get the number of one that is missing.
    let inherited = descriptors::claim(&arguments.command);
    let log = match logging::start(&arguments.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("moat: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let exec = matches!(arguments.command, args::Command::Exec(_));
    let create = matches!(arguments.command, args::Command::Create(_));
    match inherited.and_then(|inherited| commands::run(arguments, inherited)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&format!("{}{error:#}", if exec { "exec failed: " } else { "" }));
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

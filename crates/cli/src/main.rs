//! The `moat` command line.
//!
//! `moat boot` and `moat gofer` are processes of a sandbox and no commands for people: they are recognised before
//! anything else is set up.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod logging;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    let (name, command) = (argv.next().unwrap_or_default(), argv.next().unwrap_or_default());
    if name == moat_sentry::boot::PROCESS_NAME && command == "boot" {
        moat_sentry::boot::main(argv);
    }
    if name == moat_gofer::PROCESS_NAME && command == "gofer" {
        moat_gofer::main(argv);
    }
    let arguments = args::Arguments::parse();
    let log = match logging::start(&arguments.global) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("moat: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match commands::run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log.error(&format!("{error:#}"));
            let code = error.downcast_ref::<moat_runtime::Error>().map_or(1, moat_runtime::Error::exit_code);
            ExitCode::from(code)
        }
    }
}

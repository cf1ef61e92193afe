//! The `moat` command line.
//!
//! `moat boot` is the sandbox process and no command for people: it is recognised before anything else is set up.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod logging;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut argv = std::env::args_os();
    if argv.next().is_some_and(|name| name == moat_sentry::boot::PROCESS_NAME)
        && argv.next().is_some_and(|command| command == "boot")
    {
        moat_sentry::boot::main(argv);
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

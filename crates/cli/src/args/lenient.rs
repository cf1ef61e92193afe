//! Command lines as Go's programs take them: `-flag`, `--flag=1`, and of two the last one.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::{ArgAction, Command};

/// A truth value as Go's strconv.ParseBool takes it.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("it is neither true nor false".into()),
    }
}

/// Lets switches have a value and flags come twice, in all commands.
pub(super) fn lenient(command: Command) -> Command {
    // Go's flag package lets a later value replace an earlier one.
    let command = command.args_override_self(true).mut_args(|arg| match arg.get_action() {
        // As with Go's a switch takes a value after "=" only: "-flag false" is a flag and an argument.
        ArgAction::SetTrue if arg.get_long().is_some() => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
            .value_parser(ValueParser::new(truth)),
        _ => arg,
    });
    command.mut_subcommands(lenient)
}

/// Go's flags may be written with one dash: `-root DIR`. Only those before the command are, by anybody.
pub(super) fn with_two_dashes(
    args: impl IntoIterator<Item = OsString>,
    commands: &[&str],
) -> impl Iterator<Item = OsString> {
    let mut before_command = true;
    args.into_iter().enumerate().map(move |(index, arg)| {
        let text = arg.to_str().unwrap_or_default();
        // A single letter is one of the parser's short flags.
        let single = text.strip_prefix('-').filter(|name| name.len() > 1 && !name.starts_with('-'));
        // Behind the command are a guest's words, too.
        before_command = before_command && !commands.contains(&text);
        match single {
            Some(name) if before_command && index > 0 => format!("--{name}").into(),
            _ => arg,
        }
    })
}

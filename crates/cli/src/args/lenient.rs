//! Command lines as Go's programs take them: `-flag`, `--flag=1`, and of two the last one.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

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

/// Go's flags may be written with one dash: `-root DIR`, `create -bundle DIR`. The name of a flag counts before a cluster
/// of short flags, and nothing counts behind the words that a container is to execute.
pub(super) fn with_two_dashes(args: &[OsString], definition: impl FnOnce() -> Command) -> Vec<OsString> {
    // Most command lines have none, and the definition takes time to build.
    if !args.iter().skip(1).any(|arg| single_dash(arg).is_some()) {
        return args.to_vec();
    }
    let definition = definition();
    let mut scope = Scope { commands: vec![&definition] };
    let mut rest = args.iter().cloned();
    let mut line: Vec<OsString> = rest.next().into_iter().collect();
    while let Some(arg) = rest.next() {
        let text = arg.to_str().unwrap_or_default();
        let (arg, has_value_after) = match scope.read(text) {
            Word::End => {
                line.push(arg);
                break;
            }
            Word::Flag { has_value_after } => (arg, has_value_after),
            Word::GoFlag { has_value_after } => (format!("-{text}").into(), has_value_after),
            Word::Positional => (arg, false),
        };
        let value = has_value_after.then(|| rest.next()).flatten();
        match value {
            // Go takes it whatever it looks like; the parser would see a flag.
            Some(value) if value.as_encoded_bytes().starts_with(b"-") && arg.as_encoded_bytes().starts_with(b"--") => {
                line.push([arg, "=".into(), value].into_iter().collect());
            }
            value => line.extend([arg].into_iter().chain(value)),
        }
    }
    line.extend(rest);
    line
}

/// What stands behind a single dash, if that is more than one letter.
fn single_dash(arg: &OsString) -> Option<&str> {
    arg.to_str()?.strip_prefix('-').filter(|name| name.len() > 1 && !name.starts_with('-'))
}

/// What a word of a command line is.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Flag {
        has_value_after: bool,
    },
    /// A flag that is missing a dash.
    GoFlag {
        has_value_after: bool,
    },
    Positional,
    /// No word from here on is a flag.
    End,
}

/// The commands that were named so far, the program itself first.
struct Scope<'a> {
    commands: Vec<&'a Command>,
}

impl<'a> Scope<'a> {
    fn read(&mut self, text: &str) -> Word {
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        if text == "--" {
            Word::End
        } else if let Some(long) = text.strip_prefix("--") {
            Word::Flag { has_value_after: !long.contains('=') && self.long(&name(long)).is_some_and(takes_next) }
        } else if let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            match self.long(&name(letters)).filter(|_| letters.len() > 1) {
                Some(arg) => Word::GoFlag { has_value_after: !letters.contains('=') && takes_next(arg) },
                // No flag before the command has a single letter, so that its name is what the error is to say.
                None if self.commands.len() == 1 && letters.len() > 1 => Word::GoFlag { has_value_after: false },
                None => Word::Flag { has_value_after: self.is_last_letter_waiting(letters) },
            }
        } else {
            self.positional(text)
        }
    }

    fn positional(&mut self, text: &str) -> Word {
        let Some(command) = self.commands.last() else { return Word::End };
        if let Some(inner) = command.find_subcommand(text) {
            self.commands.push(inner);
            return Word::Positional;
        }
        match command.get_positionals().any(Arg::is_trailing_var_arg_set) {
            true => Word::End,
            false => Word::Positional,
        }
    }

    /// The program's flags are those of each command, too.
    fn args(&self) -> impl Iterator<Item = &'a Arg> {
        self.commands.clone().into_iter().flat_map(Command::get_arguments)
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.args().find(|arg| arg.get_long() == Some(name))
    }

    /// In a cluster the first flag with a value has the letters behind it, or else the next word.
    fn is_last_letter_waiting(&self, letters: &str) -> bool {
        let flag = |letter| self.args().find(|arg| arg.get_short() == Some(letter));
        let mut rest = letters.chars();
        rest.find(|letter| flag(*letter).is_some_and(takes_next)).is_some() && rest.as_str().is_empty()
    }
}

fn takes_next(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

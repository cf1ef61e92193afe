//! Flags and commands. Names are runsc's where the meaning is the same.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// What `moat --version` says, as Docker and Podman expect it.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

/// Runs containers, each on a Linux kernel of its own.
#[derive(Debug, Parser)]
#[command(name = "moat", bin_name = "moat", version = VERSION, about, disable_help_subcommand = false)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// How guest code runs
    #[arg(long, global = true, value_enum, default_value = "systrap")]
    pub(crate) platform: Platform,
    /// What guests see of the network
    #[arg(long, global = true, value_enum, default_value = "none")]
    pub(crate) network: Network,
    /// Where messages for the caller go besides standard error
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Format of messages in the log
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Log debug messages
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub(crate) debug: bool,
    /// Where the sandbox logs; %TIMESTAMP%, %COMMAND% and %ID% are replaced, a name ending in "/" is a directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) debug_log: Option<PathBuf>,
    /// Log guest system calls, to the debug log or else to standard error
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub(crate) strace: bool,
    /// Log only these system calls
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) strace_syscalls: Vec<String>,
    /// Bytes of a buffer that --strace shows
    #[arg(long, global = true, value_name = "BYTES", default_value_t = 1024)]
    pub(crate) strace_log_size: u32,
    /// Where changes to the root file system of a bundle go: none or root:memory
    #[arg(long, global = true, value_enum, default_value = "root:memory")]
    pub(crate) overlay2: Overlay2,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Platform {
    /// Seccomp traps and shared memory
    Systrap,
    /// ptrace(2): slower, works nearly everywhere
    Ptrace,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Network {
    /// A loopback device only
    None,
    /// The sandbox's network namespace
    Sandbox,
    /// The host's network
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Overlay2 {
    /// Into the root file system itself
    None,
    /// Into the sandbox's memory
    #[value(name = "root:memory", alias = "all:memory")]
    RootMemory,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a fresh sandbox over the host's root file system, which stays as it is
    Do(Do),
    /// Create and start a container from an OCI bundle, and wait for it
    Run(Run),
}

#[derive(Debug, Args)]
pub(crate) struct Do {
    /// Mount a host directory or file, with :ro only to be read
    #[arg(long, short, value_name = "SRC[:DST][:ro]")]
    pub(crate) volume: Vec<String>,
    /// Directory to start in [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set a variable: NAME=VALUE, or NAME to pass on the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Start with no variables but those of --env
    #[arg(long)]
    pub(crate) clear_env: bool,
    /// Host directory to use as root
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// User id in the sandbox
    #[arg(long, default_value_t = 0)]
    pub(crate) uid: u32,
    /// Group id in the sandbox
    #[arg(long, default_value_t = 0)]
    pub(crate) gid: u32,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// The container's id
    pub(crate) id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_the_command_are_left_alone() {
        let arguments =
            Arguments::parse_from(["moat", "do", "--platform", "ptrace", "--strace", "ls", "--strace", "-l"]);
        assert!(arguments.global.strace);
        let Command::Do(command) = arguments.command else { panic!("not do") };
        assert_eq!(command.command, ["ls", "--strace", "-l"]);
    }

    #[test]
    fn unknown_flags_are_errors() {
        assert!(Arguments::try_parse_from(["moat", "--frob", "do", "ls"]).is_err());
        assert!(Arguments::try_parse_from(["moat", "do"]).is_err());
        assert!(Arguments::try_parse_from(["moat", "--debug=false", "run", "--bundle", "/b", "id"]).is_ok());
    }
}

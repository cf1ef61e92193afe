//! Flags of the commands of a container's life.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A container.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Socket that the master of the container's terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File for the pid of the host process that stands for the container; written last
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Pass descriptors 3 to N + 2 on to the container
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: usize,
    /// Pass descriptor M of the caller on as N, of which the first must be 3, the next 4 and so on
    #[arg(long, value_name = "M:N")]
    pub(crate) pass_fd: Vec<String>,
    /// Accepted: a guest's root is made without pivot_root(2)
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Accepted: a guest has keyrings of its own
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Leave the container running
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Accepted: nothing is reparented to this command
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Send it to all processes of the container
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Send it to this process of the container
    #[arg(long, value_name = "PID", conflicts_with = "all")]
    pub(crate) pid: Option<i32>,
    /// The container's id
    pub(crate) id: String,
    /// Name, with or without SIG, or number
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Kill the container if it runs; that there is none is no error
    #[arg(long, short)]
    pub(crate) force: bool,
    /// The containers' ids
    #[arg(required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// How to say it
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
    /// Ids only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    #[value(alias = "text")]
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// A table of the guest's processes, or the pids of the host processes that run them as JSON
    #[arg(long, short, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
    /// The container's id
    pub(crate) id: String,
    /// Accepted: options of ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait for this process, that was started by exec
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<i32>,
    /// The container's id
    pub(crate) id: String,
}

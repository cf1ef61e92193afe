//! Flags of the commands of a container's life.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// A container.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The container's id
    pub(crate) id: String,
}

#[derive(Debug, Default, Args)]
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
pub(crate) struct Checkpoint {
    /// Directory of the image: it must not exist, or be empty
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    /// Let the container go on when it is saved
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// How pages are written: as they are they can be mapped, compressed they are read
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) compression: Compression,
    /// Another image: pages that it has are not written again, and it has to be there for a restore
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) accepted: AcceptedByCriu,
    /// The container's id
    pub(crate) id: String,
}

/// How pages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Lz4,
    Zstd,
}

/// Flags of runc and runsc without a meaning here.
#[derive(Debug, Args)]
pub(crate) struct AcceptedByCriu {
    /// Accepted: nothing else is written than the image
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Accepted: nothing else is written than the image
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) parent_path: Option<PathBuf>,
    /// Accepted: connections within the sandbox are always saved, others never
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Accepted: sockets of the sandbox are its own
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Accepted: terminals are given anew
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Accepted: locks are the sandbox's own
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Accepted: a guest has cgroups of its own
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// Accepted: a guest has namespaces of its own
    #[arg(long, value_name = "TYPE")]
    pub(crate) empty_ns: Vec<String>,
    /// Accepted
    #[arg(long, hide = true)]
    pub(crate) auto_dedup: bool,
    /// Accepted: pages are mapped
    #[arg(long)]
    pub(crate) direct: bool,
    /// Accepted: pages are mapped, and loaded as they are used
    #[arg(long)]
    pub(crate) background: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CloneContainer {
    /// How many: beyond one they are called NEWID-1, NEWID-2 and so on
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u32>,
    /// Another bundle than that of the container
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// The container's id
    pub(crate) id: String,
    /// The ids of the clones
    #[arg(required = true, value_name = "NEWID")]
    pub(crate) clones: Vec<String>,
}

/// What is asked of an image.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Say what is in an image, and whether it restores on this host, as JSON
    Inspect {
        /// Directory of the image
        directory: PathBuf,
    },
    /// Compare all checksums
    Verify {
        /// Directory of the image
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Directory of the image
    #[arg(long, value_name = "DIR", default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    #[command(flatten)]
    pub(crate) accepted: AcceptedByCriu,
    #[command(flatten)]
    pub(crate) run: Run,
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
    /// List again and again, until a signal ends it
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) watch: bool,
    /// With --watch: time between two looks
    #[arg(long, default_value = "2s", value_parser = super::resources::duration, value_name = "TIME")]
    pub(crate) interval: std::time::Duration,
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

//! Flags of `exec`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// File with the process as config.json has it
    #[arg(long, short, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Give it a terminal
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// uid, or uid:gid
    #[arg(long, short, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Supplementary groups
    #[arg(long, short = 'g', value_name = "GID", value_delimiter = ',')]
    pub(crate) additional_gids: Vec<u32>,
    /// Directory to start in
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Set a variable
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Give it a capability besides those of the container
    #[arg(long, short, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Leave it running
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// File for the pid of the host process that stands for it
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// File for its pid in the container
    #[arg(long, value_name = "FILE")]
    pub(crate) internal_pid_file: Option<PathBuf>,
    /// Socket that the master of its terminal is sent to
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Pass descriptors 3 to N + 2 on to it
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: usize,
    /// Pass descriptor M of the caller on as N, of which the first must be 3, the next 4 and so on
    #[arg(long, value_name = "M:N")]
    pub(crate) pass_fd: Vec<String>,
    /// execve(2) gives it no privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Accepted: guest code never runs with the host's files
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Accepted likewise
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// Refused: the processes of a sandbox share its cgroup
    #[arg(long, value_name = "CGROUP")]
    pub(crate) cgroup: Vec<String>,
    /// Start it in a paused container too, to run when that is resumed
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// The container's id
    pub(crate) id: String,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD",
        required_unless_present = "process"
    )]
    pub(crate) command: Vec<String>,
}

//! Flags of the commands around containers.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::lenient::truth;
use super::resources::duration;

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
    /// Write what the command does, one event after the other, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Say at the end which system calls it made, how long they took, and where the time went
    #[arg(long)]
    pub(crate) summary: bool,
    #[command(flatten)]
    pub(crate) profiles: ProfileFiles,
    /// Host directory to use as root
    #[arg(long = "root", id = "do_root", value_name = "DIR", default_value = "/")]
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
pub(crate) struct Spec {
    /// The bundle's directory
    #[arg(long, short, value_name = "DIR")]
    pub(crate) bundle: Option<PathBuf>,
    /// For an ordinary user
    #[arg(long)]
    pub(crate) rootless: bool,
    /// Directory to start in
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) cwd: String,
    /// Path of a network namespace to join
    #[arg(long, value_name = "FILE")]
    pub(crate) netns: Option<String>,
    /// The command and its arguments [default: sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Debug {
    /// Say what each thread and task of the sandbox does
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, value_name = "BOOL", value_parser = truth)]
    pub(crate) stacks: bool,
    /// List the container's processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, value_name = "BOOL", value_parser = truth)]
    pub(crate) ps: bool,
    /// Send the sandbox process itself a signal
    #[arg(long, value_name = "SIGNAL")]
    pub(crate) signal: Option<String>,
    #[command(flatten)]
    pub(crate) profiles: Profiles,
    /// With --strace: only this process of the container
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Option<i32>,
    /// Change what the sandbox logs: warning, info or debug
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// The container's id
    pub(crate) id: String,
}

/// What `debug` sees of a sandbox over a time, and where it goes.
#[derive(Debug, Args)]
pub(crate) struct Profiles {
    #[command(flatten)]
    pub(crate) files: ProfileFiles,
    /// Write what tasks do, one event after the other, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Write the packets of the sandbox's network, for tcpdump and Wireshark
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// How long to look
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// How long to wait before
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) delay: Duration,
}

/// Which profiles are made. The files are for pprof(1) and what reads its format.
#[derive(Debug, Args)]
pub(crate) struct ProfileFiles {
    /// Write where the sandbox spends CPU time
    #[arg(long, value_name = "FILE")]
    pub(crate) profile_cpu: Option<PathBuf>,
    /// Write what the sandbox process allocates, and what of it stays
    #[arg(long, value_name = "FILE")]
    pub(crate) profile_heap: Option<PathBuf>,
    /// Write what each task does at the end, or did last
    #[arg(long, value_name = "FILE")]
    pub(crate) profile_tasks: Option<PathBuf>,
    /// Write how long tasks wait, and for what
    #[arg(long, value_name = "FILE")]
    pub(crate) profile_block: Option<PathBuf>,
    /// Write how long threads of the sandbox process wait for locks
    #[arg(long, value_name = "FILE")]
    pub(crate) profile_mutex: Option<PathBuf>,
    /// Draw the profile that is asked for; that of CPU time if none is
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) flamegraph: Option<PathBuf>,
    /// A file with the symbols of moat, if they are not beside it
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory
    #[arg(default_value = ".")]
    pub(crate) directory: PathBuf,
}

/// A program that calls runtimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// Docker's daemon.json
    Docker,
    /// A file in containerd's conf.d, for CRI
    Containerd,
    /// A file in Podman's containers.conf.d
    Podman,
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) place: InstallPlace,
    /// Replace a runtime of that name
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, value_name = "BOOL", value_parser = truth)]
    pub(crate) clobber: bool,
    /// Flags with which Docker is to call moat [default: --overlay2=none --file-access=shared]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    pub(crate) flags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(crate) place: InstallPlace,
}

/// What `install` and `uninstall` change.
#[derive(Debug, Args)]
pub(crate) struct InstallPlace {
    /// Docker's configuration [default: ETC/docker/daemon.json]; given without --clients, the only one that is changed
    #[arg(long = "config_file", alias = "config-file", value_name = "FILE")]
    pub(crate) config_file: Option<PathBuf>,
    /// Whose configuration [default: Docker's, and that of the others where they are installed]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CLIENTS")]
    pub(crate) clients: Vec<Client>,
    /// The directory of the clients' configurations
    #[arg(long, value_name = "DIR", default_value = "/etc")]
    pub(crate) etc: PathBuf,
    /// The runtime's name
    #[arg(long, value_name = "NAME", default_value = "moat")]
    pub(crate) runtime: String,
    /// Only say what would be written or removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

//! Flags of `moat trace`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Trace {
    #[command(subcommand)]
    pub(crate) command: TraceCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Begin to tell a monitor what happens in a sandbox
    Create(TraceCreate),
    /// End a session
    Delete(TraceDelete),
    /// List the sessions of a sandbox, with what their sinks did not take
    List(TraceList),
    /// List all points with their fields, and the kinds of sinks
    Metadata,
}

#[derive(Debug, Args)]
pub(crate) struct TraceCreate {
    /// JSON that says which points and sinks: that of a session, or a file for --pod-init-config
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Delete a session of the same name first
    #[arg(long)]
    pub(crate) force: bool,
    /// The id of a container of the sandbox
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct TraceDelete {
    /// The session's name
    #[arg(long, value_name = "NAME", default_value = "Default")]
    pub(crate) name: String,
    /// The id of a container of the sandbox
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct TraceList {
    /// The id of a container of the sandbox
    pub(crate) id: String,
}

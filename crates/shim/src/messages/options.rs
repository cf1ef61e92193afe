//! What clients say of the runtime with a request: containerd/api/types/runc/options/oci.proto, and the options that containerd gives
//! runtimes whose own it does not know.

use prost::Message;

/// containerd.runc.v1.Options, as far as it means something here.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RuncOptions {
    #[prost(string, tag = "3")]
    pub(crate) shim_cgroup: String,
    /// Who owns the pipes that are a container's stdio.
    #[prost(uint32, tag = "4")]
    pub(crate) io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) io_gid: u32,
    #[prost(string, tag = "6")]
    pub(crate) binary_name: String,
    #[prost(string, tag = "7")]
    pub(crate) root: String,
    #[prost(bool, tag = "9")]
    pub(crate) systemd_cgroup: bool,
}

/// runtimeoptions.v1.Options.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct RuntimeOptions {
    /// A file with the options.
    #[prost(string, tag = "2")]
    pub(crate) config_path: String,
    /// The options themselves, if there is no file.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) config_body: Vec<u8>,
}

/// containerd.runc.v1.CheckpointOptions, as far as it means something here.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct CheckpointOptions {
    /// The container ends when it is saved.
    #[prost(bool, tag = "1")]
    pub(crate) exit: bool,
    #[prost(string, tag = "8")]
    pub(crate) image_path: String,
}

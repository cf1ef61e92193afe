//! ttrpc: containerd's calls over a Unix socket, of one message each way.
//!
//! Its PROTOCOL.md has the frames: [`frame`]. [`server`] answers calls, [`client`] makes them.

pub(crate) mod client;
mod frame;
pub(crate) mod server;

use std::fmt;

use prost::Message;

/// A call, as it is in a frame.
#[derive(Clone, PartialEq, Eq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

/// What comes back.
#[derive(Clone, PartialEq, Eq, Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

/// Why a call failed: google.rpc.Status.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

/// The codes of gRPC that clients of a shim tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown,
    InvalidArgument,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    Unimplemented,
}

impl Code {
    /// A failure of this kind.
    pub(crate) fn because(self, message: impl fmt::Display) -> Status {
        let code = match self {
            Code::Unknown => 2,
            Code::InvalidArgument => 3,
            Code::NotFound => 5,
            Code::AlreadyExists => 6,
            Code::FailedPrecondition => 9,
            Code::Unimplemented => 12,
        };
        Status { code, message: message.to_string() }
    }
}

/// The message of a payload.
pub(crate) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, Status> {
    M::decode(payload).map_err(|error| Code::InvalidArgument.because(error))
}

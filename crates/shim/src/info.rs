//! `-v` and `-info`: what the shim says of itself and of the runtime.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use prost::Message;

use crate::messages::Any;

/// The type of what `moat features` prints.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// containerd.types.RuntimeInfo.
#[derive(Clone, PartialEq, Message)]
struct RuntimeInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    version: Option<RuntimeVersion>,
    #[prost(message, optional, tag = "4")]
    features: Option<Any>,
}

/// containerd.types.RuntimeVersion.
#[derive(Clone, PartialEq, Eq, Message)]
struct RuntimeVersion {
    #[prost(string, tag = "1")]
    version: String,
}

/// Prints the version as text.
///
/// # Errors
/// Of writing.
pub(crate) fn print_version() -> io::Result<()> {
    writeln!(io::stdout(), "{}:\n  Version:  {}", crate::PROGRAM, env!("CARGO_PKG_VERSION"))
}

/// Prints what the runtime can do, as a message.
///
/// # Errors
/// Of writing; the runtime does not say.
pub(crate) fn print() -> io::Result<()> {
    let features = Command::new("/proc/self/exe").arg0("moat").arg("features").output()?;
    if !features.status.success() {
        return Err(io::Error::other(format!("moat features: {}", features.status)));
    }
    let info = RuntimeInfo {
        name: crate::RUNTIME.to_owned(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned() }),
        features: Some(Any { type_url: FEATURES.to_owned(), value: features.stdout }),
    };
    io::stdout().write_all(&info.encode_to_vec())
}

//! `delete`: cleans up after a shim that is not there any more.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::SystemTime;

use prost::Message;

use crate::arguments::Arguments;
use crate::children::Exit;
use crate::messages::DeleteResponse;
use crate::mounts;
use crate::runtime::Runtime;
use crate::service::life::INIT;
use crate::start::ADDRESS;

/// Removes what is left of a container, and prints how it ended, as a message.
///
/// # Errors
/// Something can't be removed.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let bundle = arguments.bundle.clone().unwrap_or_else(|| ".".into());
    if let Some(runtime) = Runtime::noted(&bundle) {
        let mut command = runtime.command();
        command.args(["delete", "--force", &arguments.id]).stderr(std::process::Stdio::inherit());
        let status = command.status()?;
        if !status.success() {
            return Err(io::Error::other(format!("moat delete {}: {status}", arguments.id)));
        }
    }
    mounts::unmount_all(&bundle.join("rootfs"))?;
    remove_socket(&bundle);
    let pid = fs::read_to_string(bundle.join(format!("{INIT}.pid"))).ok().and_then(|text| text.trim().parse().ok());
    let response = DeleteResponse {
        pid: pid.unwrap_or(0),
        exit_status: Exit::killed().status,
        exited_at: Some(SystemTime::now().into()),
    };
    let mut out = io::stdout().lock();
    out.write_all(&response.encode_to_vec())?;
    out.flush()
}

/// Removes the shim's socket, unless one listens on it: for other containers of the pod, or on a new one.
fn remove_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join(ADDRESS)) else { return };
    let Some(path) = address.trim().strip_prefix("unix://") else { return };
    if UnixStream::connect(path).is_err() {
        let _ = fs::remove_file(path);
    }
}

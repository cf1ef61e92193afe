//! `start`: finds or makes the shim that serves a container, and says where.
//!
//! Containers of a pod have one shim, so that they have one sandbox: containerd's annotation says which pod it is.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use moat_runtime::Config;
use moat_runtime::cgroup::{Base, Cgroup, CgroupPath};
use prost::Message;

use crate::arguments::Arguments;
use crate::log;
use crate::messages::Any;
use crate::runtime::Runtime;

/// Where sockets of shims are.
const SOCKETS: &str = "/run/containerd/s";

/// Annotations that name the group which a container belongs to: that of runc's shim, and the pod.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Bytes of the largest configuration and of the longest options that are read.
const MAX_BYTES: u64 = 32 << 20;

/// The bundle's file with the address of its shim.
pub(crate) const ADDRESS: &str = "address";

/// Prints the shim's address.
///
/// # Errors
/// It can't be started.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    let bundle = arguments.bundle.clone().unwrap_or_else(|| ".".into());
    let group = group(&bundle)?.unwrap_or_else(|| arguments.id.clone());
    let socket = Path::new(SOCKETS).join(format!("{:016x}", number_of(arguments, &group)));
    if let Some(listener) = listen(&socket)? {
        serve(arguments, &bundle, &socket, listener)?;
    }
    let address = format!("unix://{}", socket.display());
    // containerd finds the shim by it when it has been started anew.
    fs::write(bundle.join(ADDRESS), &address)?;
    let mut out = io::stdout().lock();
    out.write_all(address.as_bytes())?;
    out.flush()
}

/// The group that a container's configuration names.
fn group(bundle: &Path) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    fs::File::open(bundle.join("config.json"))?.take(MAX_BYTES).read_to_end(&mut text)?;
    let config: serde_json::Value = serde_json::from_slice(&text)?;
    let annotation = |name: &&str| config["annotations"][*name].as_str().map(str::to_owned);
    Ok(GROUPS.iter().find_map(annotation))
}

/// A number for a group of one containerd's namespace: FNV-1a, which is the same for each version of this program.
fn number_of(arguments: &Arguments, group: &str) -> u64 {
    let address = arguments.address.as_os_str().as_encoded_bytes();
    let parts = [address, b"\0", arguments.namespace.as_bytes(), b"\0", group.as_bytes()].concat();
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes the socket; `None` if a shim listens on it.
fn listen(socket: &Path) -> io::Result<Option<UnixListener>> {
    if let Some(parent) = socket.parent() {
        fs::create_dir_all(parent)?;
    }
    let listener = match UnixListener::bind(socket) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(socket).is_ok() {
                return Ok(None);
            }
            // Of a shim that was killed.
            fs::remove_file(socket)?;
            UnixListener::bind(socket)?
        }
        other => other?,
    };
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(Some(listener))
}

/// Starts the shim itself, which has the socket as its stdin.
fn serve(arguments: &Arguments, bundle: &Path, socket: &Path, listener: UnixListener) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(crate::PROGRAM).arg("-namespace").arg(&arguments.namespace).arg("-id").arg(&arguments.id);
    command.arg("-address").arg(&arguments.address).arg("-socket").arg(socket);
    // containerd waits until nobody has the other end of its pipe.
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.process_group(0).spawn()?;
    fs::write(bundle.join("shim.pid"), child.id().to_string())?;
    place(arguments, child.id());
    Ok(())
}

/// What else is to be done for the shim's process; without it the shim serves, too.
fn place(arguments: &Arguments, pid: u32) {
    // The host shall rather kill the shim than containerd.
    let score = |pid: u32| PathBuf::from(format!("/proc/{pid}/oom_score_adj"));
    let own = fs::read_to_string(score(std::process::id())).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(own) = own {
        let _ = fs::write(score(pid), own.saturating_add(1).min(1000).to_string());
    }
    let options = options().and_then(|any| Runtime::new(&arguments.namespace, Some(&any)).ok());
    let path = options.map(|runtime| runtime.shim_cgroup).filter(|path| !path.is_empty());
    if let Some(path) = path
        && let Err(error) = enter(&path, i32::try_from(pid).unwrap_or(0))
    {
        log::warning(format_args!("the shim's cgroup {path}: {error}"));
    }
}

/// Puts a process into a cgroup that is there.
fn enter(path: &str, pid: i32) -> moat_runtime::Result<()> {
    let path = CgroupPath::Cgroupfs { path: path.trim_start_matches('/').into(), base: Base::Root };
    match Cgroup::plan(&path, &Config::default(), None)? {
        Some(cgroup) => cgroup.adopt(pid),
        None => Ok(()),
    }
}

/// The options of the runtime, which come on stdin.
fn options() -> Option<Any> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return None;
    }
    let mut bytes = Vec::new();
    stdin.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Any::decode(bytes.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_a_pod_have_one_socket() {
        let arguments = Arguments { namespace: "k8s.io".into(), address: "/run/c".into(), ..Arguments::default() };
        let number = number_of(&arguments, "pod");
        assert_eq!(number, number_of(&Arguments { id: "x".into(), ..arguments.clone() }, "pod"));
        assert_ne!(number, number_of(&arguments, "other"));
        assert_ne!(number, number_of(&Arguments { namespace: "moby".into(), ..arguments.clone() }, "pod"));
    }

    #[test]
    fn a_group_is_an_annotation() {
        let bundle = std::env::temp_dir().join(format!("moat-shim-group-{}", std::process::id()));
        fs::create_dir_all(&bundle).unwrap();
        let with = |text: &str| {
            fs::write(bundle.join("config.json"), text).unwrap();
            group(&bundle).unwrap()
        };
        assert_eq!(with("{}"), None);
        assert_eq!(with(r#"{"annotations": {"io.kubernetes.cri.sandbox-id": "p"}}"#).as_deref(), Some("p"));
        fs::remove_dir_all(bundle).unwrap();
    }

    #[test]
    fn a_socket_without_a_listener_is_made_anew() {
        let socket = std::env::temp_dir().join(format!("moat-shim-socket-{}", std::process::id()));
        let listener = listen(&socket).unwrap();
        assert!(listener.is_some() && listen(&socket).unwrap().is_none());
        drop(listener);
        assert!(listen(&socket).unwrap().is_some());
        fs::remove_file(socket).unwrap();
    }
}

//! [`Runtime`]: moat's commands, run as a client's options say.
//!
//! What changes containers is done by commands, as runc's shim does it: a sandbox is started by a process with one thread, flags and
//! annotations are read in one place, and what a command leaves behind is the shim's to reap. What only asks is asked directly.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use moat_runtime::{Container, Error, Store};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::children::Children;
use crate::log;
use crate::messages::{Any, RuncOptions, RuntimeOptions};
use crate::ttrpc::{Code, Status};

/// Where the state of containers is, in a directory for each of containerd's namespaces.
const ROOT: &str = "/run/containerd/moat";

/// Where a bundle's runtime is noted, for those who clean up after a shim that was killed.
const NOTE: &str = "moat-shim.json";

/// How to run moat for a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runtime {
    /// Another program than this one.
    program: Option<PathBuf>,
    /// Where the state of containers is.
    root: PathBuf,
    systemd_cgroup: bool,
    /// Another configuration than /etc/moat/config.toml.
    configuration: Option<PathBuf>,
    /// Who owns the pipes of its containers' stdio.
    pub(crate) io_uid: u32,
    pub(crate) io_gid: u32,
    /// The cgroup that the shim itself is to be in.
    #[serde(skip)]
    pub(crate) shim_cgroup: String,
}

/// The keys of an options table, as they are for runc.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Table {
    binary_name: String,
    root: String,
    systemd_cgroup: bool,
    shim_cgroup: String,
    io_uid: u32,
    io_gid: u32,
}

impl Runtime {
    /// As the options of a request say, in one of containerd's namespaces.
    pub(crate) fn new(namespace: &str, options: Option<&Any>) -> Result<Self, Status> {
        let mut configuration = None;
        let table = match options.map(|any| (any.name(), any.value.as_slice())) {
            None | Some(("", _)) => Table::default(),
            Some(("containerd.runc.v1.Options", value)) => {
                let options = RuncOptions::decode(value).map_err(|error| Code::InvalidArgument.because(error))?;
                let RuncOptions { shim_cgroup, io_uid, io_gid, binary_name, root, systemd_cgroup } = options;
                Table { binary_name, root, systemd_cgroup, shim_cgroup, io_uid, io_gid }
            }
            Some((name, value)) if name.ends_with("runtimeoptions.v1.Options") => {
                let options = RuntimeOptions::decode(value).map_err(|error| Code::InvalidArgument.because(error))?;
                configuration = Some(options.config_path).filter(|path| !path.is_empty()).map(PathBuf::from);
                let text = String::from_utf8_lossy(&options.config_body);
                toml::from_str(&text).map_err(|error| Code::InvalidArgument.because(error))?
            }
            Some((name, _)) => {
                return Err(Code::InvalidArgument.because(format_args!("unknown options of a runtime: {name}")));
            }
        };
        let root = if table.root.is_empty() { ROOT.into() } else { PathBuf::from(table.root) };
        Ok(Runtime {
            program: Some(table.binary_name).filter(|name| !name.is_empty()).map(PathBuf::from),
            root: root.join(namespace),
            systemd_cgroup: table.systemd_cgroup,
            configuration,
            io_uid: table.io_uid,
            io_gid: table.io_gid,
            shim_cgroup: table.shim_cgroup,
        })
    }

    /// Notes it in the bundle.
    ///
    /// # Errors
    /// Of writing.
    pub(crate) fn note(&self, bundle: &Path) -> io::Result<()> {
        fs::write(bundle.join(NOTE), serde_json::to_vec(self)?)
    }

    /// What was noted in a bundle; without a note none of its containers was ever made.
    pub(crate) fn noted(bundle: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(bundle.join(NOTE)).ok()?).ok()
    }

    /// The program with the flags that all its commands have.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.program {
            Some(program) => Command::new(program),
            // Even if the file has been replaced since.
            None => {
                let mut command = Command::new("/proc/self/exe");
                command.arg0("moat");
                command
            }
        };
        if let Some(path) = &self.configuration {
            command.env("MOAT_CONFIG", path);
        }
        command.arg("--root").arg(&self.root);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command to its end, whose log is written into the file `log`; `what` is said of it if it fails.
    pub(crate) fn run(
        &self,
        children: &Children,
        log: &Path,
        what: &str,
        add: impl FnOnce(&mut Command),
    ) -> Result<(), Status> {
        let mut command = self.command();
        command.arg("--log").arg(log).args(["--log-format", "json"]);
        add(&mut command);
        let running = children.start(command);
        let running = running.map_err(|error| Code::Unknown.because(format_args!("{what}: {error}")))?;
        let exit = children.wait(&running);
        let last = last_error(log);
        let _ = fs::remove_file(log);
        if exit.status == 0 {
            return Ok(());
        }
        let why = last.unwrap_or_else(|| format!("exit status {}", exit.status));
        Err(Code::Unknown.because(format_args!("{what}: {why}")))
    }

    /// A container as it is.
    pub(crate) fn container(&self, id: &str) -> Result<Container, Status> {
        let id = id.parse().map_err(status)?;
        Container::load(&Store::new(self.root.clone()), &id).map_err(status)
    }
}

/// What an error of the runtime is for a client.
pub(crate) fn status(error: Error) -> Status {
    match &error {
        Error::NoContainer(_) => Code::NotFound.because(error),
        // In runc's shim's words, which clients compare.
        Error::State(text) if text == "container not running" => Code::NotFound.because("process already finished"),
        Error::State(_) => Code::FailedPrecondition.because(error),
        Error::Invalid(_) => Code::InvalidArgument.because(error),
        _ => Code::Unknown.because(error),
    }
}

/// The message of the last error in a log; what else is there becomes part of the shim's own.
fn last_error(path: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = fs::read_to_string(path).ok()?;
    let mut last = None;
    for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        match line.level.as_str() {
            "error" => last = Some(line.msg),
            "warning" => log::warning(format_args!("{}", line.msg)),
            _ => {}
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_both_kinds() {
        let runc = RuncOptions { root: "/r".into(), systemd_cgroup: true, ..RuncOptions::default() };
        let any = Any { type_url: "containerd.runc.v1.Options".into(), value: runc.encode_to_vec() };
        let runtime = Runtime::new("ns", Some(&any)).unwrap();
        assert_eq!((runtime.root.as_path(), runtime.systemd_cgroup), (Path::new("/r/ns"), true));
        let body = b"BinaryName = \"/bin/x\"\nSystemdCgroup = true\nOther = 1\n".to_vec();
        let other = RuntimeOptions { config_path: "/c.toml".into(), config_body: body };
        for prefix in ["", "type.googleapis.com/", "cri."] {
            let any = Any { type_url: format!("{prefix}runtimeoptions.v1.Options"), value: other.encode_to_vec() };
            let runtime = Runtime::new("ns", Some(&any)).unwrap();
            assert_eq!(runtime.program.as_deref(), Some(Path::new("/bin/x")));
            assert_eq!((runtime.root, runtime.systemd_cgroup), (Path::new(ROOT).join("ns"), true));
            assert_eq!(runtime.configuration.as_deref(), Some(Path::new("/c.toml")));
        }
        assert!(Runtime::new("ns", None).is_ok());
        assert!(Runtime::new("ns", Some(&Any { type_url: "x.Options".into(), value: Vec::new() })).is_err());
    }

    #[test]
    fn the_last_error_of_a_log_counts() {
        let path = std::env::temp_dir().join(format!("moat-shim-log-{}", std::process::id()));
        let text = "{\"level\":\"error\",\"msg\":\"first\"}\nnot json\n{\"level\":\"error\",\"msg\":\"last\",\"time\":\"x\"}\n\
                    {\"level\":\"debug\",\"msg\":\"more\"}\n";
        fs::write(&path, text).unwrap();
        assert_eq!(last_error(&path).as_deref(), Some("last"));
        fs::remove_file(&path).unwrap();
        assert_eq!(last_error(&path), None);
    }
}

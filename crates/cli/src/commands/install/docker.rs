//! What Docker is told of the runtime.
//!
//! Since version 23 it takes a shim of containerd's (`runtimeType`): moat's own knows the guest's processes from the host's, which runc's,
//! that Docker uses for every program that it is given a path of, does not.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What Docker expects of a runtime: what a container writes is in its root file system on the host, where docker cp and
/// docker diff look, and is there after a restart; and what docker cp writes is seen in the container. Said in case the
/// defaults are others one day.
const FLAGS: [&str; 2] = ["--overlay2=none", "--file-access=shared"];

/// The first version that takes a shim.
const WITH_SHIMS: u32 = 23;

/// The runtime's entry in daemon.json. Flags reach a program that Docker calls through runc's shim only.
pub(super) fn entry(program: &Path, flags: &[String], version: Option<u32>) -> Value {
    if flags.is_empty() && version.is_some_and(|version| version >= WITH_SHIMS) {
        return json!({ "runtimeType": program });
    }
    let flags = if flags.is_empty() { json!(FLAGS) } else { json!(flags) };
    json!({ "path": program, "runtimeArgs": flags })
}

/// The version of the Docker daemon in PATH, if there is one.
pub(super) fn version() -> Option<u32> {
    let mut command = Command::new("dockerd");
    let said = command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    number(&String::from_utf8_lossy(&said.stdout))
}

/// The first number of `Docker version 26.1.5+dfsg1, build 411e817`.
fn number(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_how_it_is_called() {
        let program = Path::new("/usr/bin/moat");
        let by_path = json!({ "path": program, "runtimeArgs": FLAGS });
        for old in [None, Some(20), Some(22)] {
            assert_eq!(entry(program, &[], old), by_path, "{old:?}");
        }
        assert_eq!(entry(program, &[], Some(23)), json!({ "runtimeType": program }));
        let flags = ["--debug".to_owned()];
        assert_eq!(entry(program, &flags, Some(26)), json!({ "path": program, "runtimeArgs": flags }));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(number("Docker version 26.1.5+dfsg1, build 411e817\n"), Some(26));
        assert_eq!(number("Docker version 20.10.24+dfsg1, build 297e128"), Some(20));
        for other in ["", "podman 4.3.1", "version ", "Docker version next"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}

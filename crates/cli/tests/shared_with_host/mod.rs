//! What the tests of nodes that guests share with the host have in common: a directory of their own, and python3 on both sides.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A directory, removed with the value.
pub struct Directory(pub PathBuf);

impl Directory {
    /// A new one, whose name says whose it is.
    pub fn new(name: &str) -> Directory {
        let dir = Directory(std::env::temp_dir().join(format!("moat-{name}-{}", std::process::id())));
        fs::create_dir_all(&dir.0).unwrap();
        dir
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the test's user may make containers that have python3; says so if not.
pub fn can_run() -> bool {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    let can = rustix::process::geteuid().is_root() && python.is_ok_and(|status| status.success());
    if !can {
        eprintln!("skipped: takes root and python3");
    }
    can
}

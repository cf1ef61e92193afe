//! Pid files.

use std::fs;
use std::path::Path;

use crate::Error;
use crate::error::{Context, Result};

/// Writes a pid file, which is there as a whole or not at all: clients wait for it to appear.
pub(super) fn write(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().ok_or_else(|| Error::Invalid(format!("pid file {} has no name", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    // In the same directory: rename(2) replaces a file at once only within a file system.
    let new = path.with_file_name(hidden);
    fs::write(&new, pid.to_string())
        .and_then(|()| fs::rename(&new, path))
        .context(|| format!("writing the pid file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("moat-pid-{}", std::process::id()));
        write(&path, 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
        fs::remove_file(&path).unwrap();
        assert!(write(Path::new("/"), 1).is_err());
    }
}

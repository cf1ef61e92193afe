//! `moat install` and `moat uninstall`: Docker's daemon.json.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::args::{Install, Uninstall};

/// What Docker expects of a runtime: what a container writes is in its root file system on the host, where docker cp and
/// docker diff look, and is there after a restart, which is said in case the default is another one day; and what docker cp
/// writes is seen in the container.
const DOCKER_FLAGS: [&str; 2] = ["--overlay2=none", "--file-access=shared"];

pub(super) fn install(flags: &Install) -> anyhow::Result<u8> {
    let program = std::env::current_exe().context("finding this program")?;
    edit(&flags.config_file, |runtimes| {
        if !flags.clobber && runtimes.contains_key(&flags.runtime) {
            bail!("there is a runtime {:?} already, and --clobber is false", flags.runtime);
        }
        let arguments = if flags.flags.is_empty() { json!(DOCKER_FLAGS) } else { json!(flags.flags) };
        runtimes.insert(flags.runtime.clone(), json!({ "path": program, "runtimeArgs": arguments }));
        Ok(())
    })?;
    super::print(&format!("Added runtime {:?} to {}.\n", flags.runtime, flags.config_file.display()))?;
    Ok(0)
}

pub(super) fn uninstall(flags: &Uninstall) -> anyhow::Result<u8> {
    edit(&flags.config_file, |runtimes| match runtimes.remove(&flags.runtime) {
        Some(_) => Ok(()),
        None => bail!("there is no runtime {:?}", flags.runtime),
    })?;
    super::print(&format!("Removed runtime {:?} from {}.\n", flags.runtime, flags.config_file.display()))?;
    Ok(0)
}

/// Changes the runtimes in the file; everything else in it stays as it is.
fn edit(path: &Path, change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("reading {shown}"))?,
    };
    let changed = changed(&text, change).with_context(|| shown.to_string())?;
    write(path, &changed).with_context(|| format!("writing {shown}"))
}

fn changed(text: &str, change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut config: Value = if text.trim().is_empty() { json!({}) } else { serde_json::from_str(text)? };
    let Some(top) = config.as_object_mut() else { bail!("it is not an object") };
    let runtimes = top.entry("runtimes").or_insert_with(|| json!({}));
    let Some(runtimes) = runtimes.as_object_mut() else { bail!("\"runtimes\" is not an object") };
    change(runtimes)?;
    if runtimes.is_empty() {
        top.remove("runtimes");
    }
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}

/// All of it or nothing; a link to the file stays one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = fs::metadata(&path).map_or(0o644, |metadata| metadata.permissions().mode() & 0o7777);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".moat-{}", std::process::id()));
    let new = path.with_file_name(name);
    let result = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(text: &str) -> anyhow::Result<String> {
        changed(text, |runtimes| {
            runtimes.insert("moat".into(), json!({ "path": "/bin/moat" }));
            Ok(())
        })
    }

    #[test]
    fn other_content_stays() {
        let before = r#"{"debug": true, "runtimes": {"x": {"path": "/x"}}, "a": [1, 2.5]}"#;
        let after: Value = serde_json::from_str(&add(before).unwrap()).unwrap();
        let expected =
            json!({"debug": true, "runtimes": {"x": {"path": "/x"}, "moat": {"path": "/bin/moat"}}, "a": [1, 2.5]});
        assert_eq!(after, expected);
        let empty: Value = serde_json::from_str(&add("\n").unwrap()).unwrap();
        assert_eq!(empty, json!({"runtimes": {"moat": {"path": "/bin/moat"}}}));
    }

    #[test]
    fn what_is_no_configuration_is_left_alone() {
        for bad in ["[]", "{", r#"{"runtimes": 1}"#] {
            assert!(add(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_replaced_and_links_followed() {
        let dir = std::env::temp_dir().join(format!("moat-install-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (file, link) = (dir.join("real.json"), dir.join("daemon.json"));
        fs::write(&file, "{}").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, "{\"a\":1}").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{\"a\":1}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        fs::remove_dir_all(&dir).unwrap();
    }
}

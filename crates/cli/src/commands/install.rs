//! `moat install` and `moat uninstall`: Docker's daemon.json, and files of containerd's and Podman's.

mod docker;
mod drop_in;
mod link;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::args::{Client, Install, InstallPlace, Uninstall};
use drop_in::DropIn;

pub(super) fn install(flags: &Install) -> anyhow::Result<u8> {
    let program = std::env::current_exe().context("finding this program")?;
    let place = &flags.place;
    for client in clients(place) {
        let said = match DropIn::of(client, &place.etc, &place.runtime, &program) {
            Some(drop_in) => drop_in.install(place.dry_run)?,
            None => install_docker(flags, &program)?,
        };
        super::print(&said)?;
    }
    Ok(0)
}

fn install_docker(flags: &Install, program: &Path) -> anyhow::Result<String> {
    let runtime = &flags.place.runtime;
    let entry = docker::entry(program, &flags.flags, docker::version());
    let (file, added) = (docker_file(&flags.place), entry.clone());
    if !flags.place.dry_run {
        keep(&file, runtime)?;
    }
    edit(&file, flags.place.dry_run, |runtimes| {
        // It may be another installation that containers depend on.
        if !flags.clobber && runtimes.contains_key(runtime) {
            bail!("there is a runtime {runtime:?} already, and --clobber is false");
        }
        runtimes.insert(runtime.clone(), added);
        Ok(())
    })?;
    Ok(match flags.place.dry_run {
        true => format!("Would add runtime {runtime:?} to {}: {entry}\n", file.display()),
        false => format!("Added runtime {runtime:?} to {}.\n", file.display()),
    })
}

pub(super) fn uninstall(flags: &Uninstall) -> anyhow::Result<u8> {
    let place = &flags.place;
    let mut removed = false;
    // Without a name all are looked through: a client may be gone, and its file still there.
    for client in if place.clients.is_empty() && place.config_file.is_none() { ALL.to_vec() } else { clients(place) } {
        let said = match DropIn::of(client, &place.etc, &place.runtime, Path::new("/")) {
            Some(drop_in) => drop_in.uninstall(place.dry_run)?,
            None => uninstall_docker(place)?,
        };
        removed |= said.is_some();
        super::print(&said.unwrap_or_default())?;
    }
    // Scripts are to notice a wrong name.
    if !removed {
        bail!("there is no runtime {:?}", place.runtime);
    }
    Ok(0)
}

/// `None` if Docker has no such runtime.
fn uninstall_docker(place: &InstallPlace) -> anyhow::Result<Option<String>> {
    let (file, runtime) = (docker_file(place), &place.runtime);
    let mut found = false;
    let has = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|v| v["runtimes"].get(runtime).is_some());
    // A file without it is not written anew.
    if fs::read_to_string(&file).is_ok_and(|text| !has(&text)) || !file.exists() {
        return Ok(None);
    }
    edit(&file, place.dry_run, |runtimes| {
        found = runtimes.remove(runtime).is_some();
        Ok(())
    })?;
    if !place.dry_run {
        put_back(&file, runtime)?;
    }
    let done = if place.dry_run { "Would remove" } else { "Removed" };
    Ok(found.then(|| format!("{done} runtime {runtime:?} from {}.\n", file.display())))
}

/// Where a configuration is kept as it was, with its spaces and order.
fn kept(file: &Path, runtime: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".without-{runtime}"));
    file.with_file_name(name)
}

/// Kept where there was not even a directory for the configuration.
const NO_DIRECTORY: &str = "null";

/// Keeps a configuration that has no such runtime yet; an empty text stands for none, [`NO_DIRECTORY`] for no directory either.
fn keep(file: &Path, runtime: &str) -> anyhow::Result<()> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if file.parent().is_some_and(Path::exists) { "" } else { NO_DIRECTORY }.into()
        }
        other => other.with_context(|| format!("reading {}", file.display()))?,
    };
    // What can't be read is refused by the edit that follows.
    let config: Option<Value> = serde_json::from_str(&text).ok();
    // A second installation: what is kept is from before the first.
    if config.is_some_and(|config| config["runtimes"].get(runtime).is_some()) {
        return Ok(());
    }
    let place = kept(file, runtime);
    // What is secret in the one is in the other.
    write_as(&place, &text, mode_of(file)).with_context(|| format!("writing {}", place.display()))
}

/// Puts a configuration back as it was kept, if nobody has changed it since but for the runtime.
fn put_back(file: &Path, runtime: &str) -> anyhow::Result<()> {
    let place = kept(file, runtime);
    // Nothing is kept of what an older moat has installed; then the edit is all.
    let Ok(before) = fs::read_to_string(&place) else { return Ok(()) };
    let now: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let is_same = |text: &str| match text.trim() {
        "" | NO_DIRECTORY => now == json!({}),
        text => serde_json::from_str::<Value>(text).is_ok_and(|before| before == now),
    };
    // Else somebody has added settings, which stay, written anew.
    let (same, made_directory) = (is_same(&before), before == NO_DIRECTORY);
    if same {
        if before.is_empty() || made_directory { fs::remove_file(file)? } else { write(file, &before)? }
    }
    fs::remove_file(&place).with_context(|| format!("removing {}", place.display()))?;
    if let (true, Some(directory)) = (same && made_directory, file.parent()) {
        // Somebody may have put a file of theirs beside it.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

const ALL: [Client; 3] = [Client::Docker, Client::Containerd, Client::Podman];

/// Those that were named; else Docker, and the others if their directories are there.
fn clients(place: &InstallPlace) -> Vec<Client> {
    if !place.clients.is_empty() {
        return place.clients.clone();
    }
    // The flag is runsc's, which knows Docker alone.
    if place.config_file.is_some() {
        return vec![Client::Docker];
    }
    let is_there = |client: &Client| match client {
        // Its file is made if there is none; a directory of the others would be there without its client.
        Client::Docker => true,
        Client::Containerd => place.etc.join("containerd").is_dir(),
        Client::Podman => place.etc.join("containers").is_dir(),
    };
    ALL.into_iter().filter(is_there).collect()
}

fn docker_file(place: &InstallPlace) -> PathBuf {
    place.config_file.clone().unwrap_or_else(|| place.etc.join("docker/daemon.json"))
}

/// Changes the runtimes in the file; everything else in it stays as it is.
fn edit(
    path: &Path,
    dry_run: bool,
    change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let shown = path.display();
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("reading {shown}"))?,
    };
    let changed = changed(&text, change).with_context(|| shown.to_string())?;
    // Worked out in any case, so that a file that can't be changed is said by a dry run too.
    if dry_run { Ok(()) } else { write(path, &changed).with_context(|| format!("writing {shown}")) }
}

fn changed(text: &str, change: impl FnOnce(&mut Map<String, Value>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    // An empty file, or none, has no settings yet.
    let mut config: Value = if text.trim().is_empty() { json!({}) } else { serde_json::from_str(text)? };
    let Some(top) = config.as_object_mut() else { bail!("it is not an object") };
    let runtimes = top.entry("runtimes").or_insert_with(|| json!({}));
    let Some(runtimes) = runtimes.as_object_mut() else { bail!("\"runtimes\" is not an object") };
    change(runtimes)?;
    // As it was before the first runtime was added.
    if runtimes.is_empty() {
        top.remove("runtimes");
    }
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}

fn mode_of(file: &Path) -> u32 {
    fs::metadata(file).map_or(0o644, |metadata| metadata.permissions().mode() & 0o7777)
}

/// All of it or nothing; a link to the file stays one. It may have secrets in it: its mode stays.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    write_as(path, text, mode_of(path))
}

fn write_as(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".moat-{}", std::process::id()));
    let new = path.with_file_name(name);
    let result = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // open(2) has taken the umask off.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        // On the disk before the rename: a crash leaves the old file or the new one.
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
    fn what_is_installed_is_taken_back() {
        let etc = std::env::temp_dir().join(format!("moat-etc-{}", std::process::id()));
        fs::create_dir_all(etc.join("containers")).unwrap();
        fs::create_dir_all(etc.join("containerd")).unwrap();
        fs::create_dir_all(etc.join("docker")).unwrap();
        let docker = "{ \"debug\": true,\n\t\"bip\": \"10.0.0.1/8\" }\n";
        fs::write(etc.join("docker/daemon.json"), docker).unwrap();
        let place = |dry_run| InstallPlace {
            config_file: None,
            clients: Vec::new(),
            etc: etc.clone(),
            runtime: "moat".into(),
            dry_run,
        };
        let install = |dry_run| Install { place: place(dry_run), clobber: true, flags: Vec::new() };
        let count = |client: &str| fs::read_dir(etc.join(client)).unwrap().count();
        super::install(&install(true)).unwrap();
        assert_eq!((count("containerd"), count("docker")), (0, 1));
        super::install(&install(false)).unwrap();
        super::install(&install(false)).unwrap();
        let containerd: toml::Table =
            fs::read_to_string(etc.join("containerd/conf.d/moat.toml")).unwrap().parse().unwrap();
        let runtime = &containerd["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["moat"];
        assert_eq!(runtime["runtime_type"].as_str(), Some("io.containerd.moat.v1"));
        // The link is made once, and taken back.
        let link = std::env::current_exe().unwrap().with_file_name(moat_shim::PROGRAM);
        assert_eq!(runtime["runtime_path"].as_str(), link.to_str());
        assert_eq!(fs::canonicalize(&link).unwrap(), fs::canonicalize(std::env::current_exe().unwrap()).unwrap());
        let podman = etc.join("containers/containers.conf.d/moat.conf");
        let text = fs::read_to_string(&podman).unwrap();
        assert_eq!(text.matches("The directory").count(), 1);
        assert!(text.parse::<toml::Table>().unwrap()["engine"]["runtimes"]["moat"].is_array());
        // What somebody has added is not taken away.
        fs::write(&podman, format!("{text}other = [\"/x\"]\n[engine]\n")).unwrap();
        assert!(uninstall(&Uninstall { place: place(false) }).is_err());
        fs::write(&podman, text).unwrap();
        let _ = uninstall(&Uninstall { place: place(false) });
        assert_eq!((count("containerd"), count("containers"), count("docker")), (0, 0, 1));
        assert!(fs::symlink_metadata(&link).is_err());
        assert_eq!(fs::read_to_string(etc.join("docker/daemon.json")).unwrap(), docker);
        assert!(uninstall(&Uninstall { place: place(false) }).is_err());
        // Where there was no configuration there is none; where somebody has changed it that stays.
        fs::remove_file(etc.join("docker/daemon.json")).unwrap();
        super::install(&install(false)).unwrap();
        uninstall(&Uninstall { place: place(false) }).unwrap();
        assert_eq!(count("docker"), 0);
        fs::remove_dir(etc.join("docker")).unwrap();
        super::install(&install(false)).unwrap();
        super::install(&install(false)).unwrap();
        uninstall(&Uninstall { place: place(false) }).unwrap();
        assert!(!etc.join("docker").exists());
        super::install(&install(false)).unwrap();
        fs::write(etc.join("docker/other"), "").unwrap();
        uninstall(&Uninstall { place: place(false) }).unwrap();
        assert_eq!(count("docker"), 1);
        fs::remove_file(etc.join("docker/other")).unwrap();
        super::install(&install(false)).unwrap();
        edit(&etc.join("docker/daemon.json"), false, |runtimes| {
            runtimes.insert("other".into(), json!({}));
            Ok(())
        })
        .unwrap();
        uninstall(&Uninstall { place: place(false) }).unwrap();
        assert_eq!(count("docker"), 1);
        assert!(fs::read_to_string(etc.join("docker/daemon.json")).unwrap().contains("other"));
        fs::remove_dir_all(&etc).unwrap();
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

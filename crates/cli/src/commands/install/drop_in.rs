//! Files that containerd and Podman read besides their configuration.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::link::Link;
use crate::args::Client;

/// The first line of each; `moat uninstall` removes no other file.
const MARK: &str = "# Written by moat install. moat uninstall removes it.\n";

/// A last line of one whose directory was not there.
const ALONE: &str = "# The directory was made for it.\n";

/// A file to write or to remove.
pub(super) struct DropIn {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// What the user has to see to.
    pub(super) note: Option<String>,
    /// The name of this program that it needs.
    pub(super) link: Option<Link>,
}

impl DropIn {
    /// That of a client; `None` for Docker, which has no such files.
    pub(super) fn of(client: Client, etc: &Path, runtime: &str, program: &Path) -> Option<DropIn> {
        let name = quoted(runtime);
        match client {
            Client::Docker => None,
            Client::Containerd => {
                // Its CRI plugin's, for Kubernetes; ctr(1) and nerdctl(1) name a runtime by its program.
                let table = format!("[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.{name}");
                let link = Link::beside(program);
                let text = format!(
                    "{MARK}version = 2\n\n{table}]\nruntime_type = {}\nruntime_path = {}\n\
                     pod_annotations = [\"dev.moat.*\"]\ncontainer_annotations = [\"dev.moat.*\"]\n",
                    quoted(moat_shim::RUNTIME),
                    quoted(&link.path.to_string_lossy()),
                );
                let main = etc.join("containerd/config.toml");
                let directory = etc.join("containerd/conf.d");
                let note = (!imports(&main)).then(|| {
                    format!(
                        "containerd reads it only if {} has: imports = [\"{}/*.toml\"]",
                        main.display(),
                        directory.display()
                    )
                });
                Some(DropIn { path: directory.join(format!("{runtime}.toml")), text, note, link: Some(link) })
            }
            Client::Podman => {
                let text = format!("{MARK}[engine.runtimes]\n{name} = [{}]\n", quoted(&program.to_string_lossy()));
                let path = etc.join(format!("containers/containers.conf.d/{runtime}.conf"));
                Some(DropIn { path, text, note: None, link: None })
            }
        }
    }

    /// Writes it, or says what would be written.
    ///
    /// # Errors
    /// A file of that name that somebody else has made.
    pub(super) fn install(&self, dry_run: bool) -> anyhow::Result<String> {
        let shown = self.path.display();
        // Looked at before a dry run as well, which says what would happen.
        let before = self.present()?;
        if before.as_ref().is_some_and(|text| !text.starts_with(MARK)) {
            bail!("{shown} is there already, and moat has not written it");
        }
        let note = self.note.as_ref().map_or(String::new(), |note| format!("{note}\n"));
        let (linked, linking) = match &self.link {
            Some(link) => link.plan(before.as_deref())?,
            None => Default::default(),
        };
        if dry_run {
            let linking = linking.map_or(String::new(), |link| format!("Would make {link}.\n"));
            return Ok(format!("{linking}Would write {shown}:\n{}{linked}{note}", self.text));
        }
        let made = if self.has_directory() { "" } else { ALONE };
        // First what says that the link is ours.
        super::write(&self.path, &format!("{}{linked}{made}", self.text))
            .with_context(|| format!("writing {shown}"))?;
        let linking = match (&self.link, linking) {
            (Some(link), Some(shown)) => {
                link.make()?;
                format!("Made {shown}.\n")
            }
            _ => String::new(),
        };
        Ok(format!("{linking}Wrote {shown}.\n{note}"))
    }

    /// Removes it; `None` if it is not there.
    ///
    /// # Errors
    /// It was changed since, or somebody else has made it.
    pub(super) fn uninstall(&self, dry_run: bool) -> anyhow::Result<Option<String>> {
        let shown = self.path.display();
        let Some(text) = self.present()? else { return Ok(None) };
        // The program may have been another one, or an older one with another shim.
        let without_program = |text: &str| -> Vec<String> {
            text.trim_end_matches(ALONE).lines().filter(|line| !is_about_program(line)).map(str::to_owned).collect()
        };
        // Somebody has added to it: what they wrote is not for us to delete.
        if without_program(&text) != without_program(&self.text) {
            bail!("{shown} is not as moat has written it; it is left there");
        }
        let link = Link::noted(&text);
        if dry_run {
            let link = link.map_or(String::new(), |link| format!("Would remove {}.\n", link.path.display()));
            return Ok(Some(format!("{link}Would remove {shown}.\n")));
        }
        let link = link.map(|link| link.remove()).transpose()?.unwrap_or_default();
        fs::remove_file(&self.path).with_context(|| format!("removing {shown}"))?;
        if text.ends_with(ALONE) {
            // Others may have put files there since.
            let _ = self.path.parent().map(fs::remove_dir);
        }
        Ok(Some(format!("{link}Removed {shown}.\n")))
    }

    /// Whether somebody else has made its directory.
    fn has_directory(&self) -> bool {
        let is_there = self.path.parent().is_some_and(Path::is_dir);
        // A second installation finds what the first has made.
        let is_ours = self.present().is_ok_and(|text| text.is_some_and(|text| text.ends_with(ALONE)));
        is_there && !is_ours
    }

    fn present(&self) -> anyhow::Result<Option<String>> {
        match fs::read_to_string(&self.path) {
            // A client that is not installed may lack the directories as well.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            other => other.map(Some).with_context(|| format!("reading {}", self.path.display())),
        }
    }
}

/// Whether a line depends on where the program is, or on which shim was used.
fn is_about_program(line: &str) -> bool {
    let starts = ["runtime_type", "runtime_path", "BinaryName", super::link::NOTE];
    starts.iter().any(|start| line.starts_with(start))
        || line.contains(" = [\"/")
        || line.is_empty()
        || line.ends_with(".options]")
}

/// Whether containerd's configuration imports the directory; without a configuration it does from version 2 on.
fn imports(main: &Path) -> bool {
    let text = fs::read_to_string(main).unwrap_or_default();
    text.lines().any(|line| line.trim_start().starts_with("imports") && line.contains("conf.d/*.toml"))
}

/// A string of TOML, which is written as one of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

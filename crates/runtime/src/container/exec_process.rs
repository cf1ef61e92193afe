//! What `exec` runs when it is told a command and not a whole process: as the container's init, with changes.

use std::str::FromStr;

use oci_spec::runtime::{Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process};

use super::Container;
use crate::Error;
use crate::error::Result;
use crate::oci::Bundle;

/// How a process differs from the container's init.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSettings {
    /// argv.
    pub args: Vec<String>,
    /// More variables, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Another working directory.
    pub cwd: Option<String>,
    /// Another user.
    pub uid: Option<u32>,
    /// Another group.
    pub gid: Option<u32>,
    /// More supplementary groups.
    pub additional_gids: Vec<u32>,
    /// More capabilities, with or without CAP_.
    pub capabilities: Vec<String>,
    /// It has a terminal.
    pub terminal: bool,
    /// prctl(PR_SET_NO_NEW_PRIVS), also if the init has it not.
    pub no_new_privs: bool,
}

impl Container {
    /// The process that `settings` make of the one in the container's bundle.
    ///
    /// # Errors
    /// The bundle is gone; an unknown capability.
    pub fn exec_process(&self, settings: ExecSettings) -> Result<Process> {
        let bundle = Bundle::open(&self.state.bundle)?;
        let process = bundle.spec.process().clone();
        let process = process.ok_or_else(|| Error::Invalid("config.json has no process".into()))?;
        apply(process, settings)
    }
}

fn apply(mut process: Process, settings: ExecSettings) -> Result<Process> {
    // The size in the bundle is not that of this command's terminal.
    process.set_args(Some(settings.args)).set_terminal(Some(settings.terminal)).set_console_size(None);
    process.env_mut().get_or_insert_default().extend(settings.env);
    if let Some(cwd) = settings.cwd {
        process.set_cwd(cwd.into());
    }
    let mut user = process.user().clone();
    let (uid, gid) = (settings.uid.unwrap_or(user.uid()), settings.gid.unwrap_or(user.gid()));
    user.set_uid(uid).set_gid(gid);
    user.additional_gids_mut().get_or_insert_default().extend(settings.additional_gids);
    process.set_user(user);
    if settings.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if !settings.capabilities.is_empty() {
        let capabilities = settings.capabilities.iter().map(|name| capability(name)).collect::<Result<Vec<_>>>()?;
        // A process without the field has no capabilities, not all of them.
        let present = process.capabilities().clone().unwrap_or_else(no_capabilities);
        process.set_capabilities(Some(with_capabilities(present, &capabilities)));
    }
    Ok(process)
}

fn capability(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper))
        .map_err(|_| Error::Invalid(format!("unknown capability {name:?}")))
}

fn no_capabilities() -> LinuxCapabilities {
    LinuxCapabilitiesBuilder::default().build().unwrap_or_default()
}

/// In all sets but the inheritable one, as runc has it.
fn with_capabilities(mut present: LinuxCapabilities, more: &[Capability]) -> LinuxCapabilities {
    let add = |set: &Option<oci_spec::runtime::Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(more.iter().copied());
        Some(set)
    };
    // In the bounding set too, without which the kernel would take them away at the next program.
    let (bounding, effective) = (add(present.bounding()), add(present.effective()));
    let (permitted, ambient) = (add(present.permitted()), add(present.ambient()));
    present.set_bounding(bounding).set_effective(effective).set_permitted(permitted).set_ambient(ambient);
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init() -> Process {
        serde_json::from_str(
            r#"{"terminal":true,"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["init"],"env":["A=1"],"cwd":"/x",
                "capabilities":{"permitted":["CAP_KILL"]}}"#,
        )
        .unwrap()
    }

    #[test]
    fn only_what_is_set_changes() {
        let settings = ExecSettings { args: vec!["ls".into()], env: vec!["B=2".into()], ..ExecSettings::default() };
        let process = apply(init(), settings).unwrap();
        assert_eq!((process.args().clone().unwrap(), process.terminal()), (vec!["ls".to_owned()], Some(false)));
        assert_eq!(process.env().clone().unwrap(), ["A=1", "B=2"]);
        assert_eq!((process.user().uid(), process.user().gid()), (5, 6));
        assert_eq!(process.cwd().to_str(), Some("/x"));
    }

    #[test]
    fn users_and_capabilities() {
        let settings = ExecSettings {
            args: vec!["ls".into()],
            uid: Some(1),
            gid: Some(2),
            additional_gids: vec![8],
            capabilities: vec!["cap_sys_admin".into(), "NET_RAW".into()],
            no_new_privs: true,
            ..ExecSettings::default()
        };
        let process = apply(init(), settings).unwrap();
        let user = process.user();
        assert_eq!((user.uid(), user.gid(), user.additional_gids().clone().unwrap()), (1, 2, vec![7, 8]));
        let sets = process.capabilities().clone().unwrap();
        assert_eq!(sets.permitted().as_ref().unwrap().len(), 3);
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
        assert!(sets.inheritable().as_ref().is_none_or(|set| set.is_empty()));
        assert_eq!(process.no_new_privileges(), Some(true));
        assert!(capability("frob").is_err());
    }
}

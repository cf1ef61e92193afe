//! Nodes of devices: config.json's `linux.devices`, and bind mounts of the host's.
//!
//! A guest gets the node with its number; what opening it does is up to the guest's kernel, which has drivers of its own for
//! /dev/null and its like and none for the host's hardware (ENXIO).

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use moat_control::spec::{DeviceRule, DeviceSpec, NodeKind, NodeSpec, RuleDevices};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use crate::adhoc::clean_absolute;
use crate::error::{Error, Result};

/// Permission bits of a device whose configuration gives none, as in runc.
const DEFAULT_MODE: u32 = 0o666;

/// The largest numbers that Linux has: 12 and 20 bits.
const MAX_MAJOR: i64 = 0xfff;
const MAX_MINOR: i64 = 0xf_ffff;

/// Checks and converts the list.
pub(super) fn convert(devices: &[LinuxDevice]) -> Result<Vec<DeviceSpec>> {
    devices.iter().map(convert_one).collect()
}

fn convert_one(device: &LinuxDevice) -> Result<DeviceSpec> {
    let shown = device.path().display();
    // As with runc a relative path is one below the root.
    let path = device.path().to_str().and_then(|path| clean_absolute(&format!("/{path}"))).filter(|path| path != "/");
    let path = path.ok_or_else(|| Error::Invalid(format!("linux.devices: path {shown} is unusable")))?;
    let (major, minor) = (device.major(), device.minor());
    let numbers = || {
        if !(0..=MAX_MAJOR).contains(&major) || !(0..=MAX_MINOR).contains(&minor) {
            return Err(Error::Invalid(format!("linux.devices: {shown}: there is no number {major}:{minor}")));
        }
        Ok((u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0)))
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => numbers().map(|(major, minor)| NodeKind::Char(major, minor))?,
        LinuxDeviceType::B => numbers().map(|(major, minor)| NodeKind::Block(major, minor))?,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => {
            return Err(Error::Invalid(format!("linux.devices: {shown}: type \"a\" is for rules, not for a node")));
        }
    };
    let node = NodeSpec {
        kind,
        // Podman passes the type bits too.
        mode: device.file_mode().map_or(DEFAULT_MODE, |mode| mode & 0o7777),
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    };
    Ok(DeviceSpec { path, node })
}

/// What runc allows every container: nodes of all devices, and use of these. /dev/console is one of them because it is a device of
/// its own here.
const ALLOWED: &[(u32, Option<u32>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Converts the rules of `linux.resources.devices`; without any there are none.
pub(super) fn rules(rules: &[LinuxDeviceCgroup]) -> Vec<DeviceRule> {
    if rules.is_empty() {
        return Vec::new();
    }
    let make = |devices| DeviceRule { allow: true, devices, read: false, write: false, make: true };
    let mut all: Vec<DeviceRule> = rules.iter().map(rule).collect();
    // The last that fits counts, so what runc allows everybody comes behind what is configured, as there.
    all.extend([make(RuleDevices::Char(None, None)), make(RuleDevices::Block(None, None))]);
    all.extend(ALLOWED.iter().map(|&(major, minor)| {
        let devices = RuleDevices::Char(Some(major), minor);
        DeviceRule { allow: true, devices, read: true, write: true, make: true }
    }));
    all
}

fn rule(rule: &LinuxDeviceCgroup) -> DeviceRule {
    // -1 is a wildcard of clients'.
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let (major, minor) = (number(rule.major()), number(rule.minor()));
    let devices = match rule.typ() {
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => RuleDevices::Char(major, minor),
        Some(LinuxDeviceType::B) => RuleDevices::Block(major, minor),
        Some(LinuxDeviceType::A | LinuxDeviceType::P) | None => RuleDevices::All,
    };
    let access = rule.access().as_deref().unwrap_or("rwm");
    let has = |letter| access.contains(letter);
    DeviceRule { allow: rule.allow(), devices, read: has('r'), write: has('w'), make: has('m') }
}

/// A node like the host's device that a bind mount names; `None` for what is no device.
pub(super) fn of_host(metadata: &Metadata) -> Option<NodeSpec> {
    let file_type = metadata.file_type();
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    let kind = if file_type.is_char_device() {
        NodeKind::Char(major, minor)
    } else if file_type.is_block_device() {
        NodeKind::Block(major, minor)
    } else {
        return None;
    };
    Some(NodeSpec { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert_json(json: &str) -> Result<Vec<DeviceSpec>> {
        convert(&serde_json::from_str::<Vec<LinuxDevice>>(json).unwrap())
    }

    #[test]
    fn nodes_have_what_is_asked_for() {
        let devices = convert_json(
            r#"[{"path":"/dev/foo","type":"c","major":1,"minor":3,"fileMode":8630,"uid":7,"gid":8},
                {"path":"dev/sda","type":"b","major":8,"minor":0},{"path":"/run/pipe","type":"p","fileMode":384}]"#,
        )
        .unwrap();
        let node = |kind, mode, uid, gid| NodeSpec { kind, mode, uid, gid };
        let expected = [
            ("/dev/foo", node(NodeKind::Char(1, 3), 0o666, 7, 8)),
            ("/dev/sda", node(NodeKind::Block(8, 0), 0o666, 0, 0)),
            ("/run/pipe", node(NodeKind::Fifo, 0o600, 0, 0)),
        ]
        .map(|(path, node)| DeviceSpec { path: path.into(), node });
        assert_eq!(devices, expected);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (json, part) in [
            (r#"[{"path":"/dev/x","type":"c","major":4096,"minor":0}]"#, "/dev/x: there is no number 4096:0"),
            (r#"[{"path":"/dev/x","type":"b","major":-1,"minor":0}]"#, "no number -1:0"),
            (r#"[{"path":"/dev/x","type":"a"}]"#, "type \"a\""),
            (r#"[{"path":"/","type":"c","major":1,"minor":3}]"#, "path / is unusable"),
            (r#"[{"path":"/../x","type":"c","major":1,"minor":3}]"#, "unusable"),
        ] {
            let error = convert_json(json).unwrap_err().to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }

    #[test]
    fn rules_are_followed_by_what_every_container_may() {
        assert_eq!(rules(&[]), []);
        let json = r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":136,"minor":-1,"access":"rw"}]"#;
        let rules = rules(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap());
        let rule = |allow, devices, read, write, make| DeviceRule { allow, devices, read, write, make };
        assert_eq!(rules[0], rule(false, RuleDevices::All, true, true, true));
        assert_eq!(rules[1], rule(true, RuleDevices::Char(Some(136), None), true, true, false));
        assert_eq!(rules[2], rule(true, RuleDevices::Char(None, None), false, false, true));
        assert!(rules.contains(&rule(true, RuleDevices::Char(Some(1), Some(3)), true, true, true)));
    }

    #[test]
    fn the_hosts_null_device() {
        let node = of_host(&std::fs::metadata("/dev/null").unwrap()).unwrap();
        assert_eq!(node.kind, NodeKind::Char(1, 3));
        assert_eq!(of_host(&std::fs::metadata("/").unwrap()), None);
    }
}

//! A container's root file system, which the shim mounts: the client says how.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};

use crate::messages::Mount;

/// Bytes of options that mount(2) takes, less some that it adds.
const MAX_OPTIONS: usize = 4096 - 512;

/// What the options of a mount say.
#[derive(Debug, PartialEq)]
struct Options {
    flags: MountFlags,
    is_bind: bool,
    is_recursive: bool,
    propagation: Option<MountPropagationFlags>,
    /// What the file system takes.
    data: Vec<String>,
}

impl Options {
    fn parse(options: &[String]) -> Self {
        let mut parsed = Options {
            flags: MountFlags::empty(),
            is_bind: false,
            is_recursive: false,
            propagation: None,
            data: Vec::new(),
        };
        for option in options {
            let (set, flag) = match option.as_str() {
                "bind" | "rbind" => {
                    parsed.is_bind = true;
                    parsed.is_recursive = option == "rbind";
                    continue;
                }
                "private" | "slave" | "shared" | "unbindable" | "rprivate" | "rslave" | "rshared" | "runbindable" => {
                    parsed.propagation = Some(propagation(option));
                    continue;
                }
                "defaults" => continue,
                "ro" => (true, MountFlags::RDONLY),
                "rw" => (false, MountFlags::RDONLY),
                "nosuid" => (true, MountFlags::NOSUID),
                "suid" => (false, MountFlags::NOSUID),
                "nodev" => (true, MountFlags::NODEV),
                "dev" => (false, MountFlags::NODEV),
                "noexec" => (true, MountFlags::NOEXEC),
                "exec" => (false, MountFlags::NOEXEC),
                "sync" => (true, MountFlags::SYNCHRONOUS),
                "async" => (false, MountFlags::SYNCHRONOUS),
                "dirsync" => (true, MountFlags::DIRSYNC),
                "noatime" => (true, MountFlags::NOATIME),
                "atime" => (false, MountFlags::NOATIME),
                "nodiratime" => (true, MountFlags::NODIRATIME),
                "diratime" => (false, MountFlags::NODIRATIME),
                "relatime" => (true, MountFlags::RELATIME),
                "norelatime" => (false, MountFlags::RELATIME),
                "strictatime" => (true, MountFlags::STRICTATIME),
                "nostrictatime" => (false, MountFlags::STRICTATIME),
                _ => {
                    parsed.data.push(option.clone());
                    continue;
                }
            };
            parsed.flags.set(flag, set);
        }
        parsed
    }
}

fn propagation(option: &str) -> MountPropagationFlags {
    let (recursion, kind) = match option.strip_prefix('r') {
        Some(kind) => (MountPropagationFlags::REC, kind),
        None => (MountPropagationFlags::empty(), option),
    };
    recursion
        | match kind {
            "shared" => MountPropagationFlags::SHARED,
            "slave" => MountPropagationFlags::DOWNSTREAM,
            "unbindable" => MountPropagationFlags::UNBINDABLE,
            _ => MountPropagationFlags::PRIVATE,
        }
}

/// Mounts all of them at a directory, which is made if need be; nothing stays mounted if one fails.
///
/// # Errors
/// Of mount(2), with the kind of the mount.
pub(crate) fn mount_all(mounts: &[Mount], root: &Path) -> io::Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    if !root.is_dir() {
        fs::create_dir(root)?;
    }
    mounts.iter().try_for_each(|wanted| mount_one(wanted, root)).inspect_err(|_| {
        let _ = unmount_all(root);
    })
}

fn mount_one(wanted: &Mount, root: &Path) -> io::Result<()> {
    let target = below(root, Path::new(&wanted.target))?;
    let options = Options::parse(&wanted.options);
    let (source, kind) = (Path::new(&wanted.source), wanted.kind.as_str());
    let named = |error: io::Error| io::Error::new(error.kind(), format!("mounting the root ({kind}): {error}"));
    let mounted = if options.is_bind || kind == "bind" {
        bind(source, &target, &options)
    } else {
        of_kind(source, &target, kind, &options)
    };
    mounted.map_err(named)?;
    match options.propagation {
        Some(propagation) => mount_change(&target, propagation).map_err(|errno| named(errno.into())),
        None => Ok(()),
    }
}

/// A directory below the root; the client is trusted, but a `..` would be a mistake.
fn below(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.components().all(|component| matches!(component, Component::Normal(_))) {
        return Ok(root.join(relative));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no target of a mount", path.display())))
}

fn bind(source: &Path, target: &Path, options: &Options) -> io::Result<()> {
    if options.is_recursive {
        mount_bind_recursive(source, target)?
    } else {
        mount_bind(source, target)?
    }
    if !options.flags.is_empty() {
        // A new bind takes no flags; those of the source are to stay.
        let kept = rustix::fs::statvfs(target)?.f_flag;
        let mut flags = options.flags | MountFlags::BIND;
        for (is, flag) in [
            (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        ] {
            flags.set(flag, flags.contains(flag) || kept.contains(is));
        }
        mount_remount(target, flags, "")?;
    }
    Ok(())
}

fn of_kind(source: &Path, target: &Path, kind: &str, options: &Options) -> io::Result<()> {
    let data = options.data.join(",");
    if data.len() < MAX_OPTIONS {
        return Ok(mount(source, target, kind, options.flags, Some(&*CString::new(data)?))?);
    }
    // The layers of an overlay have long names in a common directory, seen from which they are short.
    let (directory, data) = shortened(&options.data);
    let data = CString::new(data.join(","))?;
    let target = std::path::absolute(target)?;
    moat_host::mounts::in_directory(&directory, || Ok(mount(source, &target, kind, options.flags, Some(&*data))?))
}

/// The options with the paths of `lowerdir` relative to the directory that they have in common.
fn shortened(options: &[String]) -> (PathBuf, Vec<String>) {
    const LOWER: &str = "lowerdir=";
    let layers = options.iter().find_map(|option| option.strip_prefix(LOWER)).unwrap_or_default();
    let common = layers.split(':').map(Path::new).map(|layer| layer.parent().unwrap_or(layer).to_owned());
    let common = common.reduce(|a, b| {
        let same = a.components().zip(b.components()).take_while(|(a, b)| a == b);
        same.map(|(component, _)| component).collect()
    });
    let common = common.filter(|common| common.is_absolute()).unwrap_or_else(|| "/".into());
    let relative = |layer: &str| {
        let path = Path::new(layer);
        path.strip_prefix(&common).map_or_else(|_| layer.to_owned(), |rest| rest.to_string_lossy().into_owned())
    };
    let shorten = |option: &String| match option.strip_prefix(LOWER) {
        Some(layers) => format!("{LOWER}{}", layers.split(':').map(relative).collect::<Vec<_>>().join(":")),
        None => option.clone(),
    };
    (common.clone(), options.iter().map(shorten).collect())
}

/// Unmounts all that is mounted at a directory; nothing, and no directory, is no error.
///
/// # Errors
/// Of umount(2).
pub(crate) fn unmount_all(root: &Path) -> io::Result<()> {
    loop {
        // Somebody may still look at a file in it.
        match unmount(root, UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(options: &[&str]) -> Vec<String> {
        options.iter().map(|&option| option.to_owned()).collect()
    }

    #[test]
    fn options_are_flags_and_data() {
        let options =
            Options::parse(&strings(&["rbind", "ro", "nosuid", "suid", "rslave", "upperdir=/u", "index=off"]));
        let expected = Options {
            flags: MountFlags::RDONLY,
            is_bind: true,
            is_recursive: true,
            propagation: Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC),
            data: strings(&["upperdir=/u", "index=off"]),
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn many_layers_are_named_shortly() {
        let options = strings(&["workdir=/w", "lowerdir=/var/lib/x/snapshots/12/fs:/var/lib/x/snapshots/1/fs"]);
        let (directory, options) = shortened(&options);
        assert_eq!(directory, Path::new("/var/lib/x/snapshots"));
        assert_eq!(options, strings(&["workdir=/w", "lowerdir=12/fs:1/fs"]));
        let (directory, options) = shortened(&strings(&["lowerdir=/a/b:/c"]));
        assert_eq!((directory.as_path(), options), (Path::new("/"), strings(&["lowerdir=a/b:c"])));
    }

    #[test]
    fn targets_stay_below_the_root() {
        assert_eq!(below(Path::new("/r"), Path::new("")).unwrap(), Path::new("/r"));
        assert_eq!(below(Path::new("/r"), Path::new("/a/b")).unwrap(), Path::new("/r/a/b"));
        assert!(below(Path::new("/r"), Path::new("../x")).is_err());
    }

    #[test]
    fn an_overlay_of_a_hundred_layers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let place = std::env::temp_dir().join(format!("moat-shim-layers-{}-{}", std::process::id(), "x".repeat(60)));
        let layers: Vec<PathBuf> = (0..100).map(|n| place.join(format!("layers/{n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join(format!("file{n}")), "").unwrap();
        }
        let lower: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = vec![format!("lowerdir={}", lower.join(":")), "ro".into()];
        let root = place.join("root");
        let wanted = Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options };
        moat_host::mounts::in_private_namespace(|| {
            mount_all(&[wanted], &root)?;
            assert_eq!(fs::read_dir(&root)?.count(), 100);
            unmount_all(&root)?;
            assert_eq!(fs::read_dir(&root)?.count(), 0);
            unmount_all(&root)
        })
        .unwrap();
        fs::remove_dir_all(place).unwrap();
    }
}

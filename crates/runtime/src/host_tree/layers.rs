//! [`Layers`]: an overlayfs of the host's, made for one container (Documentation/filesystems/overlayfs.rst of the kernel).
//!
//! Podman asks for one for `--mount type=image` and for volumes with `:O`. The layers are directories of the host, so the
//! host's kernel puts them together; the guest gets the result as it gets the source of a bind mount.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags};

use crate::error::{Context, Error, Result};

/// mount(2) takes a page of options, and is silent about what it cuts off.
const MAX_OPTIONS_BYTES: usize = 4095;

/// What an overlayfs is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// As mount(2) takes them.
    options: CString,
    lower: Vec<PathBuf>,
    /// `upperdir`, `workdir`.
    upper: Vec<PathBuf>,
}

impl Layers {
    /// Takes options of overlayfs, whose relative paths begin at `bundle`. What they mean is the host's kernel's to say.
    ///
    /// # Errors
    /// Without a `lowerdir`; more than mount(2) takes; what would name layers that are not seen here.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>, bundle: &Path) -> Result<Self, String> {
        let (mut lower, mut upper, mut words) = (Vec::new(), Vec::new(), Vec::new());
        for option in options {
            // mount(2) takes one text, in which what follows would be an option of its own.
            if split(option, b',').len() > 1 {
                return Err(format!("{option:?} is more than one option"));
            }
            match option.split_once('=') {
                Some((key, _)) if key.ends_with('+') => {
                    return Err(format!("{option:?}: layers are named by lowerdir"));
                }
                Some(("lowerdir", list)) => {
                    let names: Vec<String> = split(list, b':').iter().map(|name| below(bundle, name)).collect();
                    lower.extend(names.iter().filter(|name| !name.is_empty()).map(|name| unescaped(name)));
                    words.push(format!("lowerdir={}", names.join(":")));
                }
                Some((key @ ("upperdir" | "workdir"), name)) => {
                    let name = below(bundle, name);
                    words.push(format!("{key}={name}"));
                    upper.push(unescaped(&name));
                }
                _ => words.push(option.to_owned()),
            }
        }
        if lower.is_empty() {
            return Err("an overlay needs a lowerdir".into());
        }
        let options = words.join(",");
        if options.len() > MAX_OPTIONS_BYTES {
            return Err(format!("the options have {} bytes, and mount(2) takes {MAX_OPTIONS_BYTES}", options.len()));
        }
        let options = CString::new(options).map_err(|_| "the options have a byte 0")?;
        Ok(Layers { options, lower, upper })
    }

    /// The directory whose owner the tree's root has: the topmost.
    pub(crate) fn top(&self) -> &Path {
        self.upper.first().or(self.lower.first()).map_or(Path::new("/"), PathBuf::as_path)
    }

    /// All directories of the host that it shows or changes.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Path> {
        self.lower.iter().chain(&self.upper).map(PathBuf::as_path)
    }

    /// Whether nothing can be changed in it.
    pub(crate) fn readonly(&self) -> bool {
        self.upper.is_empty()
    }

    /// Mounts it, and gives a detached copy of the mount. The host's mount table never shows it.
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        moat_host::mounts::in_private_namespace(|| self.mount_here())
            .context(|| format!("mounting an overlay with {}", self.options.to_string_lossy()))
    }

    fn mount_here(&self) -> io::Result<OwnedFd> {
        // On one of its own layers, since that exists; what is below is held by the mount itself.
        let place = self.top();
        rustix::mount::mount("overlay", place, "overlay", MountFlags::empty(), Some(self.options.as_c_str()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(rustix::mount::open_tree(CWD, place, flags)?)
    }
}

/// The names of a list that `separator` divides, each with its escapes.
fn split(list: &str, separator: u8) -> Vec<&str> {
    let (mut names, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in list.bytes().enumerate() {
        if byte == separator && !escaped {
            names.push(list.get(start..at).unwrap_or_default());
            start = at.saturating_add(1);
        }
        escaped = byte == b'\\' && !escaped;
    }
    names.push(list.get(start..).unwrap_or_default());
    names
}

/// A name, escaped, as an absolute one. Nothing between two colons stays nothing: it sets data-only layers apart.
fn below(bundle: &Path, name: &str) -> String {
    if name.is_empty() || name.starts_with('/') {
        return name.to_owned();
    }
    let escape = |c: char| if matches!(c, ':' | '\\' | ',') { vec!['\\', c] } else { vec![c] };
    format!("{}/{name}", bundle.to_string_lossy().chars().flat_map(escape).collect::<String>())
}

fn unescaped(name: &str) -> PathBuf {
    let mut characters = name.chars();
    let mut plain = String::with_capacity(name.len());
    while let Some(c) = characters.next() {
        plain.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    plain.into()
}

/// What the sandbox's maker can't do without privilege.
pub(super) fn refused(layers: &Layers) -> Error {
    Error::unsupported(
        format!("the overlay over {}", layers.top().display()),
        "it can't be mounted without CAP_SYS_ADMIN",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_clients() {
        let bundle = Path::new("/b:c");
        let options = ["lowerdir=/a:l\\:1::/d", "upperdir=u", "workdir=/w", "volatile", "index=off"];
        let layers = Layers::parse(options, bundle).unwrap();
        let text = "lowerdir=/a:/b\\:c/l\\:1::/d,upperdir=/b\\:c/u,workdir=/w,volatile,index=off";
        assert_eq!(layers.options.to_str().unwrap(), text);
        let places: Vec<_> = layers.places().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(places, ["/a", "/b:c/l:1", "/d", "/b:c/u", "/w"]);
        assert_eq!((layers.top(), layers.readonly()), (Path::new("/b:c/u"), false));
        let twice = Layers::parse(["lowerdir=/a\\,b", "lowerdir=/x"], bundle).unwrap();
        assert_eq!(twice.places().collect::<Vec<_>>(), [Path::new("/a,b"), Path::new("/x")], "all are looked at");
        let lower_only = Layers::parse(["lowerdir=/x"], bundle).unwrap();
        assert_eq!((lower_only.top(), lower_only.readonly()), (Path::new("/x"), true));
    }

    #[test]
    fn refusals() {
        for (options, part) in [
            (vec!["upperdir=/u"], "lowerdir"),
            (vec!["lowerdir="], "lowerdir"),
            (vec!["lowerdir=/a\0"], "byte 0"),
            (vec!["lowerdir=/a", "volatile,lowerdir=/proc"], "more than one"),
            (vec!["lowerdir=/a", "lowerdir+=/proc"], "named by lowerdir"),
            (vec!["lowerdir=/a", "datadir+=/proc"], "named by lowerdir"),
        ] {
            assert!(Layers::parse(options, Path::new("/")).unwrap_err().contains(part), "{part}");
        }
        let long = format!("lowerdir=/{}", "x".repeat(5000));
        assert!(Layers::parse([long.as_str()], Path::new("/")).unwrap_err().contains("5010 bytes"));
    }
}

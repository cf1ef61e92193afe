//! The configuration file: flags for every command of this host, and which of them a bundle's annotations may set.
//!
//! A flag has the value of the command line; else that of the annotation `dev.moat.flag.NAME`, for `create` and `run` and if the file
//! allows it; else that of the file; else its default.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use moat_runtime::oci::FLAG_ANNOTATION;
use serde::Deserialize;
use toml::Value;

use crate::args;

/// Where it is, unless the environment variable MOAT_CONFIG says otherwise; an empty one stands for no file.
const PATH: &str = "/etc/moat/config.toml";

/// Bytes of the largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What it says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    path: PathBuf,
    /// Flags as on a command line.
    flags: Vec<OsString>,
    /// Names of flags that annotations may set.
    allowed: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    flags: BTreeMap<String, Value>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    #[serde(default)]
    allowed: BTreeSet<String>,
}

impl Configuration {
    /// Reads it; a file that is not there says nothing.
    ///
    /// # Errors
    /// A file that others than root can change, one that is malformed, a flag that does not exist, by name.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let path = std::env::var_os("MOAT_CONFIG").map_or_else(|| PATH.into(), PathBuf::from);
        // How tests say that there is none.
        if path.as_os_str().is_empty() {
            return Ok(Self::default());
        }
        let mut file = match File::open(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            other => other.with_context(|| format!("opening {}", path.display()))?,
        };
        // Of the open file: another could be put in its place after a look at the path.
        check_owner(&file).with_context(|| path.display().to_string())?;
        let mut text = String::new();
        let read = file.by_ref().take(MAX_BYTES).read_to_string(&mut text);
        read.with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text)
            .map(|c| Configuration { path: path.clone(), ..c })
            .with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let contents: Contents = toml::from_str(text)?;
        // Also the names that annotations may set: a wrong one would allow nothing, without a word.
        let known = args::flag_names();
        let unknown = contents.flags.keys().chain(&contents.annotations.allowed).find(|name| !known.contains(*name));
        if let Some(name) = unknown {
            bail!("there is no flag {name:?} (moat help flags lists them)");
        }
        let mut flags = Vec::with_capacity(contents.flags.len());
        for (name, value) in contents.flags {
            let value = text_of(&value).with_context(|| format!("flags.{name}"))?;
            // One argument: a value that begins with a dash is no flag then.
            flags.push(format!("--{name}={value}").into());
        }
        Ok(Configuration { flags, allowed: contents.annotations.allowed, ..Self::default() })
    }

    /// A command line with the file's flags, and then others, before its own.
    pub(crate) fn complete(&self, args: &[OsString], others: &[OsString]) -> Vec<OsString> {
        // The last one counts: the file's, then the annotations', then the command line's.
        let (program, rest) = args.split_at(args.len().min(1));
        program.iter().chain(&self.flags).chain(others).chain(rest).cloned().collect()
    }

    /// Says whether the file is to blame for a command line that is not understood.
    ///
    /// # Errors
    /// A value that its flag can't have.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        args::check_flags(&self.flags).with_context(|| self.path.display().to_string())
    }

    /// The flags that annotations may set.
    pub(crate) fn allowed(&self) -> &BTreeSet<String> {
        &self.allowed
    }

    /// The flags that a bundle's annotations set, of those that they may; the runtime refuses the others. What is wrong with the
    /// bundle is found and said later.
    pub(crate) fn annotated(&self, bundle: &Path) -> Vec<OsString> {
        #[derive(Default, Deserialize)]
        struct Annotated {
            #[serde(default)]
            annotations: Option<BTreeMap<String, String>>,
        }
        if self.allowed.is_empty() {
            return Vec::new();
        }
        let file = File::open(bundle.join("config.json")).ok();
        let annotated: Annotated =
            file.and_then(|file| serde_json::from_reader(std::io::BufReader::new(file)).ok()).unwrap_or_default();
        let annotations = annotated.annotations.unwrap_or_default();
        let flag = |(key, value): (&String, &String)| {
            let name = key.strip_prefix(FLAG_ANNOTATION).filter(|name| self.allowed.contains(*name))?;
            Some(format!("--{name}={value}").into())
        };
        annotations.iter().filter_map(flag).collect()
    }
}

fn text_of(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Array(values) => values.iter().map(text_of).collect::<anyhow::Result<Vec<_>>>()?.join(","),
        other => bail!("a {} is no value of a flag", other.type_str()),
    })
}

/// What root does is nobody else's to say.
fn check_owner(file: &File) -> anyhow::Result<()> {
    const OTHERS_WRITE: u32 = 0o022;
    // The file of an ordinary user is that user's own affair.
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let metadata = file.metadata()?;
    // In a user namespace of an ordinary user's the host's root is nobody.
    let overflow = if moat_runtime::identity::in_user_namespace() { overflow_uid() } else { 0 };
    if metadata.uid() != 0 && metadata.uid() != overflow {
        bail!("it belongs to uid {}: it has to be root's (chown root)", metadata.uid());
    }
    if metadata.mode() & OTHERS_WRITE != 0 {
        bail!("others than root can write to it (chmod go-w)");
    }
    Ok(())
}

fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_their_order() {
        let text = "[flags]\nnetwork = \"host\"\ndebug = true\nstrace-log-size = 7\nstrace-syscalls = [\"read\", \"write\"]\n\
            [annotations]\nallowed = [\"debug\"]\n";
        let configuration = Configuration::parse(text).unwrap();
        let args: Vec<OsString> = ["moat", "--debug=false", "run", "c"].map(OsString::from).into();
        let line = configuration.complete(&args, &["--network=none".into()]);
        let line: Vec<_> = line.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        assert_eq!(
            line.join(" "),
            "moat --debug=true --network=host --strace-log-size=7 --strace-syscalls=read,write --network=none --debug=false run c"
        );
        let arguments = args::Arguments::parse_line(line.into_iter().map(OsString::from)).unwrap();
        assert!(!arguments.global.debug);
        assert!(matches!(arguments.global.network, Some(args::Network::None)));
        configuration.check().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            ("[flags]\nfrob = 1", "\"frob\""),
            ("[annotations]\nallowed = [\"frob\"]", "\"frob\""),
            ("[frob]", "frob"),
            ("[annotations]\nfrob = 1", "frob"),
            ("[flags]\nnetwork = { a = 1 }", "flags.network"),
            ("[flags", "line 1"),
        ] {
            let error = format!("{:#}", Configuration::parse(text).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
        let wrong = Configuration::parse("[flags]\nnetwork = \"frob\"").unwrap();
        let error = format!("{:#}", wrong.check().unwrap_err());
        assert!(error.contains("--network") && error.contains("frob"), "{error}");
    }
}

//! The command line that containerd gives a shim: flags in the manner of Go, then what to do.

use std::ffi::OsString;
use std::path::PathBuf;

/// What a shim is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) namespace: String,
    /// A container.
    pub(crate) id: String,
    /// containerd's own socket.
    pub(crate) address: PathBuf,
    /// The container's bundle, if it is not the working directory.
    pub(crate) bundle: Option<PathBuf>,
    /// The shim's socket.
    pub(crate) socket: PathBuf,
    pub(crate) shows_version: bool,
    pub(crate) shows_info: bool,
    /// `start`, `delete`, or nothing: then it is to serve.
    pub(crate) action: String,
}

impl Arguments {
    /// # Errors
    /// A flag without its value, as a message.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut arguments = Arguments::default();
        let mut words = words.map(|word| word.to_string_lossy().into_owned());
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                arguments.action = word;
                break;
            };
            let (name, joined) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let is_set = joined.as_deref() != Some("false");
            match name {
                "v" => arguments.shows_version = is_set,
                "info" => arguments.shows_info = is_set,
                "debug" => {}
                _ => {
                    let value = joined.or_else(|| words.next());
                    let value = value.ok_or_else(|| format!("flag needs an argument: -{name}"))?;
                    match name {
                        "namespace" => arguments.namespace = value,
                        "id" => arguments.id = value,
                        "address" => arguments.address = value.into(),
                        "bundle" => arguments.bundle = Some(value.into()),
                        "socket" => arguments.socket = value.into(),
                        // -publish-binary, and those of later versions, whose values mean nothing here.
                        _ => {}
                    }
                }
            }
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_of_containerds() {
        let parse = |line: &str| Arguments::parse(line.split(' ').map(OsString::from));
        let line = "-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -debug --id=x -bundle /b start";
        let expected = Arguments {
            namespace: "k8s.io".into(),
            id: "x".into(),
            address: "/run/c.sock".into(),
            bundle: Some("/b".into()),
            action: "start".into(),
            ..Arguments::default()
        };
        assert_eq!(parse(line), Ok(expected));
        assert!(parse("-v").unwrap().shows_version && parse("-id").is_err());
    }
}

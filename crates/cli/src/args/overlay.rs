//! The value of `--overlay2`, as runsc has it.

use std::path::PathBuf;
use std::str::FromStr;

use moat_control::spec::OverlayLimits;
use moat_runtime::overlay::{Medium, OverlayFlag, Scope};

const FORMS: &str = "none, or root: or all:, then memory, self or dir=PATH, then perhaps ,size=BYTES and ,nr_inodes=N";

/// `none`, or what there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overlay2(pub(crate) Option<OverlayFlag>);

impl FromStr for Overlay2 {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Overlay2(None));
        }
        let (scope, rest) = text.split_once(':').ok_or(FORMS)?;
        let scope = match scope {
            "root" => Scope::Root,
            "all" => Scope::All,
            _ => return Err(FORMS.into()),
        };
        let mut parts = rest.split(',');
        let medium = match parts.next().map(|medium| medium.split_once('=').unwrap_or((medium, ""))) {
            Some(("memory", "")) => Medium::Memory,
            Some(("self", "")) => Medium::Tree,
            // A relative path would depend on where the client calls from.
            Some(("dir", path)) if path.starts_with('/') => Medium::Directory(PathBuf::from(path)),
            Some(("dir", path)) => return Err(format!("{path:?} is no absolute path")),
            _ => return Err(FORMS.into()),
        };
        let mut limits = OverlayLimits::default();
        for part in parts {
            match part.split_once('=') {
                Some(("size", value)) => limits.size_bytes = Some(parse_bytes(value)?),
                Some(("nr_inodes", value)) => limits.inodes = Some(parse_bytes(value)?),
                _ => return Err(format!("{part:?} is neither size= nor nr_inodes=")),
            }
        }
        Ok(Overlay2(Some(OverlayFlag { scope, medium, limits })))
    }
}

/// A number, or one of KiB, MiB or GiB with k, m or g. 0 would mean no limit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['k', 'm', 'g', 'K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        _ => return Err(format!("{text:?} is no size")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size"))?;
    // A tmpfs of size 0 has no limit, which nobody means who writes a size.
    number.checked_mul(1 << shift).filter(|n| *n != 0).ok_or_else(|| format!("{text:?} is no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_is_shown() {
        for text in ["root:self", "all:memory,size=4096", "root:dir=/var/tmp,size=4096,nr_inodes=9"] {
            let flag = text.parse::<Overlay2>().unwrap().0.unwrap();
            assert_eq!(flag.to_string(), text);
        }
        assert_eq!("root:self,size=2g".parse::<Overlay2>().unwrap().0.unwrap().limits.size_bytes, Some(2 << 30));
        assert_eq!("none".parse::<Overlay2>().unwrap(), Overlay2(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in [
            "",
            "root",
            "root:",
            "root:disk",
            "some:memory",
            "root:dir=",
            "root:dir=x",
            "root:self,size=0",
            "root:self,x=1",
        ] {
            assert!(text.parse::<Overlay2>().is_err(), "{text}");
        }
    }
}

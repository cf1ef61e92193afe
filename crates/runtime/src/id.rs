//! [`ContainerId`]: a checked container id.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// Bytes of the longest id, so that file names made from it stay below NAME_MAX.
const MAX_BYTES: usize = 200;

/// A container id: letters, digits and `_+.-`, not beginning with a dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId(String);

impl ContainerId {
    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '.' | '-');
        if id.is_empty() || id.len() > MAX_BYTES || id.starts_with('.') || !id.chars().all(allowed) {
            return Err(Error::Invalid(format!(
                "container id {id:?} must be 1 to {MAX_BYTES} letters, digits or characters of \"_+.-\", not beginning with a dot"
            )));
        }
        Ok(ContainerId(id.to_owned()))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in ["a", "redis-1", "a.b+c_d", "0"] {
            assert_eq!(good.parse::<ContainerId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "a/b", "a b", "a\0", "ä", &"x".repeat(201)] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
    }
}

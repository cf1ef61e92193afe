//! [`ImageError`]: an image that can't be used; [`Refusal`]: an object that can't be saved.

use std::fmt;
use std::io;

/// The file with header and kernel state.
pub const STATE: &str = "state";
/// The file with guest memory.
pub const PAGES: &str = "pages";

/// Why an image can't be written, read or restored.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A host call failed.
    #[error("{what}: {error}")]
    Host {
        /// What was tried.
        what: String,
        /// How it failed.
        error: io::Error,
    },
    /// The bytes are not those of an image.
    #[error("{file}: {what}")]
    Malformed {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Something is named that is not in the image.
    #[error("the image names {what} {index}, which it does not have")]
    Dangling {
        /// The kind of object.
        what: &'static str,
        /// Its number.
        index: u32,
    },
    /// The image is sound, but can't be restored here.
    #[error("{0}")]
    Unfit(String),
}

impl ImageError {
    /// A failed host call.
    pub fn host(what: impl Into<String>, error: impl Into<io::Error>) -> ImageError {
        ImageError::Host { what: what.into(), error: error.into() }
    }

    /// Wrong bytes in `state`.
    pub fn state(what: impl Into<String>) -> ImageError {
        ImageError::Malformed { file: STATE, what: what.into() }
    }

    /// Wrong bytes in `pages`.
    pub fn pages(what: impl Into<String>) -> ImageError {
        ImageError::Malformed { file: PAGES, what: what.into() }
    }
}

/// An object that can't be saved: what it is, and through what it was reached ("task 7, descriptor 3").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// From the outermost inwards.
    place: Vec<String>,
    what: String,
}

impl Refusal {
    /// A refusal; `what` goes on with "can't be saved yet": "a netlink socket".
    pub fn new(what: impl Into<String>) -> Refusal {
        Refusal { place: Vec::new(), what: what.into() }
    }

    /// The same, reached through `place`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Refusal {
        self.place.insert(0, place.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, place) in self.place.iter().enumerate() {
            write!(f, "{place}{}", if i.saturating_add(1) == self.place.len() { ": " } else { ", " })?;
        }
        write!(f, "{} can't be saved yet", self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_where_and_what() {
        let refusal = Refusal::new("a netlink socket").at("descriptor 3").at("task 7");
        assert_eq!(refusal.to_string(), "task 7, descriptor 3: a netlink socket can't be saved yet");
    }
}

//! `#!` lines (`fs/binfmt_script.c`).

use moat_abi::elf::BINPRM_BUF_SIZE;
use moat_abi::{Errno, Result};

/// A `#!` line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptLine {
    /// The interpreter's path.
    pub interpreter: Vec<u8>,
    /// Everything after it, as one argument, blanks trimmed.
    pub argument: Option<Vec<u8>>,
}

/// Takes the first line of a file apart; None if it is no script.
///
/// # Errors
/// ENOEXEC for a line without an interpreter, or one that may be cut off by the end of the buffer.
pub fn parse(head: &[u8; BINPRM_BUF_SIZE]) -> Result<Option<ScriptLine>> {
    let Some(rest) = head.strip_prefix(b"#!") else { return Ok(None) };
    let line = match rest.iter().position(|&b| b == b'\n') {
        Some(end) => &rest[..end],
        None => {
            // The last byte of the buffer is not part of a line without an end.
            let line = &rest[..rest.len() - 1];
            let name = skip_blanks(line);
            // An interpreter that runs into the end may be cut off.
            if name.is_empty() || !name.iter().any(|&b| is_terminator(b)) {
                return Err(Errno::ENOEXEC);
            }
            line
        }
    };
    // Strings end at a NUL, wherever the line ends.
    let name_on = skip_blanks(line);
    let name_on = &name_on[..name_on.iter().rposition(|&b| !is_blank(b)).map_or(0, |at| at + 1)];
    let name_len = name_on.iter().position(|&b| is_terminator(b)).unwrap_or(name_on.len());
    let (interpreter, rest) = name_on.split_at(name_len);
    if interpreter.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let argument = if rest.first().is_some_and(|&b| is_blank(b)) { until_nul(skip_blanks(rest)) } else { &[] };
    let argument = (!argument.is_empty()).then(|| argument.to_vec());
    Ok(Some(ScriptLine { interpreter: interpreter.to_vec(), argument }))
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn is_terminator(b: u8) -> bool {
    is_blank(b) || b == 0
}

fn skip_blanks(s: &[u8]) -> &[u8] {
    &s[s.iter().position(|&b| !is_blank(b)).unwrap_or(s.len())..]
}

fn until_nul(s: &[u8]) -> &[u8] {
    &s[..s.iter().position(|&b| b == 0).unwrap_or(s.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &[u8]) -> [u8; BINPRM_BUF_SIZE] {
        let mut buf = [0; BINPRM_BUF_SIZE];
        buf[..text.len()].copy_from_slice(text);
        buf
    }

    fn line(text: &[u8]) -> Result<Option<(String, Option<String>)>> {
        let string = |b: Vec<u8>| String::from_utf8(b).expect("ascii");
        Ok(parse(&head(text))?.map(|l| (string(l.interpreter), l.argument.map(string))))
    }

    #[test]
    fn lines_are_taken_apart_as_linux_does() {
        let is = |text: &[u8], name: &str, arg: Option<&str>| {
            assert_eq!(line(text), Ok(Some((name.into(), arg.map(Into::into)))), "{text:?}");
        };
        is(b"#!/bin/sh\necho", "/bin/sh", None);
        is(b"#! \t/bin/sh \t\n", "/bin/sh", None);
        is(b"#!/usr/bin/env  python3 -x  \n", "/usr/bin/env", Some("python3 -x"));
        is(b"#!/bin/sh", "/bin/sh", None);
        is(b"#!/bin/sh -e", "/bin/sh", Some("-e"));
        is(b"#!a\0b c\n", "a", None);
        assert_eq!(line(b"\x7fELF"), Ok(None));
        assert_eq!(line(b""), Ok(None));
        for bad in [&b"#!\n/bin/sh"[..], b"#!  \t \n", b"#!"] {
            assert_eq!(line(bad), Err(Errno::ENOEXEC), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_fills_the_buffer_is_refused_and_an_argument_is_cut() {
        let mut long = [b'x'; BINPRM_BUF_SIZE];
        long[..2].copy_from_slice(b"#!");
        assert_eq!(parse(&long), Err(Errno::ENOEXEC));
        long[10] = b' ';
        let l = parse(&long).expect("a line").expect("a script");
        assert_eq!((l.interpreter.len(), l.argument.map(|a| a.len())), (8, Some(BINPRM_BUF_SIZE - 11 - 1)));
    }
}

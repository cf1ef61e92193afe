//! `moat doctor`: looks at a host before anything fails on it.

mod checks;
mod hint;

use std::fmt;

use serde::Serialize;

use crate::args::Doctor;

pub(crate) use hint::hint;

/// How good something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    /// It works, but slower or with less.
    Slower,
    /// Something does not work without it.
    Missing,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Grade::Ok => "ok",
            Grade::Slower => "slower",
            Grade::Missing => "missing",
        })
    }
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    what: &'static str,
    grade: Grade,
    /// What was seen.
    seen: String,
    /// What mends it: a command, or what to set.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, seen: impl Into<String>) -> Finding {
        Finding { what, grade: Grade::Ok, seen: seen.into(), mend: None }
    }

    fn poor(what: &'static str, grade: Grade, seen: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { what, grade, seen: seen.into(), mend: Some(mend.into()) }
    }
}

/// Reports; 1 if something is missing.
pub(super) fn run(flags: &Doctor) -> anyhow::Result<u8> {
    let findings = checks::all(&checks::Host::real());
    if flags.json {
        super::print_json(&findings)?;
    } else {
        super::print(&findings.iter().map(line).collect::<String>())?;
    }
    Ok(u8::from(findings.iter().any(|finding| finding.grade == Grade::Missing)))
}

fn line(finding: &Finding) -> String {
    let mend = finding.mend.as_ref().map_or(String::new(), |mend| format!("\n{:29}{mend}", ""));
    format!("{:<8}{:<21}{}{mend}\n", finding.grade, finding.what, finding.seen)
}

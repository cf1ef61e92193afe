//! What is added to an error of another command: what this host lacks, and what mends it.

use moat_runtime::Error;
use rustix::io::Errno;

use super::checks::{Host, of_sandboxes};
use super::{Finding, Grade};

/// Errors of host calls that are what a host gives which does not have or allow something.
const SUSPECT: [Errno; 8] =
    [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::NOSPC, Errno::ACCESS, Errno::OPNOTSUPP, Errno::NODEV, Errno::SRCH];

/// Further lines for a person who sees this error; none where the host is not to blame.
#[must_use]
pub(crate) fn hint(error: &anyhow::Error) -> String {
    let errno = match error.downcast_ref::<Error>() {
        Some(Error::Host { error, .. }) => error.raw_os_error(),
        Some(Error::Boot(error)) => error.errno,
        _ => None,
    };
    let Some(errno) = errno.map(Errno::from_raw_os_error).filter(|errno| SUSPECT.contains(errno)) else {
        return String::new();
    };
    let findings = of_sandboxes(&Host::real());
    let text: String = findings.iter().filter(|finding| finding.grade == Grade::Missing).map(line).collect();
    match (text.is_empty(), errno) {
        (false, _) => format!("{text}\nmoat doctor says more about this host"),
        // Never alone: it tells nothing.
        (true, Errno::NOSYS | Errno::INVAL) => "\nmoat doctor looks whether this host has what moat needs".into(),
        _ => text,
    }
}

fn line(finding: &Finding) -> String {
    let mend = finding.mend.as_ref().map_or(String::new(), |mend| format!(" ({mend})"));
    format!("\n{}: {}{mend}", finding.what, finding.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_hosts_have_one() {
        let host = |errno: Errno| anyhow::Error::new(Error::Host { what: "trying".into(), error: errno.into() });
        assert!(hint(&host(Errno::NOSYS)).contains("moat doctor"));
        assert_eq!(hint(&host(Errno::NOENT)), "");
        assert_eq!(hint(&anyhow::anyhow!("some other")), "");
    }
}

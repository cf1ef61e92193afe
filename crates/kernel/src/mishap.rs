//! [`Mishap`]: the sentry's own faults on demand, for tests of what is said of them. Only builds with debug assertions have it.
//!
//! Whoever makes the sandbox asks for one by [`VARIABLE`] in its environment; a guest has no say in it.

use std::time::{Duration, Instant};

use moat_abi::nr;

/// The variable: `panic:CALL` or `hold:CALL`, by the name of a system call.
const VARIABLE: &str = "MOAT_MISHAP";

/// For how long a call holds its worker: past the watchdog's limit.
const HOLD: Duration = Duration::from_secs(7);

/// What happens in which system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    /// The handler panics.
    Panic(u32),
    /// It computes for a long time.
    Hold(u32),
}

impl Mishap {
    /// The one that the sandbox was made with.
    pub(crate) fn of_environment() -> Option<Mishap> {
        Mishap::parse(&std::env::var(VARIABLE).ok()?)
    }

    fn parse(text: &str) -> Option<Mishap> {
        let (what, name) = text.split_once(':')?;
        let number = (0..nr::COUNT).find(|number| nr::name(*number) == Some(name))?;
        match what {
            "panic" => Some(Mishap::Panic(number)),
            "hold" => Some(Mishap::Hold(number)),
            _ => None,
        }
    }

    /// A task makes this call.
    pub(crate) fn meet(self, nr: u64) {
        match self {
            Mishap::Panic(number) if u64::from(number) == nr => panic!("a mishap that was asked for"),
            Mishap::Hold(number) if u64::from(number) == nr => {
                let start = Instant::now();
                // No host call: the filter has none for this.
                while start.elapsed() < HOLD {
                    std::hint::spin_loop();
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mishap_is_named_by_its_call() {
        assert_eq!(Mishap::parse("panic:read"), Some(Mishap::Panic(nr::READ)));
        assert_eq!(Mishap::parse("hold:sync"), Some(Mishap::Hold(nr::SYNC)));
        for bad in ["", "panic", "panic:nothing", "else:read"] {
            assert_eq!(Mishap::parse(bad), None);
        }
        Mishap::Panic(nr::READ).meet(nr::WRITE.into());
    }
}

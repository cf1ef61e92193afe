//! `moat kill`.

use anyhow::bail;
use moat_abi::Signal;
use moat_runtime::Config;
use moat_runtime::sandbox::{ContainerTarget, ProcessTarget};

use crate::args::Kill;

pub(super) fn run(config: &Config, flags: &Kill) -> anyhow::Result<u8> {
    let container = super::load(config, &flags.id)?;
    let signal = parse_signal(&flags.signal)?;
    match flags.pid {
        Some(pid) => container.kill_process(pid, signal, ProcessTarget::Process)?,
        None => container.kill(signal, if flags.all { ContainerTarget::All } else { ContainerTarget::Init })?,
    }
    Ok(0)
}

/// A number, or a name with or without SIG, in any case.
pub(super) fn parse_signal(text: &str) -> anyhow::Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        // 0 asks whether it is there, as with kill(2).
        if (0..=64).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}");
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    match by_name(name) {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

fn by_name(name: &str) -> Option<i32> {
    // RTMIN+n and RTMAX-n as the C library counts: the first two are its own.
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    let realtime = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => 34i32.checked_add(offset(rest, '+')?),
        (_, Some(rest)) => 64i32.checked_sub(offset(rest, '-')?),
        _ => None,
    };
    if let Some(number) = realtime {
        return (34..=64).contains(&number).then_some(number);
    }
    let alias = match name {
        "IOT" => "ABRT",
        "POLL" => "IO",
        "CLD" => "CHLD",
        name => name,
    };
    (1..=64).find(|&number| {
        Signal::new(number).and_then(Signal::name).and_then(|known| known.strip_prefix("SIG")) == Some(alias)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGUSR1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("RTMAX", 64),
            ("IOT", 6),
        ] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["FOO", "65", "-1", "", "SIG", "RTMIN+31", "RTMAX+1", "RTMIN3", "RTMIN+2147483647"] {
            assert_eq!(parse_signal(bad).unwrap_err().to_string(), format!("unknown signal {bad:?}"));
        }
    }
}

//! [`Masquerade`]: rules by which packets of a network leave the host under the host's own address, by iptables(8) or nft(8).

use std::process::{Command, Output};

use crate::error::{Context, Error, Result};

/// Where the programs may be that a caller's PATH does not have.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Rules of the calling thread's network namespace, which go when this is dropped.
#[derive(Debug)]
pub(super) struct Masquerade(Vec<Vec<String>>);

impl Masquerade {
    /// Sets rules for the network `from`, in CIDR notation, behind `device`: its packets are let through, under the address of the device by
    /// which they leave, and answers to them back.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if neither program is there; what the program says.
    pub(super) fn set(from: &str, device: &str) -> Result<Masquerade> {
        let set = if find("iptables").is_some() {
            iptables(from, device)
        } else if find("nft").is_some() {
            vec![nft(from, device)]
        } else {
            let why = "neither iptables nor nft is installed, by which packets would find their way back; use --network=host or none";
            return Err(Error::unsupported("--network=sandbox of moat do".to_owned(), why));
        };
        let mut rules = Masquerade(Vec::new());
        for (add, remove) in set {
            run(&add)?;
            // What is there is taken away also if the next one can't be set.
            rules.0.insert(0, remove);
        }
        Ok(rules)
    }

    /// Whether one of the programs is there.
    #[cfg(test)]
    pub(super) fn is_possible() -> bool {
        find("iptables").or_else(|| find("nft")).is_some()
    }

    /// The rules that there are.
    #[cfg(test)]
    pub(super) fn rules() -> String {
        let program = if find("iptables").is_some() { "iptables-save" } else { "nft list ruleset" };
        let words: Vec<String> = program.split(' ').map(str::to_owned).collect();
        String::from_utf8_lossy(&run(&words).unwrap().stdout).into_owned()
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        for rule in &self.0 {
            if let Err(error) = run(rule) {
                tracing::warn!(%error, "a rule stays");
            }
        }
    }
}

/// What sets a rule, and what takes it away.
type Rule = (Vec<String>, Vec<String>);

fn iptables(from: &str, device: &str) -> Vec<Rule> {
    // Engines drop what is forwarded unless a rule says otherwise: before theirs, then.
    let chains = [
        ("-A", "nat", "POSTROUTING", format!("-s {from} ! -o {device} -j MASQUERADE")),
        ("-I", "filter", "FORWARD", format!("-i {device} -j ACCEPT")),
        ("-I", "filter", "FORWARD", format!("-o {device} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")),
    ];
    let line = |how: &str, table: &str, chain: &str, rule: &str| {
        let line = format!("iptables -w -t {table} {how} {chain} {rule} -m comment --comment {device}");
        line.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    chains
        .iter()
        .map(|(how, table, chain, rule)| (line(how, table, chain, rule), line("-D", table, chain, rule)))
        .collect()
}

fn nft(from: &str, device: &str) -> Rule {
    let table = format!(
        "add table ip {device}; \
         add chain ip {device} leave {{ type nat hook postrouting priority 100; }}; \
         add rule ip {device} leave ip saddr {from} oifname != \"{device}\" masquerade"
    );
    let line = |text: String| vec!["nft".to_owned(), text];
    (line(table), line(format!("delete table ip {device}")))
}

fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(Into::into));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn run(words: &[String]) -> Result<Output> {
    let (program, arguments) = words.split_first().map(|(program, rest)| (program.as_str(), rest)).unwrap_or_default();
    let found = find(program).unwrap_or_else(|| program.into());
    let output = Command::new(found).args(arguments).output().context(|| format!("running {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Invalid(format!("{}: {}", words.join(" "), said.trim())));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_taken_away() {
        for (set, remove) in iptables("172.29.0.4/30", "moat7") {
            let as_removed = |word: &String| if word == "-A" || word == "-I" { "-D".to_owned() } else { word.clone() };
            assert_eq!(set.iter().map(as_removed).collect::<Vec<_>>(), remove);
            assert!(set.iter().all(|word| !word.is_empty()));
        }
    }
}

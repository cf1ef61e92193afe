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

    /// Takes away what the killed have left: rules for devices that are not among `devices` any more. One has its device before its rules.
    pub(super) fn sweep(devices: &[String]) {
        let is_left = |owner: &str| is_ours(owner) && !devices.iter().any(|device| device == owner);
        let lines = if find("iptables").is_some() { left_of_iptables(&is_left) } else { left_of_nft(&is_left) };
        for line in lines {
            // Its owner may be about to do the same.
            if let Err(error) = run(&line) {
                tracing::debug!(%error, "an old rule stays");
            }
        }
    }

    /// Whether one of the programs is there.
    #[cfg(test)]
    pub(super) fn is_possible() -> bool {
        find("iptables").or_else(|| find("nft")).is_some()
    }

    /// The rules that there are.
    #[cfg(test)]
    pub(super) fn rules() -> String {
        said(if find("iptables").is_some() { "iptables-save" } else { "nft list ruleset" })
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

/// Whether it is the name of a device of `moat do`.
fn is_ours(name: &str) -> bool {
    name.strip_prefix("moat").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
}

/// What takes away the rules of iptables whose owner `is_left`: each has it as its comment.
fn left_of_iptables(is_left: &dyn Fn(&str) -> bool) -> Vec<Vec<String>> {
    let list = |table: &str, chain: &str| {
        let rules = said(&format!("iptables -w -t {table} -S {chain}"));
        rules.lines().filter_map(|rule| removal(table, rule, is_left)).collect::<Vec<_>>()
    };
    [list("nat", "POSTROUTING"), list("filter", "FORWARD")].concat()
}

/// What takes away a rule as iptables shows it, if its owner `is_left`.
fn removal(table: &str, rule: &str, is_left: &dyn Fn(&str) -> bool) -> Option<Vec<String>> {
    let rest = rule.strip_prefix("-A ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let owner = words.iter().skip_while(|word| **word != "--comment").nth(1)?;
    let line = format!("iptables -w -t {table} -D {rest}");
    is_left(owner).then(|| line.split(' ').map(str::to_owned).collect())
}

/// What takes away the tables of nft whose owner `is_left`: it is the name of each.
fn left_of_nft(is_left: &dyn Fn(&str) -> bool) -> Vec<Vec<String>> {
    let tables = said("nft list tables ip");
    let names = tables.lines().filter_map(|line| line.strip_prefix("table ip "));
    names.filter(|name| is_left(name)).map(|name| vec!["nft".to_owned(), format!("delete table ip {name}")]).collect()
}

/// What a program says; nothing if it fails.
fn said(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    run(&words).map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
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

    #[test]
    fn what_the_killed_have_left_is_taken_away() {
        let is_left = |owner: &str| is_ours(owner) && owner != "moat8";
        let rule = |owner: &str| format!("-A FORWARD -i {owner} -m comment --comment {owner} -j ACCEPT");
        let line = removal("filter", &rule("moat7"), &is_left).unwrap().join(" ");
        assert_eq!(line, "iptables -w -t filter -D FORWARD -i moat7 -m comment --comment moat7 -j ACCEPT");
        for other in ["moat8", "moat", "moat7x", "docker0"] {
            assert_eq!(removal("filter", &rule(other), &is_left), None, "{other}");
        }
        for other in ["-P FORWARD ACCEPT", "-A FORWARD -i moat7 -j ACCEPT", "-A FORWARD -m comment --comment", ""] {
            assert_eq!(removal("filter", other, &is_left), None, "{other}");
        }
    }
}

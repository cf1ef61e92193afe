//! The arguments of `cargo x test`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::kernels::{KERNELS, Kernel};
use super::{FileServer, Files, Platform, Writable};

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// `cargo test` over the workspace.
    Unit,
    /// Small guest programs that check the system-call interface.
    Abi,
    /// Small guest programs that are saved and restored.
    Checkpoint,
    /// Real programs on a Debian root.
    Programs,
    /// What an attacker can't do.
    Hardening,
    /// Docker, containerd, Podman and the bare command line.
    Oci,
    /// Sequences of file system calls, and kills, on every kind of tree.
    Files,
    /// Stock kernels in virtual machines; only if it is named.
    Hosts,
}

/// What to run, and how.
#[derive(Default)]
pub struct Options {
    area: Option<Area>,
    /// Prefixes of the cases to run; all if empty.
    pub cases: Vec<String>,
    platforms: Vec<Platform>,
    /// Host files are served by gofers, in all runs.
    pub gofer: bool,
    /// Run on the host only.
    pub native: bool,
    /// Install missing packages first.
    pub install: bool,
    /// Programs are saved in their middle, and nothing else is done with them.
    pub checkpointed: bool,
    /// Print the names of cases, run nothing.
    pub list: bool,
    /// How long a load goes on that is made for minutes.
    pub minutes: Option<u64>,
    /// The long form of what has one.
    pub long: bool,
    /// The short form of what has one, which stands in no run of everything without it.
    pub short: bool,
    /// Where random tests begin.
    pub seed: Option<u64>,
    /// The binary to test instead of building one.
    pub moat: Option<PathBuf>,
    kernels: Vec<Kernel>,
}

/// The programs of the abi area that are about files, each in tmpfs and in host trees reached directly and by a gofer.
/// And the cases that only this area has.
const ABOUT_FILES: [&str; 8] =
    ["objects/", "random/", "names/", "files/", "permissions/", "locks/", "sequence/", "crash/"];

impl Options {
    /// Parses the arguments after `cargo x test`.
    pub fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "unit" => options.area = Some(Area::Unit),
                "abi" => options.area = Some(Area::Abi),
                "files" => options.area = Some(Area::Files),
                "checkpoint" => options.area = Some(Area::Checkpoint),
                "programs" => options.area = Some(Area::Programs),
                "hardening" => options.area = Some(Area::Hardening),
                "oci" => options.area = Some(Area::Oci),
                "--case" => options.cases.push(value()?.clone()),
                "--platform" => options.platforms.push(Platform::parse(value()?)?),
                "--moat" => options.moat = Some(PathBuf::from(value()?)),
                "hosts" => options.area = Some(Area::Hosts),
                "--kernel" => options.kernels.push(Kernel::parse(value()?)?),
                "--minutes" => options.minutes = Some(value()?.parse()?),
                "--seed" => options.seed = Some(value()?.parse()?),
                "--long" => options.long = true,
                "--checkpointed" => options.checkpointed = true,
                "--short" => options.short = true,
                "--gofer" => options.gofer = true,
                "--native" => options.native = true,
                "--install" => options.install = true,
                "--list" => options.list = true,
                other => bail!("unknown argument '{other}'; see cargo x help"),
            }
        }
        Ok(options)
    }

    /// Whether this area is asked for.
    pub fn wants(&self, area: Area) -> bool {
        self.area.is_none_or(|a| a == area || (a == Area::Files && area == Area::Abi))
    }

    /// Whether virtual machines are asked for: by the area's name, or by the short form beside everything else.
    pub fn wants_machines(&self) -> bool {
        self.area == Some(Area::Hosts) || (self.area.is_none() && self.short)
    }

    /// The kernels of virtual machines.
    pub fn kernels(&self) -> &[Kernel] {
        if self.kernels.is_empty() { &KERNELS } else { &self.kernels }
    }

    /// Whether this case is asked for.
    pub fn wants_case(&self, name: &str) -> bool {
        let about_files = self.area != Some(Area::Files) || ABOUT_FILES.iter().any(|prefix| name.starts_with(prefix));
        about_files && (self.cases.is_empty() || self.cases.iter().any(|c| name.starts_with(c.as_str())))
    }

    /// How sandboxes reach the host's files where a case does not say.
    pub fn files(&self) -> Files {
        let server = if self.gofer { FileServer::Gofer } else { FileServer::Sandbox };
        Files { server, writable: Writable::Nothing }
    }

    /// The platforms to test, of those that a case supports.
    pub fn platforms(&self, supported: &[Platform]) -> Vec<Platform> {
        let wanted = |p: &Platform| self.platforms.is_empty() || self.platforms.contains(p);
        supported.iter().copied().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        Options::parse(&words)
    }

    #[test]
    fn cases_match_by_prefix() {
        let options = parse("programs --case git").unwrap();
        assert!(options.wants_case("git-clone") && !options.wants_case("make"));
        assert!(options.wants(Area::Programs) && !options.wants(Area::Abi));
    }

    #[test]
    fn a_case_keeps_its_own_platforms() {
        let options = parse("--platform ptrace").unwrap();
        assert!(options.platforms(&[Platform::Systrap]).is_empty());
        assert_eq!(parse("").unwrap().platforms(&[Platform::Systrap]).len(), 1);
    }

    #[test]
    fn machines_are_only_for_those_who_name_them() {
        assert!(!parse("").unwrap().wants_machines() && !parse("oci --short").unwrap().wants_machines());
        let options = parse("hosts --kernel 6.1").unwrap();
        assert!(options.wants_machines() && !options.wants(Area::Unit));
        let all = parse("--short").unwrap();
        assert!(all.wants_machines() && all.wants(Area::Unit) && all.wants(Area::Oci));
        assert_eq!((options.kernels().len(), parse("hosts").unwrap().kernels().len()), (1, KERNELS.len()));
    }

    #[test]
    fn a_wrong_argument_is_refused() {
        assert!(parse("--cases x").is_err() && parse("--case").is_err() && parse("hosts --kernel 2.6").is_err());
    }
}

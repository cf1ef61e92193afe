//! Disks and kernels of the virtual machines, made once and kept in `target/hosts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::test::kernels::Kernel;
use crate::test::{requirements, roots};

/// Where they are.
pub(super) struct Images {
    directory: PathBuf,
    form: Form,
}

/// Which root disk the machines have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A Debian with systemd and the clients.
    Whole,
    /// The programs' Debian root, which other tests have made: it is ready in seconds, but has neither.
    Short,
}

/// Packages can't be had here.
#[derive(Debug)]
pub(super) struct Unavailable(String);

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

/// The status of a script that says so.
const UNAVAILABLE: i32 = 77;

/// What making and running them takes.
const PROGRAMS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("debootstrap", "debootstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("xz", "xz-utils"),
];

impl Images {
    /// Makes what is missing or was made from other scripts.
    ///
    /// # Errors
    /// [`Unavailable`], among others.
    pub(super) fn ensure(kernels: &[Kernel], form: Form) -> Result<Images> {
        let directory = paths::target().join("hosts");
        fs::create_dir_all(&directory)?;
        let images = Images { directory: fs::canonicalize(directory)?, form };
        let missing: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| !requirements::is_installed(program))
            .map(|(_, name)| *name)
            .collect();
        if !missing.is_empty() {
            requirements::install_packages(&missing).map_err(|error| Unavailable(format!("{error:#}")))?;
        }
        let mirror = roots::mirror().map_err(|error| Unavailable(format!("{error:#}")))?;
        let mut remade = false;
        for kernel in kernels {
            let arguments = [mirror.as_str(), kernel.suite];
            remade |= images.make(&format!("kernel-{}", kernel.suite), "make-kernel.sh", &[], &arguments)?;
        }
        if remade {
            // It has the modules of all kernels.
            let _ = fs::remove_file(images.directory.join("root.stamp"));
        }
        match form {
            Form::Whole => {
                images.make("root", "make-image.sh", &["agent.sh", "packages", "make-container.sh"], &[&mirror])?
            }
            Form::Short => {
                let root = roots::ensure(roots::Kind::Base)?;
                let root = root.to_str().context("a path in UTF-8")?;
                images.make("small", "make-small-image.sh", &["agent.sh", "make-container.sh"], &[root])?
            }
        };
        Ok(images)
    }

    /// Runs a script of `tests/hosts` unless what it made is newer; says whether it ran.
    fn make(&self, name: &str, script: &str, sources: &[&str], arguments: &[&str]) -> Result<bool> {
        let scripts = paths::repository().join("tests/hosts");
        let all = [script].into_iter().chain(sources.iter().copied());
        let texts = all.map(|file| fs::read_to_string(scripts.join(file)));
        let wanted: String = texts.collect::<std::io::Result<_>>()?;
        let stamp = self.directory.join(format!("{name}.stamp"));
        if fs::read_to_string(&stamp).is_ok_and(|made| made == wanted) {
            return Ok(false);
        }
        println!("making {} (once, some minutes)", self.directory.join(name).display());
        let log = self.directory.join(format!("{name}.log"));
        let output = fs::File::create(&log)?;
        let mut command = Command::new(scripts.join(script));
        command.arg(&self.directory).args(arguments).stdout(output.try_clone()?).stderr(output);
        let status = command.status().with_context(|| script.to_owned())?;
        if status.code() == Some(UNAVAILABLE) {
            return Err(Unavailable(format!("{name}: the packages are not to be had; see {}", log.display())).into());
        }
        if !status.success() {
            bail!("{script}: {status}; see {}", log.display());
        }
        fs::write(stamp, wanted)?;
        Ok(true)
    }

    /// A disk with the program under test, what the cases share, and the load for networks: an archive, which the machine unpacks.
    pub(super) fn disk(&self, moat: &Path) -> Result<PathBuf> {
        let stripped = self.directory.join("moat");
        paths::run(Command::new("strip").arg("-o").arg(&stripped).arg(moat))?;
        let scripts = paths::repository().join("tests/hosts");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Werror", "-static", "-o"]).arg(self.directory.join("streams"));
        paths::run(cc.arg(scripts.join("streams.c")))?;
        let disk = self.directory.join("moat.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&disk).arg("-C").arg(&self.directory).args(["moat", "streams"]);
        paths::run(tar.arg("-C").arg(scripts).arg("library.sh"))?;
        Ok(disk)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.join(match self.form {
            Form::Whole => "root.img",
            Form::Short => "small.img",
        })
    }

    /// A file of a release's kernel.
    pub(super) fn kernel(&self, suite: &str, file: &str) -> PathBuf {
        self.directory.join(format!("kernel-{suite}")).join(file)
    }

    /// A file that a machine makes while it runs.
    pub(super) fn scratch(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

//! Random sequences of file system calls (`tests/files/sequence.c`), made natively and in the sandbox.
//!
//! Every result and errno, and the tree at the end, must be the same. A sequence that differs is shortened as far as it
//! goes and printed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::job::{tail, wait};
use super::super::{Job, Network, Options, Place, Platform, Prepared, Report, Runner, Writable, leftovers};
use super::shrink::{Compare, Difference, Plan};
use super::tree::{Native, TREES};
use super::{Tree, is_to_run, program, shrink};
use crate::paths;

/// How a run has ended that did not end.
const TIMED_OUT: &str = "timed out";
/// For one run of many sequences.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Where sequences are run.
struct Setup<'a> {
    runner: &'a mut Runner,
    program: PathBuf,
    tree: Tree,
    platform: Platform,
    scratch: Scratch,
}

/// A directory that goes with the value.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new(name: &str) -> Result<Scratch> {
        let path = paths::target().join("files").join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(fs::canonicalize(path)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is found by the next who looks at the disk's use; no result depends on it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the cases that the options ask for.
pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for tree in TREES {
        let name = format!("sequence/{}", tree.name);
        if !is_to_run(options, &name) {
            continue;
        }
        for platform in options.platforms(&[Platform::Systrap]) {
            let start = Instant::now();
            let scratch = Scratch::new("sequence")?;
            let program = program()?;
            let mut setup = Setup { runner: &mut *runner, program, tree, platform, scratch };
            let plan = match options.long {
                true => Plan { seed: options.seed.unwrap_or(1), sequences: 1000, steps: 100, only: Vec::new() },
                false => Plan { seed: options.seed.unwrap_or(1), sequences: 60, steps: 60, only: Vec::new() },
            };
            match setup.compare_all(&plan, options.native)? {
                None => report.pass(&format!("files/{name}"), start.elapsed()),
                Some(why) => report.fail(&format!("files/{name}"), why),
            }
        }
    }
    Ok(())
}

impl Setup<'_> {
    /// In portions, so that a difference is found before a long run is over.
    fn compare_all(&mut self, plan: &Plan, native_only: bool) -> Result<Option<String>> {
        const PORTION: u64 = 20;
        let end = plan.seed + plan.sequences;
        let mut next = plan.seed;
        while next < end {
            let (seed, sequences) = (next, PORTION.min(end - next));
            next += sequences;
            let portion = Plan { seed, sequences, ..plan.clone() };
            if native_only {
                // Twice the same natively: what is not can be compared with nothing.
                if self.natively(&portion)? != self.natively(&portion)? {
                    return Ok(Some(format!("sequences from {seed} on differ from run to run (a bug of the test)")));
                }
            } else {
                let found = self.differences(&portion)?;
                if !found.is_empty() {
                    return Ok(Some(shrink::report(self, plan, &found)?));
                }
            }
        }
        Ok(None)
    }

    fn natively(&mut self, plan: &Plan) -> Result<String> {
        let place = self.tree.place;
        let root = self.make_root(plan)?;
        let output = match self.tree.native {
            Native::Tmpfs | Native::Overlay => {
                let job = job(&root.0, place, &self.tree, plan);
                let prepared = self.runner.prepare(Place::Host, &job)?;
                self.alone(prepared)
            }
            Native::Directory => {
                let tree = root.0.join("tree");
                let mut guest = Command::new(&self.program);
                guest.args(&job(&root.0, &tree.display().to_string(), &self.tree, plan).arguments[1..]);
                self.with_partner(guest, &tree)
            }
        };
        output.context("natively")
    }

    fn sandboxed(&mut self, plan: &Plan) -> Result<String> {
        let root = self.make_root(plan)?;
        let job = job(&root.0, self.tree.place, &self.tree, plan);
        let prepared = self.runner.prepare(Place::Sandbox(self.platform), &job)?;
        if self.tree.native != Native::Directory {
            return self.alone(prepared);
        }
        let mut tree = root.0.join("tree");
        if self.tree.files.writable == Writable::Homes {
            tree = prepared.directory.join("homes/tmp");
            populate(&tree, plan)?;
        }
        let directory = prepared.directory.clone();
        let output = self.with_partner(prepared.command, &tree);
        fs::remove_dir_all(directory)?;
        output
    }

    /// A root with the program, and with a tree that is not empty.
    fn make_root(&self, plan: &Plan) -> Result<Scratch> {
        let root = Scratch(self.scratch.0.join("root"));
        for directory in ["bin", "dev", "proc", "root", "sys", "tmp", "tree", "etc"] {
            fs::create_dir_all(root.0.join(directory))?;
        }
        fs::copy(&self.program, root.0.join("bin/sequence"))?;
        populate(&root.0.join("tree"), plan)?;
        Ok(root)
    }

    fn alone(&mut self, prepared: Prepared) -> Result<String> {
        let outcome = self.runner.run_prepared(prepared, TIMEOUT)?;
        let mut text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        text.push_str(&format!("{}{}\n", outcome.ending, tail(&outcome.stderr, 5)));
        Ok(text)
    }

    /// Runs the command connected with a partner that sees the same tree.
    fn with_partner(&mut self, mut guest: Command, tree: &Path) -> Result<String> {
        let mut host = Command::new(&self.program)
            .arg("--host")
            .arg(tree)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        guest.stdin(host.stdout.take().context("no pipe")?).stdout(host.stdin.take().context("no pipe")?);
        guest.stderr(Stdio::piped());
        let mut child = guest.spawn()?;
        // Its copies of the pipes would keep the two from seeing each other's end.
        drop(guest);
        let result = read_all(host.stderr.take());
        let complaint = read_all(child.stderr.take());
        let ended = finish(&mut child)?;
        // One that had to be killed has taken its partner along.
        if ended != TIMED_OUT {
            finish(&mut host)?;
        }
        leftovers::reap_descendants();
        let read = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
        let mut text = String::from_utf8_lossy(&read(result)).into_owned();
        text.push_str(&format!("{ended}{}\n", tail(&read(complaint), 5)));
        Ok(text)
    }
}

impl Compare for Setup<'_> {
    fn differences(&mut self, plan: &Plan) -> Result<Vec<Difference>> {
        let native = self.natively(plan)?;
        let sandboxed = self.sandboxed(plan)?;
        Ok(shrink::differences(&native, &sandboxed))
    }

    fn transcript(&mut self, plan: &Plan) -> Result<String> {
        self.natively(plan)
    }
}

fn finish(child: &mut Child) -> Result<String> {
    if let Some(status) = wait(child, Instant::now() + TIMEOUT)? {
        return Ok(super::super::job::ending_of(status).to_string());
    }
    leftovers::kill_descendants();
    let _ = child.wait();
    Ok(TIMED_OUT.to_string())
}

fn read_all(pipe: Option<ChildStderr>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What is missing shows in the comparison.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn job<'a>(root: &'a Path, place: &str, tree: &Tree, plan: &Plan) -> Job<'a> {
    let mut arguments = vec!["/bin/sequence".to_string(), "--guest".into(), place.into()];
    arguments.extend([plan.seed.to_string(), plan.sequences.to_string(), plan.steps.to_string()]);
    arguments.push(tree.actors.into());
    if !plan.only.is_empty() {
        arguments.push(plan.only.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    }
    Job { name: "sequence", root, arguments, network: Network::Sandbox, files: tree.files, timeout: TIMEOUT }
}

/// What each sequence starts with: directories, links of both kinds, a file of some pages, a directory of somebody else.
fn populate(tree: &Path, plan: &Plan) -> Result<()> {
    for seed in plan.seed..plan.seed + plan.sequences {
        let top = tree.join(format!("seq-{seed}"));
        if top.exists() {
            bail!("{} exists", top.display());
        }
        fs::create_dir_all(top.join("a/b"))?;
        fs::write(top.join("a/a"), "first\n".repeat(20))?;
        fs::write(top.join("a/b/c"), "deep\n")?;
        fs::write(top.join("b"), "0123456789\n".repeat(1000))?;
        symlink("b", top.join("c"))?;
        fs::create_dir(top.join("d"))?;
        chown(top.join("d"), Some(1000), Some(1000))?;
        fs::hard_link(top.join("a/a"), top.join("e"))?;
        for (name, mode) in [("", 0o777), ("a", 0o755), ("a/b", 0o777), ("a/a", 0o644), ("b", 0o666), ("d", 0o700)] {
            fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

//! A tree of the host that the sandbox has as a bind mount, or as its root, while another process swaps directories for
//! links that lead out, moves directories out and in, and puts FIFOs, links and device nodes in the places of files.
//!
//! The guest program looks for what must not be seen; here it is checked that nothing outside has changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, makedev, mkdirat, mknodat, openat, renameat_with, symlinkat,
    unlinkat,
};

use super::super::job::tail;
use super::super::{
    Ending, FileServer, Files, Job, Network, Options, Outcome, Place, Platform, Report, Runner, Writable, bundle,
};
use super::Scratch;

/// How long the guest works in the tree.
const SECONDS: u64 = 4;

/// How long the guest, the sandbox's start and its end may take together.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the file outside contains, as in the guest program.
const MARKER: &str = "MARKER";

/// How the guest has the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    Bind,
    Root,
    /// As the root, but changes stay in memory.
    OverlaidRoot,
}

pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    let kinds = [("bind", As::Bind), ("root", As::Root), ("overlaid-root", As::OverlaidRoot)];
    let servers = [("direct", FileServer::Sandbox), ("gofer", FileServer::Gofer)];
    for (kind, server) in kinds.iter().flat_map(|kind| servers.iter().map(move |server| (kind, server))) {
        let name = format!("hardening/host-tree/{}-{}", kind.0, server.0);
        if !options.wants_case(name.trim_start_matches("hardening/")) {
            continue;
        }
        if options.list {
            println!("{name}");
            continue;
        }
        for platform in options.platforms(&[Platform::Systrap]) {
            let start = Instant::now();
            match attack(runner, platform, kind.1, server.1)? {
                None => report.pass(&name, start.elapsed()),
                Some(why) => report.fail(&name, why),
            }
        }
    }
    Ok(())
}

/// One run; says what went wrong.
fn attack(runner: &mut Runner, platform: Platform, kind: As, server: FileServer) -> Result<Option<String>> {
    let program = super::build("host_tree")?;
    let scratch = Scratch::new("tree")?;
    let (root, outside) = (scratch.0.join("root"), scratch.0.join("outside"));
    super::make_root(&root, &program, "host_tree")?;
    let tree = if kind == As::Bind { scratch.0.join("tree") } else { root.join("tree") };
    fill(&tree)?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("marker"), MARKER)?;
    let before = snapshot(&outside)?;

    let writable = if kind == As::Root { Writable::Root } else { Writable::Nothing };
    let job = Job {
        name: "host-tree",
        root: &root,
        arguments: vec!["/bin/host_tree".into(), "/tree".into(), SECONDS.to_string()],
        network: Network::default(),
        files: Files { server, writable },
        timeout: TIMEOUT,
    };
    let prepared = runner.prepare(Place::Sandbox(platform), &job)?;
    if kind == As::Bind {
        bundle::bind(&prepared.directory, &tree, "/tree")?;
    }
    let racers = Racer::all(&tree, &outside)?;
    let stop = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let racers: Vec<_> = racers.into_iter().map(|racer| scope.spawn(|| racer.run(&stop))).collect();
        let outcome = runner.run_prepared(prepared, TIMEOUT);
        stop.store(true, Ordering::Relaxed);
        let rounds: Vec<u64> = racers.into_iter().map(|racer| racer.join().unwrap_or(0)).collect();
        outcome.map(|outcome| (outcome, rounds))
    });
    let (outcome, rounds) = outcome?;
    let after = snapshot(&outside)?;
    Ok(verdict(&outcome, &rounds, &before, &after))
}

fn verdict(outcome: &Outcome, rounds: &[u64], before: &Snapshot, after: &Snapshot) -> Option<String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    if before != after {
        return Some(format!("what is outside has changed: {before:?} became {after:?}"));
    }
    if outcome.ending != Ending::Exited(0) || !stdout.lines().any(|line| line == "done") {
        return Some(format!("{}: {stdout}{}", outcome.ending, tail(&outcome.stderr, 12)));
    }
    if stdout.contains("ESCAPED") || stdout.contains("IDLE") {
        return Some(stdout.into_owned());
    }
    if rounds.iter().any(|rounds| *rounds < 20) {
        return Some(format!("the other process did next to nothing: {rounds:?} rounds"));
    }
    (!outcome.leftovers.is_empty()).then(|| format!("left behind: {:?}", outcome.leftovers))
}

fn fill(tree: &Path) -> Result<()> {
    for directory in ["a/sub/deep", "b/sub/deep", "roam/sub"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    for file in ["a/file", "b/file", "roam/file", "a/sub/file", "b/sub/file", "swapped", "a/swapped"] {
        fs::write(tree.join(file), "inside")?;
    }
    Ok(())
}

/// What is outside, but for what the racers put there themselves.
type Snapshot = BTreeMap<String, (u32, u32, u64, String)>;

fn snapshot(outside: &Path) -> Result<Snapshot> {
    let mut all = Snapshot::new();
    for entry in fs::read_dir(outside)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("racer-") {
            continue;
        }
        let meta = entry.metadata()?;
        let text = if meta.is_file() { fs::read_to_string(entry.path())? } else { String::new() };
        all.insert(name, (meta.mode(), meta.uid(), meta.nlink(), text));
    }
    let own = fs::metadata(outside)?;
    all.insert(".".into(), (own.mode(), own.uid(), 0, String::new()));
    Ok(all)
}

/// One thing that the other process does over and over.
struct Racer {
    step: Box<dyn Fn() + Send + Sync>,
}

/// A name in a directory, which is held open: its path may lead elsewhere at any moment.
#[derive(Clone)]
struct Entry(Arc<OwnedFd>, &'static str);

impl Entry {
    fn exchange(&self, other: &Entry) {
        // Either may be missing just now.
        let _ = renameat_with(&self.0, self.1, &other.0, other.1, RenameFlags::EXCHANGE);
    }

    fn move_to(&self, other: &Entry) {
        let _ = renameat_with(&self.0, self.1, &other.0, other.1, RenameFlags::NOREPLACE);
    }

    fn make_directory(&self) {
        let _ = mkdirat(&self.0, self.1, Mode::from_raw_mode(0o755));
    }

    fn make_file(&self) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        if let Ok(file) = openat(&self.0, self.1, flags, Mode::from_raw_mode(0o644)) {
            let _ = rustix::io::write(file, b"inside");
        }
    }
}

fn directory(path: &Path) -> Result<Arc<OwnedFd>> {
    Ok(Arc::new(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
}

impl Racer {
    fn run(self, stop: &AtomicBool) -> u64 {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            (self.step)();
            rounds += 1;
        }
        rounds
    }

    fn all(tree: &Path, outside: &Path) -> Result<Vec<Racer>> {
        let [t, a, b, sub, roam, away] = [
            directory(tree)?,
            directory(&tree.join("a"))?,
            directory(&tree.join("b"))?,
            directory(&tree.join("a/sub"))?,
            directory(&tree.join("roam"))?,
            directory(outside)?,
        ];
        let steps: [Box<dyn Fn() + Send + Sync>; 3] = [
            Box::new(links_for_directories(&t, &a, &away, outside)),
            Box::new(directories_elsewhere(&t, &b, &roam, &away)),
            Box::new(anything_for_files(&t, &a, &sub, &away, outside)),
        ];
        Ok(steps.into_iter().map(|step| Racer { step }).collect())
    }
}

fn links_for_directories(
    tree: &Arc<OwnedFd>,
    a: &Arc<OwnedFd>,
    away: &Arc<OwnedFd>,
    outside: &Path,
) -> impl Fn() + use<> {
    let targets = [outside.to_path_buf(), "../outside".into(), "../../outside".into(), "/".into()];
    let places = [Entry(tree.clone(), "a"), Entry(tree.clone(), "b"), Entry(a.clone(), "sub")];
    let spare = Entry(away.clone(), "racer-link");
    move || {
        for (target, place) in targets.iter().flat_map(|target| places.iter().map(move |place| (target, place))) {
            let _ = symlinkat(target, &spare.0, spare.1);
            spare.exchange(place);
            spare.exchange(place);
            let _ = unlinkat(&spare.0, spare.1, AtFlags::empty());
            place.make_directory();
        }
    }
}

fn directories_elsewhere(
    tree: &Arc<OwnedFd>,
    b: &Arc<OwnedFd>,
    roam: &Arc<OwnedFd>,
    away: &Arc<OwnedFd>,
) -> impl Fn() + use<> {
    let (home, outside) = (Entry(tree.clone(), "roam"), Entry(away.clone(), "racer-roam"));
    let (sub, inside) = (Entry(b.clone(), "sub"), Entry(roam.clone(), "moved"));
    let (file, below, deeper) = (Entry(roam.clone(), "file"), Entry(roam.clone(), "sub"), Entry(b.clone(), "roamed"));
    move || {
        home.move_to(&outside);
        file.make_file();
        outside.move_to(&home);
        below.make_directory();
        // The tree's own directories in one another's places.
        sub.move_to(&inside);
        home.move_to(&deeper);
        deeper.move_to(&home);
        inside.move_to(&sub);
    }
}

fn anything_for_files(
    tree: &Arc<OwnedFd>,
    a: &Arc<OwnedFd>,
    sub: &Arc<OwnedFd>,
    away: &Arc<OwnedFd>,
    outside: &Path,
) -> impl Fn() + use<> {
    let places = [
        Entry(tree.clone(), "swapped"),
        Entry(a.clone(), "swapped"),
        Entry(a.clone(), "file"),
        Entry(sub.clone(), "file"),
    ];
    let spare = Entry(away.clone(), "racer-file");
    let marker = outside.join("marker");
    move || {
        for (place, kind) in places.iter().flat_map(|place| (0..5).map(move |kind| (place, kind))) {
            let _ = unlinkat(&spare.0, spare.1, AtFlags::empty());
            let mode = Mode::from_raw_mode(0o666);
            let _ = match kind {
                0 => mknodat(&spare.0, spare.1, FileType::Fifo, mode, 0),
                1 => symlinkat(&marker, &spare.0, spare.1),
                2 => symlinkat("../outside/marker", &spare.0, spare.1),
                // The terminal of whoever opens it.
                3 => mknodat(&spare.0, spare.1, FileType::CharacterDevice, mode, makedev(5, 0)),
                _ => {
                    spare.make_file();
                    Ok(())
                }
            };
            spare.exchange(place);
            place.make_file();
        }
    }
}

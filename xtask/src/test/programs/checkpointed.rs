//! Programs that are saved in the middle and go on out of the image, in another sandbox and on another platform: they must give what
//! an uninterrupted run gives. Meanwhile they are paused, or another program is executed beside them.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Case, Options, difference};
use crate::test::checkpoint::{as_restore, copy_of, other_command, save};
use crate::test::job::{Prepared, collect, ending_of, tail, wait};
use crate::test::{Ending, Job, Outcome, Place, Platform, Report, Runner, leftovers};

/// Programs that are saved in each run of everything.
const ALWAYS: [&str; 4] = ["python-asyncio", "python-processes", "shell", "sqlite"];

/// How often one is saved in the long form.
const ROUNDS: usize = 20;

/// A program that ends in less is not caught in its middle.
const MOMENT: Duration = Duration::from_millis(100);

/// How often it is tried to come before its end, each time in half of the time.
const TRIES: u32 = 4;

/// Whether a case is to be saved in the middle.
pub(super) fn wants(options: &Options, case: &Case) -> bool {
    options.checkpointed || (!options.native && ALWAYS.contains(&case.name.as_str()))
}

/// Saves a case in its middle and compares what it gives with `expected`.
pub(super) fn run(
    options: &Options,
    runner: &mut Runner,
    report: &mut Report,
    (case, job): (&Case, &Job),
    expected: &Outcome,
) {
    let platforms = options.platforms(&case.platforms);
    for (first, (from, to)) in routes(&platforms, options.checkpointed).into_iter().enumerate() {
        let name = format!("programs/{}-to-{}/{}", from.name(), to.name(), case.name);
        let plan = Plan { from, to, rounds: if options.long { ROUNDS } else { 1 }, first };
        let start = Instant::now();
        match plan.run(runner, job, expected) {
            Ok(None) => report.skip(&name, "it ends before it can be saved"),
            Ok(Some(outcome)) => match difference(expected, &outcome) {
                None => report.pass(&name, start.elapsed()),
                Some(why) => report.fail(&name, why),
            },
            Err(error) => report.fail(&name, format!("{error:#}")),
        }
    }
}

/// From which platform to which: all ways, or only one to another.
fn routes(platforms: &[Platform], all: bool) -> Vec<(Platform, Platform)> {
    let ways = platforms.iter().flat_map(|from| platforms.iter().map(|to| (*from, *to)));
    let mut routes: Vec<_> = ways.filter(|(from, to)| all || from != to || platforms.len() == 1).collect();
    if !all {
        routes.truncate(1);
    }
    routes
}

/// What else goes on when a program is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Somebody has paused it; it goes on when it is restored.
    Paused,
    /// Another program is executed in its container, and writes to somebody who is gone when it is restored.
    Executing,
}

/// They take turns.
const MEANWHILE: [Meanwhile; 3] = [Meanwhile::Executing, Meanwhile::Paused, Meanwhile::Nothing];

/// Says something until nobody takes it.
const TALK: &str = "while echo and; do sleep 0.01; done";

struct Plan {
    from: Platform,
    to: Platform,
    rounds: usize,
    /// What the first save has of [`MEANWHILE`].
    first: usize,
}

impl Plan {
    /// None if the program ended before it could be saved.
    fn run(&self, runner: &mut Runner, job: &Job, expected: &Outcome) -> Result<Option<Outcome>> {
        let mut after = expected.elapsed.mul_f64(0.6).max(MOMENT);
        for _ in 0..TRIES {
            let prepared = runner.prepare(Place::Sandbox(self.from), job)?;
            let interrupted = self.interrupted(&prepared, job, after);
            // Nothing of a run that failed may be in the way of the next.
            let left = leftovers::reap_descendants();
            let removed = fs::remove_dir_all(&prepared.directory);
            let (saved, mut outcome) = interrupted?;
            removed.with_context(|| prepared.directory.display().to_string())?;
            outcome.leftovers.extend(left);
            if saved > 0 {
                return Ok(Some(outcome));
            }
            after /= 2;
        }
        Ok(None)
    }

    /// Runs the job, and saves it each time that so much time has passed; gives how often, and what it gave in all.
    fn interrupted(&self, prepared: &Prepared, job: &Job, after: Duration) -> Result<(usize, Outcome)> {
        let start = Instant::now();
        let mut outcome = Outcome {
            ending: Ending::TimedOut,
            stdout: Vec::new(),
            stderr: Vec::new(),
            elapsed: after,
            leftovers: Vec::new(),
        };
        let step = after / u32::try_from(self.rounds).unwrap_or(1);
        let mut saved = 0;
        let mut image: Option<PathBuf> = None;
        loop {
            let command = match &image {
                None => copy_of(&prepared.command, |arguments| arguments),
                Some(image) => as_restore(&prepared.command, self.from, self.platform(saved), image),
            };
            let mut leg = Leg::start(command)?;
            let again = saved < self.rounds;
            let next = prepared.directory.join(format!("image-{saved}"));
            // What it has to do before its program runs is no part of the time.
            if again && !leg.ends_within(step)? {
                match leg.save(prepared, &next, self.meanwhile(saved)) {
                    Ok(true) => {}
                    // It has ended meanwhile.
                    Ok(false) => {}
                    Err(error) => {
                        leg.kill();
                        let said = String::from_utf8_lossy(&leg.finish(&mut outcome)?).into_owned();
                        bail!("{error:#}, after {saved} times{}", tail(said.as_bytes(), 6));
                    }
                }
            }
            let deadline = start + job.timeout.saturating_mul(2);
            let Some(status) = wait(&mut leg.child, deadline)? else {
                leftovers::kill_descendants();
                leg.kill();
                leg.finish(&mut outcome)?;
                break;
            };
            let was_saved = again && next.exists();
            leg.finish(&mut outcome)?;
            if let Some(old) = image.take() {
                fs::remove_dir_all(&old).with_context(|| old.display().to_string())?;
            }
            if !was_saved {
                outcome.ending = ending_of(status);
                break;
            }
            // As after a checkpoint of runc's: to who waits for it, it was killed.
            if status.code() != Some(137) {
                bail!("the command that had run it ended with {status} when it was saved");
            }
            saved += 1;
            image = Some(next);
        }
        outcome.elapsed = start.elapsed();
        outcome.leftovers = leftovers::on_host(&prepared.id, &prepared.directory);
        Ok((saved, outcome))
    }

    /// What goes on when it is saved after so many times.
    fn meanwhile(&self, saved: usize) -> Meanwhile {
        MEANWHILE[(self.first + saved) % MEANWHILE.len()]
    }

    /// Where it goes on after so many times: there and back again.
    fn platform(&self, saved: usize) -> Platform {
        if saved.is_multiple_of(2) { self.from } else { self.to }
    }
}

/// The job in one sandbox.
struct Leg {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Leg {
    fn start(mut command: Command) -> Result<Leg> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Ok(Leg { child, stdout, stderr })
    }

    fn ends_within(&mut self, time: Duration) -> Result<bool> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(2).min(time));
        }
        Ok(false)
    }

    /// Saves the job; false if it ended instead.
    fn save(&mut self, prepared: &Prepared, image: &Path, meanwhile: Meanwhile) -> Result<bool> {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let mut talk = None;
            let mut output = match meanwhile {
                Meanwhile::Nothing => save(prepared, image, &[])?,
                Meanwhile::Paused => other_command(prepared, "pause", &[OsStr::new(&prepared.id)]).output()?,
                Meanwhile::Executing => {
                    talk = Talk::start(prepared)?;
                    save(prepared, image, &[])?
                }
            };
            if meanwhile == Meanwhile::Paused && output.status.success() {
                output = save(prepared, image, &[])?;
            }
            if let Some(talk) = talk {
                talk.end()?;
            }
            if output.status.success() {
                return Ok(true);
            }
            let said = String::from_utf8_lossy(&output.stderr);
            // One that is being made can't be saved yet, and one that ends takes a moment.
            let early = ["does not exist", "created", "creating", "not running"].iter().any(|word| said.contains(word));
            if self.ends_within(Duration::from_millis(if early { 50 } else { 500 }))? {
                return Ok(false);
            }
            if !early || Instant::now() > patience {
                bail!("it could not be saved: {}", tail(&output.stderr, 6));
            }
        }
    }

    /// Its end: adds what it has printed; gives its standard error output.
    fn finish(self, outcome: &mut Outcome) -> Result<Vec<u8>> {
        outcome.stdout.extend(self.stdout.join().unwrap_or_default());
        let stderr = self.stderr.join().unwrap_or_default();
        outcome.stderr.extend(&stderr);
        Ok(stderr)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        leftovers::kill_descendants();
    }
}

/// A program that is executed in the job's container, which has said something.
struct Talk {
    child: Child,
    output: ChildStdout,
}

impl Talk {
    /// None if the container is not there yet, or not any more.
    fn start(prepared: &Prepared) -> Result<Option<Talk>> {
        let arguments = [&prepared.id, "sh", "-c", TALK].map(OsStr::new);
        let mut command = other_command(prepared, "exec", &arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = child.stdout.take().context("its output is a pipe")?;
        if output.read(&mut [0; 4])? == 0 {
            child.wait()?;
            return Ok(None);
        }
        Ok(Some(Talk { child, output }))
    }

    /// It ends with the container, or because nobody listens.
    fn end(mut self) -> Result<()> {
        drop(self.output);
        self.child.wait()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_in_each_run_and_all_if_asked() {
        let both = Platform::ALL;
        assert_eq!(routes(&both, false), [(Platform::Systrap, Platform::Ptrace)]);
        assert_eq!(routes(&both, true).len(), 4);
        assert_eq!(routes(&[Platform::Systrap], false), [(Platform::Systrap, Platform::Systrap)]);
    }
}

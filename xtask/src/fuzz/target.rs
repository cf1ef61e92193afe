//! `cargo x fuzz TARGET` and `all`: the parsers of `crates/fuzz`, each by itself, under libFuzzer.
//!
//! The flags are those of cargo-fuzz without a sanitizer, all of which a stable compiler has. New inputs that reach new code are kept in
//! `target/fuzz/corpus`; `fuzz/corpus` has the seeds, which a unit test replays, and what was found once.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::test::Options;

/// What makes LLVM count which code was reached and say what was compared.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Memory that a target may take, in MiB, and seconds that one input may.
const MEMORY: &str = "-rss_limit_mb=2048";
const TIMEOUT: &str = "-timeout=20";

/// The names of all targets: each has seeds.
pub(super) fn names() -> Result<Vec<String>> {
    let seeds = paths::repository().join("fuzz/corpus");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&seeds).with_context(|| seeds.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Runs these targets one after another, each for so many minutes; a finding is an error that names its input.
pub(super) fn run(wanted: &[String], arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let seconds = options.minutes.unwrap_or(1) * 60;
    build(wanted)?;
    let mut found = Vec::new();
    for name in wanted {
        println!("fuzz/{name}: {seconds} s");
        if !command(name, seconds, options.seed)?.status()?.success() {
            found.push(name.as_str());
        }
    }
    if !found.is_empty() {
        bail!("findings of {}, in {}", found.join(", "), directory("findings")?.display());
    }
    Ok(())
}

fn build(names: &[String]) -> Result<()> {
    let mut build = paths::cargo();
    build.args(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TRIPLE, "--target-dir"]);
    build.arg(directory("build")?).env("RUSTFLAGS", COVERAGE);
    build.args(names.iter().flat_map(|name| ["--bin", name]));
    paths::run(&mut build)
}

fn command(name: &str, seconds: u64, seed: Option<u64>) -> Result<Command> {
    let mut command = Command::new(directory("build")?.join(TRIPLE).join("release").join(name));
    command.arg(directory(&format!("corpus/{name}"))?).arg(paths::repository().join("fuzz/corpus").join(name));
    command.args([MEMORY, TIMEOUT, "-print_final_stats=1", "-verbosity=0"]);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/{name}-", directory("findings")?.display()));
    command.args(seed.map(|seed| format!("-seed={seed}")));
    Ok(command)
}

/// A directory of the target directory, which then exists.
fn directory(name: &str) -> Result<PathBuf> {
    let path = paths::target().join("fuzz").join(name);
    std::fs::create_dir_all(&path)?;
    Ok(std::fs::canonicalize(path)?)
}

//! Developer commands: `cargo x check|test|bench|ci`.
//!
//! Everything that a developer or the CI runs goes through here, so that both run the same thing.
//! [`check`] is about the source, [`mod@test`] about behaviour, [`fuzz`] about random input, [`mutants`] about the tests, [`mod@bench`] about speed and size.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod dist;
mod fuzz;
mod mutants;
mod paths;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
cargo x check                 formatting, lints, layers, dependencies, ratchets, documentation
cargo x ratchet               bring the numbers in xtask/ratchets to what the sources have
cargo x docs                  write docs/syscalls.md from the declarations, and docs/host-calls.md from the sentry's filter
cargo x test [AREA] [flags]   AREA: unit, abi, checkpoint, files, programs, hardening or oci; all of them by default;
                              files comes with the part of abi that is about files; hosts, which boots virtual
                              machines with stock kernels, is only run by its name or, in its short form, by --short
    --case NAME               only the cases whose name is or starts with NAME (repeatable)
    --platform P              only this platform: systrap or ptrace (repeatable)
    --native                  run abi and programs on the host alone, oci with runc, which proves the tests themselves
    --gofer                   abi and programs with --directfs=false, not only those that try it anyway
    --checkpointed            programs: each is saved in its middle and goes on in another sandbox, also on the other
                              platform; with --long it is saved 20 times
    --short                   hosts: on one kernel, the oldest or that which is named, without systemd and the clients, in a
                              minute or two; without AREA, beside everything else
    --kernel V                hosts: only Linux 5.10, 6.1 or 6.12 (repeatable)
    --minutes N               hardening: the load on a build that checks the order of locks goes on for N minutes, not seconds
    --long                    files: 200 kills, and sequences for minutes; hardening: how long each call holds up others
    --seed N                  files: other sequences
    --moat PATH               test this binary instead of building one
    --install                 first install with apt what the tests need
    --list                    name the cases and stop
cargo x bench [NAME...]       compare native, moat and runsc, in one run; lifecycle and docker with runc
    --rounds N                interleaved rounds; the median counts (default 7)
    --moat PATH               measure this binary instead of building one
    --platform P              leave the other platform out
    --older                   start: also with a filter that refuses what came after Linux 5.10
    --write                   put the table into docs/performance.md as well
cargo x bench scale [KIND...] how costs grow with the number of things: exponents; takes long
cargo x fuzz guest            random system calls in sandboxes, made of the declarations; prints the seed of what it finds
    --minutes N --platform P --seed N --moat PATH
cargo x fuzz TARGET|all       a parser by itself under libFuzzer, with a stable compiler; the names are those in fuzz/corpus
    --minutes N --seed N
cargo x mutants CRATE         change the crate in one place after the other (cargo-mutants) and see whether its unit tests
                              and the checks of tests/abi about it notice; docs/testing.md has the figures
    --shard K/N               a part of the places
cargo x dist                  the static program, stripped, with manual pages and completions, as .tar.zst, .deb and .rpm in target/dist
    --verify                  install the .deb in a copy of the tests' Debian root, use it there, remove it
cargo x roots [base|full|desk] make the Debian roots of the tests, print where they are
cargo x ci                    what the CI runs: check, then test";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", [].as_slice()),
    };
    let outcome = match command {
        "check" => check::run(),
        "ratchet" => check::tighten_ratchets(),
        "docs" => check::write_documents(),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "dist" => dist::run(rest),
        "fuzz" => fuzz::run(rest),
        "mutants" => mutants::run(rest),
        test::ENTER_ROOT => test::enter_root(rest),
        "roots" => test::make_roots(rest),
        "ci" => check::run().and_then(|()| test::run(&["--install".to_string(), "--short".to_string()])),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("unknown command '{other}'\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

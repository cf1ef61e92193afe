//! `docs/host-calls.md`: what a sentry may ask of the host, written from the tables of its filter; and whether the compiled program
//! allows that and no more.
//!
//! `cargo x docs` runs the test with [`WRITE`] set; else it compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use moat_abi::ptrace::SockFilter;
use moat_bpf::{Input, Loads, Program, Size};
use moat_control::spec::SocketUse;
use moat_jail::seccomp::{Arg, HOST_FIFOS, compile};
use moat_syscalls::table::declarations;

use super::*;

/// Has the file written instead of compared.
const WRITE: &str = "MOAT_WRITE_HOST_CALLS";

const HEAD: &str = "\
# What a sentry may ask of the host

Written by `cargo x docs` from the tables of the sandbox process's filter (`crates/sentry/src/boot/seccomp`, `crates/jail/src/seccomp`): change
them there. Every other call ends the process, but clone3 (ENOSYS) and openat of the working directory (EACCES). *is*, *is not*, *lacks* and *has* are about
the lower 32 bits of an argument; `;` parts alternatives. 0xffffff9c is AT_FDCWD. Reasons and tests of the rules are in [security.md](security.md).

A call with conditions is counted once, whatever the number of its alternatives. What the process that makes them has of namespaces and capabilities
is in [security.md](security.md), too.

";

/// The descriptor of the procfs, in the list.
const PROC: std::os::fd::RawFd = 0x7fff;

fn all(platform: PlatformKind, files: FileAccess) -> Vec<Rule<'static>> {
    rules::all(platform, files).collect()
}

/// Calls with their alternatives, and where there are none any arguments.
fn by_call<'a>(rules: &[Rule<'a>]) -> BTreeMap<i64, Vec<&'a [Arg]>> {
    let mut calls: BTreeMap<i64, Vec<&[Arg]>> = BTreeMap::new();
    for rule in rules {
        let alternatives = calls.entry(rule.call).or_default();
        if !rule.args.is_empty() {
            alternatives.push(rule.args);
        }
    }
    calls
}

fn name(call: i64) -> &'static str {
    u32::try_from(call).ok().and_then(moat_abi::nr::name).unwrap_or("?")
}

/// An argument's name where guests have the call too, else its number.
fn argument(call: i64, arg: Arg) -> String {
    let all = declarations();
    let declared = all.iter().find(|d| i64::from(d.nr) == call).and_then(|d| d.args.get(usize::from(arg.index())));
    declared.map_or_else(|| format!("argument {}", arg.index()), |a| a.name.to_owned())
}

fn table(text: &mut String, title: &str, rules: &[Rule<'_>]) {
    let _ = write!(text, "\n## {title}\n\n| call | arguments |\n|---|---|\n");
    for (call, alternatives) in by_call(rules) {
        let said: Vec<String> = alternatives
            .iter()
            .map(|args| args.iter().map(|a| format!("{} {a}", argument(call, *a))).collect::<Vec<_>>().join(", "))
            .collect();
        let said = if said.is_empty() { "any".to_owned() } else { said.join("; ") };
        let _ = writeln!(text, "| {} | {said} |", name(call));
    }
}

fn text() -> String {
    use FileAccess::{Direct, Gofer};
    use PlatformKind::{Ptrace, Systrap};
    let sockets = network::HostSockets::new();
    let host: Vec<Rule<'_>> = sockets.rules().collect();
    let below_proc = rules::open_below(PROC);
    let below_proc = when(libc::SYS_openat, &below_proc);
    let mut text = HEAD.to_owned();
    text.push_str("| platform | files | network | calls | of them with conditions |\n|---|---|---|---|---|\n");
    for (platform, platform_name) in [(Systrap, "systrap"), (Ptrace, "ptrace")] {
        for (files, files_name) in [(Direct, "direct"), (Gofer, "gofer")] {
            for network in ["none", "sandbox", "host"] {
                let mut rules: Vec<Rule<'_>> = all(platform, files);
                rules.extend((files == Gofer).then_some(below_proc));
                match network {
                    "sandbox" => rules.extend(network::PACKETS),
                    "host" => rules.extend(&host),
                    _ => {}
                }
                // One that is listed both for its platform and for its network is one call.
                let calls = by_call(&rules);
                let conditions = calls.values().filter(|alternatives| !alternatives.is_empty()).count();
                let _ =
                    writeln!(text, "| {platform_name} | {files_name} | {network} | {} | {conditions} |", calls.len());
            }
        }
    }
    // Each list is what one choice adds to what is there with the other one.
    let (direct, gofer) = (all(Systrap, Direct), all(Systrap, Gofer));
    let ptrace = all(Ptrace, Gofer);
    let only = |these: &[Rule<'static>], not: &[Rule<'static>]| -> Vec<Rule<'static>> {
        these.iter().filter(|rule| !not.contains(rule)).copied().collect()
    };
    let always: Vec<_> = gofer.iter().filter(|rule| ptrace.contains(rule)).copied().collect();
    table(&mut text, "Always", &always);
    table(&mut text, "Platform systrap", &only(&gofer, &ptrace));
    table(&mut text, "Platform ptrace", &only(&ptrace, &gofer));
    table(&mut text, "Files reached by the sentry itself", &only(&direct, &gofer));
    table(
        &mut text,
        "Files served by a gofer (0x7fff stands for the procfs of the sandbox's own processes)",
        &[below_proc],
    );
    table(&mut text, "Network mode `sandbox`", network::PACKETS);
    table(&mut text, "Network mode `host`", &host);
    for (title, use_, files) in [
        ("`--host-uds=open`, files reached by the sentry itself", SocketUse::Open, Direct),
        ("`--host-uds=create`, files reached by the sentry itself", SocketUse::Create, Direct),
        ("`--host-uds=create`, files served by a gofer", SocketUse::Create, Gofer),
    ] {
        table(&mut text, title, &of_host_sockets(use_, files).collect::<Vec<_>>());
    }
    table(&mut text, "`--host-fifo=open`", HOST_FIFOS);
    text
}

#[test]
fn the_list_of_host_calls_is_that_of_the_filter() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/host-calls.md");
    let text = text();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert!(std::fs::read_to_string(&file).unwrap_or_default() == text, "run cargo x docs");
}

/// `struct seccomp_data`, as a filter reads it.
struct Data([u8; 64]);

impl Data {
    fn new(call: u32, args: [u64; 6]) -> Data {
        const X86_64: u32 = 0xc000_003e;
        let bytes = [call, X86_64, 0, 0]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .chain(args.into_iter().flat_map(u64::to_le_bytes));
        let mut data = [0; 64];
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Data(data)
    }
}

impl Input for Data {
    fn length(&self) -> u32 {
        64
    }

    fn load(&self, offset: u32, _: Size) -> Option<u32> {
        let at = usize::try_from(offset).ok()?;
        Some(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }
}

#[test]
fn the_program_allows_what_is_listed_and_nothing_else() {
    const ALLOW: Option<u32> = Some(0x7fff_0000);
    let sockets = network::HostSockets::new();
    for (platform, files) in [
        (PlatformKind::Systrap, FileAccess::Direct),
        (PlatformKind::Ptrace, FileAccess::Direct),
        (PlatformKind::Systrap, FileAccess::Gofer),
        (PlatformKind::Ptrace, FileAccess::Gofer),
    ] {
        let mut rules: Vec<Rule<'_>> = all(platform, files);
        rules.extend(sockets.rules());
        let program = compile(rules.clone(), Refusal::Kill).unwrap();
        let program = program.iter().map(|i| SockFilter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
        let program = Program::new(program, Loads::Words { len: 64 }).expect("a program that the checks take");
        // Numbers that any condition is about, those beside them, and none.
        let mut values: BTreeSet<u64> = [0, 1, 4, 0xffff_ff9c, 0xffff_ffff, 0x20000, 0x1_0000_0000].into();
        for value in 0..=0x40 {
            values.insert(value);
        }
        for request in moat_host::net::DEVICE_QUERIES {
            values.extend([u64::from(*request), u64::from(*request) ^ 1]);
        }
        values.extend([0x5401, 0x5412, 0x5413, 0x5414, 0x541b, 0x541c, 0x5427, 0x8004_6601, 0x8008_6601, 0x4008_6602]);
        values.extend([
            0xc050_2100,
            0xc018_2101,
            0x4206,
            0x4207,
            0x420e,
            0x420f,
            0x003d_0f00,
            0x5356_4d41,
            0x80005,
            0x80802,
        ]);
        let calls = by_call(&rules);
        // A program that refuses all would agree with an empty list.
        let mut allowed_in_all = 0;
        for call in 0..700u32 {
            let alternatives = calls.get(&i64::from(call));
            for position in 0..6 {
                for value in &values {
                    let mut args = [0u64; 6];
                    args[position] = *value;
                    // All other conditions of one alternative or another are met, so that this one decides.
                    for other in alternatives.iter().flat_map(|a| a.iter()).take(8).chain([&&[][..]]) {
                        let mut args = args;
                        for arg in other.iter().filter(|arg| usize::from(arg.index()) != position) {
                            args[usize::from(arg.index())] = *values.iter().find(|v| arg.is_met(**v)).unwrap_or(&0);
                        }
                        let listed = alternatives.is_some_and(|a| {
                            a.is_empty()
                                || a.iter().any(|all| all.iter().all(|arg| arg.is_met(args[usize::from(arg.index())])))
                        });
                        let got = program.run(&Data::new(call, args));
                        assert_eq!(got == ALLOW, listed, "{} {args:x?} on {platform:?}: {got:x?}", name(call.into()));
                        allowed_in_all += u64::from(listed);
                    }
                }
            }
        }
        assert!(allowed_in_all > 10_000, "{allowed_in_all}");
        // The numbers of x32, and those of another architecture.
        for call in 0..700 {
            assert_ne!(program.run(&Data::new(call | 0x4000_0000, [0; 6])), ALLOW);
            let mut foreign = Data::new(call, [0; 6]);
            foreign.0[4..8].copy_from_slice(&0x4000_0003u32.to_le_bytes());
            assert_ne!(program.run(&foreign), ALLOW);
        }
    }
}

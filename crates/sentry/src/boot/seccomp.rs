//! The seccomp filter of the sandbox process: what is left to a sentry that an attacker has taken over.
//!
//! It stands behind the namespaces, the empty root and the dropped capabilities. The calls are listed in [`rules`];
//! anything else ends the process. Guest processes are not under this filter but under their platform's own: they
//! descend from a template that the platform made before [`install`].
//!
//! # Invariants
//! - No execve, no new process, no executable memory, no new namespace or mount.
//! - No new socket, but for those of the guest in network mode `host` ([`network`]), and with `--host-uds` connections to sockets of
//!   the host (`open`) and names for the host's to connect to (`create`). In mode `sandbox` frames go over packet sockets that were donated.
//! - Files are opened from a donated directory only, and those cannot be left by `..`. With a gofer there is none, and
//!   what is left is the procfs of the sandbox's own processes.

#[cfg(test)]
mod list;
mod network;
mod rules;

use moat_control::spec::{FileAccess, HostNodes, HostUse, NetworkMode, PlatformKind, SocketUse};
use moat_control::{BootError, SandboxSpec};
use moat_jail::seccomp::{HOST_CONNECTIONS, HOST_FIFOS, HOST_LISTENERS, HOST_NAMES, HOST_SOCKETS, Refusal, Rule, when};

/// Puts all threads of the process under the filter, for good.
///
/// To be called when the platform has made its template process and before guest code runs. With debug logging a
/// refused call is named in the panic log before the process ends; else it is a plain SIGSYS.
///
/// # Errors
/// Of seccomp(2).
pub fn install(spec: &SandboxSpec) -> Result<(), BootError> {
    let refusal = if spec.logging.debug { Refusal::Report } else { Refusal::Kill };
    install_for(spec.platform, spec.files, spec.network, spec.container.host_nodes, refusal)
}

/// As [`install`], told only what the filter depends on.
///
/// # Errors
/// Of seccomp(2).
pub fn install_for(
    platform: PlatformKind,
    files: FileAccess,
    network: NetworkMode,
    nodes: HostNodes,
    refusal: Refusal,
) -> Result<(), BootError> {
    let host_sockets = (network == NetworkMode::Host).then(network::HostSockets::new);
    let mut rules: Vec<Rule<'_>> = rules::all(platform, files).collect();
    rules.extend(host_sockets.iter().flat_map(network::HostSockets::rules));
    if network == NetworkMode::Sandbox {
        rules.extend(network::PACKETS);
    }
    // bind, connect and listen are among those of the network's sockets.
    let has = |call| rules.iter().any(|rule| rule.call == call && rule.args.is_empty());
    rules.extend(of_host_sockets(nodes.sockets, files).filter(|rule| !has(rule.call)).collect::<Vec<_>>());
    if nodes.fifos == HostUse::Open {
        rules.extend(HOST_FIFOS);
    }
    let below_proc;
    if files == FileAccess::Gofer
        && let Some(proc) = moat_host::procfs::dir_number()
    {
        below_proc = rules::open_below(proc);
        rules.push(when(libc::SYS_openat, &below_proc));
    }
    moat_jail::seccomp::install(rules, refusal)
}

/// What sockets of the host in its trees take. With a gofer it makes, binds and connects them.
fn of_host_sockets(sockets: SocketUse, files: FileAccess) -> impl Iterator<Item = Rule<'static>> {
    let direct = files == FileAccess::Direct;
    let lists = [
        (direct && sockets != SocketUse::None, HOST_SOCKETS),
        (direct && sockets.opens(), HOST_CONNECTIONS),
        (direct && sockets.creates(), HOST_NAMES),
        (sockets.creates(), HOST_LISTENERS),
    ];
    lists.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, rules)| rules).copied()
}

#[cfg(test)]
mod tests {
    use moat_jail::seccomp::{NEVER, compile};

    use super::*;

    const KINDS: [(PlatformKind, FileAccess); 4] = [
        (PlatformKind::Systrap, FileAccess::Direct),
        (PlatformKind::Ptrace, FileAccess::Direct),
        (PlatformKind::Systrap, FileAccess::Gofer),
        (PlatformKind::Ptrace, FileAccess::Gofer),
    ];

    fn rules() -> Vec<Rule<'static>> {
        let packets = network::PACKETS.iter().copied();
        KINDS.into_iter().flat_map(|(platform, files)| rules::all(platform, files)).chain(packets).collect()
    }

    #[test]
    fn compiles_into_a_program_that_the_kernel_takes() {
        for (platform, files) in KINDS {
            let program = compile(rules::all(platform, files), Refusal::Kill).unwrap();
            assert!(program.len() < 4096, "{} instructions", program.len());
            let sockets = network::HostSockets::new();
            let program = compile(rules::all(platform, files).chain(sockets.rules()), Refusal::Kill).unwrap();
            assert!(program.len() < 4096, "{} instructions with host sockets", program.len());
            let packets = network::PACKETS.iter().copied();
            compile(rules::all(platform, files).chain(packets), Refusal::Kill).unwrap();
        }
    }

    #[test]
    fn a_filter_has_what_the_use_of_sockets_takes() {
        let calls = |sockets, files| of_host_sockets(sockets, files).map(|rule| rule.call).collect::<Vec<_>>();
        let has = |sockets, files| {
            let calls = calls(sockets, files);
            [libc::SYS_socket, libc::SYS_connect, libc::SYS_bind, libc::SYS_listen].map(|call| calls.contains(&call))
        };
        for (sockets, direct, gofer) in [
            (SocketUse::None, [false; 4], [false; 4]),
            (SocketUse::Open, [true, true, false, false], [false; 4]),
            (SocketUse::Create, [true, false, true, true], [false, false, false, true]),
            (SocketUse::All, [true; 4], [false, false, false, true]),
        ] {
            assert_eq!(has(sockets, FileAccess::Direct), direct, "{sockets:?}");
            assert_eq!(has(sockets, FileAccess::Gofer), gofer, "{sockets:?}");
        }
        let rules = of_host_sockets(SocketUse::All, FileAccess::Direct);
        assert!(rules.filter(|rule| rule.call == libc::SYS_socket).all(|rule| rule.args.len() == 3));
    }

    #[test]
    fn with_a_gofer_no_file_is_reached_by_name() {
        let by_name = [
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_newfstatat,
            libc::SYS_readlinkat,
            libc::SYS_mkdirat,
            libc::SYS_unlinkat,
            libc::SYS_renameat2,
            libc::SYS_linkat,
            libc::SYS_fchownat,
        ];
        for rule in rules::all(PlatformKind::Systrap, FileAccess::Gofer) {
            assert!(!by_name.contains(&rule.call), "{} is allowed", rule.call);
        }
    }

    #[test]
    fn dangerous_calls_are_not_listed() {
        for rule in rules() {
            assert!(!NEVER.contains(&rule.call), "{} is allowed", rule.call);
        }
    }

    #[test]
    fn a_call_is_not_listed_both_with_and_without_conditions() {
        let rules = rules();
        for rule in &rules {
            let clash = rules.iter().any(|other| other.call == rule.call && other.args.is_empty());
            assert!(rule.args.is_empty() || !clash, "call {}", rule.call);
        }
    }
}

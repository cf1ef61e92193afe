//! The seccomp filter of the sandbox process: what is left to a sentry that an attacker has taken over.
//!
//! It stands behind the namespaces, the empty root and the dropped capabilities. The calls are listed in [`rules`];
//! anything else ends the process. Guest processes are not under this filter but under their platform's own: they
//! descend from a template that the platform made before [`install`].
//!
//! # Invariants
//! - No execve, no new process, no executable memory, no new namespace or mount.
//! - No new socket, but for those of the guest in network mode `host` ([`network`]).
//! - Files are opened from a donated directory only, and those cannot be left by `..`.

mod network;
mod rules;

use moat_control::spec::{NetworkMode, PlatformKind};
use moat_control::{BootError, SandboxSpec};
use moat_jail::seccomp::Refusal;

/// Puts all threads of the process under the filter, for good.
///
/// To be called when the platform has made its template process and before guest code runs. With debug logging a
/// refused call is named in the panic log before the process ends; else it is a plain SIGSYS.
///
/// # Errors
/// Of seccomp(2).
pub fn install(spec: &SandboxSpec) -> Result<(), BootError> {
    let refusal = if spec.logging.debug { Refusal::Report } else { Refusal::Kill };
    install_for(spec.platform, spec.network, refusal)
}

/// As [`install`], told only what the filter depends on.
///
/// # Errors
/// Of seccomp(2).
pub fn install_for(platform: PlatformKind, network: NetworkMode, refusal: Refusal) -> Result<(), BootError> {
    let host_sockets = (network == NetworkMode::Host).then(network::HostSockets::new);
    let network = host_sockets.iter().flat_map(network::HostSockets::rules);
    moat_jail::seccomp::install(rules::for_platform(platform).chain(network), refusal)
}

#[cfg(test)]
mod tests {
    use moat_jail::seccomp::{NEVER, Rule, compile};

    use super::*;

    fn rules() -> Vec<Rule<'static>> {
        [PlatformKind::Systrap, PlatformKind::Ptrace].into_iter().flat_map(rules::for_platform).collect()
    }

    #[test]
    fn compiles_into_a_program_that_the_kernel_takes() {
        for platform in [PlatformKind::Systrap, PlatformKind::Ptrace] {
            let program = compile(rules::for_platform(platform), Refusal::Kill).unwrap();
            assert!(program.len() < 4096, "{} instructions", program.len());
            let sockets = network::HostSockets::new();
            let program = compile(rules::for_platform(platform).chain(sockets.rules()), Refusal::Kill).unwrap();
            assert!(program.len() < 4096, "{} instructions with host sockets", program.len());
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

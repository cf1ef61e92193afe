//! Signals that the host sends to the sandbox process, which stands for the root container's init there.
//!
//! The sandbox process can be the leader of a session with a terminal of the host, which is then the root container's:
//! what its line discipline sends (^C, a new window size, a hangup) goes to the guest's foreground group. A signal that
//! a process of the host sends to a sandbox without an attached command goes to the init, as it would if that were a
//! process of the host. The sandbox process itself is the init of its pid namespace: nothing but SIGKILL ends it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use moat_abi::PollEvents;
use moat_abi::siginfo::SI_KERNEL;
use moat_abi::signal::{SigSet, Signal};
use moat_control::spec::Lifetime;
use moat_control::{BootError, SandboxSpec};
use moat_host::signals;
use moat_jail::DonatedFiles;
use moat_sync::reactor::Watch;

use crate::container::GuestContainer;

const SIGNALS: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Whether the sandbox process is the leader of a session with the root container's terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ControlsTerminal {
    No,
    Yes,
}

/// The signals, from here on.
pub(crate) struct HostSignals {
    fd: Arc<OwnedFd>,
    terminal: ControlsTerminal,
}

impl HostSignals {
    /// Blocks the signals in the calling thread and those that it will make; none if the sandbox's creator passes them
    /// on itself. To be called while there is one thread.
    pub(crate) fn claim(spec: &SandboxSpec, files: &DonatedFiles) -> Result<Option<HostSignals>, BootError> {
        let stdin = files.get(spec.container.stdio[0])?;
        let terminal = match rustix::termios::tcgetsid(stdin) {
            Ok(session) if session == rustix::process::getpid() => ControlsTerminal::Yes,
            // ENOTTY: it is no terminal, or another session's.
            _ => ControlsTerminal::No,
        };
        if spec.lifetime == Lifetime::Attached && terminal == ControlsTerminal::No {
            return Ok(None);
        }
        let set = SIGNALS.iter().fold(SigSet::EMPTY, |set, signal| set.union(signal.bit()));
        let fd = signals::set_mask(set)
            .and_then(|_| signals::signalfd(set))
            .map_err(|errno| BootError { errno: Some(errno.raw()), ..BootError::new("receiving signals") })?;
        Ok(Some(HostSignals { fd: Arc::new(fd), terminal }))
    }

    /// Hands the signals on to `root`, for as long as the sandbox lives.
    pub(crate) async fn serve(self, root: Arc<GuestContainer>) {
        let watch = match Watch::new(self.fd.clone()) {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "signals of the host are lost");
                return;
            }
        };
        let mut readable = watch.wait_queue().listen(PollEvents::IN);
        loop {
            match signals::read_signalfd(self.fd.as_fd()) {
                Ok(info) => {
                    let signal = i32::try_from(info.ssi_signo).ok().and_then(Signal::new);
                    if let Some(signal) = signal {
                        self.hand_on(&root, signal, info.ssi_code);
                    }
                }
                // None is left: EAGAIN, as the descriptor does not block.
                Err(_) => (&mut readable).await,
            }
        }
    }

    fn hand_on(&self, root: &GuestContainer, signal: Signal, code: i32) {
        tracing::debug!(%signal, code, "signal of the host");
        // What the terminal itself sends has SI_KERNEL.
        let from_terminal = code == SI_KERNEL && self.terminal == ControlsTerminal::Yes;
        let console = root.member.processes.console().filter(|_| from_terminal);
        match (console, signal) {
            (Some(tty), Signal::SIGHUP) => tty.job_control().hang_up(),
            // It comes with a hangup.
            (Some(_), Signal::SIGCONT) => {}
            (Some(tty), _) => tty.job_control().signal_foreground(signal),
            (None, _) => {
                if !root.abort(signal) {
                    // ESRCH: it has ended.
                    let _ = root.init().map(|init| init.signal(signal));
                }
            }
        }
    }
}

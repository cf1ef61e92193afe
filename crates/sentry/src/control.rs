//! The control server: answers requests about the sandbox over its control connection.

use std::sync::Arc;

use moat_abi::signal::Signal;
use moat_control::{Connection, ControlError, Request, Response, SignalTarget};
use moat_kernel::kernel::kernel;
use moat_kernel::spawn::{Process, signal_all};

/// Serves `connection` on a thread of its own until the other end closes it.
pub(crate) fn serve(connection: Connection, id: String, init: Process) {
    let server = Server { connection, id, init };
    // Requests are rare, and a thread keeps a slow client out of the executor's way.
    let started = std::thread::Builder::new().name("control".into()).stack_size(256 * 1024).spawn(move || server.run());
    if let Err(error) = started {
        tracing::error!(%error, "no control server");
    }
}

struct Server {
    connection: Connection,
    id: String,
    init: Process,
}

impl Server {
    fn run(self) {
        let this = Arc::new(self);
        while let Ok(Some((request, _fds))) = this.connection.next_request() {
            tracing::debug!(?request, "control");
            if let Request::Wait(id) = &request
                && *id == this.id
            {
                let this = this.clone();
                moat_sync::spawn(async move {
                    let status = crate::kernel::exit_status(this.init.wait().await);
                    this.answer(&Response::Exited(status));
                });
                continue;
            }
            let response = this.handle(&request).unwrap_or_else(Response::Error);
            this.answer(&response);
        }
    }

    fn answer(&self, response: &Response) {
        // A client that has gone needs no answer.
        let _ = self.connection.respond(response, &[]);
    }

    fn check(&self, id: &str) -> Result<(), ControlError> {
        if id == self.id { Ok(()) } else { Err(ControlError::NoContainer(id.to_owned())) }
    }

    fn handle(&self, request: &Request) -> Result<Response, ControlError> {
        match request {
            Request::Signal { id, signal, target } => {
                self.check(id)?;
                self.signal(*signal, *target).map(|()| Response::Done)
            }
            Request::Wait(id) => self.check(id).map(|()| Response::Done),
            Request::Stacks => Ok(Response::Text(stacks())),
            _ => Err(ControlError::Unsupported("this request".into())),
        }
    }

    fn signal(&self, number: i32, target: SignalTarget) -> Result<(), ControlError> {
        let failed = |errno: moat_abi::Errno| ControlError::Errno {
            what: format!("sending signal {number}"),
            errno: errno.raw(),
        };
        let signal = Signal::new(number).ok_or_else(|| failed(moat_abi::Errno::EINVAL))?;
        match target {
            SignalTarget::Init => self.init.signal(signal),
            SignalTarget::Foreground | SignalTarget::ForegroundOf(_) => self.init.signal_foreground(signal),
            SignalTarget::All => {
                signal_all(&self.init.group().pid().namespace().clone(), signal);
                Ok(())
            }
            SignalTarget::Process(pid) => {
                let ns = self.init.group().pid().namespace().clone();
                let group = ns.process(pid).ok_or(moat_abi::Errno::ESRCH).map_err(failed)?;
                let info = moat_abi::siginfo::SigInfo::kill(signal, moat_abi::siginfo::SI_USER, 0, 0);
                group.send(moat_kernel::signal::send::Target::Process, info, moat_kernel::signal::send::Origin::Outside)
            }
        }
        .map_err(failed)
    }
}

/// What each task waits for, a line a task.
fn stacks() -> String {
    let groups: Vec<_> = kernel().family.lock().nodes().map(|n| n.group.clone()).collect();
    let mut text = String::new();
    for group in groups {
        for task in group.threads() {
            let waits = (*task.wchan.lock()).unwrap_or("running");
            let comm = String::from_utf8_lossy(&task.comm()).into_owned();
            text += &format!("{:>6} {:>6} {comm:<16} {waits}\n", task.tgid(), task.tid());
        }
    }
    text
}

//! The `ptrace` platform: guest code runs under PTRACE_SYSEMU. Simple, works wherever ptrace(2) does, and is the
//! oracle that the faster platforms are compared with.
//!
//! One host thread, the [`tracer`], makes every ptrace(2) and waitpid(2) call; handles ([`thread`], [`space`])
//! send it [`command::Command`]s and are woken when it has stored the outcome in their [`cell`]. Guest processes
//! are clones of one blank [`template`] process, whose only content is the [`stub`]: an order is carried out by
//! pointing a stopped thread at the stub's `syscall` instruction ([`inject`], [`orders`], [`family`]).
//!
//! # Invariants
//! - Guest code never executes a host system call: PTRACE_SYSEMU stops each at its entry and skips it. Only the tracer
//!   executes some, one at a time, in a thread that it then holds stopped; [`filter`] allows no others.
//! - The tracer blocks only for one injected call of one thread, and that ends when the thread dies.
//! - A tracee that the tracer does not know is killed. All die with the tracer (PTRACE_O_EXITKILL).
//! - Only the tracer signals or reaps guest processes, so it never touches a reused process id.
//!
//! # What differs from hardware
//! - ptrace(2) does not tell an exception's vector and error code: [`fault`] derives them, the write bit as a guess.
//! - rseq(2) gives ENOSYS, as on a host without it: see [`orders`].
//! - A guest that gives itself an fs or gs base in the kernel's half (which Linux's arch_prctl(2) refuses) gets SIGSEGV.
//!
//! # Conditions
//! [`Ptrace::new`] asks [`moat_host::procfs::special_mappings`] and forks: call it with /proc mounted or those remembered, and after the credentials
//! of the sentry are final (process_vm_readv(2) compares them), but before its own seccomp filter, which the template
//! would inherit. If the host kills the template there are no new processes. SIGCHLD is the tracer's:
//! `new` gives it a handler, and blocks it in the calling thread, and so in those that this one starts later. A
//! thread that has it unblocked is interrupted now and then, to forward it.

mod cell;
mod command;
mod error;
mod family;
mod fault;
mod filter;
mod fpu;
mod inject;
mod layout;
mod orders;
mod regs;
mod space;
mod stock;
mod stop;
mod stub;
mod template;
mod thread;
mod tracer;

use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use moat_abi::Result;
use moat_platform::{Made, Platform, Stock, VdsoLayout};

use crate::command::Shared;
pub use crate::error::SetupError;
use crate::stock::{FirstStock, ForkingStock};

/// The platform: a handle to the process's one tracer thread.
pub struct Ptrace {
    shared: Arc<Shared>,
}

impl Ptrace {
    /// Starts the tracer thread and the template process, or takes the ones that this process has.
    ///
    /// # Errors
    /// What the host refused.
    pub fn new() -> Result<Ptrace, SetupError> {
        static TRACER: OnceLock<Result<Arc<Shared>, SetupError>> = OnceLock::new();
        let shared = TRACER.get_or_init(tracer::start).clone()?;
        command::block_sigchld().map_err(SetupError::at("block SIGCHLD"))?;
        Ok(Ptrace { shared })
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn stock(&self) -> Arc<dyn Stock> {
        Arc::new(FirstStock(self.shared.clone()))
    }

    fn new_stock(&self) -> Made<'_, Arc<dyn Stock>> {
        Box::pin(async {
            let template = std::future::poll_fn(|cx| self.shared.poll_blank(cx)).await?;
            Ok(Arc::new(ForkingStock::new(template)) as Arc<dyn Stock>)
        })
    }

    fn vdso(&self) -> VdsoLayout {
        self.shared.layout.vdso()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn dispatch(&self) {}
}

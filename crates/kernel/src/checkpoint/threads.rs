//! Host processes and threads for what comes out of an image.

use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::clone::WaitStatus;
use moat_abi::signal::StackT;
use moat_image::state::{ContainerIndex, MemoryState, NextStep, SandboxState, ThreadState, VdsoState, of_container};
use moat_image::{ImageError, Ref};
use moat_mm::{MemoryManager, Restored, UserAddr};
use moat_platform::{AddressSpace, GuestThread, NewProcess, Order, VdsoLayout, execute};

use super::RestoreRequest;
use crate::ptrace::after::After;
use crate::task::CurrentTask;
use crate::task::current::{LastFault, RseqArea};
use crate::task::rest::{block_of, deadline_of, regs_of, restart_of};

/// Address spaces, each in a host process of its own.
pub(super) struct Memories(Vec<Slot>);

struct Slot {
    mm: Arc<MemoryManager>,
    /// The first thread, until a task has taken it.
    first: Option<Box<dyn GuestThread>>,
    /// Threads for the tasks after that.
    spare: Vec<Box<dyn GuestThread>>,
}

/// What a task runs in.
pub(super) struct Memory {
    pub(super) mm: Arc<MemoryManager>,
    pub(super) thread: Box<dyn GuestThread>,
}

impl Memories {
    /// Loads all address spaces.
    pub(super) async fn restore(request: &RestoreRequest<'_>, state: &SandboxState) -> Result<Memories, ImageError> {
        let kernel = of_container(request.containers, 0)?.processes.kernel();
        let (ids, vdso) = (&kernel.ids.mm, kernel.platform.vdso());
        let mut mappables = Vec::new();
        for mappable in state.mappables.iter() {
            mappables.push(request.files.mappable(&mappable.kind, ids, request.pages.pages())?);
        }
        // Threads of one process, and of processes that borrow memory by vfork(2) or CLONE_VM.
        let mut users = HashMap::new();
        for task in state.tasks.iter() {
            let container = state.processes.get(task.process)?.container;
            let (owner, count): &mut (ContainerIndex, usize) = users.entry(task.memory).or_insert((container, 0));
            if *owner != container {
                return Err(ImageError::state("an address space of two containers"));
            }
            *count = count.saturating_add(1);
        }
        let mut all = Vec::new();
        for (name, saved) in state.memories.named() {
            let (container, count) = users.get(&name).copied().unwrap_or((0, 0));
            // In the container's cgroup.
            let made = of_container(request.containers, container)?.processes.stock().new_process().await;
            let NewProcess { space, mut thread } =
                made.map_err(|errno| ImageError::Unfit(format!("making a host process: {errno}")))?;
            if all.is_empty() {
                check_vdso(&state.vdso, &vdso, &*space)?;
            }
            let from = Restored { state: saved, mappables: &mappables, pages: request.pages };
            let mm = MemoryManager::restore(space, &mut *thread, &vdso, ids, &from).await?;
            let mut spare = Vec::new();
            // Made while the first has nothing of a task yet.
            for _ in 1..count {
                let made = std::future::poll_fn(|cx| thread.poll_spawn(cx)).await;
                spare.push(made.map_err(|errno| ImageError::Unfit(format!("making a host thread: {errno}")))?);
                mm.add_user();
            }
            let mm = Arc::new(mm);
            (request.aio)(kernel, &mm, &saved.aio)?;
            all.push(Slot { mm, first: Some(thread), spare });
        }
        Ok(Memories(all))
    }

    /// A thread for one more task of this memory.
    pub(super) async fn thread_of(&mut self, name: Ref<MemoryState>) -> Result<Memory, ImageError> {
        let dangling = || ImageError::Dangling { what: "address space", index: name.index() };
        let slot = usize::try_from(name.index()).ok().and_then(|at| self.0.get_mut(at)).ok_or_else(dangling)?;
        let thread = slot.first.take().or_else(|| slot.spare.pop()).ok_or_else(dangling)?;
        Ok(Memory { mm: slot.mm.clone(), thread })
    }
}

/// The vDSO as it is in a guest process.
pub(super) fn vdso(layout: &VdsoLayout, space: &dyn AddressSpace) -> VdsoState {
    let range = &layout.vdso;
    let mut code = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)];
    let read = space.read(range.start, &mut code).unwrap_or(0);
    code.truncate(read);
    let crc32 = moat_image::crc32(&code);
    VdsoState { vvar_start: layout.vvar.start, start: range.start, end: range.end, crc32 }
}

/// Whether programs find the vDSO that they have pointers into.
fn check_vdso(saved: &VdsoState, here: &VdsoLayout, space: &dyn AddressSpace) -> Result<(), ImageError> {
    if vdso(here, space) == *saved {
        Ok(())
    } else {
        Err(ImageError::Unfit("the host's kernel has another vDSO than the one that the programs have used".into()))
    }
}

/// `RSEQ_CPU_ID_REGISTRATION_FAILED`, and where it is in `struct rseq`.
const RSEQ_FAILED: i32 = -2;
const RSEQ_CPU_ID: u64 = 4;

impl CurrentTask {
    /// Takes registers and what else the thread had.
    ///
    /// # Errors
    /// Another number of registers; extended state of another processor.
    pub(super) async fn take_thread_state(&mut self, saved: &ThreadState) -> Result<(), ImageError> {
        let regs = regs_of(&saved.registers).map_err(|_| ImageError::state("registers are missing"))?;
        // The platform masks flags that no program may set, and reports addresses that none can have.
        self.thread().set_regs(&regs);
        let gone = |errno| ImageError::Unfit(format!("the extended state of a thread: {errno}"));
        let here = self.thread().fpu().map_err(gone)?;
        let extended = super::xstate::fit(&saved.extended, &here)?;
        self.thread().set_fpu(&extended).map_err(gone)?;
        let (ss_sp, ss_flags, ss_size) = saved.altstack;
        self.altstack = StackT { ss_sp, ss_flags, pad: 0, ss_size };
        let (trapno, err, cr2) = saved.last_fault;
        self.last_fault = LastFault { trapno, err, cr2 };
        self.restart_block = saved.restart_block.as_ref().map(block_of);
        // The host writes to the area whenever the thread goes on: it has to know of it before that.
        if let Some((addr, len, sig)) = saved.rseq {
            let order = Order::Rseq { addr, len, flags: 0, sig };
            if execute(self.thread(), order).await.is_ok() {
                self.rseq = Some(RseqArea { addr, len, sig });
            } else {
                // The platform has none: the program asks for its CPU by a call instead.
                let word = RSEQ_FAILED.to_ne_bytes();
                let _ = self.mm().write_bytes(UserAddr::new(addr.wrapping_add(RSEQ_CPU_ID)), &word);
            }
        }
        Ok(())
    }

    /// What a task out of an image does before anything else; gives the status of one that has come to its end.
    pub(crate) async fn take_step(&mut self, step: NextStep) -> Option<WaitStatus> {
        // A mask may have to be put back, whatever comes first.
        self.after_call = true;
        match step {
            NextStep::Run => {}
            NextStep::Interrupted(interrupted) => self.restart = Some(restart_of(interrupted)),
            NextStep::Stopped(stopped) => {
                self.restart = stopped.interrupted.map(restart_of);
                return crate::ptrace::after::resume(self, After::of_image(stopped.after)).await;
            }
            NextStep::Call(call) => self.go_on(call.nr, call.args, deadline_of(call.patience)).await,
            NextStep::Vfork { child } => {
                // Its call had made the child; what is left of it is the wait, and the result.
                self.end_call(u64::try_from(child).unwrap_or(0), true).await;
            }
        }
        None
    }
}

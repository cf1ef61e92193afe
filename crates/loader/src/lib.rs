//! The program loader: from a file to a process image (`fs/exec.c`, `fs/binfmt_elf.c`, `fs/binfmt_script.c`).
//!
//! Exec has two halves. [`Program::read`] follows `#!` lines, reads and checks the headers of the program and its
//! interpreter and measures the arguments: everything that can fail with an errno of the file's making, before anything
//! is changed. [`Program::load`] then maps it into the address space of a blank process and writes its stack.
//!
//! - [`script`]: `#!` lines.
//! - [`elf`]: headers, checked.
//! - [`image`]: segments to mappings, and where they and the heap go.
//! - [`stack`]: argument limits, the initial stack and where it goes.
//! - [`aslr`]: how random that is.
//!
//! # Invariants
//! - Files are hostile: every length and sum is checked, nothing is allocated by a length that the file alone states.
//! - Mappings are deferred and carried out in one round trip; copies into them come after it.
#![forbid(unsafe_code)]

pub mod aslr;
pub mod elf;
pub mod image;
pub mod script;
pub mod stack;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use moat_abi::elf::{BINPRM_BUF_SIZE, ELFMAG};
use moat_abi::{Errno, Result};
use moat_mm::{ImageLayout, MemoryManager, MmLimits};
use moat_platform::{GuestThread, Order, VdsoLayout, execute};
use moat_vfs::OpenFile;

pub use aslr::Aslr;
use elf::ElfHeaders;
pub use stack::Identity;

/// How often a `#!` line may name another script.
const MAX_SCRIPT_DEPTH: usize = 5;

/// What execve(2) was asked for.
pub struct ExecRequest {
    /// The file, opened for execution: its permissions, type and mount have been checked.
    pub file: Arc<OpenFile>,
    /// The name it was asked by: AT_EXECFN, and what a script's interpreter is given.
    pub filename: Vec<u8>,
    /// Arguments; none at all becomes one empty one.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// RLIMIT_STACK, by which the size of arguments is limited.
    pub stack_limit: u64,
}

/// A program that can be loaded.
pub struct Program {
    file: Arc<OpenFile>,
    headers: ElfHeaders,
    interpreter: Option<(Arc<OpenFile>, ElfHeaders)>,
    filename: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
}

/// What [`Program::load`] needs beside the program.
pub struct LoadParams {
    /// Ids and AT_SECURE for the auxiliary vector.
    pub identity: Identity,
    /// Limits of the process.
    pub limits: MmLimits,
    /// Whether addresses are random (personality(2), ADDR_NO_RANDOMIZE).
    pub aslr: Aslr,
    /// The platform's vDSO.
    pub vdso: VdsoLayout,
    /// `comm`, at most 15 bytes: the host thread is given it too.
    pub comm: Vec<u8>,
}

/// Where a loaded program starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedProgram {
    /// `rip`: of the interpreter, if there is one.
    pub entry: u64,
    /// `rsp`.
    pub stack_pointer: u64,
}

impl Program {
    /// Finds out what is to be loaded for `request`. `open` opens an interpreter by name for execution, as the caller may.
    ///
    /// # Errors
    /// ENOEXEC for a file of no known format, ELIBBAD for an interpreter of one, ELOOP for scripts of scripts, E2BIG for
    /// arguments; those of `open` and of reading.
    pub fn read(request: ExecRequest, open: &mut dyn FnMut(&[u8]) -> Result<Arc<OpenFile>>) -> Result<Program> {
        let ExecRequest { mut file, filename, mut argv, envp, stack_limit } = request;
        if argv.is_empty() {
            // A program that counts on argv[0] would take the environment for it.
            argv.push(Vec::new());
        }
        // What the next interpreter is given: the name of the script.
        let mut interpreted = filename.clone();
        let mut depth = 0;
        let head = loop {
            let head = read_head(&file)?;
            let Some(line) = script::parse(&head)? else { break head };
            if depth == MAX_SCRIPT_DEPTH {
                return Err(Errno::ELOOP);
            }
            depth += 1;
            argv.splice(..1, std::iter::once(line.interpreter.clone()).chain(line.argument).chain([interpreted]));
            file = open(&line.interpreter)?;
            interpreted = line.interpreter;
        };
        stack::check_arguments(&filename, &argv, &envp, stack_limit)?;
        if !head.starts_with(&ELFMAG) {
            return Err(Errno::ENOEXEC);
        }
        let headers = ElfHeaders::read(&file, elf::Role::Program)?;
        let interpreter = match headers.interpreter_path(&file)? {
            Some(path) => {
                let interpreter = open(&path)?;
                let headers = ElfHeaders::read(&interpreter, elf::Role::Interpreter)?;
                Some((interpreter, headers))
            }
            None => None,
        };
        Ok(Program { file, headers, interpreter, filename, argv, envp })
    }

    /// The program's file, past all `#!` lines: /proc/PID/exe, and whose set-user-ID bits count.
    #[must_use]
    pub fn file(&self) -> &Arc<OpenFile> {
        &self.file
    }

    /// Loads it into `mm`, the empty address space of the blank process of `thread`.
    ///
    /// # Errors
    /// ENOMEM, EINVAL, EFAULT for an image that can't be mapped; the host's.
    pub async fn load(
        &self,
        params: &LoadParams,
        thread: &mut dyn GuestThread,
        mm: &MemoryManager,
    ) -> Result<LoadedProgram> {
        mm.set_limits(params.limits);
        let needed = stack::size_needed(&self.filename, &self.argv, &self.envp);
        let stack = stack::place(mm, params.limits.stack, needed, params.aslr)?;
        stack::map(mm, thread, &stack, self.headers.exec_stack()).await?;
        let program =
            image::map_program(mm, thread, &self.file, &self.headers, self.interpreter.is_some(), params.aslr).await?;
        let interpreter = match &self.interpreter {
            Some((file, headers)) => Some(image::map_interpreter(mm, thread, file, headers).await?),
            None => None,
        };
        let brk = program.place_brk(self.interpreter.is_some(), params.aslr);
        mm.set_brk_start(brk);
        // Carries out all that was deferred: from here on the memory is there.
        execute(thread, Order::SetName(padded_name(&params.comm))).await?;
        program.clear_tails(mm)?;
        if let Some(i) = &interpreter {
            i.clear_tails(mm)?;
        }
        let entry = interpreter.as_ref().unwrap_or(&program).entry;
        let vector = stack::AuxInfo {
            program: &program,
            interpreter_base: interpreter.as_ref().map_or(0, |i| i.bias),
            vdso: params.vdso.vdso.start,
            identity: &params.identity,
        };
        let strings = stack::Strings { filename: &self.filename, argv: &self.argv, envp: &self.envp };
        let built = stack::build(&stack, &strings, &vector, params.aslr)?;
        mm.write_bytes(built.stack_pointer.into(), &built.bytes)?;
        mm.set_image(ImageLayout {
            code: program.code.clone(),
            data: program.data.clone(),
            start_stack: built.stack_pointer,
            args: built.args,
            env: built.env,
            auxv: built.auxv,
        });
        Ok(LoadedProgram { entry, stack_pointer: built.stack_pointer })
    }
}

/// The first bytes of a file, padded with zeros.
fn read_head(file: &OpenFile) -> Result<[u8; BINPRM_BUF_SIZE]> {
    let mut head = [0; BINPRM_BUF_SIZE];
    let mut done = 0;
    while let Some(rest) = head.get_mut(done..).filter(|r| !r.is_empty()) {
        match file.read_at(rest, done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(head)
}

fn padded_name(comm: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().take(15).zip(comm) {
        *to = *from;
    }
    name
}

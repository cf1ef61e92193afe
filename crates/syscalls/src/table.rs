//! The table of system calls: declarations by area, joined; dispatch and the strace log from the same source.

use std::sync::OnceLock;

use moat_abi::Errno;
use moat_kernel::syscall::{Dispatch, SyscallTable};
use moat_kernel::{CurrentTask, SyscallError, SyscallResult};

/// How much of a call moat does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// As Linux.
    Full,
    /// All but what the note says.
    Partial(&'static str),
    /// Accepted or refused without doing anything, as the note says.
    Stub(&'static str),
}

/// One argument of a declaration.
pub struct ArgDecl {
    /// Its name.
    pub name: &'static str,
    /// Its type as declared.
    pub type_name: &'static str,
    /// Shows it in the strace log.
    pub show: fn(u64, &CurrentTask, &mut String),
}

/// One system call.
pub struct SyscallDecl {
    /// The number.
    pub nr: u32,
    /// The name.
    pub name: &'static str,
    /// The arguments.
    pub args: &'static [ArgDecl],
    /// How much of it there is.
    pub support: Support,
    /// Decodes the arguments and starts the handler.
    pub invoke: for<'a> fn(&'a mut CurrentTask, [u64; 6]) -> Dispatch<'a>,
}

/// Declares the system calls of an area.
///
/// A handler is `fn(&mut CurrentTask, args...) -> SyscallResult`, or an `async fn` where the line says so; its path may lead to
/// another module.
///
/// ```
/// use moat_kernel::{CurrentTask, SyscallResult};
/// use moat_syscalls::syscalls;
/// use moat_syscalls::table::Support;
///
/// syscalls! { pub static TABLE;
///     39 getpid() sys_getpid, full;
///     32 dup(fd: i32) async sys_dup, partial("what is missing");
/// }
///
/// fn sys_getpid(t: &mut CurrentTask) -> SyscallResult {
///     Ok(u64::try_from(t.pid().number()).unwrap_or(0))
/// }
///
/// async fn sys_dup(_t: &mut CurrentTask, fd: i32) -> SyscallResult {
///     Ok(u64::from(fd.unsigned_abs()))
/// }
///
/// assert_eq!((TABLE[0].nr, TABLE[0].name, TABLE[1].args[0].type_name), (39, "getpid", "i32"));
/// assert_eq!(TABLE[1].support, Support::Partial("what is missing"));
/// ```
#[macro_export]
macro_rules! syscalls {
    ($vis:vis static $table:ident; $($rest:tt)*) => {
        $crate::syscalls!(@munch ($vis static $table) [] $($rest)*);
    };
    (@munch ($vis:vis static $table:ident) [$($done:expr,)*]) => {
        /// The system calls of this area.
        $vis static $table: &[$crate::table::SyscallDecl] = &[$($done),*];
    };
    (@munch $head:tt [$($done:expr,)*]
        $nr:literal $name:ident($($arg:ident: $ty:ty),* $(,)?) async $handler:path, $level:ident $(($note:literal))?; $($rest:tt)*) => {
        $crate::syscalls!(@munch $head [$($done,)* $crate::table::SyscallDecl {
            nr: $nr,
            name: stringify!($name),
            args: &[$($crate::syscalls!(@arg $arg $ty)),*],
            support: $crate::syscalls!(@level $level $($note)?),
            invoke: |t, raw| {
                #[allow(unused_variables, unused_mut)]
                let mut raw = raw.into_iter();
                $(let $arg = <$ty as $crate::arg::FromArg>::from_arg(raw.next().unwrap_or(0));)*
                moat_kernel::Dispatch::Waiting(Box::pin($handler(t $(, $arg)*)))
            },
        },] $($rest)*);
    };
    (@munch $head:tt [$($done:expr,)*]
        $nr:literal $name:ident($($arg:ident: $ty:ty),* $(,)?) $handler:path, $level:ident $(($note:literal))?; $($rest:tt)*) => {
        $crate::syscalls!(@munch $head [$($done,)* $crate::table::SyscallDecl {
            nr: $nr,
            name: stringify!($name),
            args: &[$($crate::syscalls!(@arg $arg $ty)),*],
            support: $crate::syscalls!(@level $level $($note)?),
            invoke: |t, raw| {
                let call = |t: &mut moat_kernel::CurrentTask| {
                    #[allow(unused_variables, unused_mut)]
                    let mut raw = raw.into_iter();
                    $(let $arg = <$ty as $crate::arg::FromArg>::from_arg(raw.next().unwrap_or(0));)*
                    $handler(t $(, $arg)*)
                };
                let names_a_file = false $(|| <$ty as $crate::arg::FromArg>::NAMES_A_FILE)*;
                moat_kernel::Dispatch::Done($crate::table::retry_stale(t, names_a_file, call))
            },
        },] $($rest)*);
    };
    (@arg $arg:ident $ty:ty) => {
        $crate::table::ArgDecl { name: stringify!($arg), type_name: stringify!($ty), show: <$ty as $crate::arg::FromArg>::show }
    };
    (@level full) => { $crate::table::Support::Full };
    (@level partial $note:literal) => { $crate::table::Support::Partial($note) };
    (@level stub $note:literal) => { $crate::table::Support::Stub($note) };
}

/// Makes a call, and again where a name led to a file that is not there any more (`retry_estale`): then it is looked up
/// anew. A call that fails has changed nothing.
#[doc(hidden)]
pub fn retry_stale(
    t: &mut CurrentTask,
    names_a_file: bool,
    call: impl Fn(&mut CurrentTask) -> SyscallResult,
) -> SyscallResult {
    let is_stale = |done: &SyscallResult| names_a_file && matches!(done, Err(SyscallError::Errno(Errno::ESTALE)));
    moat_vfs::walk::again_while_stale(|| call(t), is_stale)
}

/// All declarations, area by area: a new area is a line here.
fn areas() -> impl Iterator<Item = &'static SyscallDecl> {
    let areas = [
        crate::futex::TABLE,
        crate::ids::TABLE,
        crate::process::TABLE,
        crate::namespaces::TABLE,
        crate::exec::TABLE,
        crate::seccomp::TABLE,
        crate::signal::TABLE,
        crate::caps::TABLE,
        crate::limits::TABLE,
        crate::prctl::TABLE,
        crate::sched::TABLE,
        crate::system::TABLE,
        crate::time::TABLE,
        crate::timers::TABLE,
        crate::trace::TABLE,
        crate::memory::TABLE,
        crate::ipc::TABLE,
        crate::net::TABLE,
        crate::mqueue::TABLE,
    ];
    areas.into_iter().chain(crate::fs::TABLES.iter().copied()).flatten()
}

struct Table {
    by_number: Vec<Option<&'static SyscallDecl>>,
}

/// The system calls, for [`moat_kernel::kernel::Config`].
#[must_use]
pub fn table() -> &'static dyn SyscallTable {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}

/// All declarations by ascending number.
pub fn declarations() -> Vec<&'static SyscallDecl> {
    let mut all: Vec<_> = areas().collect();
    all.sort_by_key(|d| d.nr);
    all
}

impl Table {
    fn new() -> Table {
        let mut by_number = Vec::new();
        for d in areas() {
            let at = d.nr as usize;
            if by_number.len() <= at {
                by_number.resize(at + 1, None);
            }
            by_number[at] = Some(d);
        }
        Table { by_number }
    }

    fn get(&self, nr: u64) -> Option<&'static SyscallDecl> {
        self.by_number.get(usize::try_from(nr).ok()?).copied().flatten()
    }
}

impl SyscallTable for Table {
    fn dispatch<'a>(&self, t: &'a mut CurrentTask, nr: u64, args: [u64; 6]) -> Dispatch<'a> {
        match self.get(nr) {
            Some(d) => (d.invoke)(t, args),
            None => {
                t.kernel().note_missing_syscall(nr);
                Dispatch::Done(Err(SyscallError::Errno(Errno::ENOSYS)))
            }
        }
    }

    fn format(&self, t: &CurrentTask, nr: u64, args: &[u64; 6]) -> String {
        let Some(d) = self.get(nr) else {
            let name = u32::try_from(nr).ok().and_then(moat_abi::nr::name).unwrap_or("?");
            return format!("{name}[{nr}]({:#x}, {:#x}, {:#x}, ...)", args[0], args[1], args[2]);
        };
        let mut out = format!("{}(", d.name);
        for (i, (a, raw)) in d.args.iter().zip(args).enumerate() {
            if i > 0 {
                out.push_str(", ");
            }
            (a.show)(*raw, t, &mut out);
        }
        out.push(')');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_linux_s_and_given_once() {
        let all = declarations();
        for d in &all {
            assert_eq!(moat_abi::nr::name(d.nr), Some(d.name), "{}", d.nr);
        }
        assert!(all.windows(2).all(|w| w[0].nr < w[1].nr), "a number is declared twice");
    }
}

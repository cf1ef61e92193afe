//! [`Point`]: a place at which something is told, and [`Fields`], what of it.

use bitflags::bitflags;
use moat_abi::nr;

bitflags! {
    /// Fields that are told only if the session asks for them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fields: u32 {
        /// When.
        const TIME = 1 << 0;
        /// The thread's id, as the sandbox's outermost pid namespace has it.
        const THREAD_ID = 1 << 1;
        /// When the thread was made.
        const TASK_START_TIME = 1 << 2;
        /// The process's id, in the same namespace.
        const GROUP_ID = 1 << 3;
        /// When the process was made.
        const THREAD_GROUP_START_TIME = 1 << 4;
        /// The container's id.
        const CONTAINER_ID = 1 << 5;
        /// User and group ids.
        const CREDENTIALS = 1 << 6;
        /// The working directory.
        const CWD = 1 << 7;
        /// The thread's name.
        const PROCESS_NAME = 1 << 8;
        /// The parent process's id.
        const PARENT_THREAD_GROUP_ID = 1 << 9;
        /// Whether it descends from a process that was started in the container from outside.
        const IS_EXEC_SESSION = 1 << 10;
        /// Optional: the environment.
        const ENV = 1 << 16;
        /// Optional: the file that is executed.
        const BINARY_INFO = 1 << 17;
        /// Optional: the path of a descriptor's file.
        const FD_PATH = 1 << 18;
        /// Optional: the new environment.
        const ENVV = 1 << 19;
    }
}

/// Names of fields about who did it, in the order in which they are listed.
const CONTEXT: [(&str, Fields); 11] = [
    ("time", Fields::TIME),
    ("thread_id", Fields::THREAD_ID),
    ("task_start_time", Fields::TASK_START_TIME),
    ("group_id", Fields::GROUP_ID),
    ("thread_group_start_time", Fields::THREAD_GROUP_START_TIME),
    ("container_id", Fields::CONTAINER_ID),
    ("credentials", Fields::CREDENTIALS),
    ("cwd", Fields::CWD),
    ("process_name", Fields::PROCESS_NAME),
    ("parent_thread_group_id", Fields::PARENT_THREAD_GROUP_ID),
    ("is_exec_session", Fields::IS_EXEC_SESSION),
];

/// Names of optional fields.
const OPTIONAL: [(&str, Fields); 4] =
    [("env", Fields::ENV), ("binary_info", Fields::BINARY_INFO), ("fd_path", Fields::FD_PATH), ("envv", Fields::ENVV)];

impl Fields {
    /// All that are about who did it.
    #[must_use]
    pub fn context() -> Fields {
        CONTEXT.iter().fold(Fields::empty(), |all, (_, field)| all | *field)
    }

    /// The field about who did it with this name.
    #[must_use]
    pub fn context_by_name(name: &str) -> Option<Fields> {
        CONTEXT.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// The optional field with this name.
    #[must_use]
    pub fn optional_by_name(name: &str) -> Option<Fields> {
        OPTIONAL.iter().find(|(known, _)| *known == name).map(|(_, field)| *field)
    }

    /// The names of these, those about who did it first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        CONTEXT.iter().chain(&OPTIONAL).filter(move |(_, field)| self.contains(*field)).map(|(name, _)| *name)
    }
}

/// When a system call is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before it is made.
    Enter,
    /// With its result.
    Exit,
}

/// How a system call is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By its number and raw arguments.
    Raw,
    /// By a message of its own.
    Schema,
}

/// A place at which something is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A container is started.
    ContainerStart,
    /// A task was made.
    Clone,
    /// A program was executed.
    Execve,
    /// A process has ended, and its parent is told.
    ExitNotifyParent,
    /// A task ends.
    TaskExit,
    /// A system call.
    Syscall(u32, Form, Phase),
}

const FIXED: [(&str, Point, Fields); 5] = [
    ("container/start", Point::ContainerStart, Fields::ENV),
    ("sentry/clone", Point::Clone, Fields::empty()),
    ("sentry/execve", Point::Execve, Fields::BINARY_INFO.union(Fields::ENV)),
    ("sentry/exit_notify_parent", Point::ExitNotifyParent, Fields::empty()),
    ("sentry/task_exit", Point::TaskExit, Fields::empty()),
];

/// Points of one call.
const OF_CALL: usize = 4;

/// How many points there are.
pub const COUNT: usize = FIXED.len() + nr::TABLE_LEN * OF_CALL;

/// Calls with a message of their own, and its optional fields.
pub(crate) const SCHEMAS: &[(u32, Fields)] = &[
    (nr::READ, Fields::FD_PATH),
    (nr::WRITE, Fields::FD_PATH),
    (nr::OPEN, Fields::empty()),
    (nr::CLOSE, Fields::FD_PATH),
    (nr::MMAP, Fields::FD_PATH),
    (nr::PREAD64, Fields::FD_PATH),
    (nr::PWRITE64, Fields::FD_PATH),
    (nr::READV, Fields::FD_PATH),
    (nr::WRITEV, Fields::FD_PATH),
    (nr::PIPE, Fields::empty()),
    (nr::DUP, Fields::FD_PATH),
    (nr::DUP2, Fields::FD_PATH),
    (nr::SOCKET, Fields::empty()),
    (nr::CONNECT, Fields::FD_PATH),
    (nr::ACCEPT, Fields::FD_PATH),
    (nr::BIND, Fields::FD_PATH),
    (nr::LISTEN, Fields::FD_PATH),
    (nr::SOCKETPAIR, Fields::empty()),
    (nr::CLONE, Fields::empty()),
    (nr::FORK, Fields::empty()),
    (nr::VFORK, Fields::empty()),
    (nr::EXECVE, Fields::ENVV),
    (nr::FCNTL, Fields::FD_PATH),
    (nr::CHDIR, Fields::empty()),
    (nr::FCHDIR, Fields::FD_PATH),
    (nr::CREAT, Fields::empty()),
    (nr::PTRACE, Fields::empty()),
    (nr::SETUID, Fields::empty()),
    (nr::SETGID, Fields::empty()),
    (nr::SETSID, Fields::empty()),
    (nr::SETRESUID, Fields::empty()),
    (nr::SETRESGID, Fields::empty()),
    (nr::CHROOT, Fields::empty()),
    (nr::INOTIFY_INIT, Fields::empty()),
    (nr::INOTIFY_ADD_WATCH, Fields::FD_PATH),
    (nr::INOTIFY_RM_WATCH, Fields::FD_PATH),
    (nr::OPENAT, Fields::FD_PATH),
    (nr::SIGNALFD, Fields::FD_PATH),
    (nr::TIMERFD_CREATE, Fields::empty()),
    (nr::EVENTFD, Fields::empty()),
    (nr::TIMERFD_SETTIME, Fields::FD_PATH),
    (nr::TIMERFD_GETTIME, Fields::FD_PATH),
    (nr::ACCEPT4, Fields::FD_PATH),
    (nr::SIGNALFD4, Fields::FD_PATH),
    (nr::EVENTFD2, Fields::empty()),
    (nr::DUP3, Fields::FD_PATH),
    (nr::PIPE2, Fields::empty()),
    (nr::INOTIFY_INIT1, Fields::empty()),
    (nr::PREADV, Fields::FD_PATH),
    (nr::PWRITEV, Fields::FD_PATH),
    (nr::PRLIMIT64, Fields::empty()),
    (nr::EXECVEAT, Fields::FD_PATH.union(Fields::ENVV)),
    (nr::PREADV2, Fields::FD_PATH),
    (nr::PWRITEV2, Fields::FD_PATH),
];

impl Point {
    /// Its place among all points, if it is one.
    #[must_use]
    pub fn index(self) -> Option<usize> {
        let Point::Syscall(call, form, phase) = self else {
            return FIXED.iter().position(|(_, point, _)| *point == self);
        };
        // Points are bits of a table that every call looks at: the place is worked out, not searched for.
        let within = match (form, phase) {
            (Form::Raw, Phase::Enter) => 0,
            (Form::Raw, Phase::Exit) => 1,
            (Form::Schema, Phase::Enter) => 2,
            (Form::Schema, Phase::Exit) => 3,
        };
        let call = usize::try_from(call).ok().filter(|call| *call < nr::TABLE_LEN)?;
        Some(FIXED.len().saturating_add(call.saturating_mul(OF_CALL)).saturating_add(within))
    }

    /// The point of this name: `sentry/clone`, `syscall/openat/enter`, `syscall/sysno/257/exit`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Point> {
        if let Some((_, point, _)) = FIXED.iter().find(|(known, ..)| *known == name) {
            return Some(*point);
        }
        let (call, phase) = name.strip_prefix("syscall/")?.rsplit_once('/')?;
        let phase = match phase {
            "enter" => Phase::Enter,
            "exit" => Phase::Exit,
            _ => return None,
        };
        // runsc's names: a call by number is told raw, one by name with its arguments taken apart.
        if let Some(number) = call.strip_prefix("sysno/") {
            let number = number.parse().ok().filter(|number| *number < nr::COUNT)?;
            return Some(Point::Syscall(number, Form::Raw, phase));
        }
        let number = nr::number(call)?;
        SCHEMAS.iter().any(|(known, _)| *known == number).then_some(Point::Syscall(number, Form::Schema, phase))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        let Point::Syscall(call, form, phase) = self else {
            let known = FIXED.iter().find(|(_, point, _)| *point == self);
            return known.map_or_else(String::new, |(name, ..)| (*name).to_owned());
        };
        let phase = if phase == Phase::Enter { "enter" } else { "exit" };
        match (form, nr::name(call)) {
            (Form::Schema, Some(name)) => format!("syscall/{name}/{phase}"),
            _ => format!("syscall/sysno/{call}/{phase}"),
        }
    }

    /// The optional fields that it has.
    #[must_use]
    pub fn optional(self) -> Fields {
        match self {
            Point::Syscall(call, Form::Schema, _) => {
                SCHEMAS.iter().find(|(known, _)| *known == call).map_or(Fields::empty(), |(_, fields)| *fields)
            }
            Point::Syscall(..) => Fields::empty(),
            fixed => FIXED.iter().find(|(_, point, _)| *point == fixed).map_or(Fields::empty(), |(.., fields)| *fields),
        }
    }

    /// The fields about who did it that it has.
    #[must_use]
    pub fn context(self) -> Fields {
        match self {
            // By then it has let its directories go.
            Point::ExitNotifyParent => Fields::context().difference(Fields::CWD),
            _ => Fields::context(),
        }
    }

    /// All of them, sorted by name.
    #[must_use]
    pub fn all() -> Vec<Point> {
        let phases = [Phase::Enter, Phase::Exit];
        let raw = (0..nr::COUNT).flat_map(|call| phases.map(|phase| Point::Syscall(call, Form::Raw, phase)));
        let schemas =
            SCHEMAS.iter().flat_map(|(call, _)| phases.map(|phase| Point::Syscall(*call, Form::Schema, phase)));
        let mut all: Vec<Point> = FIXED.iter().map(|(_, point, _)| *point).chain(raw).chain(schemas).collect();
        all.sort_by_cached_key(|point| point.name());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_points() {
        let all = Point::all();
        let mut indices: Vec<usize> = all.iter().map(|point| point.index().unwrap()).collect();
        for point in &all {
            assert_eq!(Point::by_name(&point.name()), Some(*point));
        }
        indices.sort_unstable();
        assert!(indices.windows(2).all(|w| w[0] < w[1]) && indices.last().is_some_and(|last| *last < COUNT));
        assert_eq!(all.len(), FIXED.len() + 2 * nr::TABLE_LEN + 2 * SCHEMAS.len());
        for bad in
            ["", "syscall", "syscall/openat", "syscall/getpid/enter", "syscall/sysno/99999/enter", "syscall/read/on"]
        {
            assert_eq!(Point::by_name(bad), None, "{bad}");
        }
        assert_eq!(Point::Syscall(nr::COUNT, Form::Raw, Phase::Exit).index(), None);
    }

    #[test]
    fn fields_have_their_names() {
        let names: Vec<&str> = (Fields::CWD | Fields::TIME | Fields::ENVV).names().collect();
        assert_eq!(names, ["time", "cwd", "envv"]);
        assert_eq!(Fields::context_by_name("group_id"), Some(Fields::GROUP_ID));
        assert_eq!((Fields::context_by_name("fd_path"), Fields::optional_by_name("time")), (None, None));
    }
}

//! Security events: where the kernel tells [`moat_monitor::Monitor`] what tasks do.
//!
//! Each function here looks first whether anybody wants to know. What a call's arguments point to is read before the call is made, and
//! again by the call itself: another thread of the guest can change it in between, so that a monitor sees what was there, and not with
//! certainty what was done. What a call did is in the events of the sentry (`sentry/*`), which are made of its own data.
//!
//! - [`mod@calls`]: system calls with a message of their own. [`mod@context`]: who did it.

mod calls;
mod context;

use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::clone::WaitStatus;
use moat_monitor::messages::{self, CloneInfo, ExecveInfo, Exit, ExitNotifyParentInfo, Start, TaskExit, Timespec};
use moat_monitor::{Event, Fields, Form, Phase, Point};
use moat_vfs::OpenFile;

use crate::error::{SyscallError, SyscallResult};
use crate::process::group::ThreadGroup;
use crate::spawn::Process;
use crate::task::{CurrentTask, Task};
use context::{context, text};

/// Strings of a list that are told.
const MAX_STRINGS: usize = 256;
/// Bytes of one string, and of all of a list.
const MAX_STRING: usize = 4096;
const MAX_STRINGS_BYTES: usize = 32 << 10;

/// A system call that somebody is to be told of.
pub(crate) struct WatchedCall {
    nr: u32,
    args: [u64; 6],
    /// Its message as it is before the call, if one is wanted.
    schema: Option<Event>,
}

impl WatchedCall {
    /// Tells of a call that is about to be made; nothing if nobody wants to know of it.
    pub(crate) fn begin(t: &CurrentTask, nr: u64, args: &[u64; 6]) -> Option<WatchedCall> {
        let monitor = &t.kernel().monitor;
        let nr = u32::try_from(nr).ok()?;
        let point = |form, phase| Point::Syscall(nr, form, phase);
        let wanted = |form, phase| monitor.wanted(point(form, phase));
        let (raw, raw_exit) = (wanted(Form::Raw, Phase::Enter), wanted(Form::Raw, Phase::Exit));
        let (enter, exit) = (wanted(Form::Schema, Phase::Enter), wanted(Form::Schema, Phase::Exit));
        let any = raw.or(raw_exit).or(enter).or(exit);
        // The common case: nobody wants this call, and nothing of it is read from the guest.
        any?;
        if let Some(fields) = raw {
            let event = Event::Raw(raw_call(nr, args, context(t, fields), None));
            monitor.tell(point(Form::Raw, Phase::Enter), &event);
        }
        // Arguments are read once for both, when the call begins: afterwards memory may show something else.
        let fields = enter.unwrap_or(Fields::empty()) | exit.unwrap_or(Fields::empty());
        let schema = enter.or(exit).and_then(|_| calls::event(t, nr, args, fields));
        if let (Some(fields), Some(event)) = (enter, &schema) {
            let mut event = event.clone();
            event.set_context(context(t, fields), None);
            monitor.tell(point(Form::Schema, Phase::Enter), &event);
        }
        Some(WatchedCall { nr, args: *args, schema: schema.filter(|_| exit.is_some()) })
    }

    /// Tells how it ended.
    pub(crate) fn end(self, t: &CurrentTask, result: &SyscallResult) {
        let monitor = &t.kernel().monitor;
        let exit = exit_of(result);
        let raw = Point::Syscall(self.nr, Form::Raw, Phase::Exit);
        if let Some(fields) = monitor.wanted(raw) {
            let event = Event::Raw(raw_call(self.nr, &self.args, context(t, fields), Some(exit)));
            monitor.tell(raw, &event);
        }
        let schema = Point::Syscall(self.nr, Form::Schema, Phase::Exit);
        if let (Some(fields), Some(mut event)) = (monitor.wanted(schema), self.schema) {
            if result.is_ok() {
                calls::complete(t, &self.args, &mut event);
            }
            event.set_context(context(t, fields), Some(exit));
            monitor.tell(schema, &event);
        }
    }
}

fn exit_of(result: &SyscallResult) -> Exit {
    let failed = |errno: Errno| Exit { result: -1, errorno: errno.raw().into() };
    match result {
        Ok(value) => Exit { result: value.cast_signed(), errorno: 0 },
        Err(SyscallError::Errno(errno)) => failed(*errno),
        // Whether it is made again is not known yet.
        Err(SyscallError::Restart(_)) => failed(Errno::EINTR),
    }
}

fn raw_call(
    nr: u32,
    args: &[u64; 6],
    context_data: Option<messages::ContextData>,
    exit: Option<Exit>,
) -> messages::Syscall {
    let [arg1, arg2, arg3, arg4, arg5, arg6] = *args;
    messages::Syscall { context_data, exit, sysno: nr.into(), arg1, arg2, arg3, arg4, arg5, arg6 }
}

/// Tells that a container's init is about to run.
pub fn container_start(id: &str, init: &Process, args: &[String], env: &[String], cwd: &str, terminal: bool) {
    let group = init.group();
    let monitor = &group.kernel().monitor;
    let Some(fields) = monitor.wanted(Point::ContainerStart) else { return };
    let env = if fields.contains(Fields::ENV) { bounded(env.iter().map(String::as_bytes)) } else { Vec::new() };
    let start = Start {
        context_data: group.main_thread().and_then(|task| context(&task, fields)),
        id: id.to_owned(),
        cwd: cwd.to_owned(),
        args: bounded(args.iter().map(String::as_bytes)),
        env,
        terminal,
    };
    monitor.tell(Point::ContainerStart, &Event::ContainerStart(start));
}

/// Tells that `t` has made a task.
pub(crate) fn cloned(t: &CurrentTask, child: &Task, flags: u64) {
    let monitor = &t.kernel().monitor;
    let Some(fields) = monitor.wanted(Point::Clone) else { return };
    let ns = &t.kernel().root_pid_ns;
    let info = CloneInfo {
        context_data: context(t, fields),
        created_thread_id: child.tid_in(ns),
        created_thread_group_id: child.group.pid().number_in(ns),
        created_thread_start_time_ns: context::start_time(child),
        flags,
    };
    monitor.tell(Point::Clone, &Event::SentryClone(info));
}

/// What is to be told of a program, kept while it is loaded.
pub(crate) struct Executed {
    fields: Fields,
    info: ExecveInfo,
}

impl Executed {
    /// Keeps it, if somebody wants to know.
    pub(crate) fn keep(
        monitor: &moat_monitor::Monitor,
        filename: &[u8],
        argv: &[Vec<u8>],
        envp: &[Vec<u8>],
    ) -> Option<Executed> {
        let fields = monitor.wanted(Point::Execve)?;
        let env = if fields.contains(Fields::ENV) { bounded(envp.iter().map(Vec::as_slice)) } else { Vec::new() };
        let argv = bounded(argv.iter().map(Vec::as_slice));
        Some(Executed { fields, info: ExecveInfo { execfn: text(filename), argv, env, ..ExecveInfo::default() } })
    }

    /// Tells that `task` executes it.
    pub(crate) fn tell(mut self, task: &Task, file: &OpenFile) {
        let root = task.fs_of().map(|fs| fs.lock().root.clone());
        self.info.binary_path = text(&file.path().text(root.as_ref()));
        if self.fields.contains(Fields::BINARY_INFO)
            && let Ok(meta) = file.metadata()
        {
            self.info.binary_mode = meta.mode;
            (self.info.binary_uid, self.info.binary_gid) = (meta.uid, meta.gid);
            (self.info.binary_ino, self.info.binary_nlink) = (meta.ino, meta.nlink);
            self.info.binary_size = i64::try_from(meta.size).unwrap_or(i64::MAX);
            self.info.binary_ctime = Some(Timespec { sec: meta.ctime.tv_sec, nsec: meta.ctime.tv_nsec });
        }
        self.info.context_data = context(task, self.fields);
        task.kernel().monitor.tell(Point::Execve, &Event::SentryExec(self.info));
    }
}

/// Tells that a task ends.
pub(crate) fn task_exits(t: &CurrentTask, status: WaitStatus) {
    let monitor = &t.kernel().monitor;
    let Some(fields) = monitor.wanted(Point::TaskExit) else { return };
    let info = TaskExit { context_data: context(t, fields), exit_status: status.to_raw().cast_signed() };
    monitor.tell(Point::TaskExit, &Event::SentryTaskExit(info));
}

/// Tells that a process has ended.
pub(crate) fn process_ended(group: &Arc<ThreadGroup>, task: &Task, status: WaitStatus) {
    let monitor = &group.kernel().monitor;
    let Some(fields) = monitor.wanted(Point::ExitNotifyParent) else { return };
    let info = ExitNotifyParentInfo { context_data: context(task, fields), exit_status: status.to_raw().cast_signed() };
    monitor.tell(Point::ExitNotifyParent, &Event::ExitNotifyParent(info));
}

/// Strings as they are told: not more, and not longer ones, than fit a packet.
fn bounded<'a>(strings: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut left = MAX_STRINGS_BYTES;
    let mut told = Vec::new();
    for string in strings.take(MAX_STRINGS) {
        let n = string.len().min(MAX_STRING).min(left);
        told.push(text(string.get(..n).unwrap_or_default()));
        left = left.saturating_sub(n);
        if left == 0 {
            break;
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_bounded() {
        let long = vec![b'x'; 10_000];
        let told = bounded(std::iter::repeat_n(long.as_slice(), 100));
        assert_eq!((told.len(), told[0].len()), (8, MAX_STRING));
        assert_eq!(bounded(std::iter::repeat_n(&b""[..], 1000)).len(), MAX_STRINGS);
    }

    #[test]
    fn results() {
        assert_eq!(exit_of(&Ok(7)), Exit { result: 7, errorno: 0 });
        assert_eq!(exit_of(&Err(Errno::ENOENT.into())), Exit { result: -1, errorno: 2 });
        assert_eq!(exit_of(&Err(crate::error::Restart::Sys.into())), Exit { result: -1, errorno: 4 });
    }
}

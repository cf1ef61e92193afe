//! Who did it: the fields that all messages share.

use moat_monitor::Fields;
use moat_monitor::messages::{ContextData, Credentials};

use crate::task::Task;

/// What `fields` ask for of a task; nothing if they ask for nothing.
pub(super) fn context(task: &Task, fields: Fields) -> Option<ContextData> {
    if !fields.intersects(Fields::context()) {
        return None;
    }
    let kernel = task.kernel();
    let ns = &kernel.root_pid_ns;
    let mut data = ContextData::default();
    if fields.contains(Fields::TIME) {
        data.time_ns = signed(moat_host::clock::realtime_ns());
    }
    if fields.contains(Fields::THREAD_ID) {
        data.thread_id = task.tid_in(ns);
    }
    if fields.contains(Fields::TASK_START_TIME) {
        data.thread_start_time_ns = start_time(task);
    }
    if fields.contains(Fields::GROUP_ID) {
        data.thread_group_id = task.group.pid().number_in(ns);
    }
    if fields.contains(Fields::THREAD_GROUP_START_TIME) {
        data.thread_group_start_time_ns = task.group.main_thread().map_or(0, |leader| start_time(&leader));
    }
    if fields.contains(Fields::CONTAINER_ID) {
        data.container_id = task.group.container.id().to_owned();
    }
    if fields.contains(Fields::CREDENTIALS) {
        let creds = task.creds();
        data.credentials = Some(Credentials {
            real_uid: creds.uid,
            effective_uid: creds.euid,
            saved_uid: creds.suid,
            real_gid: creds.gid,
            effective_gid: creds.egid,
            saved_gid: creds.sgid,
        });
    }
    if fields.contains(Fields::CWD)
        && let Some(fs) = task.fs_of()
    {
        // Copied: names are looked at unlocked.
        let fs = fs.lock().clone();
        data.cwd = text(&fs.cwd.text(Some(&fs.root)));
    }
    if fields.contains(Fields::PROCESS_NAME) {
        data.process_name = text(&task.comm());
    }
    if fields.contains(Fields::PARENT_THREAD_GROUP_ID) {
        data.parent_thread_group_id = task.group.parent().map_or(0, |parent| parent.pid().number_in(ns));
    }
    if fields.contains(Fields::IS_EXEC_SESSION) {
        data.is_exec_session = is_exec_session(task);
    }
    Some(data)
}

/// CLOCK_REALTIME when a task was made.
pub(super) fn start_time(task: &Task) -> i64 {
    let kernel = task.kernel();
    let since_boot = task.start_boot_ns.saturating_sub(kernel.boot_boottime_ns);
    signed(kernel.boot_realtime_ns.saturating_add(since_boot))
}

/// Whether the eldest of its living ancestors has no parent and is not the first process of its pid namespace: it was started from outside.
fn is_exec_session(task: &Task) -> bool {
    let mut eldest = task.group.clone();
    while let Some(parent) = eldest.parent() {
        eldest = parent;
    }
    !eldest.pid().is_init()
}

/// Bytes of a guest as text.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

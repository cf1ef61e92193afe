//! What every guest task and every thread of the sentry does, for people who look for a hang.

use std::fmt::Write as _;

use moat_abi::nr;
use moat_kernel::task::Task;
use moat_kernel::task::work::Work;

use crate::registry::Registry;

/// Bytes of text beyond which no further task is shown.
const MAX_BYTES: usize = 4 << 20;

/// Text for people.
pub(super) fn text(registry: &Registry) -> String {
    let mut text = String::from("guest tasks\n");
    for container in registry.all() {
        let _ = writeln!(text, "container {} ({:?})", container.id, container.status());
        for group in container.member.processes.processes() {
            let threads = group.threads();
            // A guest can have more tasks than an answer has room for.
            if threads.is_empty() && text.len() < MAX_BYTES {
                let _ = writeln!(text, "  {:>6} {:>6} zombie", group.pid().number(), group.pid().number());
            }
            for task in threads {
                if text.len() < MAX_BYTES {
                    line(&mut text, &task);
                }
            }
        }
    }
    text += "sentry threads\n";
    for thread in moat_host::procfs::own_threads() {
        let _ = writeln!(text, "  {:>6} {:<16} {} {}", thread.tid, thread.name, thread.state, thread.wchan);
    }
    text
}

/// Process, thread, name, where it is, what it has to do, and its system call.
fn line(text: &mut String, task: &Task) {
    let comm = String::from_utf8_lossy(&task.comm()).into_owned();
    // Looked at while it runs: each field for itself, so that nothing waits for anybody.
    let waits = task.waits_in();
    let place = if task.flags.in_guest() { "application code" } else { waits.unwrap_or("the sentry") };
    let work = task.work();
    let _ = write!(text, "  {:>6} {:>6} {comm:<16} in {place}", task.tgid(), task.tid());
    if work != Work::empty() {
        let _ = write!(text, " work={work:?}");
    }
    if let Some((number, args)) = task.call.get() {
        let name = u32::try_from(number).ok().and_then(nr::name).unwrap_or("?");
        let _ = write!(text, " call {name}(");
        for (i, arg) in args.iter().enumerate() {
            let _ = write!(text, "{}{arg:#x}", if i == 0 { "" } else { ", " });
        }
        text.push(')');
    }
    text.push('\n');
}

//! What every task does, for people who look for a hang.

use moat_kernel::kernel::kernel;

/// What each task waits for, a line a task.
pub(super) fn text() -> String {
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

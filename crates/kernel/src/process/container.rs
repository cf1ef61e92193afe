//! [`ContainerGroup`]: what the processes of one container have in common, as members of a cgroup of Linux have.
//!
//! A process is born into its parent's and can't leave it, whatever namespaces it makes. It is what is listed, signalled,
//! frozen and counted when somebody outside asks about a container.
//!
//! Freezing is that of cgroup v2: a frozen task runs no application code and ends no system call, which its processes
//! can't notice but by the clock; SIGKILL gets through.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use moat_abi::PollEvents;
use moat_identity::CgroupNamespace;
use moat_platform::Stock;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_tty::Terminal;
use moat_vfs::device_rules::DeviceRules;

use crate::kernel::Kernel;
use crate::process::allowance::Allowance;
use crate::process::group::ThreadGroup;
use crate::task::usage::Usage;

/// The processes of a container.
pub struct ContainerGroup {
    kernel: Arc<Kernel>,
    stock: Arc<dyn Stock>,
    allowance: Arc<Allowance>,
    frozen: AtomicBool,
    /// Woken when a task of a frozen container has come to rest.
    stopped: WaitQueue,
    thawed: WaitQueue,
    /// Usage of threads that have ended.
    dead: Mutex<Usage>,
    console: OnceLock<Arc<dyn Terminal>>,
    device_rules: OnceLock<DeviceRules>,
}

/// What a cgroup namespace has as its root.
struct RootOf(Arc<ContainerGroup>);

impl ContainerGroup {
    /// A container without processes; `stock` gives the host processes that run them.
    #[must_use]
    pub fn new(kernel: Arc<Kernel>, stock: Arc<dyn Stock>, allowance: Arc<Allowance>) -> Arc<ContainerGroup> {
        Arc::new(ContainerGroup {
            kernel,
            stock,
            allowance,
            frozen: AtomicBool::new(false),
            stopped: WaitQueue::new(),
            thawed: WaitQueue::new(),
            dead: Mutex::new(LockClass::Process, Usage::default()),
            console: OnceLock::new(),
            device_rules: OnceLock::new(),
        })
    }

    /// The kernel that it belongs to.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Where the host processes come from that run its programs.
    #[must_use]
    pub fn stock(&self) -> &Arc<dyn Stock> {
        &self.stock
    }

    /// What it may use.
    #[must_use]
    pub fn allowance(&self) -> &Arc<Allowance> {
        &self.allowance
    }

    /// Makes it the cgroup that is the root of a namespace.
    pub fn show_in(self: &Arc<Self>, namespace: &CgroupNamespace) {
        namespace.extensions.get_or_init(|| RootOf(self.clone()));
    }

    /// The container whose cgroup is the root of a namespace; none is for that of the sentry itself.
    #[must_use]
    pub fn of(namespace: &CgroupNamespace) -> Option<Arc<ContainerGroup>> {
        namespace.extensions.get::<RootOf>().map(|root| root.0.clone())
    }

    /// Its processes, zombies included, eldest first. The family must not be locked.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<ThreadGroup>> {
        let family = self.kernel.family.lock();
        family.nodes().filter(|n| std::ptr::eq(&*n.group.container, self)).map(|n| n.group.clone()).collect()
    }

    /// Whether a process of it has threads, or is about to have.
    #[must_use]
    pub fn has_living(&self) -> bool {
        let family = self.kernel.family.lock();
        family.nodes().any(|n| n.zombie.is_none() && std::ptr::eq(&*n.group.container, self))
    }

    /// Whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Freezes it, and waits until no task of it runs application code.
    pub async fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.refresh();
        // A task that is made meanwhile looks for itself before it runs.
        let look = || {
            let runs = || self.processes().iter().any(|g| g.threads().iter().any(|t| t.flags.in_guest()));
            // A thaw ends the wait as well.
            if self.is_frozen() && runs() { Poll::Pending } else { Poll::Ready(()) }
        };
        self.stopped.until(PollEvents::all(), look).await;
    }

    /// Lets its tasks go on.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        self.refresh();
        self.thawed.wake_all();
        // Whoever waits in `freeze` must not wait any longer.
        self.stopped.wake_all();
    }

    /// Has all tasks look at [`ContainerGroup::is_frozen`].
    fn refresh(&self) {
        for group in self.processes() {
            group.signals.lock().wake_all();
        }
    }

    pub(crate) fn thawed(&self) -> &WaitQueue {
        &self.thawed
    }

    /// A frozen task has come to rest.
    pub(crate) fn note_stopped(&self) {
        self.stopped.wake_all();
    }

    /// Which devices its processes may use; without rules, all.
    #[must_use]
    pub fn device_rules(&self) -> Option<&DeviceRules> {
        self.device_rules.get()
    }

    /// Sets the rules, before it has processes.
    pub fn set_device_rules(&self, rules: DeviceRules) {
        let _ = self.device_rules.set(rules);
    }

    /// The terminal behind /dev/console: that of its first process, if it was started on one.
    #[must_use]
    pub fn console(&self) -> Option<&Arc<dyn Terminal>> {
        self.console.get()
    }

    /// Sets it; once.
    pub fn set_console(&self, tty: Arc<dyn Terminal>) {
        let _ = self.console.set(tty);
    }

    /// Counts what a thread that ends has used.
    pub fn add_dead(&self, usage: &Usage) {
        self.dead.lock().add(usage);
        // A freeze no longer waits for this thread.
        self.note_stopped();
    }

    /// What its ended threads have used.
    #[must_use]
    pub fn dead_usage(&self) -> Usage {
        *self.dead.lock()
    }
}

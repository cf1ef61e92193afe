//! [`ContainerGroup`]: what the processes of one container have in common, as members of a cgroup of Linux have.
//!
//! A process is born into its parent's and can't leave it, whatever namespaces it makes. It is what is listed, signalled,
//! frozen and counted when somebody outside asks about a container.
//!
//! Freezing is that of cgroup v2: a frozen task runs no application code and ends no system call, which its processes
//! can't notice but by the clock; SIGKILL gets through.

mod saving;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use moat_abi::{Errno, PollEvents, Result};
use moat_host::clock::deadline_in;
use moat_identity::CgroupNamespace;
use moat_platform::{Kick, Stock};
use moat_sync::timer::sleep_until;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_tty::Terminal;
use moat_vfs::device_rules::DeviceRules;

use crate::kernel::Kernel;
use crate::metrics::Metrics;
use crate::process::allowance::Allowance;
use crate::process::group::ThreadGroup;
use crate::task::Task;
use crate::task::past_usage::PastUsage;
use crate::task::usage::Usage;

pub use saving::{MemoryCopy, SaveMemory};

/// How long a task of a container that is being frozen may take to come to rest by itself.
const FREEZE_GRACE: Duration = Duration::from_millis(200);
/// How long where it can't be stopped from outside.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// The processes of a container.
pub struct ContainerGroup {
    id: String,
    kernel: Arc<Kernel>,
    stock: Arc<dyn Stock>,
    allowance: Arc<Allowance>,
    frozen: AtomicBool,
    /// Its tasks are to say what only they know.
    being_saved: AtomicBool,
    /// Copies of address spaces that are made meanwhile, if there are to be any.
    copies: Mutex<Option<saving::Copies>>,
    /// Woken when a task of a frozen container has come to rest.
    stopped: WaitQueue,
    thawed: WaitQueue,
    /// Host threads whose processes are stopped from outside while it is frozen.
    held: Mutex<Vec<Arc<dyn Kick>>>,
    /// Usage of threads that have ended.
    dead: Mutex<PastUsage>,
    /// What its tasks have done.
    pub metrics: Metrics,
    console: OnceLock<Arc<dyn Terminal>>,
    device_rules: OnceLock<DeviceRules>,
}

/// What a cgroup namespace has as its root.
struct RootOf(Arc<ContainerGroup>);

impl ContainerGroup {
    /// Container `id` without processes; `stock` gives the host processes that run them.
    #[must_use]
    pub fn new(
        id: String,
        kernel: Arc<Kernel>,
        stock: Arc<dyn Stock>,
        allowance: Arc<Allowance>,
    ) -> Arc<ContainerGroup> {
        Arc::new(ContainerGroup {
            id,
            kernel,
            stock,
            allowance,
            frozen: AtomicBool::new(false),
            being_saved: AtomicBool::new(false),
            copies: Mutex::new(LockClass::Process, None),
            stopped: WaitQueue::new(),
            thawed: WaitQueue::new(),
            held: Mutex::new(LockClass::Process, Vec::new()),
            dead: Mutex::new(LockClass::Process, PastUsage::default()),
            metrics: Metrics::default(),
            console: OnceLock::new(),
            device_rules: OnceLock::new(),
        })
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
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

    /// Their threads.
    fn threads(&self) -> impl Iterator<Item = Arc<Task>> {
        self.processes().into_iter().flat_map(|group| group.threads())
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
    ///
    /// The host processes of tasks that don't come to rest are stopped from outside.
    ///
    /// # Errors
    /// EBUSY if such a task goes on and the platform can't stop it.
    pub async fn freeze(&self) -> Result<()> {
        self.frozen.store(true, Ordering::SeqCst);
        self.refresh();
        // A task that is made meanwhile looks for itself before it runs. One that is about to run application code has looked
        // already and is not away yet; one that carries out an order is away without running any.
        let is_away = |task: &Task| task.kicker().is_some_and(|kicker| kicker.is_away());
        let runs = || self.threads().any(|task| task.flags.in_guest() || is_away(&task));
        let look = || if self.is_frozen() && runs() { Poll::Pending } else { Poll::Ready(()) };
        if self.within(FREEZE_GRACE, look).await || self.hold() || self.within(FREEZE_LIMIT, look).await {
            return Ok(());
        }
        self.thaw();
        Err(Errno::EBUSY)
    }

    /// Waits for `look`, for so long; false if it came to nothing.
    async fn within(&self, time: Duration, look: impl FnMut() -> Poll<()>) -> bool {
        let mut looking = pin!(self.stopped.until(PollEvents::all(), look));
        let mut limit = sleep_until(deadline_in(time));
        poll_fn(|cx| match looking.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => Pin::new(&mut limit).poll(cx).map(|()| false),
        })
        .await
    }

    /// The host threads of its tasks that are in the guest's hands.
    fn away(&self) -> impl Iterator<Item = Arc<dyn Kick>> {
        self.threads().filter_map(|task| task.kicker()).filter(|kicker| kicker.is_away())
    }

    /// Stops the host processes of tasks that have not come to rest; false if there are such that can't be stopped.
    fn hold(&self) -> bool {
        let away: Vec<_> = self.away().collect();
        let mut held = self.held.lock();
        // Whoever thaws it meanwhile releases what is listed, after it has said so.
        if !self.is_frozen() {
            return true;
        }
        let stopped = away.iter().all(|kicker| kicker.hold());
        held.extend(away);
        stopped
    }

    /// Lets its tasks go on.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        let held = std::mem::take(&mut *self.held.lock());
        held.iter().for_each(|kicker| kicker.release());
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
    pub fn add_dead(&self, usage: &PastUsage) {
        self.dead.lock().merge(usage);
        // A freeze no longer waits for this thread.
        self.note_stopped();
    }

    /// What its ended threads have used.
    #[must_use]
    pub fn dead_usage(&self) -> Usage {
        self.dead.lock().known()
    }
}

//! Message queues in an image, and out of it.

use std::sync::Arc;

use moat_abi::fs::{NAME_MAX, OpenFlags};
use moat_abi::ipc::{HARD_MSGMAX, HARD_MSGSIZEMAX, MQ_PRIO_MAX};
use moat_abi::signal::Signal;
use moat_identity::PidNamespace;
use moat_image::state::{
    IpcNamespaceState, MqueueFileState, MqueueNotificationState, MqueueState, OpenFileKind, OpenFileState,
};
use moat_image::{ImageError, Met, Ref, Refusal};
use moat_kernel::Kernel;
use moat_vfs::dentry::Dentry;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Credentials, OpenFile, Path};

use crate::fs::{MqueueFs, NamespaceQueues, Node, SavedNode};
use crate::queue::{Attributes, Notification, Queue, QueueFile, SavedQueue};

fn address(queue: &Arc<Queue>) -> usize {
    Arc::as_ptr(queue).addr()
}

impl MqueueFs {
    /// Saves all queues, open or not, which are of the namespace `ipc`.
    pub fn save_queues(&self, ipc: Option<Ref<IpcNamespaceState>>, saver: &mut dyn SaveFiles) {
        for (name, node) in self.all() {
            let _ = save(&node.queue, node.saved(), Some(name.clone()), name, ipc, saver);
        }
    }
}

/// The name of a queue in the image.
fn save(
    queue: &Arc<Queue>,
    node: SavedNode,
    name: Option<Vec<u8>>,
    shown: Vec<u8>,
    ipc: Option<Ref<IpcNamespaceState>>,
    saver: &mut dyn SaveFiles,
) -> Ref<MqueueState> {
    let known = match saver.mqueues().meet(address(queue)) {
        Met::Before(known) => return known,
        Met::First(known) => known,
    };
    let saved = queue.save();
    let notification = saved.registration.map(|(owner, how)| MqueueNotificationState {
        process: saver.process(owner.pid()),
        signal: match how {
            Notification::Nothing => None,
            Notification::Signal { signal, value } => Some((signal.number(), value)),
        },
    });
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let state = MqueueState {
        name: name.map(Into::into),
        shown: shown.into(),
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        times: node.times,
        max_messages: number(queue.attributes.max_messages),
        message_size: number(queue.attributes.message_size),
        messages: saved.messages.into_iter().map(|(priority, text)| (priority, text.into())).collect(),
        payer: queue.payer(),
        notification,
        ipc,
        container: saver.container(),
    };
    saver.mqueues().fill(known, state);
    known
}

impl QueueFile {
    pub(crate) fn save_file(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let gone = || Refusal::new("a message queue of which nothing is known any more");
        // One that is not known yet has lost its name: those with one were saved before.
        let meta = f.inode().metadata().map_err(|_| gone())?;
        let times = [meta.atime, meta.mtime, meta.ctime].map(|t| (t.tv_sec, t.tv_nsec));
        let node = SavedNode { mode: meta.mode & moat_abi::fs::S_IALLUGO, uid: meta.uid, gid: meta.gid, times };
        let queue = save(&self.queue, node, None, f.path().dentry.name().to_vec(), None, saver);
        // mq_open(2) uses a mount that is nowhere to be seen; open(2) one of the container's.
        let path = saver.path(f.path()).ok();
        Ok(OpenFileKind::Mqueue(MqueueFileState { queue, path }))
    }
}

/// A queue of an image, and how it is shown.
struct RestoredNode {
    node: Arc<Node>,
    shown: Vec<u8>,
    has_name: bool,
    queues: Arc<NamespaceQueues>,
}

/// The queues of an image.
pub struct RestoredQueues {
    nodes: Vec<RestoredNode>,
}

impl RestoredQueues {
    /// Makes the queues of an image, each among the `queues` of its namespace, where there are none yet; its processes are there.
    ///
    /// # Errors
    /// What mq_open(2) and mq_timedsend(2) would never have made.
    pub fn make<'a>(
        queues: impl Fn(&MqueueState) -> Result<Arc<NamespaceQueues>, ImageError>,
        kernel: &Kernel,
        ns: &PidNamespace,
        saved: impl Iterator<Item = &'a MqueueState>,
    ) -> Result<RestoredQueues, ImageError> {
        let restored = |saved: &MqueueState| {
            let queues = queues(saved)?;
            let node = make(&queues, kernel, ns, saved)?;
            Ok(RestoredNode { node, shown: saved.shown.to_vec(), has_name: saved.name.is_some(), queues })
        };
        let nodes = saved.map(restored).collect::<Result<_, ImageError>>()?;
        Ok(RestoredQueues { nodes })
    }

    /// Opens a queue as it was.
    ///
    /// # Errors
    /// A queue that is not there.
    pub fn open(
        &self,
        saved: &MqueueFileState,
        file: &OpenFileState,
        path: Option<Path>,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let RestoredNode { node, shown, has_name, queues } = moat_image::refs::find(&self.nodes, saved.queue)?;
        let path = path.unwrap_or_else(|| {
            let mount = queues.mount.clone();
            // Through the mount's own cache, as mq_open(2) has it. One whose name is gone is still shown by it.
            let known = if *has_name { mount.root().lookup(shown).ok() } else { None };
            let dentry = known.unwrap_or_else(|| Dentry::removed(mount.root(), shown, node.clone()));
            Path { mount, dentry }
        });
        let flags = OpenFlags::from_bits_truncate(file.flags).difference(OpenFlags::OPEN_ONLY | OpenFlags::PATH);
        let open = OpenFile::new(node.file(), path, flags, creds.clone());
        open.set_pos(file.pos);
        Ok(open)
    }
}

fn make(
    queues: &NamespaceQueues,
    kernel: &Kernel,
    ns: &PidNamespace,
    saved: &MqueueState,
) -> Result<Arc<Node>, ImageError> {
    let wrong = |what: &str| ImageError::state(format!("a message queue's {what}"));
    let within = |n: u64, most: i64| usize::try_from(n).ok().filter(|_| (1..=most.unsigned_abs()).contains(&n));
    let attributes = Attributes {
        max_messages: within(saved.max_messages, HARD_MSGMAX).ok_or_else(|| wrong("limit"))?,
        message_size: within(saved.message_size, HARD_MSGSIZEMAX).ok_or_else(|| wrong("message size"))?,
    };
    let fits = |(priority, text): &(u32, serde_bytes::ByteBuf)| {
        *priority < MQ_PRIO_MAX && text.len() <= attributes.message_size
    };
    if saved.messages.len() > attributes.max_messages || !saved.messages.iter().all(fits) {
        return Err(wrong("messages"));
    }
    for name in saved.name.iter().chain([&saved.shown]) {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(&b'/') {
            return Err(wrong("name"));
        }
    }
    let registration = match &saved.notification {
        None => None,
        Some(saved) => {
            let owner = kernel.process(ns, saved.process).ok_or_else(|| wrong("owner"))?;
            let how = match saved.signal {
                None => Notification::Nothing,
                Some((signal, value)) => {
                    Notification::Signal { signal: Signal::new(signal).ok_or_else(|| wrong("signal"))?, value }
                }
            };
            Some((owner, how))
        }
    };
    let node = SavedNode { mode: saved.mode, uid: saved.uid, gid: saved.gid, times: saved.times };
    let messages = saved.messages.iter().map(|(priority, text)| (*priority, text.to_vec())).collect();
    let queue = SavedQueue { messages, registration };
    let name = saved.name.as_ref().map(|name| name.as_slice());
    queues
        .fs
        .restore_queue(name, &node, attributes, saved.payer, queue)
        .map_err(|errno| ImageError::state(format!("a message queue: {errno}")))
}

//! [`Server`]: control connections as tasks of the executor.
//!
//! A connection's requests are taken in their order. One that is done at once is answered before the next is read, so
//! that signals arrive as they were sent; one that waits becomes a task of its own and is answered when it ends.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use moat_abi::PollEvents;
use moat_abi::signal::Signal;
use moat_control::{Connection, ControlError, Listener, Request, Response};
use moat_kernel::spawn::Process;
use moat_sync::reactor::Watch;
use moat_sync::timer::sleep_until;
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::life::Reserved;
use super::{life, request};
use crate::container::GuestContainer;
use crate::profile::Recorders;
use crate::registry::Registry;
use crate::unless::unless;

/// Connections at a time; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 256;

/// Requests of one connection that wait at a time; it is not read beyond.
const MAX_WAITING: usize = 64;

/// How long those who wait for an end have to be told of it before the sandbox is gone.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// What all connections share.
pub(crate) struct Server {
    pub(crate) registry: Arc<Registry>,
    /// Profiles under way.
    pub(crate) recorders: Arc<Recorders>,
    connections: AtomicUsize,
    /// Requests that have no answer yet.
    waiting: AtomicUsize,
    /// Woken when either count goes down.
    fewer: WaitQueue,
}

impl Server {
    pub(crate) fn new(registry: Arc<Registry>) -> Arc<Server> {
        Arc::new(Server {
            registry,
            recorders: Recorders::new(),
            connections: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            fewer: WaitQueue::new(),
        })
    }

    /// Serves `connection` until its other end is closed.
    pub(crate) fn serve(self: &Arc<Self>, connection: Connection) {
        let watch = match Watch::new(connection.socket().clone()) {
            Ok(watch) => watch,
            Err(error) => {
                tracing::error!(%error, "cannot serve a control connection");
                return;
            }
        };
        self.connections.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session {
            server: self.clone(),
            connection,
            watch,
            closed: AtomicBool::new(false),
            closing: WaitQueue::new(),
            waiting: AtomicUsize::new(0),
            fewer: WaitQueue::new(),
            executed: Mutex::new(LockClass::Control, Vec::new()),
            reserved: Mutex::new(LockClass::Control, None),
        });
        moat_sync::spawn(session.run());
    }

    /// Ends the other containers, and lets requests that have got their answer by that send it; the rest is cut off.
    pub(crate) async fn finish(&self) {
        let deadline = Instant::now() + LAST_ANSWERS;
        // While the processes are there that they tell of.
        unless(self.recorders.stop_all(), sleep_until(deadline)).await;
        for container in self.registry.all() {
            unless(life::kill_all(&container), sleep_until(deadline)).await;
            container.followers.have_ended().await;
        }
        unless(self.fewer.until(PollEvents::all(), || below(&self.waiting, 1)), sleep_until(deadline)).await;
    }
}

/// Accepts connections of the sandbox's creator, whose uid is `creator` as the sandbox sees it. If it is not mapped that is
/// the uid of all who are not; those whom the socket's mode lets in are the creator and the host's root.
pub(crate) async fn accept(server: Arc<Server>, listener: Listener, creator: u32) {
    let watch = match Watch::new(listener.socket().clone()) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::error!(%error, "cannot accept control connections");
            return;
        }
    };
    loop {
        server.fewer.until(PollEvents::all(), || below(&server.connections, MAX_CONNECTIONS)).await;
        match watch.wait_queue().until(PollEvents::IN, || unblocked(|| listener.accept())).await {
            Ok((connection, peer)) if peer.uid == creator => server.serve(connection),
            Ok((_, peer)) => tracing::warn!(uid = peer.uid, "control connection refused"),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of descriptors or memory: that may pass.
                tracing::warn!(%error, "accepting a control connection");
                sleep_until(Instant::now() + Duration::from_millis(100)).await;
            }
        }
    }
}

/// A look at a count: [`Poll::Pending`] while it is not below `most`.
fn below(count: &AtomicUsize, most: usize) -> Poll<()> {
    if count.load(Ordering::SeqCst) < most { Poll::Ready(()) } else { Poll::Pending }
}

/// A look at a socket: [`Poll::Pending`] where the call would block.
fn unblocked<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    pub(crate) server: Arc<Server>,
    connection: Connection,
    watch: Watch,
    closed: AtomicBool,
    /// Woken when the other end has closed.
    closing: WaitQueue,
    waiting: AtomicUsize,
    fewer: WaitQueue,
    /// Processes that end with the connection.
    executed: Mutex<Vec<(Arc<GuestContainer>, Process)>>,
    /// The container that is about to be made.
    reserved: Mutex<Option<Reserved>>,
}

/// A response with descriptors.
pub(super) struct Answer {
    response: Response,
    fds: Vec<OwnedFd>,
}

impl Answer {
    /// With a descriptor.
    pub(super) fn with(response: Response, fd: OwnedFd) -> Answer {
        Answer { response, fds: vec![fd] }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer { response, fds: Vec::new() }
    }
}

impl Session {
    async fn run(self: Arc<Self>) {
        self.read_requests().await;
        // Before what is kept is taken: whoever keeps something later sees this and lets it go (`keep`, `bind`).
        self.closed.store(true, Ordering::SeqCst);
        self.closing.wake_all();
        drop(self.take_reserved());
        let executed = std::mem::take(&mut *self.executed.lock());
        for (container, process) in executed {
            // ESRCH: it has ended before.
            let _ = process.signal(Signal::SIGKILL);
            container.forget(&process);
        }
    }

    async fn read_requests(self: &Arc<Self>) {
        loop {
            self.fewer.until(PollEvents::all(), || below(&self.waiting, MAX_WAITING)).await;
            let next = || unblocked(|| self.connection.next_request());
            match self.watch.wait_queue().until(PollEvents::IN, next).await {
                Ok(Some((request, fds))) => self.take(request, fds).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "control connection");
                    self.answer(Response::Error(ControlError::Invalid(error.to_string())).into()).await;
                    return;
                }
            }
        }
    }

    async fn take(self: &Arc<Self>, request: Request, fds: Vec<OwnedFd>) {
        tracing::debug!(?request, fds = fds.len(), "control");
        let counted = Counted::new(self);
        if !request::waits(&request) {
            let response = request::handle(self, request, fds).await;
            self.answer(response).await;
            return;
        }
        moat_sync::spawn(async move {
            let session = &counted.0;
            let response = request::handle(session, request, fds).await;
            session.answer(response).await;
        });
    }

    async fn answer(&self, answer: Answer) {
        let Answer { response, fds } = answer;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        if let Response::Error(error) = &response {
            tracing::debug!(%error, "control");
        }
        let send = || match unblocked(|| self.connection.respond(&response, &fds)) {
            // A client that has gone needs no answer.
            Poll::Pending if self.is_closed() => Poll::Ready(Ok(())),
            sent => sent,
        };
        if let Err(error) = self.watch.wait_queue().until(PollEvents::OUT, send).await
            && error.kind() == ErrorKind::InvalidData
        {
            // It is too long. This one is not.
            let _ = self.connection.respond(&Response::Error(ControlError::Invalid(error.to_string())), &[]);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits for `wanted`, but no longer than the connection is open: there would be nobody to tell.
    pub(crate) async fn while_open<T>(&self, wanted: impl Future<Output = T>) -> Option<T> {
        let closed = || if self.is_closed() { Poll::Ready(()) } else { Poll::Pending };
        unless(wanted, self.closing.until(PollEvents::all(), closed)).await
    }

    /// Keeps what is reserved for a container, in place of what was before.
    pub(super) fn keep(&self, reserved: Reserved) {
        let old = self.reserved.lock().replace(reserved);
        drop(old);
        // The connection has closed meanwhile, and nobody else would let it go.
        if self.is_closed() {
            drop(self.take_reserved());
        }
    }

    /// What was reserved.
    pub(super) fn take_reserved(&self) -> Option<Reserved> {
        self.reserved.lock().take()
    }

    /// Ends `process` when the connection closes.
    pub(crate) fn bind(&self, container: &Arc<GuestContainer>, process: Process) {
        let mut executed = self.executed.lock();
        executed.retain(|(_, p)| p.status().is_none());
        executed.push((container.clone(), process.clone()));
        drop(executed);
        // As in `keep`.
        if self.is_closed() {
            let _ = process.signal(Signal::SIGKILL);
            container.forget(&process);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.server.connections.fetch_sub(1, Ordering::SeqCst);
        self.server.fewer.wake_all();
    }
}

/// A request that has no answer yet.
struct Counted(Arc<Session>);

impl Counted {
    fn new(session: &Arc<Session>) -> Counted {
        session.waiting.fetch_add(1, Ordering::SeqCst);
        session.server.waiting.fetch_add(1, Ordering::SeqCst);
        Counted(session.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.fewer.wake_all();
        self.0.server.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.server.fewer.wake_all();
    }
}

//! [`Server`]: control connections as tasks of the executor.
//!
//! A connection's requests are taken in their order. One that is done at once is answered before the next is read, so
//! that signals arrive as they were sent; one that waits becomes a task of its own and is answered when it ends.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use moat_abi::PollEvents;
use moat_abi::signal::Signal;
use moat_control::{Connection, ControlError, Listener, Request, Response};
use moat_kernel::spawn::Process;
use moat_sync::reactor::Watch;
use moat_sync::timer::sleep_until;
use moat_sync::wait::Listener as QueueListener;
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::life::Reserved;
use super::{life, request};
use crate::container::GuestContainer;
use crate::registry::Registry;

/// Connections at a time; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 256;

/// Requests of one connection that wait at a time; it is not read beyond.
const MAX_WAITING: usize = 64;

/// How long those who wait for an end have to be told of it before the sandbox is gone.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// What all connections share.
pub(crate) struct Server {
    pub(crate) registry: Arc<Registry>,
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
        for container in self.registry.all() {
            let mut killed = std::pin::pin!(life::kill_all(&container));
            either(&mut killed, &mut sleep_until(deadline)).await;
        }
        let mut fewer = self.fewer.listen(PollEvents::all());
        while self.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            either(&mut fewer, &mut sleep_until(deadline)).await;
        }
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
    let mut readable = watch.wait_queue().listen(PollEvents::IN);
    let mut fewer = server.fewer.listen(PollEvents::all());
    loop {
        if server.connections.load(Ordering::SeqCst) >= MAX_CONNECTIONS {
            (&mut fewer).await;
            continue;
        }
        match listener.accept() {
            Ok((connection, peer)) if peer.uid == creator => server.serve(connection),
            Ok((_, peer)) => tracing::warn!(uid = peer.uid, "control connection refused"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (&mut readable).await,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                // Out of descriptors or memory: that may pass.
                tracing::warn!(%error, "accepting a control connection");
                sleep_until(Instant::now() + Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits for either future.
async fn either<A, B>(a: &mut A, b: &mut B)
where
    A: Future<Output = ()> + Unpin,
    B: Future<Output = ()> + Unpin,
{
    std::future::poll_fn(|cx| {
        use std::pin::Pin;
        if Pin::new(&mut *a).poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        Pin::new(&mut *b).poll(cx)
    })
    .await;
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
        let mut readable = self.watch.wait_queue().listen(PollEvents::IN);
        let mut fewer = self.fewer.listen(PollEvents::all());
        loop {
            if self.waiting.load(Ordering::SeqCst) >= MAX_WAITING {
                either(&mut fewer, &mut readable).await;
                continue;
            }
            match self.connection.next_request() {
                Ok(Some((request, fds))) => self.take(request, fds).await,
                Ok(None) => return,
                Err(error) if error.kind() == ErrorKind::WouldBlock => (&mut readable).await,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
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
        let mut writable = self.watch.wait_queue().listen(PollEvents::OUT);
        loop {
            match self.connection.respond(&response, &fds) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.is_closed() => (&mut writable).await,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    // It is too long. This one is not.
                    let _ = self.connection.respond(&Response::Error(ControlError::Invalid(error.to_string())), &[]);
                    return;
                }
                // A client that has gone needs no answer.
                Err(_) | Ok(()) => return,
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits for `wanted`, but no longer than the connection is open: there would be nobody to tell.
    pub(crate) async fn while_open<T>(&self, wanted: impl Future<Output = T>) -> Option<T> {
        let mut closing: QueueListener = self.closing.listen(PollEvents::all());
        let mut wanted = std::pin::pin!(wanted);
        std::future::poll_fn(|cx| {
            use std::pin::Pin;
            use std::task::Poll;
            if let Poll::Ready(value) = wanted.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            loop {
                if self.is_closed() {
                    return Poll::Ready(None);
                }
                if Pin::new(&mut closing).poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Keeps what is reserved for a container, in place of what was before.
    pub(super) fn keep(&self, reserved: Reserved) {
        let old = self.reserved.lock().replace(reserved);
        drop(old);
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

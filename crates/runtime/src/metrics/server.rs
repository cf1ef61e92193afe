//! [`Server`]: metrics of all containers of a store, by HTTP on a socket.
//!
//! `/metrics` reads them all anew, unless somebody else has just done so; `/runsc-metrics/healthcheck` and `/healthcheck` say that it
//! is there. It looks at the store at each request, so that it needs not be told of containers.
//!
//! # Invariants
//! - [`MAX_CLIENTS`] connections are served at a time; others are told to come back, and closed.
//! - One request reads the sandboxes at a time, [`READERS`] of them side by side; others take what it has read.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use moat_abi::{SigSet, Signal};
use moat_host::signals;
use rustix::event::{PollFd, PollFlags, poll};

use super::families::{Families, Prefix};
use super::http::{self, BadRequest, Request, Timed};
use super::reading::Reading;
use super::text::{self, Format};
use crate::error::{Context, Error, Result};
use crate::{Container, Store};

/// Connections served at a time.
const MAX_CLIENTS: usize = 16;
/// Sandboxes asked at a time.
const READERS: usize = 8;
/// How old a reading may be that is given to another client.
const FRESH: Duration = Duration::from_millis(100);
/// Sandboxes that are remembered as seen; more are counted, but may be counted twice.
const MAX_SEEN: usize = 65536;

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix(PathBuf),
    /// A host and a port.
    Tcp(String),
}

impl FromStr for Address {
    type Err = Error;

    /// "/PATH", "unix:PATH", "HOST:PORT" or ":PORT".
    fn from_str(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return Ok(Address::Unix(path.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                // ":PORT" is every address, as Go's programs have it; of IPv4 too, by the default of the host.
                let host = if host.is_empty() { "[::]" } else { host };
                Ok(Address::Tcp(format!("{host}:{port}")))
            }
            _ => Err(Error::Invalid(format!("{text:?} is neither a path nor HOST:PORT"))),
        }
    }
}

enum Listener {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A metric server.
pub struct Server {
    listener: Listener,
    signals: OwnedFd,
    state: Arc<ServerState>,
}

/// What its threads share.
struct ServerState {
    store: Store,
    prefix: Prefix,
    started: SystemTime,
    clients: AtomicUsize,
    readings: Mutex<Readings>,
}

/// What was read last.
#[derive(Default)]
struct Readings {
    last: Option<(Instant, Arc<Vec<super::Family>>)>,
    seen: BTreeSet<String>,
    count: u64,
}

impl Server {
    /// Listens. Signals that end a command end it in order from here on; to be called before there are other threads.
    ///
    /// # Errors
    /// The address is in use, or not ours.
    pub fn bind(address: &Address, store: Store, prefix: Prefix) -> Result<Self> {
        let set = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGHUP];
        let set = set.iter().fold(SigSet::EMPTY, |set, signal| set.union(signal.bit()));
        // Before there are threads, which inherit the mask: signals arrive at the descriptor alone.
        let receiver = signals::set_mask(set).and_then(|_| signals::signalfd(set));
        let receiver = receiver.map_err(|errno| io::Error::from_raw_os_error(errno.raw()));
        let listener = match address {
            Address::Unix(path) => Listener::Unix(bind_unix(path)?, path.clone()),
            Address::Tcp(address) => {
                Listener::Tcp(TcpListener::bind(address.as_str()).context(|| format!("listening on {address}"))?)
            }
        };
        let state = ServerState {
            store,
            prefix,
            started: SystemTime::now(),
            clients: AtomicUsize::new(0),
            readings: Mutex::default(),
        };
        Ok(Server { listener, signals: receiver.context(|| "receiving signals".into())?, state: Arc::new(state) })
    }

    /// The address that it listens on, with the port that the host chose for port 0.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Unix(_, path) => path.display().to_string(),
            Listener::Tcp(listener) => listener.local_addr().map(|a| a.to_string()).unwrap_or_default(),
        }
    }

    /// Serves until a signal comes.
    ///
    /// # Errors
    /// Of waiting.
    pub fn run(self) -> Result<()> {
        loop {
            let socket: BorrowedFd<'_> = match &self.listener {
                Listener::Unix(listener, _) => listener.as_fd(),
                Listener::Tcp(listener) => listener.as_fd(),
            };
            let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context(|| "waiting for connections".into())?,
            };
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                return Ok(());
            }
            let accepted = match &self.listener {
                Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| self.state.clone().serve(stream)),
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| self.state.clone().serve(stream)),
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "accepting a connection");
                // Out of descriptors: that may pass.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener {
            let _ = fs::remove_file(path);
        }
    }
}

/// Listens on a socket that its owner and group may connect to, in place of one that nobody listens on any more.
fn bind_unix(path: &Path) -> Result<UnixListener> {
    let is_socket = |meta: &fs::Metadata| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type());
    if fs::symlink_metadata(path).is_ok_and(|meta| is_socket(&meta)) && UnixStream::connect(path).is_err() {
        let _ = fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).context(|| format!("listening on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .context(|| format!("opening {} to its group", path.display()))?;
    Ok(listener)
}

impl Timed for TcpStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Timed for UnixStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

/// One of the connections that are served.
struct Client(Arc<ServerState>);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ServerState {
    /// Serves a connection in a thread of its own, if there are not too many.
    fn serve(self: Arc<Self>, mut stream: impl Timed + Send + 'static) {
        let clients = self.clients.fetch_add(1, Ordering::SeqCst);
        let client = Client(self);
        if clients >= MAX_CLIENTS {
            // A moment only: its buffer takes an answer as short as this.
            let _ = stream.limit(Duration::from_millis(10));
            let _ = stream.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        let serve = move || {
            if let Err(error) = client.0.answer(&mut stream) {
                tracing::debug!(%error, "answering a request");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("client".into()).spawn(serve) {
            tracing::warn!(%error, "no thread for a connection");
        }
    }

    fn answer(&self, stream: &mut impl Timed) -> io::Result<()> {
        let request = match http::read_request(stream) {
            Ok(request) => request,
            // Whoever is gone or too slow gets no answer.
            Err(bad) => {
                let Some(status) = BadRequest::status(bad) else { return Ok(()) };
                return http::respond(stream, status, "text/plain", "", None);
            }
        };
        let plain = "text/plain; charset=utf-8";
        match request.path.as_str() {
            "/metrics" => {
                let body = text::write(&self.families(), &self.prefix, request.format);
                http::respond(stream, "200 OK", request.format.content_type(), &body, Some(&request))
            }
            "/runsc-metrics/healthcheck" | "/healthcheck" => self.health(stream, &request),
            "/" => {
                let page = "<html><head><title>moat metrics</title></head><body><a href=\"/metrics\">metrics</a></body></html>\n";
                http::respond(stream, "200 OK", "text/html; charset=utf-8", page, Some(&request))
            }
            _ => http::respond(stream, "404 Not Found", plain, "there is /metrics\n", Some(&request)),
        }
    }

    /// "OK" where no other store is asked about.
    fn health(&self, stream: &mut impl Timed, request: &Request) -> io::Result<()> {
        let asked = request.query.split('&').find_map(|pair| pair.strip_prefix("root="));
        let own = self.store.root().to_string_lossy().into_owned();
        let plain = "text/plain; charset=utf-8";
        if asked.is_none_or(|asked| percent_decoded(asked) == own.as_bytes()) {
            http::respond(stream, "200 OK", plain, "runsc-metrics:OK", Some(request))
        } else {
            let text = format!("this server is for the containers in {own}\n");
            http::respond(stream, "400 Bad Request", plain, &text, Some(request))
        }
    }

    /// Everything, read anew unless it is fresh.
    fn families(&self) -> Arc<Vec<super::Family>> {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        // Each reading asks every sandbox. With the lock held, so that many scrapes at once read once.
        if let Some((when, families)) = &readings.last
            && when.elapsed() < FRESH
        {
            return families.clone();
        }
        let all = read_all(&self.store);
        for reading in all.iter().filter(|reading| reading.is_root()) {
            let sandbox = format!("{}/{:?}", reading.sandbox, reading.created_seconds);
            // Counts one twice rather than grow for ever.
            if readings.seen.len() >= MAX_SEEN {
                readings.seen.clear();
            }
            readings.count = readings.count.saturating_add(u64::from(readings.seen.insert(sandbox)));
        }
        let mut families = Families::default();
        all.iter().for_each(|reading| families.add_reading(reading));
        families.add_server(self.started, &all, readings.count);
        let families = Arc::new(families.into_vec());
        readings.last = Some((Instant::now(), families.clone()));
        families
    }
}

/// Readings of all containers of a store, in the order of their ids.
#[must_use]
pub fn read_all(store: &Store) -> Vec<Reading> {
    let containers = Container::all(store).unwrap_or_else(|error| {
        tracing::warn!(%error, "looking for containers");
        Vec::new()
    });
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(containers.len()));
    // A sandbox that hangs holds up one of them only.
    std::thread::scope(|scope| {
        for _ in 0..READERS.min(containers.len()) {
            scope.spawn(|| {
                while let Some(container) = containers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let reading = Reading::of(container);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
                }
            });
        }
    });
    let mut readings = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    readings.sort_by(|a, b| a.id.cmp(&b.id));
    readings
}

/// The text of one container's metrics.
#[must_use]
pub fn export(reading: &Reading, prefix: &Prefix, format: Format) -> String {
    let mut families = Families::default();
    families.add_reading(reading);
    text::write(&families.into_vec(), prefix, format)
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = |text: &str| text.parse::<Address>().ok();
        assert_eq!(address("/run/x.sock"), Some(Address::Unix("/run/x.sock".into())));
        assert_eq!(address("unix:x"), Some(Address::Unix("x".into())));
        assert_eq!(address(":80"), Some(Address::Tcp("[::]:80".into())));
        assert_eq!(address("[::1]:80"), Some(Address::Tcp("[::1]:80".into())));
        assert_eq!([address("localhost"), address("x:99999"), address("")], [None, None, None]);
    }

    #[test]
    fn queries_are_decoded() {
        assert_eq!(percent_decoded("%2Frun%2fmoat%zz%"), b"/run/moat%zz%");
    }
}

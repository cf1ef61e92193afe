//! Answering calls.
//!
//! Each connection has a thread that reads, and each call one that carries it out, so that none holds up another. A call whose answer
//! is not there yet keeps its [`Reply`], which needs no thread.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use prost::Message;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;

use super::frame::{Frame, REQUEST, RESPONSE};
use super::{Code, Request, Response, Status};
use crate::log;

/// Bytes of a thread's stack, of which only what is used takes memory.
pub(crate) const STACK: usize = 256 << 10;

/// How long a client may take to read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Carries out calls.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Carries out one. The answer may come later.
    fn call(&self, service: &str, method: &str, payload: &[u8], reply: Reply);
}

/// The place for the answer to a call.
#[derive(Debug)]
pub(crate) struct Reply {
    connection: Arc<Mutex<UnixStream>>,
    stream: u32,
}

impl Reply {
    /// Answers.
    pub(crate) fn send<M: Message>(self, answer: Result<M, Status>) {
        let (status, payload) = match answer {
            Ok(message) => (None, message.encode_to_vec()),
            Err(status) => (Some(status), Vec::new()),
        };
        let payload = Response { status, payload }.encode_to_vec();
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = Frame { stream: self.stream, kind: RESPONSE, payload };
        if frame.write(&mut *connection).is_err() {
            // Whoever asked is gone, or does not read: what comes after a part of a frame would be nonsense.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// Takes connections for ever.
///
/// # Errors
/// Of accept(2).
pub(crate) fn serve(listener: &UnixListener, handler: &Arc<impl Handler>) -> io::Result<()> {
    loop {
        let (connection, _) = listener.accept()?;
        let peer = socket_peercred(&connection)?.uid;
        // The socket's mode keeps others out as well.
        if !peer.is_root() && peer != geteuid() {
            continue;
        }
        let handler = Arc::clone(handler);
        spawn("connection", move || {
            if let Err(error) = converse(connection, &handler) {
                log::warning(format_args!("a connection ends: {error}"));
            }
        })?;
    }
}

/// Starts a thread.
///
/// # Errors
/// EAGAIN.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(work).map(drop)
}

fn converse(mut connection: UnixStream, handler: &Arc<impl Handler>) -> io::Result<()> {
    // Answers are sent under locks, too.
    connection.set_write_timeout(Some(PATIENCE))?;
    let writer = Arc::new(Mutex::new(connection.try_clone()?));
    while let Some(frame) = Frame::read(&mut connection)? {
        if frame.kind != REQUEST {
            continue;
        }
        let reply = Reply { connection: Arc::clone(&writer), stream: frame.stream };
        let request = match Request::decode(frame.payload.as_slice()) {
            Ok(request) => request,
            Err(error) => {
                reply.send::<Response>(Err(Code::InvalidArgument.because(error)));
                continue;
            }
        };
        let handler = Arc::clone(handler);
        spawn("call", move || handler.call(&request.service, &request.method, &request.payload, reply))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Empty, PidResponse, StateResponse};
    use crate::ttrpc::client::Client;
    use std::io::Read;
    use std::sync::Condvar;

    /// Answers "first" once "second" was called, with a number that "second" gives.
    #[derive(Default)]
    struct Late {
        waiting: Mutex<Option<Reply>>,
        came: Condvar,
    }

    impl Handler for Late {
        fn call(&self, service: &str, method: &str, payload: &[u8], reply: Reply) {
            assert_eq!(service, "test.Late");
            let mut waiting = self.waiting.lock().unwrap();
            match method {
                "first" => {
                    *waiting = Some(reply);
                    self.came.notify_all();
                }
                "second" => {
                    while waiting.is_none() {
                        waiting = self.came.wait(waiting).unwrap();
                    }
                    waiting.take().unwrap().send(PidResponse::decode(payload).map_err(|e| Code::Unknown.because(e)));
                    reply.send(Ok(Empty {}));
                }
                _ => reply.send::<Empty>(Err(Code::Unimplemented.because(method))),
            }
        }
    }

    #[test]
    fn a_client_that_does_not_read_loses_its_connection() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        let connection = Arc::new(Mutex::new(ours));
        // The sockets' buffers are full at some time; from then on nothing is sent.
        for stream in 0..100 {
            let connection = Arc::clone(&connection);
            Reply { connection, stream }
                .send(Ok(StateResponse { id: "x".repeat(1 << 16), ..StateResponse::default() }));
        }
        let mut received = Vec::new();
        (&theirs).read_to_end(&mut received).unwrap();
        assert!(received.len() < 100 << 16);
    }

    #[test]
    fn a_call_that_waits_holds_up_no_other() {
        let path = std::env::temp_dir().join(format!("moat-ttrpc-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let handler = Arc::new(Late::default());
        spawn("server", move || serve(&listener, &handler).unwrap()).unwrap();
        let mut client = Client::connect(&path).unwrap();
        let first = thread::spawn({
            let path = path.clone();
            move || Client::connect(&path).unwrap().call::<_, PidResponse>("test.Late", "first", &Empty {})
        });
        let five = PidResponse { pid: 5 };
        assert_eq!(client.call::<_, Empty>("test.Late", "second", &five).unwrap(), Ok(Empty {}));
        assert_eq!(first.join().unwrap().unwrap(), Ok(five.clone()));
        let refused = client.call::<_, Empty>("test.Late", "third", &five).unwrap();
        assert_eq!(refused, Err(Status { code: 12, message: "third".into() }));
        std::fs::remove_file(path).unwrap();
    }
}

//! Making calls.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use prost::Message;

use super::frame::{Frame, REQUEST, RESPONSE};
use super::{Request, Response, Status};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection on which one call at a time is made.
#[derive(Debug)]
pub(crate) struct Client {
    connection: UnixStream,
    stream: u32,
}

impl Client {
    /// Connects to a server's socket.
    ///
    /// # Errors
    /// Of connect(2).
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let connection = UnixStream::connect(path)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { connection, stream: 1 })
    }

    /// Calls, and waits for the answer, which may be that the call failed.
    ///
    /// # Errors
    /// The server does not answer: the connection is of no use any more.
    pub(crate) fn call<Q: Message, A: Message + Default>(
        &mut self,
        service: &str,
        method: &str,
        request: &Q,
    ) -> io::Result<Result<A, Status>> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(PATIENCE.as_nanos()).unwrap_or(i64::MAX),
        };
        let stream = self.stream;
        // The caller's streams have odd numbers, each of them used once.
        self.stream = self.stream.wrapping_add(2);
        Frame { stream, kind: REQUEST, payload: request.encode_to_vec() }.write(&mut self.connection)?;
        loop {
            let frame = Frame::read(&mut self.connection)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.stream == stream && frame.kind == RESPONSE {
                let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                let response = Response::decode(frame.payload.as_slice()).map_err(invalid)?;
                return match response.status {
                    Some(status) if status.code != 0 => Ok(Err(status)),
                    _ => A::decode(response.payload.as_slice()).map(Ok).map_err(invalid),
                };
            }
        }
    }
}

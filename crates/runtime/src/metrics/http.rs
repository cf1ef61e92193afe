//! One request of HTTP/1.1 and its answer, for the metric server: whoever connects may be hostile.
//!
//! # Invariants
//! - A request's head has [`MAX_HEAD`] bytes at most and [`MAX_HEADERS`] lines, and has come within [`LIMIT`]; a body is never read.
//! - An answer is written within [`LIMIT`], and ends the connection.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use super::text::Format;

/// Bytes of the longest head of a request.
const MAX_HEAD: usize = 8 << 10;
/// Lines of it.
const MAX_HEADERS: usize = 64;
/// How long a request, and an answer, may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// A stream whose calls take no longer than they are told.
pub(super) trait Timed: Read + Write {
    /// Sets the time of the next call.
    fn limit(&self, left: Duration) -> io::Result<()>;
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether the answer's body is wanted: GET, else HEAD.
    pub(super) wants_body: bool,
    /// The path, without a query.
    pub(super) path: String,
    /// The query, or nothing.
    pub(super) query: String,
    /// The format that it accepts.
    pub(super) format: Format,
}

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// It is no HTTP, or not that of a scraper.
    Malformed,
    /// Its head is too long.
    TooLong,
    /// Neither GET nor HEAD.
    Method,
    /// It did not come in time, or the connection ended.
    Gone,
}

impl BadRequest {
    /// The status line's code and words; none if nobody is there to read it.
    pub(super) fn status(self) -> Option<&'static str> {
        match self {
            BadRequest::Malformed => Some("400 Bad Request"),
            BadRequest::TooLong => Some("431 Request Header Fields Too Large"),
            BadRequest::Method => Some("405 Method Not Allowed"),
            BadRequest::Gone => None,
        }
    }
}

/// Reads the head of a request.
///
/// # Errors
/// See [`BadRequest`].
pub(super) fn read_request(stream: &mut impl Timed) -> Result<Request, BadRequest> {
    let begun = Instant::now();
    let mut head = Vec::new();
    loop {
        // Small: what is asked for fits into one, and a client pays for more itself.
        let mut chunk = [0; 1024];
        let n = match within_limit(stream, begun).and_then(|()| stream.read(&mut chunk)) {
            Ok(0) => return Err(BadRequest::Gone),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Err(BadRequest::Gone),
        };
        head.extend_from_slice(chunk.get(..n).unwrap_or_default());
        // Whoever can connect decides what is sent: neither time nor memory is theirs without bound.
        if head.len() > MAX_HEAD {
            return Err(BadRequest::TooLong);
        }
        if let Some(request) = parse(&head)? {
            return Ok(request);
        }
    }
}

/// A request, if its head is whole.
fn parse(head: &[u8]) -> Result<Option<Request>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooLong),
        Err(_) => return Err(BadRequest::Malformed),
    }
    let wants_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Err(BadRequest::Method),
    };
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let accept = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("accept"));
    let accept = accept.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default();
    Ok(Some(Request { wants_body, path: path.to_owned(), query: query.to_owned(), format: Format::accepted(accept) }))
}

/// Writes an answer; `status` is the code and its words.
///
/// # Errors
/// The client has gone, or takes nothing.
pub(super) fn respond(
    stream: &mut impl Timed,
    status: &str,
    content_type: &str,
    body: &str,
    request: Option<&Request>,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\
         X-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    );
    let begun = Instant::now();
    // HEAD is answered like GET, with the length and without the body.
    let body = if request.is_none_or(|request| request.wants_body) { body.as_bytes() } else { &[] };
    for mut part in [head.as_bytes(), body] {
        while !part.is_empty() {
            within_limit(stream, begun)?;
            match stream.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => part = part.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Has the next call end within [`LIMIT`] of the first, so that bytes one at a time take no longer than all at once.
fn within_limit(stream: &impl Timed, begun: Instant) -> io::Result<()> {
    let left = LIMIT.saturating_sub(begun.elapsed());
    // No time at all would mean for ever.
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { stream.limit(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that says something and goes.
    struct Script(Vec<u8>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            // In small pieces, as a network may.
            let n = self.0.len().min(buf.len()).min(7);
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0.drain(..n);
            Ok(n)
        }
    }

    impl Write for Script {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1.extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Timed for Script {
        fn limit(&self, _: Duration) -> io::Result<()> {
            Ok(())
        }
    }

    fn asked(text: &str) -> Result<Request, BadRequest> {
        read_request(&mut Script(text.as_bytes().to_vec(), Vec::new()))
    }

    #[test]
    fn requests_of_scrapers() {
        let request =
            asked("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nACCEPT: application/openmetrics-text\r\n\r\n").unwrap();
        assert_eq!((request.path.as_str(), request.query.as_str(), request.wants_body), ("/metrics", "a=b", true));
        assert_eq!(request.format, Format::OpenMetrics);
        assert!(!asked("HEAD / HTTP/1.0\r\n\r\n").unwrap().wants_body);
    }

    #[test]
    fn everything_else_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        for (text, why) in [
            ("", BadRequest::Gone),
            ("GET / HT", BadRequest::Gone),
            ("POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", BadRequest::Method),
            ("\0\u{1}\u{2}\r\n\r\n", BadRequest::Malformed),
            ("GET / HTTP/1.1\r\nbad header\r\n\r\n", BadRequest::Malformed),
            (long.as_str(), BadRequest::TooLong),
            (many.as_str(), BadRequest::TooLong),
        ] {
            assert_eq!(asked(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn answers_say_their_length() {
        let mut script = Script(Vec::new(), Vec::new());
        let head = Request { wants_body: false, path: "/".into(), query: String::new(), format: Format::Prometheus };
        respond(&mut script, "200 OK", "text/plain", "body", Some(&head)).unwrap();
        let text = String::from_utf8(script.1).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(text.contains("Content-Length: 4\r\n"), "{text}");
    }
}

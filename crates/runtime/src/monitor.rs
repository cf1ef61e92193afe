//! Sessions of security events from the host's side: their configuration files, and their sinks.
//!
//! A sandbox can neither connect to a socket nor open a file: whoever makes a session does both, and gives it the descriptors.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use moat_control::session::{SessionConfig, SinkConfig};
use moat_monitor::{session, wire};
use rustix::fs::OFlags;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::Deserialize;

use crate::error::{Context, Error, Result};

/// How long a monitor may take to say its handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A session with the descriptors of its sinks, one for each but those that are nobody.
#[derive(Debug)]
pub struct OpenSession {
    /// Without the sinks that could not be opened, and need not be.
    pub config: SessionConfig,
    /// In order.
    pub files: Vec<OwnedFd>,
}

/// The file of --pod-init-config; other parts of it are not for this.
#[derive(Deserialize)]
struct InitConfig {
    trace_session: SessionConfig,
}

/// Reads the configuration of a session: either that alone, or as part of a file for --pod-init-config.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn read_config(path: &Path) -> Result<SessionConfig> {
    let text = fs::read_to_string(path).context(|| format!("reading {}", path.display()))?;
    let config = serde_json::from_str::<SessionConfig>(&text)
        .or_else(|error| serde_json::from_str::<InitConfig>(&text).map(|init| init.trace_session).map_err(|_| error));
    let config = config.map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
    session::check(&config).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))?;
    Ok(config)
}

/// Opens the sinks of a session.
///
/// # Errors
/// A sink that can't be opened, unless it is to be done without.
pub fn open(mut config: SessionConfig) -> Result<OpenSession> {
    let (mut sinks, mut files) = (Vec::new(), Vec::new());
    for sink in std::mem::take(&mut config.sinks) {
        match open_sink(&sink) {
            Ok(file) => {
                files.extend(file);
                sinks.push(sink);
            }
            // Which sinks there are the sentry sees by the ones that are left: descriptors and sinks stay in step.
            Err(error) if sink.ignore_setup_error => {
                tracing::warn!("trace session {:?} is without its sink {:?}: {error}", config.name, sink.name);
            }
            Err(error) => return Err(error),
        }
    }
    config.sinks = sinks;
    Ok(OpenSession { config, files })
}

fn open_sink(sink: &SinkConfig) -> Result<Option<OwnedFd>> {
    let setting = |name: &str| {
        let value = sink.config.get(name).and_then(serde_json::Value::as_str);
        value.ok_or_else(|| Error::Invalid(format!("sink {:?} has no {name:?} in its config", sink.name)))
    };
    match sink.name.as_str() {
        "remote" => {
            // Whoever is to see more events reads faster: a guest never waits for a monitor.
            let ignored =
                ["retries", "backoff", "backoff_max"].into_iter().filter(|name| sink.config.contains_key(*name));
            ignored.for_each(|name| tracing::debug!("sink \"remote\": {name:?} has no effect: nothing is sent twice"));
            let endpoint = setting("endpoint")?;
            connect(endpoint).map(Some).context(|| format!("connecting to the monitor at {endpoint}"))
        }
        "file" => {
            let path = setting("path")?;
            open_file(path).map(Some).context(|| format!("opening {path}"))
        }
        "null" => Ok(None),
        other => Err(Error::Invalid(format!("there is no sink {other:?}: remote, file, null"))),
    }
}

fn connect(endpoint: &str) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // A monitor that does not accept, or says nothing, is as good as none.
    for timeout in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, timeout, Some(HANDSHAKE))?;
    }
    rustix::net::connect(&socket, &SocketAddrUnix::new(endpoint)?)?;
    rustix::net::send(&socket, &wire::handshake(), SendFlags::NOSIGNAL)?;
    let mut answer = [0; wire::MAX_HANDSHAKE];
    let (n, _) = rustix::net::recv(socket.as_fd(), &mut answer, RecvFlags::empty())?;
    let packet = answer.get(..n).filter(|packet| packet.len() < wire::MAX_HANDSHAKE).unwrap_or_default();
    wire::accept(packet).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    Ok(socket)
}

fn open_file(path: &str) -> io::Result<OwnedFd> {
    // A FIFO without a reader is an error, and one that is full loses lines: nobody waits.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(name: &str, config: &str) -> SinkConfig {
        SinkConfig { name: name.into(), config: serde_json::from_str(config).unwrap(), ignore_setup_error: false }
    }

    #[test]
    fn both_forms_are_read_and_nonsense_is_named() {
        let path = std::env::temp_dir().join(format!("moat-session-{}", std::process::id()));
        let session = r#"{"name":"Default","points":[{"name":"sentry/clone","context_fields":["time"]}],"sinks":[{"name":"null"}]}"#;
        for text in [session.to_owned(), format!("{{\"trace_session\":{session},\"other\":1}}")] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_config(&path).unwrap().points.len(), 1);
        }
        for (bad, word) in [
            ("{", "EOF"),
            (r#"{"points":[{"name":"x"}]}"#, "no point"),
            (r#"{"pionts":[]}"#, "pionts"),
            (r#"{"points":[{"name":"sentry/clone","context_fields":["x"]}]}"#, "no field"),
        ] {
            fs::write(&path, bad).unwrap();
            let error = read_config(&path).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn sinks_that_can_be_done_without() {
        let nowhere = sink("remote", r#"{"endpoint":"/nowhere/at.sock","retries":3}"#);
        let config = |sinks| SessionConfig { sinks, ..SessionConfig::default() };
        let error = open(config(vec![nowhere.clone()])).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at.sock"), "{error}");
        let opened =
            open(config(vec![SinkConfig { ignore_setup_error: true, ..nowhere }, sink("null", "{}")])).unwrap();
        assert_eq!((opened.config.sinks.len(), opened.files.len()), (1, 0));
        for bad in [sink("remote", "{}"), sink("file", "{}"), sink("other", "{}")] {
            assert!(matches!(open(config(vec![bad])), Err(Error::Invalid(_))));
        }
    }
}

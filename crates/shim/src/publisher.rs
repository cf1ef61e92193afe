//! [`Publisher`]: containerd is told of events, one after the other, by a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime};

use prost::{Message, Name};

use crate::log;
use crate::messages::{Any, Empty, Envelope, ForwardRequest};
use crate::ttrpc::client::Client;
use crate::ttrpc::server::spawn;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// How often an event is tried: containerd may be starting again.
const ATTEMPTS: u32 = 6;

/// Tells of events.
#[derive(Debug)]
pub(crate) struct Publisher {
    namespace: String,
    queue: Sender<Item>,
}

#[derive(Debug)]
enum Item {
    Event(Envelope),
    /// All before it has been told when this is dropped.
    Flush(#[allow(dead_code, reason = "its end is what counts")] Sender<()>),
}

impl Publisher {
    /// Tells the containerd whose socket for events has this address; without one nobody is told.
    pub(crate) fn new(address: Option<PathBuf>, namespace: &str) -> std::io::Result<Self> {
        let (queue, items) = channel();
        spawn("publisher", move || deliver(address.as_deref(), &items))?;
        Ok(Publisher { namespace: namespace.to_owned(), queue })
    }

    /// Queues an event: it is told after those before it. Does not wait.
    pub(crate) fn publish<M: Message + Name>(&self, topic: &str, event: &M) {
        let envelope = Envelope {
            timestamp: Some(SystemTime::now().into()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any::pack(event)),
        };
        // The thread lives as long as the process.
        let _ = self.queue.send(Item::Event(envelope));
    }

    /// Waits until all events that were queued have been told, or until `patience` is over.
    pub(crate) fn flush(&self, patience: Duration) {
        let (held, told) = channel();
        let _ = self.queue.send(Item::Flush(held));
        let _ = told.recv_timeout(patience);
    }
}

fn deliver(address: Option<&Path>, items: &Receiver<Item>) {
    let mut client = None;
    for item in items {
        let (Item::Event(envelope), Some(address)) = (item, address) else { continue };
        let topic = envelope.topic.clone();
        let request = ForwardRequest { envelope: Some(envelope) };
        if let Err(error) = forward(&mut client, address, &request) {
            log::error(format_args!("containerd was not told of {topic}: {error}"));
        }
    }
}

fn forward(client: &mut Option<Client>, address: &Path, request: &ForwardRequest) -> Result<(), String> {
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            thread::sleep(Duration::from_millis(100).saturating_mul(1 << attempt));
        }
        let connected = match client.take() {
            Some(connected) => Ok(connected),
            None => Client::connect(address),
        };
        let told = connected.and_then(|mut connected| {
            let answer = connected.call::<_, Empty>(SERVICE, "Forward", request)?;
            // One that did not answer in time would answer the next call with this one's answer.
            *client = Some(connected);
            Ok(answer)
        });
        match told {
            Ok(Ok(Empty {})) => return Ok(()),
            // It was refused, and would be again.
            Ok(Err(status)) => return Err(status.message),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

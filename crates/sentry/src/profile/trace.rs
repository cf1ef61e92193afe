//! What tasks and threads do, one event after the other: [`moat_sync::trace`].

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use moat_control::profile::{Event, EventKind, Record};
use moat_sync::trace::{self, Kind, Observer};

use super::Source;
use super::recorder::Output;
use crate::registry::Registry;

/// Events in a record.
const EVENTS_IN_RECORD: usize = 512;

/// The source.
pub(super) struct Trace {
    registry: Arc<Registry>,
    /// Threads whose names have been written.
    named: BTreeSet<i32>,
}

impl Trace {
    pub(super) fn new(registry: Arc<Registry>) -> Trace {
        Trace { registry, named: BTreeSet::new() }
    }
}

impl Source for Trace {
    fn start(&mut self) -> moat_abi::Result<()> {
        self.registry.root().member.processes.kernel().change_watchers(|_| trace::start(Observer::Trace));
        // Those that come later say their names themselves.
        for container in self.registry.all() {
            let tasks = container.member.processes.processes().into_iter().flat_map(|group| group.threads());
            tasks.for_each(|task| task.note_name());
        }
        Ok(())
    }

    fn collect(&mut self, to: &mut Output) -> io::Result<()> {
        let mut taken = Vec::new();
        trace::take(|thread, events| taken.push((thread, events)));
        for (thread, events) in taken {
            // Once: its name never changes.
            if self.named.insert(thread) {
                let own = moat_host::procfs::own_threads().into_iter().find(|t| t.tid == thread);
                to.write(&Record::Thread { thread, name: own.map(|t| t.name).unwrap_or_default() })?;
            }
            for events in events.chunks(EVENTS_IN_RECORD) {
                to.write(&Record::Events { thread, events: events.iter().map(event).collect() })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        self.registry.root().member.processes.kernel().change_watchers(|_| trace::stop(Observer::Trace));
        self.collect(to)?;
        Ok(trace::dropped())
    }
}

fn event(event: &trace::Event) -> Event {
    let kind = match event.kind {
        Kind::Call => EventKind::Call,
        Kind::Guest => EventKind::Guest,
        Kind::Wait => EventKind::Wait,
        Kind::Fault => EventKind::Fault,
        Kind::Signal => EventKind::Signal,
        Kind::Poll => EventKind::Poll,
        Kind::Lock => EventKind::Lock,
        Kind::Name => EventKind::Name,
    };
    let label = if event.kind == Kind::Name { name(&event.values) } else { event.label.to_owned() };
    Event {
        kind,
        process: event.process,
        task: event.task,
        start_ns: event.start_ns,
        duration_ns: event.duration_ns,
        number: event.number,
        values: event.values,
        result: event.result,
        label,
    }
}

/// The name in the first two words of an event.
fn name(values: &[u64; 6]) -> String {
    let bytes: Vec<u8> = values.iter().take(2).flat_map(|word| word.to_le_bytes()).take_while(|b| *b != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

//! [`Profile`]: what a sandbox saw, with names.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;

use moat_control::ProfileKind;
use moat_control::profile::{Frame, Module, Record, Site, Space, StackSample};

use crate::image::Image;
use crate::symbols::{Line, Symbols};
use crate::unwind::Unwinder;

/// A place in a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its address, or 0 for a name that is none of a program.
    pub address: u64,
    /// Its program or library: an index into [`Profile::modules`].
    pub module: Option<usize>,
    /// Functions that are there, the innermost of the inlined ones first.
    pub lines: Vec<Line>,
}

/// A stack, and what was seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Indices into [`Profile::locations`], innermost first.
    pub locations: Vec<usize>,
    /// As many as the kind of profile has columns.
    pub values: Vec<u64>,
}

/// What was seen.
pub struct Profile {
    /// Its kind.
    pub kind: ProfileKind,
    /// Programs and libraries.
    pub modules: Vec<Module>,
    /// Places.
    pub locations: Vec<Location>,
    /// Stacks, each once.
    pub stacks: Vec<Stack>,
    /// Samples that were lost.
    pub dropped: u64,
    /// How long it took.
    pub duration_ns: u64,
}

/// What becomes of a sample of an allocation.
const HEAP_COLUMNS: usize = 4;

impl Profile {
    /// Reads the records of a sandbox to their end; `symbols` is a file with the symbols of moat's own program, where they are not in
    /// it or beside it.
    ///
    /// # Errors
    /// Of the pipe; InvalidData for what no sandbox writes.
    pub fn read(kind: ProfileKind, from: impl Read + Send, symbols: Option<PathBuf>) -> io::Result<Profile> {
        let mut from = io::BufReader::with_capacity(256 << 10, from);
        let mut builder = Builder::new(kind, symbols);
        let (to, records) = mpsc::channel();
        // Two threads: reading symbols takes long, and a pipe that is not read makes the sandbox drop samples.
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || -> io::Result<()> {
                while let Some(record) = Record::read(&mut from)? {
                    // The other thread goes on to the end.
                    let _ = to.send(record);
                }
                Ok(())
            });
            records.iter().for_each(|record| builder.add(record));
            reader.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        })?;
        Ok(builder.finish())
    }

    /// The outermost to the innermost name of a stack, each with its index of [`Stack::locations`].
    pub fn names<'a>(&'a self, stack: &'a Stack) -> impl Iterator<Item = &'a Line> {
        let locations = stack.locations.iter().rev().filter_map(|index| self.locations.get(*index));
        locations.flat_map(|location| location.lines.iter().rev())
    }
}

/// Where a module's names come from.
struct Loaded {
    module: Module,
    symbols: Option<Rc<Symbols>>,
}

struct Builder {
    kind: ProfileKind,
    symbols: Option<PathBuf>,
    modules: Vec<Loaded>,
    unwinders: HashMap<Space, Unwinder>,
    locations: Vec<Location>,
    by_address: HashMap<(Space, u64), usize>,
    by_name: HashMap<Frame, usize>,
    stacks: HashMap<Vec<usize>, Vec<u64>>,
    /// Samples of allocations, whose modules come last.
    allocations: Vec<StackSample>,
    in_use: Vec<u64>,
    /// Contents of files of guests, and what they say of their functions.
    files: HashMap<u64, GuestFile>,
    dropped: u64,
    duration_ns: u64,
}

/// A file of a guest.
#[derive(Default)]
struct GuestFile {
    bytes: Vec<u8>,
    symbols: Option<Rc<Symbols>>,
}

impl Builder {
    fn new(kind: ProfileKind, symbols: Option<PathBuf>) -> Builder {
        Builder {
            kind,
            symbols,
            modules: Vec::new(),
            unwinders: HashMap::new(),
            locations: Vec::new(),
            by_address: HashMap::new(),
            by_name: HashMap::new(),
            stacks: HashMap::new(),
            allocations: Vec::new(),
            in_use: Vec::new(),
            files: HashMap::new(),
            dropped: 0,
            duration_ns: 0,
        }
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Module(module) => match module.file {
                Some((file, offset)) => self.add_guest_module(module, file, offset),
                None => self.add_module(module),
            },
            Record::File { number, bytes } => self.files.entry(number).or_default().bytes.extend(bytes),
            Record::Stack(sample) if self.kind == ProfileKind::Heap => self.allocations.push(sample),
            Record::Stack(sample) => {
                let stack = self.cpu_stack(&sample);
                self.count(stack, &[1, sample.value]);
            }
            Record::InUse(ids) => self.in_use.extend(ids),
            Record::Site(site) => self.add_site(&site),
            // Those are of other kinds.
            Record::Thread { .. }
            | Record::Events { .. }
            | Record::Calls(_)
            | Record::Totals(_)
            | Record::Link { .. }
            | Record::Packet(_) => {}
            Record::End { dropped, duration_ns } => {
                self.dropped = dropped;
                self.duration_ns = duration_ns;
            }
        }
    }

    fn add_module(&mut self, module: Module) {
        let image = if module.path.is_empty() {
            Image::own(&module.build_id, self.symbols.as_deref())
        } else {
            Image::read(module.path.as_ref(), &module.build_id, None).filter(|_| module.space == Space::Sentry)
        };
        if let Some(image) = &image {
            self.unwinders.entry(module.space).or_default().add(&module, image);
        }
        self.modules.push(Loaded { module, symbols: image.as_ref().map(|image| Rc::new(Symbols::of(image))) });
    }

    /// Adds a module that is a file of a guest, whose contents came before.
    fn add_guest_module(&mut self, mut module: Module, file: u64, offset: u64) {
        let file = self.files.entry(file).or_default();
        let image = Image::from_bytes(std::mem::take(&mut file.bytes));
        let symbols = file.symbols.get_or_insert_with(|| Rc::new(Symbols::of(&image))).clone();
        if let Some(bias) = image.bias(module.start, offset) {
            module.bias = bias;
            self.unwinders.entry(module.space).or_default().add(&module, &image);
        }
        file.bytes = image.bytes;
        self.modules.push(Loaded { module, symbols: Some(symbols) });
    }

    fn count(&mut self, stack: Vec<usize>, values: &[u64]) {
        let sums = self.stacks.entry(stack).or_insert_with(|| vec![0; values.len()]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    fn add_site(&mut self, site: &Site) {
        let stack = site.frames.iter().rev().map(|frame| self.named(frame.clone())).collect();
        self.count(stack, &[site.count, site.time_ns]);
    }

    /// The location of a name.
    fn named(&mut self, frame: Frame) -> usize {
        let next = self.locations.len();
        let index = *self.by_name.entry(frame.clone()).or_insert(next);
        if index == next {
            let line = Line { function: frame.name, file: frame.file, line: frame.line };
            self.locations.push(Location { address: 0, module: None, lines: vec![line] });
        }
        index
    }

    /// The locations of a sample, innermost first.
    fn unwound(&mut self, sample: &StackSample) -> Vec<usize> {
        let addresses = self.unwinders.entry(sample.space).or_default().addresses(sample);
        addresses.into_iter().map(|address| self.located(sample.space, address)).collect()
    }

    fn located(&mut self, space: Space, address: u64) -> usize {
        // Symbols are looked up once for each address: it is by far the most expensive part.
        if let Some(index) = self.by_address.get(&(space, address)) {
            return *index;
        }
        let module = self.module_at(space, address);
        let loaded = module.and_then(|index| self.modules.get(index));
        let lines = loaded.map(|loaded| {
            let in_file = address.wrapping_sub(loaded.module.bias);
            loaded.symbols.as_ref().map(|symbols| symbols.at(in_file)).unwrap_or_default()
        });
        self.locations.push(Location { address, module, lines: lines.unwrap_or_default() });
        let index = self.locations.len().saturating_sub(1);
        self.by_address.insert((space, address), index);
        index
    }

    fn module_at(&self, space: Space, address: u64) -> Option<usize> {
        self.modules.iter().position(|loaded| {
            loaded.module.space == space && (loaded.module.start..loaded.module.end).contains(&address)
        })
    }

    /// A sample of CPU time: below what it was used for, guest, hand-off, sentry or host, and the thread's name.
    fn cpu_stack(&mut self, sample: &StackSample) -> Vec<usize> {
        let mut stack = self.unwound(sample);
        let part = self.part(sample, &stack);
        if !sample.thread.is_empty() {
            stack.push(self.named(Frame::named(sample.thread.clone())));
        }
        stack.push(self.named(Frame::named(part)));
        stack
    }

    fn part(&self, sample: &StackSample, stack: &[usize]) -> &'static str {
        if sample.space != Space::Sentry {
            return "guest";
        }
        let loaded = self.module_at(sample.space, sample.ip).and_then(|index| self.modules.get(index));
        // An address behind a system call instruction: the thread was in the host's kernel.
        let in_call = loaded.is_some_and(|loaded| {
            let in_file = sample.ip.wrapping_sub(loaded.module.bias);
            loaded.symbols.as_ref().is_some_and(|symbols| symbols.follows_syscall(in_file))
        });
        if in_call {
            return "host";
        }
        let locations = stack.iter().filter_map(|index| self.locations.get(*index));
        let mut functions = locations.flat_map(|location| &location.lines).map(|line| &line.function);
        let is_hand_off = |name: &String| HAND_OFF.iter().any(|part| name.contains(part));
        if functions.any(is_hand_off) { "hand-off" } else { "sentry" }
    }

    /// Allocations: how many, bytes, and the same of what is in use, each scaled up by the chance that it was sampled.
    fn count_allocations(&mut self) {
        let in_use: std::collections::HashSet<u64> = self.in_use.drain(..).collect();
        for sample in std::mem::take(&mut self.allocations) {
            let stack = self.unwound(&sample);
            let (objects, bytes) = scaled(sample.value);
            let kept = in_use.contains(&sample.id);
            let values: [u64; HEAP_COLUMNS] =
                [objects, bytes, if kept { objects } else { 0 }, if kept { bytes } else { 0 }];
            self.count(stack, &values);
        }
    }

    fn finish(mut self) -> Profile {
        self.count_allocations();
        let mut stacks: Vec<_> =
            self.stacks.into_iter().map(|(locations, values)| Stack { locations, values }).collect();
        // The most first; equal ones in an order that is the same for the same samples.
        stacks.sort_by(|a, b| (&b.values, &a.locations).cmp(&(&a.values, &b.locations)));
        Profile {
            kind: self.kind,
            modules: self.modules.into_iter().map(|loaded| loaded.module).collect(),
            locations: self.locations,
            stacks,
            dropped: self.dropped,
            duration_ns: self.duration_ns,
        }
    }
}

/// Parts of the names of functions by which control goes to guest threads and comes back.
const HAND_OFF: &[&str] = &["moat_platform", "executor::wait_for_events", "executor::look_for_events"];

/// How many allocations of `size` bytes a sample stands for, and their bytes.
///
/// A sample is taken with a chance of 1 - exp(-x), where x is the size in intervals, and so stands for 1 / (1 - exp(-x)): the first terms of
/// its series are 1/x + 1/2 + x/12. They are within 3% up to x = 3, and from there on it is as good as 1.
fn scaled(size: u64) -> (u64, u64) {
    let interval = u64::from(moat_control::profile::HEAP_INTERVAL_BYTES);
    if size == 0 || size > interval.saturating_mul(3) {
        return (1, size);
    }
    let third = size.saturating_mul(size).checked_div(interval.saturating_mul(12)).unwrap_or(0);
    let bytes = interval.saturating_add(size / 2).saturating_add(third);
    (bytes.saturating_add(size / 2).checked_div(size).unwrap_or(1), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_allocation_stands_for_many() {
        assert_eq!(scaled(64 << 20), (1, 64 << 20));
        let (objects, bytes) = scaled(1024);
        // 1 / (1 - exp(-1/512)) is 512.5.
        assert!((512..=513).contains(&objects) && (524_700..=524_900).contains(&bytes), "{objects} {bytes}");
        let (objects, bytes) = scaled(512 << 10);
        // 1 / (1 - 1/e) is 1.58198, of 524,288 bytes.
        assert!(objects == 2 && (829_000..831_000).contains(&bytes), "{bytes}");
        assert_eq!(scaled(0), (1, 0));
    }
}

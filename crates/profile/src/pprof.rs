//! The format of pprof (`profile.proto` of github.com/google/pprof), gzipped.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use moat_control::ProfileKind;
use prost::Message;

use crate::profile::Profile;
use crate::symbols::Line;

/// `perftools.profiles.Profile`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs)]
pub struct File {
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
}

/// What a column of values is. Strings are indices into the table of strings.
#[derive(Clone, Copy, PartialEq, Message)]
#[allow(missing_docs)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack with its values.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs)]
pub struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

/// A program or library.
#[derive(Clone, Copy, PartialEq, Message)]
#[allow(missing_docs)]
pub struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place.
#[derive(Clone, PartialEq, Message)]
#[allow(missing_docs)]
pub struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(uint64, tag = "3")]
    pub address: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<FunctionLine>,
}

/// A function at a place.
#[derive(Clone, Copy, PartialEq, Message)]
#[allow(missing_docs)]
pub struct FunctionLine {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Message)]
#[allow(missing_docs)]
pub struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// The columns of each kind: type and unit. The last one is what viewers show first.
fn columns(kind: ProfileKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ProfileKind::Cpu => &[("samples", "count"), ("cpu", "nanoseconds")],
        ProfileKind::Heap => &[
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ],
        ProfileKind::Tasks => &[("tasks", "count")],
        ProfileKind::Block => &[("waits", "count"), ("delay", "nanoseconds")],
        ProfileKind::Mutex => &[("contentions", "count"), ("delay", "nanoseconds")],
        // Those are no profiles of stacks.
        ProfileKind::Trace | ProfileKind::Times | ProfileKind::Packets => &[("events", "count")],
    }
}

/// The table of strings, of functions and their numbers.
#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    numbers: HashMap<String, i64>,
    functions: Vec<Function>,
    by_name: HashMap<(String, String), u64>,
}

impl Tables {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = index(self.strings.len());
        self.strings.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn function(&mut self, line: &Line) -> u64 {
        let key = (line.function.clone(), line.file.clone());
        if let Some(id) = self.by_name.get(&key) {
            return *id;
        }
        let (name, filename) = (self.string(&line.function), self.string(&line.file));
        // Ids begin with 1.
        let id = index(self.functions.len()).cast_unsigned().saturating_add(1);
        self.functions.push(Function { id, name, system_name: name, filename });
        self.by_name.insert(key, id);
        id
    }
}

fn index(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn id(index_of: usize) -> u64 {
    index(index_of).cast_unsigned().saturating_add(1)
}

/// `profile` in that format.
#[must_use]
pub fn file(profile: &Profile) -> File {
    let mut tables = Tables::default();
    // The first string is the empty one.
    tables.string("");
    let columns = columns(profile.kind);
    let sample_type: Vec<_> = columns
        .iter()
        .map(|(name, unit)| ValueType { r#type: tables.string(name), unit: tables.string(unit) })
        .collect();
    let mapping = (profile.modules.iter().enumerate()).map(|(number, module)| Mapping {
        id: id(number),
        memory_start: module.start,
        memory_limit: module.end,
        filename: tables.string(if module.path.is_empty() { "moat" } else { &module.path }),
        build_id: tables.string(&module.build_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        has_functions: true,
        has_filenames: true,
        has_line_numbers: true,
        has_inline_frames: true,
    });
    let mapping = mapping.collect();
    let location = profile.locations.iter().enumerate().map(|(number, location)| Location {
        id: id(number),
        mapping_id: location.module.map_or(0, id),
        address: location.address,
        line: (location.lines.iter())
            .map(|line| FunctionLine { function_id: tables.function(line), line: line.line.into() })
            .collect(),
    });
    let location = location.collect();
    let sample = profile.stacks.iter().map(|stack| Sample {
        location_id: stack.locations.iter().map(|index| id(*index)).collect(),
        value: (stack.values.iter().take(columns.len())).map(|v| i64::try_from(*v).unwrap_or(i64::MAX)).collect(),
    });
    let sample = sample.collect();
    let comment = (profile.dropped > 0).then(|| tables.string(&format!("{} samples were lost", profile.dropped)));
    File {
        period_type: sample_type.last().copied(),
        period: 1,
        sample_type,
        sample,
        mapping,
        location,
        function: tables.functions,
        string_table: tables.strings,
        duration_nanos: i64::try_from(profile.duration_ns).unwrap_or(i64::MAX),
        comment: comment.into_iter().collect(),
    }
}

/// Writes `profile` in that format, gzipped.
///
/// # Errors
/// Of `to`.
pub fn write(profile: &Profile, to: impl Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(to, Compression::default());
    gzip.write_all(&file(profile).encode_to_vec())?;
    gzip.finish()?.flush()
}

//! [`Image`]: an ELF file, as far as unwinding and naming functions need it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use object::elf::PF_X;
use object::{Object, ObjectSection, ObjectSegment, SegmentFlags};

/// Bytes beyond which a file is left alone.
const MAX_BYTES: u64 = 2 << 30;

/// The bytes of a program or library, with those of the file that has its symbols.
pub struct Image {
    /// The file that is mapped.
    pub bytes: Vec<u8>,
    /// Its debug file, if there is one.
    pub debug: Option<Vec<u8>>,
}

impl Image {
    /// Reads the program or library at `path`, if it has this build id; any, if none is known.
    #[must_use]
    pub fn read(path: &Path, build_id: &[u8], symbols: Option<&Path>) -> Option<Image> {
        let bytes = read(path)?;
        let file = object::File::parse(bytes.as_slice()).ok()?;
        if !build_id.is_empty() && file.build_id().ok().flatten() != Some(build_id) {
            return None;
        }
        let has_lines = file.section_by_name(".debug_line").is_some();
        let id = file.build_id().ok().flatten().map(<[u8]>::to_vec);
        let link = file.gnu_debuglink().ok().flatten().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        let debug = if has_lines { None } else { debug_file(path, symbols, id.as_deref()?, link.as_deref()) };
        Some(Image { bytes, debug })
    }

    /// The program of this process, whatever has become of its file's name.
    #[must_use]
    pub fn own(build_id: &[u8], symbols: Option<&Path>) -> Option<Image> {
        let path = fs::read_link("/proc/self/exe").ok();
        // The name serves to find the file with symbols beside it.
        let named = path.and_then(|path| Image::read(&path, build_id, symbols));
        named.or_else(|| Image::read(Path::new("/proc/self/exe"), build_id, symbols))
    }

    /// From the contents of a file alone.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Image {
        Image { bytes, debug: None }
    }

    /// What is added to the file's addresses where it is mapped at `start`, to be executed, from `offset` on.
    #[must_use]
    pub fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        let file = object::File::parse(self.bytes.as_slice()).ok()?;
        let segment = file.segments().find(|segment| {
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else { return false };
            let (at, size) = segment.file_range();
            // Mappings begin at pages, in which another segment may end.
            p_flags.contains(PF_X) && (at & !0xfff..at.saturating_add(size)).contains(&offset)
        });
        let (segment_offset, address) = segment.map(|segment| (segment.file_range().0, segment.address()))?;
        Some(start.wrapping_add(segment_offset).wrapping_sub(offset).wrapping_sub(address))
    }

    /// The file that has the symbols.
    #[must_use]
    pub fn symbols(&self) -> &[u8] {
        self.debug.as_deref().unwrap_or(&self.bytes)
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let length = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    if length > MAX_BYTES { None } else { fs::read(path).ok() }
}

/// Looks for the debug file of the program at `path`, where gdb(1) does.
fn debug_file(path: &Path, symbols: Option<&Path>, build_id: &[u8], link: Option<&str>) -> Option<Vec<u8>> {
    let hex: String = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (head, tail) = hex.split_at_checked(2)?;
    let directory = path.parent()?;
    let mut places = Vec::from_iter(symbols.map(Path::to_owned));
    places.push(PathBuf::from(format!("{}.debug", path.display())));
    // A name without directories: it comes from the file.
    if let Some(name) = link.and_then(|link| Path::new(link).file_name()) {
        places.extend([directory.join(name), directory.join(".debug").join(name)]);
    }
    places.push(PathBuf::from(format!("/usr/lib/debug/.build-id/{head}/{tail}.debug")));
    places.iter().find_map(|place| {
        let bytes = read(place)?;
        let same = object::File::parse(bytes.as_slice()).ok()?.build_id().ok()? == Some(build_id);
        same.then_some(bytes)
    })
}

/// A section's addresses and contents.
pub(crate) fn section(file: &object::File<'_>, name: &str) -> Option<(Range<u64>, Vec<u8>)> {
    let section = file.section_by_name(name)?;
    let start = section.address();
    Some((start..start.checked_add(section.size())?, section.data().ok()?.to_vec()))
}

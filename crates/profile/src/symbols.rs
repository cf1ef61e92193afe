//! [`Symbols`]: from the addresses of a file to functions, inlined ones included, files and lines.

use std::sync::Arc;

use addr2line::Context;
use gimli::{Dwarf, EndianArcSlice, LittleEndian, SectionId};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::image::Image;

type Reader = EndianArcSlice<LittleEndian>;

/// A function, or another name of a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// Its name.
    pub function: String,
    /// The source file, if it is known.
    pub file: String,
    /// The line there, or 0.
    pub line: u32,
}

/// What a file says of its functions.
pub struct Symbols {
    lines: Option<Context<Reader>>,
    /// Address, size and name, by address.
    functions: Vec<(u64, u64, String)>,
    /// The executable section, to look at instructions.
    text: Option<(u64, Vec<u8>)>,
}

impl Symbols {
    /// Those of `image`; none where it is nonsense.
    #[must_use]
    pub fn of(image: &Image) -> Symbols {
        let file = object::File::parse(image.symbols()).ok();
        let mapped = object::File::parse(image.bytes.as_slice()).ok();
        let text = mapped.as_ref().and_then(|file| crate::image::section(file, ".text"));
        let mut functions: Vec<_> = file.iter().chain(&mapped).flat_map(functions).collect();
        functions.sort();
        functions.dedup();
        Symbols {
            lines: file.as_ref().and_then(lines),
            functions,
            text: text.map(|(range, bytes)| (range.start, bytes)),
        }
    }

    /// What is at an address of the file, innermost first; nothing if it is unknown.
    #[must_use]
    pub fn at(&self, address: u64) -> Vec<Line> {
        let mut found = self.inlined(address).unwrap_or_default();
        found.retain(|line| !line.function.is_empty());
        if found.is_empty() {
            found.extend(self.function(address).map(|name| Line { function: name, file: String::new(), line: 0 }));
        }
        found
    }

    /// Whether the instruction before `address` is the one that makes system calls.
    #[must_use]
    pub fn follows_syscall(&self, address: u64) -> bool {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let Some((start, text)) = &self.text else { return false };
        let end = address.checked_sub(*start).and_then(|at| usize::try_from(at).ok());
        end.and_then(|end| text.get(..end)).is_some_and(|before| before.ends_with(&SYSCALL))
    }

    fn inlined(&self, address: u64) -> Option<Vec<Line>> {
        let mut frames = self.lines.as_ref()?.find_frames(address).skip_all_loads().ok()?;
        let mut found = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|f| f.raw_name().ok()).map(|name| demangled(name.as_ref()));
            let location = frame.location.as_ref();
            found.push(Line {
                // Debug information may lack names that the symbol table has.
                function: name.or_else(|| self.function(address)).unwrap_or_default(),
                file: location.and_then(|l| l.file).unwrap_or_default().to_owned(),
                line: location.and_then(|l| l.line).unwrap_or(0),
            });
        }
        Some(found)
    }

    fn function(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, size, name) = self.functions.get(after.checked_sub(1)?)?;
        // Functions of assembly have no size.
        let inside = *size == 0 || address.checked_sub(*start)? < *size;
        inside.then(|| demangled(name))
    }
}

fn functions(file: &object::File<'_>) -> Vec<(u64, u64, String)> {
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let code = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    code.filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned()))).collect()
}

fn lines(file: &object::File<'_>) -> Option<Context<Reader>> {
    file.section_by_name(".debug_line")?;
    let load = |id: SectionId| {
        let bytes = file.section_by_name(id.name()).and_then(|section| section.data().ok()).unwrap_or_default();
        Ok::<_, gimli::Error>(EndianArcSlice::new(Arc::from(bytes), LittleEndian))
    };
    Context::from_dwarf(Dwarf::load(load).ok()?).ok()
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

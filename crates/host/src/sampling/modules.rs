//! The programs and libraries that are mapped into this process, by which another program finds the functions of samples.

use std::ffi::CStr;

/// A mapped program or library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its path; empty for the program itself.
    pub path: String,
    /// What is added to the addresses in its file.
    pub bias: u64,
    /// The addresses of its segments.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// Its build id (a note of the linker), if it has one.
    pub build_id: Vec<u8>,
}

/// Those of this process, the program itself first.
#[must_use]
pub fn own() -> Vec<Module> {
    let mut modules: Vec<Module> = Vec::new();
    // SAFETY: the callback gets what was passed, the vector, which lives through the call.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut modules).cast()) };
    modules
}

unsafe extern "C" fn collect(info: *mut libc::dl_phdr_info, _size: usize, to: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the C library passes a valid description, whose name is null or a string, and the vector of `own`.
    let (info, modules) = unsafe { (&*info, &mut *to.cast::<Vec<Module>>()) };
    let name = if info.dlpi_name.is_null() {
        String::new()
    } else {
        // SAFETY: not null; see above.
        unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy().into_owned()
    };
    // SAFETY: the headers are mapped, and so many.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    let mut module = Module { path: name, bias: info.dlpi_addr, start: u64::MAX, end: 0, build_id: Vec::new() };
    for header in headers {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        let end = start.wrapping_add(header.p_memsz);
        match header.p_type {
            libc::PT_LOAD => {
                module.start = module.start.min(start);
                module.end = module.end.max(end);
            }
            libc::PT_NOTE if module.build_id.is_empty() => {
                // SAFETY: notes are part of a segment that is mapped to be read.
                let notes = unsafe { mapped(start, header.p_memsz) };
                module.build_id = build_id(notes).unwrap_or_default().to_vec();
            }
            _ => {}
        }
    }
    modules.push(module);
    0
}

/// The bytes at an address.
///
/// # Safety
/// They are mapped to be read, and stay so.
unsafe fn mapped(start: u64, length: u64) -> &'static [u8] {
    let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(length)) else { return &[] };
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(start), length) }
}

/// The build id among `notes` (elf(5)), if there is one.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let word = |at: usize| notes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word));
        let length_at = |at| usize::try_from(word(at)?).ok();
        let (name_length, length, kind) = (length_at(0)?, length_at(4)?, word(8)?);
        let name_end = 12usize.checked_add(name_length)?;
        let start = name_end.checked_next_multiple_of(4)?;
        let end = start.checked_add(length)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..name_end)? == b"GNU\0" {
            return notes.get(start..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_function_is_in_the_first_module() {
        let here = this_function_is_in_the_first_module as *const () as u64;
        let modules = own();
        assert!((modules[0].start..modules[0].end).contains(&here) && modules[0].path.is_empty());
    }
}

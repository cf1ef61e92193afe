//! [`Layout`]: where the stub and the host's vDSO are in every guest process.

use std::ops::Range;

use moat_abi::Errno;
use moat_platform::{PAGE_SIZE, VDSO_TOP, VdsoLayout};

use crate::SetupError;

/// One past the last user address of a host with 4-level page tables.
pub(crate) const TASK_TOP: u64 = 0x7fff_ffff_f000;

/// Where things are. The same for every process, and for every template of this sentry.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The stub's text page (read, execute); its data page (read, write) follows.
    pub stub: u64,
    /// Where the host put `[vvar]`, its like and `[vdso]`: one run of mappings, in address order.
    pub host: Vec<Range<u64>>,
    /// How far they are moved: new = old - shift, wrapping.
    shift: u64,
}

impl Layout {
    /// The stub's data page.
    pub fn data(&self) -> u64 {
        self.stub + PAGE_SIZE
    }

    /// The stub's pages.
    pub fn stub_range(&self) -> Range<u64> {
        self.stub..self.stub + 2 * PAGE_SIZE
    }

    /// All that the host mapped, as one range.
    pub fn host_range(&self) -> Range<u64> {
        let start = self.host.first().map_or(0, |r| r.start);
        start..self.host.last().map_or(start, |r| r.end)
    }

    /// Where an address of [`Layout::host`] is in guest processes.
    pub fn moved(&self, addr: u64) -> u64 {
        addr.wrapping_sub(self.shift)
    }

    /// What the trait reports: `[vdso]` is the last mapping, the data pages are the others.
    pub fn vdso(&self) -> VdsoLayout {
        let all = self.host_range();
        let image = self.host.last().map_or(all.start, |r| r.start);
        VdsoLayout { vvar: self.moved(all.start)..self.moved(image), vdso: self.moved(image)..self.moved(all.end) }
    }

    /// Finds the vDSO of this process and chooses the places.
    pub fn find() -> Result<Layout, SetupError> {
        let maps = moat_host::procfs::special_mappings()
            .map_err(|e| SetupError { step: "read /proc/self/maps", errno: e.into() })?;
        Layout::from_maps(&maps).ok_or(SetupError { step: "find the vDSO in /proc/self/maps", errno: Errno::ENOENT })
    }

    fn from_maps(maps: &str) -> Option<Layout> {
        let host = host_mappings(maps)?;
        let all = host.first()?.start..host.last()?.end;
        let len = all.end - all.start;
        let clear = |r: &Range<u64>| r.end <= all.start || r.start >= all.end;
        // Two places of each: the mappings can be in the way of one only.
        let stub = [0x7fff_0000_0000, 0x7ffe_8000_0000].into_iter().find(|&s| clear(&(s..s + 2 * PAGE_SIZE)))?;
        let top = [VDSO_TOP, VDSO_TOP - 0x100_0000].into_iter().find(|&t| clear(&(t.saturating_sub(len)..t)))?;
        Some(Layout { stub, shift: all.end.wrapping_sub(top), host })
    }
}

/// The lines of `[vvar]`, `[vvar_*]` and `[vdso]`, if they are one run that ends with `[vdso]`.
fn host_mappings(maps: &str) -> Option<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for line in maps.lines() {
        let name = line.split_whitespace().nth(5).unwrap_or("");
        if name != "[vdso]" && !name.starts_with("[vvar") {
            continue;
        }
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        if found.last().is_some_and(|last| last.end != range.start)
            || range.is_empty()
            || range.end - range.start > 0x10_0000
        {
            return None;
        }
        found.push(range);
        if name == "[vdso]" {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f9263040000-7f9263068000 r--p 00031000 fe:00 325843                     /usr/lib/ld.so
7f9263068000-7f926306c000 r--p 00000000 00:00 0                          [vvar]
7f926306c000-7f926306e000 r--p 00000000 00:00 0                          [vvar_vclock]
7f926306e000-7f9263070000 r-xp 00000000 00:00 0                          [vdso]
7ffe436e2000-7ffe43703000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn keeps_the_distance_of_data_and_image() {
        let layout = Layout::from_maps(MAPS).unwrap();
        assert_eq!(layout.host.len(), 3);
        let vdso = layout.vdso();
        assert_eq!(vdso.vdso.end, VDSO_TOP);
        assert_eq!(vdso.vdso.end - vdso.vdso.start, 0x2000);
        assert_eq!(vdso.vvar.end, vdso.vdso.start);
        assert_eq!(vdso.vvar.end - vdso.vvar.start, 0x6000);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        assert!(Layout::from_maps("").is_none());
        assert!(Layout::from_maps(&MAPS.replace("7f926306c000-7f926306e000", "7f926306d000-7f926306e000")).is_none());
    }
}

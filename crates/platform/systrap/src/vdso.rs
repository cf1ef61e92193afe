//! Where the host's vDSO goes in guest processes.

use std::ops::Range;

use moat_platform::{GUEST_TOP, PAGE_SIZE, VDSO_TOP, VdsoLayout};

/// One mapping of each kind that hosts have, and each of them by way of [`ASIDE`].
pub const MOVES: usize = 8;
/// Between the stub's places and the vDSO's: where its mappings go first if they are in the way of themselves.
const ASIDE: u64 = GUEST_TOP + 0x4000_0000;

/// One of the host's special mappings and where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Move {
    pub from: u64,
    pub to: u64,
    pub len: u64,
}

/// The host's vDSO and its data pages in this process, and where they go: just below [`GUEST_TOP`], each at its
/// old distance from the others.
pub fn plan_vdso() -> ([Move; MOVES], VdsoLayout) {
    let maps = moat_host::procfs::special_mappings().unwrap_or_default();
    let found: Vec<(Range<u64>, bool)> = maps.lines().filter_map(special_mapping).collect();
    plan_moves(&found).unwrap_or(([Move::default(); MOVES], VdsoLayout { vvar: 0..0, vdso: 0..0 }))
}

fn plan_moves(found: &[(Range<u64>, bool)]) -> Option<([Move; MOVES], VdsoLayout)> {
    let start = found.iter().map(|m| m.0.start).min()?;
    let end = found.iter().map(|m| m.0.end).max()?;
    if found.len() > MOVES / 2 || end.checked_sub(start)? > 64 * PAGE_SIZE {
        return None;
    }
    // The same wherever the host had it: programs that are saved keep pointers into it.
    let base = VDSO_TOP.checked_sub(end.checked_sub(start)?)?;
    let mut layout = VdsoLayout { vvar: base..base, vdso: base..base };
    // A mapping can't be moved onto itself, and must not be moved onto one that is still to be.
    let aside = (start < VDSO_TOP && end > base).then_some(ASIDE);
    let mut moves = [Move::default(); MOVES];
    let (first, second) = moves.split_at_mut(MOVES / 2);
    for ((first, second), (range, is_vdso)) in first.iter_mut().zip(second).zip(found) {
        let (at, len) = (range.start.checked_sub(start)?, range.end.checked_sub(range.start)?);
        let place = base.checked_add(at)?;
        *first = Move { from: range.start, to: aside.unwrap_or(base).checked_add(at)?, len };
        if let Some(aside) = aside {
            *second = Move { from: aside.checked_add(at)?, to: place, len };
        }
        let to = place..place.checked_add(len)?;
        if *is_vdso {
            layout.vdso = to;
        } else {
            layout.vvar.end = layout.vvar.end.max(to.end);
        }
    }
    Some((moves, layout))
}

/// A line of /proc/self/maps that is `[vdso]` (true) or one of `[vvar]`'s (false).
fn special_mapping(line: &str) -> Option<(Range<u64>, bool)> {
    let name = line.split_whitespace().last()?;
    if name != "[vdso]" && !name.starts_with("[vvar") {
        return None;
    }
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?, name == "[vdso]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(start: u64) -> [(Range<u64>, bool); 3] {
        let at = |from, to| start + from * PAGE_SIZE..start + to * PAGE_SIZE;
        [(at(0, 4), false), (at(4, 6), false), (at(6, 8), true)]
    }

    /// Carries the moves out on a map of pages; what each page of the layout holds then.
    fn moved(found: &[(Range<u64>, bool)], moves: &[Move]) -> Vec<u64> {
        let pages = |range: Range<u64>| range.step_by(PAGE_SIZE as usize);
        let mut memory: std::collections::BTreeMap<u64, u64> =
            found.iter().flat_map(|m| pages(m.0.clone())).map(|page| (page, page)).collect();
        for m in moves.iter().filter(|m| m.len != 0) {
            assert!(m.from + m.len <= m.to || m.to + m.len <= m.from, "mremap(2): EINVAL");
            for at in pages(0..m.len) {
                let page = memory.remove(&(m.from + at)).expect("still mapped");
                memory.insert(m.to + at, page);
            }
        }
        memory.into_values().collect()
    }

    #[test]
    fn it_goes_to_its_place_from_wherever_the_host_put_it() {
        let base = VDSO_TOP - 8 * PAGE_SIZE;
        let beside = (-9..=9).map(|pages| base.wrapping_add_signed(pages * PAGE_SIZE.cast_signed()));
        for start in beside.chain([0x7fff_f000_0000, 0x7ffc_1234_5000, ASIDE]) {
            let found = host(start);
            let (moves, layout) = plan_moves(&found).expect("a layout");
            assert_eq!(layout.vvar, base..base + 6 * PAGE_SIZE);
            assert_eq!(layout.vdso, base + 6 * PAGE_SIZE..VDSO_TOP);
            let order: Vec<u64> = (0..8).map(|page| start + page * PAGE_SIZE).collect();
            assert_eq!(moved(&found, &moves), order, "from {start:#x}");
        }
    }

    #[test]
    fn what_is_no_vdso_is_left_where_it_is() {
        assert!(plan_moves(&[]).is_none());
        assert!(plan_moves(&[(0x1000..0x2000, false), (0x9000_0000..0x9000_1000, true)]).is_none());
        assert!(plan_moves(&std::array::from_fn::<_, 5, _>(|_| (0x1000..0x2000, true))).is_none());
    }
}

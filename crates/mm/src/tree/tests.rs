//! The tree against a model that has one entry per page.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vma::Backing;

const PAGES: u64 = 64;
const BASE: u64 = 1 << 30;

/// Protection and flags of each mapped page.
type Model = BTreeMap<u64, (u32, VmaFlags)>;

#[derive(Clone, Debug)]
enum Op {
    Map { at: u64, len: u64, prot: u32, flags: VmaFlags },
    Unmap { at: u64, len: u64 },
    Protect { at: u64, len: u64, prot: u32 },
    Place { len: u64, prot: u32 },
}

fn ops() -> impl Strategy<Value = Op> {
    let range = (0..PAGES - 8, 1..8u64);
    let flags = prop_oneof![4 => Just(VmaFlags::empty()), 1 => Just(VmaFlags::LOCKED), 1 => Just(VmaFlags::NORESERVE)];
    prop_oneof![
        (range.clone(), 0..3u32, flags).prop_map(|((at, len), prot, flags)| Op::Map { at, len, prot, flags }),
        range.clone().prop_map(|(at, len)| Op::Unmap { at, len }),
        (range, 0..3u32).prop_map(|((at, len), prot)| Op::Protect { at, len, prot }),
        (1..6u64, 0..3u32).prop_map(|(len, prot)| Op::Place { len, prot }),
    ]
}

fn page(n: u64) -> u64 {
    BASE + n * PAGE_SIZE
}

fn vma(at: u64, len: u64, prot: u32, flags: VmaFlags) -> Vma {
    Vma {
        start: page(at),
        end: page(at + len),
        prot: ProtFlags::from_bits_truncate(prot),
        max_prot: ProtFlags::RWX,
        flags,
        backing: Backing::Anonymous,
    }
}

/// The highest free place by looking at every page.
fn naive_gap(model: &Model, len: u64) -> Option<u64> {
    (0..=PAGES - len).rev().find(|&at| (at..at + len).all(|p| !model.contains_key(&p)))
}

fn check(tree: &VmaTree, model: &Model) {
    let mut pages = Model::new();
    let mut last: Option<&Vma> = None;
    let mut totals = Totals::default();
    for v in tree.iter() {
        assert!(last.is_none_or(|l| l.end <= v.start && !l.joins(v)), "areas overlap or should have joined");
        for p in (v.start - BASE) / PAGE_SIZE..(v.end - BASE) / PAGE_SIZE {
            pages.insert(p, (v.prot.bits(), v.flags));
            assert_eq!(tree.find(page(p)).map(|f| f.start), Some(v.start));
        }
        totals.combine(Totals::of(v), u64::wrapping_add);
        last = Some(v);
    }
    assert_eq!(&pages, model);
    assert_eq!(totals, tree.totals());
}

proptest! {
    #[test]
    fn the_tree_is_what_its_pages_are(ops in proptest::collection::vec(ops(), 1..60)) {
        let mut tree = VmaTree::new();
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Map { at, len, prot, flags } => {
                    tree.remove(page(at), page(at + len));
                    tree.insert(vma(at, len, prot, flags));
                    model.extend((at..at + len).map(|p| (p, (prot, flags))));
                }
                Op::Unmap { at, len } => {
                    let removed: u64 = tree.remove(page(at), page(at + len)).iter().map(Vma::len).sum();
                    let before = model.len();
                    model.retain(|p, _| !(at..at + len).contains(p));
                    prop_assert_eq!(removed / PAGE_SIZE, (before - model.len()) as u64);
                }
                Op::Protect { at, len, prot } => {
                    tree.update(page(at), page(at + len), |v| v.prot = ProtFlags::from_bits_truncate(prot));
                    for p in at..at + len {
                        model.entry(p).and_modify(|m| m.0 = prot);
                    }
                }
                Op::Place { len, prot } => {
                    let found = tree.find_gap(len * PAGE_SIZE, BASE, page(PAGES));
                    prop_assert_eq!(found, naive_gap(&model, len).map(page));
                    if let Some(at) = found {
                        let at = (at - BASE) / PAGE_SIZE;
                        tree.insert(vma(at, len, prot, VmaFlags::empty()));
                        model.extend((at..at + len).map(|p| (p, (prot, VmaFlags::empty()))));
                    }
                }
            }
            check(&tree, &model);
        }
    }

    #[test]
    fn coverage_and_overlap_agree_with_pages(mapped in proptest::collection::btree_set(0..PAGES, 0..40), at in 0..PAGES, len in 1..20u64) {
        let mut tree = VmaTree::new();
        for &p in &mapped {
            tree.insert(vma(p, 1, 1, VmaFlags::empty()));
        }
        let covered = (at..at + len).take_while(|p| mapped.contains(p)).count() as u64;
        prop_assert_eq!(tree.covered_until(page(at), page(at + len)), page(at + covered));
        prop_assert_eq!(tree.is_free(page(at), page(at + len)), !(at..at + len).any(|p| mapped.contains(&p)));
    }
}

#[test]
fn nothing_is_placed_in_the_guard_gap_of_a_stack() {
    let mut tree = VmaTree::new();
    let stack = Vma { flags: VmaFlags::GROWSDOWN, ..vma(1000, 4, 3, VmaFlags::empty()) };
    let guard = stack.start - STACK_GUARD_GAP;
    tree.insert(stack);
    assert_eq!(tree.find_gap(PAGE_SIZE, BASE, page(1000)), Some(guard - PAGE_SIZE));
    assert!(!tree.is_free_for_hint(guard, guard + PAGE_SIZE));
    assert!(tree.is_free_for_hint(guard - PAGE_SIZE, guard));
}

//! Pages that are compressed, or left to an earlier image: what comes back is what was written, and what is wrong is refused.

use std::fs::File;
use std::os::unix::fs::FileExt;

use moat_image::directory::Image;
use moat_image::header::{self, BaseState, Header, KERNEL};
use moat_image::pages::{Base, PagesWriter, Segment, Stored};
use moat_image::state::MemoryState;
use moat_image::{Compression, ImageError, PAGE_SIZE, SandboxState};

const PAGE: usize = 4096;
const START: u64 = 0x10000;

fn memfd() -> File {
    rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
}

/// The bytes of an image with one address space, and its pages.
struct Written {
    header: Header,
    segments: Vec<Segment>,
    pages: File,
}

impl Written {
    fn new(number: u8, memory: &[u8], compression: Compression, base: Option<Base>) -> Written {
        let (pages, id) = (memfd(), [number; 16]);
        let writer = PagesWriter::new(pages.try_clone().unwrap(), id).unwrap();
        let mut writer = writer.compressed(compression).based_on(base);
        let mut segment = writer.segment(START);
        // In pieces, whose borders mean nothing.
        memory.chunks(7 * PAGE).for_each(|piece| segment.write(piece).unwrap());
        let segments = segment.finish().unwrap();
        let bases = writer.chain();
        let pages_len = writer.finish().unwrap();
        let header = Header {
            version: "0.1.0".into(),
            id,
            created_s: 1,
            clocks: None,
            cpu_features: Vec::new(),
            platform: "systrap".into(),
            pages_len,
            compression,
            ahead: 0,
            bases,
            sections: Vec::new(),
        };
        Written { header, segments, pages }
    }

    fn read(&self, bases: &[&Written]) -> Result<Image, ImageError> {
        let mut state = SandboxState::default();
        state.memories.push(MemoryState { segments: self.segments.clone(), ..MemoryState::default() });
        let bytes = header::encode(self.header.clone(), &[(KERNEL, state.encode()?)])?;
        let copy = |written: &Written| written.pages.try_clone().unwrap();
        Image::decode(&bytes, copy(self), bases.iter().map(|base| copy(base)).collect())
    }

    /// All that is in it.
    fn memory(&self, bases: &[&Written]) -> Result<Vec<u8>, ImageError> {
        let image = self.read(bases)?;
        image.verify_pages()?;
        let mut memory = Vec::new();
        for segment in &self.segments {
            assert_eq!(segment.start, START + memory.len() as u64, "in order, without gaps");
            image.pages.read(&segment.stored, |_, piece| {
                memory.extend_from_slice(piece);
                Ok::<(), ImageError>(())
            })?;
        }
        Ok(memory)
    }

    /// Bytes that its pages take.
    fn size(&self) -> u64 {
        u64::try_from(rustix::fs::fstat(&self.pages).unwrap().st_blocks).unwrap() * 512
    }
}

/// Pages of few kinds, zeros among them, in an order that a number gives.
fn memory(mut number: u32, pages: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < pages * PAGE {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (kind, run) = (number >> 8 & 0xff, (number >> 16) % 40 + 1);
        for page in 0..run {
            let filler = if kind < 60 { 0 } else { (kind % 16 * 40 + page).to_le_bytes()[0] };
            bytes.extend(
                std::iter::repeat_n(filler, PAGE - 1).chain([(kind % 16).to_le_bytes()[0] * u8::from(kind >= 60)]),
            );
        }
    }
    bytes.truncate(pages * PAGE);
    bytes
}

#[test]
fn chains_and_compressions_give_back_what_was_written() {
    for number in 0..30 {
        let mut changed = memory(number, 900);
        let first = Written::new(1, &changed, Compression::None, None);
        assert!(first.memory(&[]).unwrap() == changed);
        // Some pages change, and some move.
        changed[PAGE * 100..PAGE * 103].fill(0xee);
        changed.copy_within(PAGE * 300..PAGE * 400, PAGE * 501);
        let second = Written::new(2, &changed, Compression::None, Some(Base::new(first.read(&[]).unwrap()).unwrap()));
        assert!(second.memory(&[&first]).unwrap() == changed);
        assert!(second.size() <= first.size());
        changed[PAGE * 700..PAGE * 720].fill(0xdd);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let base = Base::new(second.read(&[&first]).unwrap()).unwrap();
            let third = Written::new(3, &changed, compression, Some(base));
            assert_eq!(third.header.bases.len(), 2);
            assert!(third.memory(&[&second, &first]).unwrap() == changed, "{number} {compression:?}");
            // The bases in another order are not those.
            assert!(third.read(&[&first, &second]).is_err() && third.read(&[&second]).is_err());
            let alone = Written::new(4, &changed, compression, None);
            assert!(alone.memory(&[]).unwrap() == changed);
            // Of a compressed one nothing could be mapped.
            assert_eq!(Base::new(alone.read(&[]).unwrap()).is_err(), compression != Compression::None);
        }
    }
}

#[test]
fn pages_that_are_the_same_are_not_written_again() {
    let bytes: Vec<u8> = (0..512 * PAGE / 4).flat_map(|n| u32::try_from(n).unwrap().to_le_bytes()).collect();
    let first = Written::new(1, &bytes, Compression::None, None);
    let base = || Some(Base::new(first.read(&[]).unwrap()).unwrap());
    let same = Written::new(2, &bytes, Compression::None, base());
    assert_eq!((same.size(), same.segments.len()), (PAGE_SIZE, 1));
    // A page of another kind every seventeenth: the others are long enough runs. Every fifth: they are not, beyond the
    // first few.
    for (every, segments) in [(17, 61), (5, 17)] {
        let mut changed = bytes.clone();
        (0..512).step_by(every).for_each(|page| changed[page * PAGE] ^= 0x80);
        let mixed = Written::new(3, &changed, Compression::None, base());
        assert!(mixed.memory(&[&first]).unwrap() == changed);
        assert_eq!(mixed.segments.len(), segments, "every {every}");
    }
}

#[test]
fn a_chain_has_an_end() {
    let bytes = vec![1; PAGE * 20];
    let mut chain = vec![Written::new(1, &bytes, Compression::None, None)];
    loop {
        let bases: Vec<&Written> = chain.iter().rev().skip(1).collect();
        let image = chain.last().unwrap().read(&bases).unwrap();
        let Ok(base) = Base::new(image) else { break };
        let number = u8::try_from(chain.len()).unwrap() + 1;
        chain.push(Written::new(number, &bytes, Compression::None, Some(base)));
    }
    assert_eq!(chain.len(), header::MAX_BASES + 1);
    // A header that says more is refused before any of them is looked for.
    let mut last = chain.pop().unwrap();
    last.header.bases.push(BaseState { id: [0; 16], pages_len: PAGE_SIZE });
    assert!(last.read(&[]).err().unwrap().to_string().contains("too many"));
}

#[test]
fn hostile_lengths_are_refused_before_memory_is_taken() {
    let bytes = memory(5, 300);
    for compression in [Compression::Lz4, Compression::Zstd] {
        let written = Written::new(1, &bytes, compression, None);
        let image = written.read(&[]).unwrap();
        let good = written.segments[0].stored;
        image.pages.verify(&good).unwrap();
        let packed = good.packed.unwrap();
        let wrong = [
            Stored { len: 1 << 40, ..good },
            Stored { len: good.len + 1, ..good },
            Stored { len: 0, ..good },
            Stored { packed: Some(u64::MAX), ..good },
            Stored { packed: Some(1 << 32), ..good },
            Stored { packed: Some(packed - 1), ..good },
            Stored { packed: Some(0), ..good },
            Stored { packed: None, ..good },
            Stored { offset: good.offset + 1, ..good },
            Stored { offset: u64::MAX - 5, ..good },
            Stored { len: good.len - PAGE_SIZE, ..good },
            Stored { base: 1, ..good },
            Stored { base: u16::MAX, ..good },
        ];
        for stored in wrong {
            assert!(image.pages.verify(&stored).is_err(), "{compression:?} {stored:?}");
        }
        // Any byte of the file.
        for at in (0..packed).step_by(97) {
            let mut byte = [0];
            written.pages.read_exact_at(&mut byte, good.offset + at).unwrap();
            written.pages.write_all_at(&[byte[0] ^ 0x41], good.offset + at).unwrap();
            assert!(image.pages.verify(&good).is_err(), "{compression:?} at {at}");
            written.pages.write_all_at(&byte, good.offset + at).unwrap();
        }
    }
}

//! [`Unwinder`]: from registers and a copy of the stack to the addresses of the calls, by the unwind tables of programs (`.eh_frame`).

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder as _};
use moat_control::profile::StackSample;
use object::Object;

use crate::image::{Image, section};

/// Calls beyond which a stack is cut off.
const MAX_FRAMES: usize = 256;

/// The unwind tables of one address space.
#[derive(Default)]
pub struct Unwinder {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: CacheX86_64,
}

impl Unwinder {
    /// Adds a program or library.
    pub fn add(&mut self, module: &moat_control::profile::Module, image: &Image) {
        // A module that is no ELF file, as the vDSO of a guest may not be: its frames end the stack.
        let Ok(file) = object::File::parse(image.bytes.as_slice()) else { return };
        let named = |name| section(&file, name).unzip();
        let (text_svma, text) = named(".text");
        let (eh_frame_svma, eh_frame) = named(".eh_frame");
        let (eh_frame_hdr_svma, eh_frame_hdr) = named(".eh_frame_hdr");
        let (got_svma, _) = named(".got");
        let info = ExplicitModuleSectionInfo {
            base_svma: file.relative_address_base(),
            text_svma,
            text,
            got_svma,
            eh_frame_svma,
            eh_frame,
            eh_frame_hdr_svma,
            eh_frame_hdr,
            ..ExplicitModuleSectionInfo::default()
        };
        let range = module.start..module.end;
        self.unwinder.add_module(Module::new(module.path.clone(), range, module.bias, info));
    }

    /// The addresses of a sample, innermost first, each within the instruction that it means.
    pub fn addresses(&mut self, sample: &StackSample) -> Vec<u64> {
        let registers = UnwindRegsX86_64::new(sample.ip, sample.sp, sample.bp);
        let mut read = |address: u64| {
            let at = usize::try_from(address.checked_sub(sample.sp).ok_or(())?).map_err(drop)?;
            let word = sample.stack.get(at..).and_then(|rest| rest.first_chunk()).ok_or(())?;
            Ok(u64::from_le_bytes(*word))
        };
        let mut frames = self.unwinder.iter_frames(sample.ip, registers, &mut self.cache, &mut read);
        let mut addresses = Vec::new();
        // An error is the end of what can be known.
        while addresses.len() < MAX_FRAMES
            && let Ok(Some(frame)) = frames.next()
        {
            addresses.push(frame.address_for_lookup());
        }
        addresses
    }
}

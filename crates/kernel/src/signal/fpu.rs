//! The extended state in a signal frame: what rt_sigreturn(2) takes of it.
//!
//! Handlers may have moved it, cut it down to the legacy part, or made it of a program's own that knows fewer components: its
//! software bytes say what is there. Platforms take an image of the shape that they give.
//!
//! Source: `check_xstate_in_sigframe` and `__fpu_restore_sig` in `arch/x86/kernel/fpu/signal.c`.

use core::mem::{offset_of, size_of};
use core::ops::Range;
use std::borrow::Cow;

use moat_abi::sigframe::{
    FP_XSTATE_MAGIC1, FP_XSTATE_MAGIC2, FPU_DEFAULT_CWD, FpState, FpxSwBytes, MXCSR_DEFAULT, XsaveHeader,
};
use moat_abi::{Errno, Result};
use moat_mm::UserAddr;
use zerocopy::{FromBytes, IntoBytes};

use crate::task::CurrentTask;

const FXSAVE: usize = size_of::<FpState>();
/// The components of which that consists: x87 and SSE.
const LEGACY: u64 = 3;
const X87: u64 = 1;
const SSE: u64 = 2;
const X87_REGISTERS: Range<usize> = offset_of!(FpState, st_space)..offset_of!(FpState, xmm_space);
const XMM_REGISTERS: Range<usize> = offset_of!(FpState, xmm_space)..offset_of!(FpState, reserved2);
const MXCSR: Range<usize> = offset_of!(FpState, mxcsr)..offset_of!(FpState, mxcr_mask);
const SOFTWARE: usize = offset_of!(FpState, sw_reserved);
/// The header's bits of components that are not in their initial state.
const PRESENT: Range<usize> = FXSAVE..FXSAVE + offset_of!(XsaveHeader, reserved1);
/// The smallest image that is more than the legacy part.
const LEAST: usize = FXSAVE + size_of::<XsaveHeader>();
const MAGIC_LEN: usize = size_of::<u32>();

impl CurrentTask {
    /// The extended state at `fp`, as the thread takes it: `seen` is what lies from `at` on.
    pub(super) fn read_fpu(&mut self, fp: u64, at: u64, seen: &[u8]) -> Result<Vec<u8>> {
        let shape = Shape::of(self.thread().fresh_fpu());
        let known = fp.checked_sub(at).and_then(|skip| seen.get(usize::try_from(skip).ok()?..)).unwrap_or_default();
        let legacy = self.part(fp, known, FXSAVE)?;
        if let Some(software) = extended(&legacy, &shape) {
            let size = software.xstate_size as usize;
            let whole = self.part(fp, known, size.saturating_add(MAGIC_LEN))?;
            if whole.get(size..) == Some(&FP_XSTATE_MAGIC2.to_le_bytes()) {
                return shaped(&whole[..size], software.xfeatures, &shape);
            }
        }
        shaped(&legacy, LEGACY, &shape)
    }

    /// So many bytes at `at`, where `known` begins.
    fn part<'a>(&mut self, at: u64, known: &'a [u8], len: usize) -> Result<Cow<'a, [u8]>> {
        if let Some(bytes) = known.get(..len) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut bytes = vec![0; len];
        self.mm().read_bytes(UserAddr::new(at), &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }
}

/// What images have in common: their bytes, and what those say of themselves.
#[derive(Clone, Copy)]
struct Shape {
    len: usize,
    software: Option<FpxSwBytes>,
}

impl Shape {
    fn of(image: &[u8]) -> Shape {
        Shape { len: image.len(), software: software_bytes(image) }
    }
}

fn software_bytes(image: &[u8]) -> Option<FpxSwBytes> {
    FpxSwBytes::read_from_bytes(image.get(SOFTWARE..FXSAVE)?).ok()
}

/// What an image says of itself, if it goes on behind the legacy part.
fn extended(legacy: &[u8], shape: &Shape) -> Option<FpxSwBytes> {
    let (said, own) = (software_bytes(legacy)?, shape.software?);
    let fits = LEAST <= said.xstate_size as usize && said.xstate_size <= own.xstate_size.min(said.extended_size);
    (said.magic1 == FP_XSTATE_MAGIC1 && fits).then_some(said)
}

/// An image of the components `features`, in the shape of another; what it lacks is in its initial state.
fn shaped(image: &[u8], features: u64, shape: &Shape) -> Result<Vec<u8>> {
    let Some(own) = shape.software.filter(|_| shape.len >= LEAST) else {
        // A processor without extended state.
        return Ok(image.to_vec());
    };
    let mut whole = image.to_vec();
    whole.resize(shape.len, 0);
    let present = &mut whole[PRESENT];
    let said = if image.len() > FXSAVE { u64::read_from_bytes(present).map_err(|_| Errno::EFAULT)? } else { LEGACY };
    // Components that no processor has stay: they make the state a bad one.
    present.copy_from_slice(&(said & !(own.xfeatures & !features)).to_le_bytes());
    if own.xfeatures & !features & SSE != 0 {
        // Not one of the registers that the header speaks of.
        whole[MXCSR].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
    }
    whole[SOFTWARE..FXSAVE].copy_from_slice(own.as_bytes());
    complete(&mut whole);
    Ok(whole)
}

/// Bytes of an image of this shape with that marker.
pub(super) fn complete_len(shape: &[u8]) -> Result<u64> {
    let len = without_marker(shape).map_or(shape.len(), |whole| whole.saturating_add(MAGIC_LEN));
    u64::try_from(len).map_err(|_| Errno::EFAULT)
}

/// How long an image is that promises a marker, without it: none of a processor without extended state.
fn without_marker(image: &[u8]) -> Option<usize> {
    let software = software_bytes(image).filter(|sw| sw.magic1 == FP_XSTATE_MAGIC1)?;
    Some(software.xstate_size as usize).filter(|whole| *whole <= image.len())
}

/// Has the image of a frame say that the legacy parts are there, also where they are in their initial state: what a handler writes to
/// them counts (`save_xstate_epilog`).
pub(super) fn show_legacy(image: &mut [u8]) {
    let extends = software_bytes(image).is_some_and(|sw| sw.magic1 == FP_XSTATE_MAGIC1);
    let Some(present) = image.get(PRESENT).and_then(|bytes| u64::read_from_bytes(bytes).ok()).filter(|_| extends)
    else {
        return;
    };
    if present & X87 == 0 {
        image[..MXCSR.start].fill(0);
        image[..2].copy_from_slice(&FPU_DEFAULT_CWD.to_le_bytes());
        image[X87_REGISTERS].fill(0);
    }
    if present & SSE == 0 {
        image[XMM_REGISTERS].fill(0);
    }
    image[PRESENT].copy_from_slice(&(present | LEGACY).to_le_bytes());
}

/// Makes sure that the image ends in the marker that its software bytes promise.
pub(super) fn complete(image: &mut Vec<u8>) {
    if let Some(whole) = without_marker(image) {
        image.truncate(whole);
        image.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of so many bytes that says to be `whole` of them long, or has nothing to say.
    fn image(len: usize, whole: Option<u32>) -> Vec<u8> {
        let mut image = vec![0; len];
        if let Some(whole) = whole {
            image[SOFTWARE..SOFTWARE + 4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
            image[SOFTWARE + 16..SOFTWARE + 20].copy_from_slice(&whole.to_le_bytes());
        }
        image
    }

    #[test]
    fn a_frame_has_room_for_the_image_that_is_written() {
        // The last two: a processor without extended state, and no image at all.
        for (len, whole, want) in [(836, Some(832), 836), (832, Some(832), 836), (512, None, 512), (0, None, 0)] {
            let mut image = image(len, whole);
            assert_eq!(complete_len(&image), Ok(want));
            complete(&mut image);
            assert_eq!(u64::try_from(image.len()), Ok(want));
        }
    }
}

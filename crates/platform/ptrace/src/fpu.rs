//! The extended state: between ptrace's NT_X86_XSTATE image and the one of a signal frame.
//!
//! Both are XSAVE images in standard format. A signal frame's has in the 48 bytes that the processor leaves to software
//! (`struct _fpx_sw_bytes`, asm/sigcontext.h) what is in it, and a magic number behind it.

use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;
/// The FXSAVE area, at which the XSAVE header begins.
const FXSAVE: usize = 512;
/// The smallest XSAVE image: FXSAVE area and header.
const MINIMUM: usize = FXSAVE + 64;
/// Offset of the software bytes.
const SW: usize = 464;
/// AMX tile state, which a process must ask its host for; guest processes never do.
const ON_DEMAND: u64 = 3 << 17;
/// x87 and SSE.
const LEGACY: u64 = 3;
const SSE: u64 = 2;
/// The sixteen XMM registers in the FXSAVE area.
const XMM: usize = 160;
const XMM_END: usize = XMM + 16 * 16;
/// What an XSAVE image can grow to is the processor's to say; this bounds what is believed.
pub(crate) const MAX_SIZE: usize = 64 * 1024;

/// The features and size of signal-frame images on this host.
struct Shape {
    features: u64,
    size: usize,
}

/// Size of ptrace's image, which may have room for more than a frame's.
static HOST_SIZE: OnceLock<usize> = OnceLock::new();

/// Remembers the size of an image that ptrace has given.
pub(crate) fn learn(size: usize) {
    HOST_SIZE.get_or_init(|| size.clamp(shape().size, MAX_SIZE));
}

/// The size of every image that ptrace gives and takes.
pub(crate) fn host_size() -> usize {
    HOST_SIZE.get().copied().unwrap_or(shape().size)
}

fn shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| {
        let leaf = __cpuid_count(0xd, 0);
        let host_features = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
        let features = enabled(host_features) & !ON_DEMAND;
        let mut size = MINIMUM;
        for bit in (2..63).filter(|b| features >> b & 1 == 1) {
            let component = __cpuid_count(0xd, bit);
            let end = u64::from(component.eax) + u64::from(component.ebx);
            size = size.max(usize::try_from(end).unwrap_or(0).min(MAX_SIZE));
        }
        Shape { features, size }
    })
}

/// The user features that the host enabled, of those that the processor has.
fn enabled(supported: u64) -> u64 {
    // CPUID.1:ECX.OSXSAVE: XGETBV may be used.
    if __cpuid_count(1, 0).ecx >> 27 & 1 == 0 {
        return LEGACY;
    }
    // SAFETY: OSXSAVE says that the instruction exists and is enabled.
    (unsafe { xcr0() }) & supported
}

/// The processor's XCR0.
#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: the caller has checked that XGETBV is enabled; register 0 always exists.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn u32_at(image: &[u8], at: usize) -> Option<u32> {
    image.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(image: &[u8], at: usize) -> Option<u64> {
    image.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

/// Makes a signal frame's image of ptrace's. `None` if it is too short to be one.
pub(crate) fn to_frame(mut image: Vec<u8>) -> Option<Vec<u8>> {
    let shape = shape();
    if image.len() < shape.size {
        return None;
    }
    image.truncate(shape.size);
    let features = u64_at(&image, FXSAVE)? & shape.features;
    put(&mut image, FXSAVE, &features.to_le_bytes());
    let xstate_size = u32::try_from(shape.size).ok()?;
    image[SW..FXSAVE].fill(0);
    put(&mut image, SW, &MAGIC1.to_le_bytes());
    put(&mut image, SW + 4, &(xstate_size + 4).to_le_bytes());
    put(&mut image, SW + 8, &shape.features.to_le_bytes());
    put(&mut image, SW + 16, &xstate_size.to_le_bytes());
    image.extend_from_slice(&MAGIC2.to_le_bytes());
    Some(image)
}

/// Checks the size of a signal frame's image: a whole one, with or without the last magic number, or FXSAVE's 512 bytes.
pub(crate) fn accept(image: &[u8]) -> Option<Vec<u8>> {
    let size = shape().size;
    (image.len() == FXSAVE || image.len() == size || image.len() == size + 4).then(|| image.to_vec())
}

/// Makes ptrace's image of a signal frame's. As on Linux, one without its magic numbers counts as FXSAVE's part only.
pub(crate) fn to_host(frame: &[u8]) -> Vec<u8> {
    let shape = shape();
    let mut image = vec![0; host_size()];
    let whole =
        u32_at(frame, SW) == Some(MAGIC1) && (frame.len() == shape.size || u32_at(frame, shape.size) == Some(MAGIC2));
    let used = if whole { shape.size } else { FXSAVE }.min(frame.len());
    image[..used].copy_from_slice(&frame[..used]);
    if whole {
        // sigreturn(2) restores what both the frame and the task have.
        let wanted = u64_at(frame, SW + 8).unwrap_or(0) | LEGACY;
        let features = u64_at(frame, FXSAVE).unwrap_or(0);
        // A bit that the host does not know stays, for the host to refuse.
        let kept = features & (wanted | !shape.features);
        // XRSTOR loads and checks MXCSR even where the header says that SSE is in its initial state; ptrace does not.
        if kept & SSE == 0 {
            image[XMM..XMM_END].fill(0);
        }
        put(&mut image, FXSAVE, &(kept | SSE).to_le_bytes());
    } else {
        put(&mut image, FXSAVE, &LEGACY.to_le_bytes());
    }
    image[SW..FXSAVE].fill(0);
    image
}

/// The signal-frame image of a fresh program: x87 control word 0x37f, MXCSR 0x1f80, all else initial.
pub(crate) fn fresh() -> Vec<u8> {
    let mut image = vec![0; shape().size];
    put(&mut image, 0, &0x37f_u16.to_le_bytes());
    put(&mut image, 24, &0x1f80_u32.to_le_bytes());
    put(&mut image, 28, &0xffff_u32.to_le_bytes());
    put(&mut image, FXSAVE, &LEGACY.to_le_bytes());
    to_frame(image).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_and_host_images_convert_back() {
        let frame = fresh();
        assert_eq!(frame.len(), shape().size + 4);
        assert_eq!(u32_at(&frame, SW), Some(MAGIC1));
        assert_eq!(u32_at(&frame, frame.len() - 4), Some(MAGIC2));
        assert_eq!(to_frame(to_host(&frame)).unwrap(), frame);
        assert!(accept(&frame).is_some() && accept(&frame[1..]).is_none());
    }

    #[test]
    fn a_frame_without_magic_is_legacy_state_only() {
        let mut frame = fresh();
        put(&mut frame, FXSAVE, &7u64.to_le_bytes());
        put(&mut frame, SW, &[0; 4]);
        assert_eq!(u64_at(&to_host(&frame), FXSAVE), Some(LEGACY));
    }
}

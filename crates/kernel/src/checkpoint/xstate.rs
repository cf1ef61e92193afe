//! Extended state of one platform for another: the same XSAVE image (standard format), with room for different components behind.

use moat_image::ImageError;

/// `struct _fpx_sw_bytes`, in the part of the legacy area that the processor leaves alone: magic, size with the magic word at the
/// end, components, size without it.
const SW_BYTES: usize = 464;
/// The components that the image may have.
const SW_FEATURES: usize = SW_BYTES + 8;
const SW_XSTATE_SIZE: usize = SW_BYTES + 16;
/// The XSAVE header: the components that are not in their initial state.
const XSTATE_BV: usize = 512;

/// `saved` as an image of the form that `here`, a thread's own, has.
///
/// # Errors
/// Components that this processor or platform has no room for.
pub(super) fn fit(saved: &[u8], here: &[u8]) -> Result<Vec<u8>, ImageError> {
    // The usual case. The host checks the rest when the state is loaded.
    if saved.len() == here.len() {
        return Ok(saved.to_vec());
    }
    let other = || {
        let (was, is) = (saved.len(), here.len());
        ImageError::Unfit(format!("extended state of {was} bytes, where the processor has {is}: it is another one"))
    };
    let word = |image: &[u8], at: usize| {
        image.get(at..at.saturating_add(8)).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    };
    let used = word(saved, XSTATE_BV).ok_or_else(other)?;
    let known = word(here, SW_FEATURES).ok_or_else(other)?;
    // Registers of the program would be lost.
    if used & !known != 0 {
        return Err(other());
    }
    let size = |image: &[u8]| {
        let size =
            image.get(SW_XSTATE_SIZE..SW_XSTATE_SIZE + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= image.len())
    };
    let common = size(saved).zip(size(here)).map(|(a, b)| a.min(b)).ok_or_else(other)?;
    // What lies between the two parts belongs to the software, and says what this platform expects.
    let mut fitted = here.to_vec();
    for part in [0..SW_BYTES, XSTATE_BV..common] {
        match (fitted.get_mut(part.clone()), saved.get(part)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return Err(other()),
        }
    }
    Ok(fitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(len: usize, features: u64, used: u64, fill: u8) -> Vec<u8> {
        let mut image = vec![fill; len + 4];
        image[SW_FEATURES..SW_FEATURES + 8].copy_from_slice(&features.to_le_bytes());
        image[SW_XSTATE_SIZE..SW_XSTATE_SIZE + 4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&used.to_le_bytes());
        image
    }

    #[test]
    fn what_both_know_is_taken_over() {
        let (saved, here) = (image(1000, 0xf, 7, 1), image(900, 7, 0, 2));
        let fitted = fit(&saved, &here).unwrap();
        assert_eq!((fitted.len(), fitted[0], fitted[800], fitted[903]), (904, 1, 1, 2));
        assert_eq!(fitted[SW_BYTES..XSTATE_BV], here[SW_BYTES..XSTATE_BV]);
        assert!(fit(&image(1000, 0xf, 8, 1), &here).is_err());
        assert!(fit(&[0; 20], &here).is_err());
        assert_eq!(fit(&here, &here).unwrap(), here);
    }
}

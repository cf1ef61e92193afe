//! [`Frame`]: a message on the wire, after ten bytes of its length, its stream and its kind.

use std::io::{self, Read, Write};

/// Bytes of the longest message: what containerd's own servers take.
const MAX_BYTES: usize = 4 << 20;

/// Kinds of messages.
pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The call that it belongs to; the caller's numbers are odd.
    pub(super) stream: u32,
    pub(super) kind: u8,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// One that is too long, or cut off.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut length = [0; 4];
        match from.read(&mut length)? {
            0 => return Ok(None),
            // The rest of a word that came in pieces.
            n => from.read_exact(length.get_mut(n..).unwrap_or_default())?,
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        // Before anything is allocated for it.
        if length > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let (mut stream, mut kind_and_flags) = ([0; 4], [0; 2]);
        from.read_exact(&mut stream)?;
        from.read_exact(&mut kind_and_flags)?;
        let mut payload = vec![0; length];
        from.read_exact(&mut payload)?;
        Ok(Some(Frame { stream: u32::from_be_bytes(stream), kind: kind_and_flags[0], payload }))
    }

    /// Writes it in one piece.
    ///
    /// # Errors
    /// The other side is gone; it is too long.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let length = self.payload.len();
        let length = u32::try_from(length).ok().filter(|_| length <= MAX_BYTES);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the message is too long"))?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend([self.kind, 0]);
        bytes.extend(&self.payload);
        to.write_all(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let frame = Frame { stream: 7, kind: RESPONSE, payload: b"hello".to_vec() };
        let mut bytes = Vec::new();
        frame.write(&mut bytes).unwrap();
        assert_eq!(bytes, b"\0\0\0\x05\0\0\0\x07\x02\0hello");
        let mut from = bytes.as_slice();
        assert_eq!(Frame::read(&mut from).unwrap(), Some(frame));
        assert_eq!(Frame::read(&mut from).unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        for bad in [&b"\xff\xff\xff\xff\0\0\0\x01\x01\0"[..], b"\0\0\0\x05\0\0\0\x01\x01\0hell", b"\0\0"] {
            assert!(Frame::read(&mut &*bad).is_err(), "{bad:?}");
        }
        let long = Frame { stream: 1, kind: REQUEST, payload: vec![0; MAX_BYTES + 1] };
        assert!(long.write(&mut Vec::new()).is_err());
    }
}

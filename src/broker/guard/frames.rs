//! The frames of what the broker sends: content headers are looked at and mended, everything else passes.

use std::io;

use super::content_header::{Room, mend};

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
/// Type, channel and length stand before a frame's payload, and one byte behind it.
const HEAD: usize = 7;
const END: usize = 1;
/// The method by which the broker says how large frames may be: class, method, channels, bytes.
const TUNE: [u8; 4] = [0, 10, 0, 30];
/// What the broker takes unless it is configured otherwise.
const USUAL_FRAME: u32 = 128 * 1024;
/// No method and no content header of a broker's is nearly as long.
const LONGEST: usize = 16 * 1024 * 1024;

/// What came, on its way to the client.
pub struct Frames {
    /// The largest frame that the client asks for, and then the largest that was agreed upon.
    frame_max: u32,
    /// A frame of which more is to come.
    begun: Vec<u8>,
    /// How much is still to pass of one that is not looked at.
    passing: usize,
    /// What may be given, and how much of it was.
    ready: Vec<u8>,
    given: usize,
}

impl Frames {
    pub fn new(frame_max: Option<u32>) -> Self {
        Self { frame_max: agreed(frame_max, USUAL_FRAME), begun: Vec::new(), passing: 0, ready: Vec::new(), given: 0 }
    }

    /// Gives what is ready, as much as there is room for.
    pub fn give(&mut self, buffer: &mut [u8]) -> usize {
        let ready = &self.ready[self.given..];
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.given += length;
        if self.given == self.ready.len() {
            self.ready.clear();
            self.given = 0;
        }
        length
    }

    /// Takes what has come.
    pub fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (passes, rest) = bytes.split_at(self.passing.min(bytes.len()));
                self.ready.extend_from_slice(passes);
                self.passing -= passes.len();
                bytes = rest;
                continue;
            }
            let missing = self.needed()? - self.begun.len();
            let (next, rest) = bytes.split_at(missing.min(bytes.len()));
            self.begun.extend_from_slice(next);
            bytes = rest;
            if self.begun.len() == self.needed()? {
                self.hand_on();
            }
        }
        Ok(())
    }

    /// How many bytes of the frame that has begun must be there before it is handed on.
    fn needed(&self) -> io::Result<usize> {
        let Some((kind, length)) = self.head() else { return Ok(HEAD) };
        if kind != METHOD && kind != CONTENT_HEADER {
            return Ok(HEAD);
        }
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent a frame of {length} bytes")));
        }
        Ok(HEAD + length + END)
    }

    /// The kind of the frame that has begun, and the length of its payload.
    fn head(&self) -> Option<(u8, usize)> {
        let [kind, _, _, length @ ..] = self.begun.first_chunk::<HEAD>()?;
        Some((*kind, u32::from_be_bytes(*length) as usize))
    }

    /// Hands on the frame, or the head of one that passes as it is.
    fn hand_on(&mut self) {
        let Some((kind, length)) = self.head() else { return };
        let payload = self.begun.get(HEAD..HEAD + length).unwrap_or_default();
        match kind {
            METHOD => {
                if let Some(rest) = payload.strip_prefix(&TUNE)
                    && let Some([_, _, frame_max @ ..]) = rest.first_chunk::<6>()
                {
                    self.frame_max = agreed(Some(u32::from_be_bytes(*frame_max)), self.frame_max);
                }
            }
            CONTENT_HEADER => {
                if let Some(mended) = mend(payload, Room::within(self.frame_max as usize)) {
                    self.replace_payload(&mended);
                }
            }
            // Whoever speaks another version of AMQP says so in eight bytes that are no frame, and nothing follows them.
            _ => self.passing = length.saturating_add(END),
        }
        self.ready.append(&mut self.begun);
    }

    fn replace_payload(&mut self, payload: &[u8]) {
        let end = self.begun.last().copied();
        self.begun.truncate(HEAD);
        // What is mended is shorter than what came, whose length has fitted.
        let length = u32::try_from(payload.len()).unwrap_or_default();
        self.begun[HEAD - 4..].copy_from_slice(&length.to_be_bytes());
        self.begun.extend_from_slice(payload);
        self.begun.extend(end);
    }
}

/// The smaller of two limits, of which 0 is none.
fn agreed(asked: Option<u32>, otherwise: u32) -> u32 {
    asked.filter(|limit| *limit > 0).map_or(otherwise, |limit| limit.min(otherwise))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::guard::UNREADABLE;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &length[..], payload, &[0xce]].concat()
    }

    /// A content header with a correlation id.
    fn header(correlation_id: &[u8]) -> Vec<u8> {
        let length = u8::try_from(correlation_id.len()).unwrap();
        let class_weight_size = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
        frame(CONTENT_HEADER, &[&class_weight_size[..], &[0x04, 0x00, length], correlation_id].concat())
    }

    /// What comes out where it comes in pieces of this size.
    fn passed(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut frames = Frames::new(None);
        let (mut passed, mut buffer) = (Vec::new(), [0; 3]);
        for piece in bytes.chunks(piece) {
            frames.take(piece).unwrap();
            loop {
                match frames.give(&mut buffer) {
                    0 => break,
                    given => passed.extend_from_slice(&buffer[..given]),
                }
            }
        }
        passed
    }

    #[test]
    fn what_can_be_read_passes_byte_for_byte_however_it_is_cut() {
        let bytes = [frame(METHOD, &[0, 60, 0, 60, 1]), header(b"theirs"), frame(3, b"hello"), frame(8, b""), header(b"")].concat();
        for piece in [1, 2, 7, 8, 20, 1000] {
            assert_eq!(passed(&bytes, piece), bytes, "{piece}");
        }
    }

    #[test]
    fn only_the_header_that_cannot_be_read_is_replaced() {
        let bytes = [header(b"\xff"), frame(3, b"hello"), header(b"theirs")].concat();
        for piece in [1, 9, 1000] {
            let passed = passed(&bytes, piece);
            assert!(passed.windows(UNREADABLE.len()).any(|window| window == UNREADABLE.as_bytes()), "{passed:?}");
            assert!(passed.ends_with(&[frame(3, b"hello"), header(b"theirs")].concat()), "{passed:?}");
        }
    }

    #[test]
    fn the_broker_and_the_url_both_limit_a_frame() {
        let tune = |limit: u32| frame(METHOD, &[&TUNE[..], &[7, 255], &limit.to_be_bytes(), &[0, 60]].concat());
        for (asked, offered, limit) in
            [(None, 131_072, 131_072), (Some(8192), 131_072, 8192), (None, 16_384, 16_384), (Some(8192), 0, 8192)]
        {
            let mut frames = Frames::new(asked);
            frames.take(&tune(offered)).unwrap();
            assert_eq!(frames.frame_max, limit);
        }
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        let endless = [CONTENT_HEADER, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert!(Frames::new(None).take(&endless).is_err());
    }
}

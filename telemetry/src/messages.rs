//! Counts gRPC messages in a stream of bytes without buffering them: only the five-byte prefix of each is looked at.
//!
//! Not here: what a message says, or whether its length is one that anybody accepts.

/// Where a reader is within a body of length-prefixed messages.
#[derive(Debug, Clone, Default)]
pub struct MessageCounter {
    messages: u64,
    /// Bytes of the current prefix seen so far (0 to 4 between calls).
    prefix_seen: u8,
    /// The length read from the prefix so far.
    length: u32,
    /// Bytes of the current message still to come.
    body_left: u32,
}

impl MessageCounter {
    /// How many messages have begun, not counting one whose prefix is still incomplete.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The number, from 1, of the message of which something has arrived and something is missing; `None` between messages.
    pub fn incomplete(&self) -> Option<u64> {
        if self.prefix_seen > 0 {
            Some(self.messages + 1)
        } else {
            (self.body_left > 0).then_some(self.messages)
        }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skip = (self.body_left as usize).min(bytes.len());
                // Lossless: `skip` is at most `body_left`, which is a u32.
                self.body_left -= u32::try_from(skip).unwrap_or(self.body_left);
                bytes = &bytes[skip..];
                continue;
            }
            // Byte 0 is the compression flag; bytes 1 to 4 are the length, big endian.
            if self.prefix_seen > 0 {
                self.length = (self.length << 8) | u32::from(bytes[0]);
            }
            self.prefix_seen += 1;
            bytes = &bytes[1..];
            if self.prefix_seen == 5 {
                self.messages += 1;
                self.body_left = self.length;
                self.prefix_seen = 0;
                self.length = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 1, 5, 300] {
            stream.push(0);
            stream.extend(length.to_be_bytes());
            stream.extend(std::iter::repeat_n(0xff, length as usize));
        }
        for step in [1, 2, 3, 7, 64, stream.len()] {
            let mut counter = MessageCounter::default();
            for piece in stream.chunks(step) {
                counter.feed(piece);
            }
            assert_eq!(counter.messages(), 4, "cut every {step} bytes");
            assert_eq!(counter.incomplete(), None, "cut every {step} bytes");
        }
    }

    #[test]
    fn a_message_is_incomplete_from_its_first_byte_to_its_last() {
        let stream = [&[0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 2, 0xff, 0xff]].concat();
        let mut counter = MessageCounter::default();
        let mut found = vec![];
        for byte in stream {
            counter.feed(&[byte]);
            found.push(counter.incomplete());
        }
        let first = [Some(1); 4].into_iter().chain([None]);
        let second = [Some(2); 6].into_iter().chain([None]);
        assert_eq!(found, first.chain(second).collect::<Vec<_>>());
    }
}

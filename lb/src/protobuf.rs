//! Looks into protobuf messages whose types are not known here. It reads within their bounds whatever they are, and makes none.

/// The fields at the top level: number, and content as it was encoded, without a length. Ends at what is no protobuf.
pub(crate) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (number, content, behind) = first(rest)?;
        rest = behind;
        Some((number, content))
    })
}

/// The first field, and what comes behind it.
fn first(message: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (tag, rest) = varint(message)?;
    let (skip, length) = match tag & 7 {
        0 => (0, rest.len() - varint(rest)?.1.len()),
        1 => (0, 8),
        2 => {
            let (length, content) = varint(rest)?;
            (rest.len() - content.len(), usize::try_from(length).ok()?)
        }
        5 => (0, 4),
        _ => return None,
    };
    let (content, behind) = rest.get(skip..)?.split_at_checked(length)?;
    Some((tag >> 3, content, behind))
}

/// A varint, and what comes behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_wire_type_is_read_and_what_is_none_ends_it() {
        // 1: varint 300, 2: "abc", 3: fixed32, 4: fixed64, then a group.
        let mut message = vec![0x08, 0xac, 0x02, 0x12, 3];
        message.extend(b"abc\x1d1234\x2112345678\x2b\x08\x01");
        let read: Vec<_> = fields(&message).collect();
        let expected: [(u64, &[u8]); 4] = [(1, &[0xac, 0x02]), (2, b"abc"), (3, b"1234"), (4, b"12345678")];
        assert_eq!(read, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_their_bounds(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(fields(&bytes).map(|(_, content)| content.len()).sum::<usize>() <= bytes.len());
        }
    }
}

//! The protobuf wire format, as much of it as reading records needs. It knows no record; what writes them is
//! [`crate::protobuf`].
//!
//! By hand because records are read with as few copies as can be: prost's derived messages own every text, and a store of a
//! million instances would allocate each of them twice on its way in.

pub(in crate::store) use crate::protobuf::Writer;
use crate::protobuf::{FIXED32, FIXED64, LENGTH, VARINT};

/// Not protobuf, or not the type that the field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf record: {0}")]
pub(crate) struct WireError(pub(super) &'static str);

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Value<'a> {
    /// A varint or a fixed number.
    Number(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they were written.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of a message's bytes.
    pub(in crate::store) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(WireError("it ends within a number"))?;
            self.0 = rest;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError("a number is too long"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(WireError("it ends within a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), WireError> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Value::Number(u64::from_le_bytes(bytes))
            }
            LENGTH => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError("a length is too large"))?;
                Value::Bytes(self.take(length)?)
            }
            FIXED32 => {
                let mut bytes = [0; 4];
                bytes.copy_from_slice(self.take(4)?);
                Value::Number(u32::from_le_bytes(bytes).into())
            }
            _ => return Err(WireError("a field is of a type that there is not")),
        };
        Ok((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.is_empty()).then(|| self.field())
    }
}

impl<'a> Value<'a> {
    /// Of a field that is one.
    pub(in crate::store) fn number(self) -> Result<u64, WireError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(WireError("there are bytes where a number belongs")),
        }
    }

    /// Of a field that is one of 32 bits.
    pub(in crate::store) fn number32(self) -> Result<u32, WireError> {
        u32::try_from(self.number()?).map_err(|_| WireError("a number is too large"))
    }

    /// Of a field that is one.
    pub(in crate::store) fn bytes(self) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(WireError("there is a number where bytes belong")),
        }
    }

    /// Of a field that is one.
    pub(in crate::store) fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError("a text is not UTF-8"))
    }

    /// Of a field that is one.
    pub(in crate::store) fn message(self) -> Result<Fields<'a>, WireError> {
        self.bytes().map(Fields)
    }
}

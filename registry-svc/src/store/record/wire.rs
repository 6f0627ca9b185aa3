//! The protobuf wire format, as much of it as records need. It knows no record.
//!
//! By hand because records are written straight from the model and read with as few copies as can be: prost's derived messages
//! own every text, and a store of a million instances would allocate each of them twice on its way in and out. The bytes are
//! those that prost writes; `super::tests` compares them.

/// Not protobuf, or not the type that the field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a protobuf record: {0}")]
pub(crate) struct WireError(pub(super) &'static str);

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// Appends fields. As proto3 has it, a single field with its default value is left out.
#[derive(Debug, Default)]
pub(in crate::store) struct Writer(Vec<u8>);

impl Writer {
    /// Into memory that is there.
    pub(in crate::store) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    pub(in crate::store) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// How much was written.
    pub(in crate::store) fn len(&self) -> usize {
        self.0.len()
    }

    /// Fields that were written before.
    pub(in crate::store) fn append(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// A number of any integer type but the zigzag ones.
    pub(in crate::store) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
    }

    /// A number that is large as a rule.
    pub(in crate::store) fn fixed64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Bytes.
    pub(in crate::store) fn bytes(&mut self, field: u64, value: &[u8]) {
        if !value.is_empty() {
            self.item(field, value);
        }
    }

    /// A text.
    pub(in crate::store) fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// One of a repeated field: written also when it is empty.
    pub(in crate::store) fn item(&mut self, field: u64, value: &[u8]) {
        self.key(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A message: written also when it is empty.
    pub(in crate::store) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.key(field, LENGTH);
        let at = self.0.len();
        // Its length is known afterwards. Most are below 128 and take the one byte that is kept free here.
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        let mut prefix = Self::default();
        match u8::try_from(length) {
            Ok(short) if short < 0x80 => self.0[at] = short,
            _ => {
                prefix.varint(length as u64);
                self.0.splice(at..=at, prefix.0);
            }
        }
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

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

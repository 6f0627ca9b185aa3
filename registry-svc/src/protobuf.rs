//! The protobuf wire format, as much of it as is written by hand. It knows no message.
//!
//! By hand because records and instances are written straight from the model: prost's derived messages own every text, so
//! that each would be allocated once more on its way out. The bytes are those that prost writes; tests beside those who use it
//! compare them.

/// A number of 7 bits a byte.
pub(crate) const VARINT: u64 = 0;
/// Eight bytes.
pub(crate) const FIXED64: u64 = 1;
/// A length and as many bytes.
pub(crate) const LENGTH: u64 = 2;
/// Four bytes.
pub(crate) const FIXED32: u64 = 5;

/// Appends fields. As proto3 has it, a single field with its default value is left out.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Into memory that is there.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    /// How much was written.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Fields that were written before.
    pub(crate) fn append(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }

    /// A number of any integer type but the zigzag ones.
    pub(crate) fn number(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, VARINT);
            self.varint(value);
        }
    }

    /// A number that is large as a rule.
    pub(crate) fn fixed64(&mut self, field: u64, value: u64) {
        if value != 0 {
            self.key(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Bytes.
    pub(crate) fn bytes(&mut self, field: u64, value: &[u8]) {
        if !value.is_empty() {
            self.item(field, value);
        }
    }

    /// A text.
    pub(crate) fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    /// One of a repeated field: written also when it is empty.
    pub(crate) fn item(&mut self, field: u64, value: &[u8]) {
        self.key(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A number that says something also when it is 0.
    pub(crate) fn present(&mut self, field: u64, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    /// A message: written also when it is empty.
    pub(crate) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
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

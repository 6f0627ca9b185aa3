//! Counts the fields of messages as their bytes come by.
//!
//! Reads what frames a field (gRPC's prefix, protobuf's keys and lengths) and skips what is in it, with no memory but where it
//! is. Not a validation: what it lets pass may still not decode. What it calls malformed does not.

/// A field that is a message whose own fields are counted too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    number: u64,
}

impl Shape {
    pub(super) const fn new(number: u64) -> Self {
        Self { number }
    }
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It is so long.
    Bytes(usize),
    /// It has too many fields.
    Fields,
    /// Its fields do not fit into its length.
    Malformed,
}

/// See the module. One for each stream of messages.
#[derive(Debug)]
pub(super) struct Meter {
    bytes: usize,
    entries: usize,
    fields: usize,
    shapes: &'static [Shape],
    state: State,
    message: Message,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy)]
enum State {
    /// gRPC's prefix, of which so many bytes have come.
    Prefix(usize),
    /// A number, begun by so much.
    Number(Purpose, Number),
    /// So many bytes that do not matter.
    Skip(usize),
    /// A message that is compressed, which is refused elsewhere; nothing is decoded any more.
    Over,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Key,
    Value,
    /// Of this field.
    Length(u64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Number {
    value: u64,
    bits: u32,
}

/// Where in a message we are.
#[derive(Debug, Default)]
struct Message {
    length: usize,
    at: usize,
    /// The end of the message within it that is counted.
    inner: Option<usize>,
    entries: usize,
    fields: usize,
}

const PREFIX_BYTES: usize = 5;
/// Bits beyond which a number is none: ten bytes of seven.
const NUMBER_BITS: u32 = 70;

impl Meter {
    /// Of messages with at most so many bytes, fields, and fields with those of the messages in `shapes`.
    pub(super) fn new(bytes: usize, entries: usize, fields: usize, shapes: &'static [Shape]) -> Self {
        Self {
            bytes,
            entries,
            fields,
            shapes,
            state: State::Prefix(0),
            message: Message::default(),
        }
    }

    /// The next bytes. After an error nothing more is to be fed.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::Prefix(have) => {
                    bytes = rest;
                    self.prefix(have, byte)?;
                }
                State::Number(purpose, number) => {
                    bytes = rest;
                    self.message.at += 1;
                    self.number(purpose, number, byte)?;
                }
                State::Skip(left) => {
                    let skipped = left.min(bytes.len());
                    bytes = bytes.get(skipped..).unwrap_or_default();
                    self.message.at += skipped;
                    if skipped == left {
                        self.next_field();
                    } else {
                        self.state = State::Skip(left - skipped);
                    }
                }
                State::Over => return Ok(()),
            }
        }
        Ok(())
    }

    fn prefix(&mut self, have: usize, byte: u8) -> Result<(), Excess> {
        if have == 0 {
            self.message = Message::default();
            self.state = if byte == 0 { State::Prefix(1) } else { State::Over };
            return Ok(());
        }
        self.message.length = self.message.length << 8 | usize::from(byte);
        self.state = State::Prefix(have + 1);
        if have + 1 == PREFIX_BYTES {
            if self.message.length > self.bytes {
                return Err(Excess::Bytes(self.message.length));
            }
            self.next_field();
        }
        Ok(())
    }

    fn number(&mut self, purpose: Purpose, mut number: Number, byte: u8) -> Result<(), Excess> {
        // What is shifted out does not decode either.
        number.value |= u64::from(byte & 0x7f).checked_shl(number.bits).unwrap_or_default();
        number.bits += 7;
        if byte & 0x80 != 0 {
            if number.bits >= NUMBER_BITS || self.message.left() == 0 {
                return Err(Excess::Malformed);
            }
            self.state = State::Number(purpose, number);
            return Ok(());
        }
        match purpose {
            Purpose::Key => self.key(number.value),
            Purpose::Value => {
                self.next_field();
                Ok(())
            }
            Purpose::Length(field) => self.length(field, number.value),
        }
    }

    fn key(&mut self, key: u64) -> Result<(), Excess> {
        let message = &mut self.message;
        message.fields += 1;
        if message.inner.is_none() {
            message.entries += 1;
        }
        if message.entries > self.entries || message.fields > self.fields {
            return Err(Excess::Fields);
        }
        match key & 7 {
            0 => self.begin(Purpose::Value),
            1 => self.skip(8),
            2 => self.begin(Purpose::Length(key >> 3)),
            // A group, whose fields are counted as if they were ours: it is not decoded.
            3 | 4 => {
                self.next_field();
                Ok(())
            }
            5 => self.skip(4),
            _ => Err(Excess::Malformed),
        }
    }

    fn begin(&mut self, purpose: Purpose) -> Result<(), Excess> {
        if self.message.left() == 0 {
            return Err(Excess::Malformed);
        }
        self.state = State::Number(purpose, Number::default());
        Ok(())
    }

    fn length(&mut self, field: u64, length: u64) -> Result<(), Excess> {
        let length = usize::try_from(length).map_err(|_| Excess::Malformed)?;
        let is_counted = self.message.inner.is_none() && self.shapes.iter().any(|shape| shape.number == field);
        if !is_counted {
            return self.skip(length);
        }
        if length > self.message.left() {
            return Err(Excess::Malformed);
        }
        self.message.inner = Some(self.message.at + length);
        self.next_field();
        Ok(())
    }

    fn skip(&mut self, length: usize) -> Result<(), Excess> {
        if length > self.message.left() {
            return Err(Excess::Malformed);
        }
        if length == 0 {
            self.next_field();
        } else {
            self.state = State::Skip(length);
        }
        Ok(())
    }

    /// A field has ended.
    fn next_field(&mut self) {
        let message = &mut self.message;
        if message.inner == Some(message.at) {
            message.inner = None;
        }
        self.state = if message.at == message.length {
            State::Prefix(0)
        } else {
            State::Number(Purpose::Key, Number::default())
        };
    }
}

impl Message {
    /// Bytes until the end of what we are in.
    fn left(&self) -> usize {
        self.inner.unwrap_or(self.length).saturating_sub(self.at)
    }
}

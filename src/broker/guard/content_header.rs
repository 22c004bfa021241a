//! The content header of a message, as AMQP writes it: what of it the client can read, and whether a copy of it has room.

/// The header of a message whose properties came in part: a sentence that says why.
pub const UNREADABLE: &str = "kf-unreadable";

/// Class, weight and the body's size stand before the properties.
const BEFORE: usize = 12;
/// What a frame has besides its payload.
const FRAME: usize = 8;
/// Tables and arrays may stand in one another so deep. The client reads each level with one more call, until its stack ends.
const DEEPEST: usize = 32;
/// The properties in AMQP's order, each with a flag of its own, the first one highest.
const KINDS: [Kind; 14] = {
    use Kind::{Byte, Headers, Text, Time};
    [Text, Text, Headers, Byte, Byte, Text, Text, Text, Text, Time, Text, Text, Text, Text]
};
/// Where the headers stand among them.
const HEADERS: usize = 2;

/// How a property is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Headers,
    Byte,
    Time,
}

/// Why properties can't be handed on as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    TooLarge,
    TooDeep,
    NotUtf8,
    Malformed,
}

impl Fault {
    /// The sentence for producers and operators.
    fn sentence(self, room: Room) -> String {
        match self {
            Self::TooLarge => format!("The properties and headers have more than {} bytes. Send smaller headers.", room.own),
            Self::TooDeep => format!("Tables and arrays of the headers stand in one another more than {DEEPEST} deep. Send flat headers."),
            Self::NotUtf8 => "A property or the name of a header is not UTF-8. Send UTF-8.".to_owned(),
            Self::Malformed => "The properties or headers are not written as AMQP has it.".to_owned(),
        }
    }
}

/// How large properties may be.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// The frame, which can't be split.
    frame: usize,
    /// What is the producer's own: copies have to fit into a frame with what the broker and the worker add.
    own: usize,
    /// What the worker has added to a copy that comes back.
    notes: usize,
}

impl Room {
    /// The room within frames of at most so many bytes.
    pub fn within(frame_max: usize) -> Self {
        Self { frame: frame_max, own: frame_max / 2, notes: frame_max / 8 }
    }
}

/// The payload of a content header without what can't be handed on; nothing where all of it can.
pub fn mend(payload: &[u8], room: Room) -> Option<Vec<u8>> {
    let (before, properties) = payload.split_at_checked(BEFORE)?;
    let mut read = Properties::read(properties);
    let largest = if read.has_notes { room.own + room.notes } else { room.own };
    if read.own > largest || payload.len() + FRAME > room.frame {
        read.fault.get_or_insert(Fault::TooLarge);
    }
    let fault = read.fault?;
    Some([before, &read.without_headers(&fault.sentence(room))].concat())
}

/// The properties that could be read.
struct Properties<'a> {
    /// As they are written, by their places.
    fields: Vec<(usize, &'a [u8])>,
    /// How many bytes are not the broker's own.
    own: usize,
    /// The worker's notes are among the headers.
    has_notes: bool,
    fault: Option<Fault>,
}

impl<'a> Properties<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let mut read = Self { fields: Vec::new(), own: bytes.len(), has_notes: false, fault: None };
        if read.read_fields(&mut Bytes(bytes)).is_none() {
            read.fault.get_or_insert(Fault::Malformed);
        }
        read
    }

    /// `None` where the bytes end too soon.
    fn read_fields(&mut self, bytes: &mut Bytes<'a>) -> Option<()> {
        let flags = bytes.u16()?;
        for (place, kind) in KINDS.into_iter().enumerate().filter(|(place, _)| flags & (1 << (15 - place)) != 0) {
            let begun = bytes.0;
            let value = match kind {
                Kind::Text => bytes.short()?,
                Kind::Headers => bytes.long()?,
                Kind::Byte => bytes.take(1)?,
                Kind::Time => bytes.take(8)?,
            };
            let fault = match kind {
                Kind::Text => std::str::from_utf8(value).is_err().then_some(Fault::NotUtf8),
                Kind::Headers => self.look_at_headers(value).err(),
                Kind::Byte | Kind::Time => None,
            };
            match fault {
                None => self.fields.push((place, &begun[..begun.len() - bytes.0.len()])),
                fault => self.fault = self.fault.or(fault),
            }
        }
        Some(())
    }

    fn look_at_headers(&mut self, table: &'a [u8]) -> Result<(), Fault> {
        let mut entries = Bytes(table);
        while !entries.0.is_empty() {
            let before = entries.0.len();
            let name = entries.name()?;
            entries.value(1)?;
            if is_brokers_own(name) {
                self.own -= before - entries.0.len();
            }
            self.has_notes |= name.starts_with("kf-");
        }
        Ok(())
    }

    /// What could be read, with one header alone.
    fn without_headers(&self, why: &str) -> Vec<u8> {
        // Both are short: the name is a word, the sentence is one.
        let mut table = vec![u8::try_from(UNREADABLE.len()).unwrap_or_default()];
        table.extend_from_slice(UNREADABLE.as_bytes());
        table.push(b'S');
        table.extend(with_length(why.as_bytes()));
        let headers = with_length(&table);
        let others = self.fields.iter().filter(|(place, _)| *place != HEADERS);
        let mut fields: Vec<(usize, &[u8])> = others.copied().chain([(HEADERS, headers.as_slice())]).collect();
        fields.sort_by_key(|(place, _)| *place);
        let flags = fields.iter().fold(0_u16, |flags, (place, _)| flags | 1 << (15 - place));
        flags.to_be_bytes().into_iter().chain(fields.iter().flat_map(|(_, bytes)| bytes.iter().copied())).collect()
    }
}

/// Whether a header tells of a message's way through the queues.
pub fn is_brokers_own(name: &str) -> bool {
    ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count"].iter().any(|prefix| name.starts_with(prefix))
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    length.to_be_bytes().iter().chain(bytes).copied().collect()
}

/// Bytes that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// What one byte says the length of.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(*self.take(1)?.first()?);
        self.take(length)
    }

    /// What four bytes say the length of.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(length as usize)
    }

    /// The name of an entry of a table.
    fn name(&mut self) -> Result<&'a str, Fault> {
        std::str::from_utf8(self.short().ok_or(Fault::Malformed)?).map_err(|_| Fault::NotUtf8)
    }

    /// Passes over a value, as RabbitMQ writes them, that stands so deep.
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::TooDeep);
        }
        let kind = self.take(1).ok_or(Fault::Malformed)?;
        let passed = match kind {
            b"V" => return Ok(()),
            b"t" | b"b" | b"B" => self.take(1),
            b"s" | b"u" | b"U" => self.take(2),
            b"I" | b"i" | b"f" => self.take(4),
            b"D" => self.take(5),
            b"l" | b"L" | b"d" | b"T" => self.take(8),
            b"S" | b"x" => self.long(),
            b"A" | b"F" => {
                let mut inner = Bytes(self.long().ok_or(Fault::Malformed)?);
                while !inner.0.is_empty() {
                    if kind == b"F" {
                        inner.name()?;
                    }
                    inner.value(depth + 1)?;
                }
                return Ok(());
            }
            _ => None,
        };
        passed.map(drop).ok_or(Fault::Malformed)
    }
}

//! Messages of the DNS (RFC 1035, 4.1): a query written, an answer read.
//!
//! Whatever comes from the wire is checked: every length, and that a name is one (RFC 1035, 3.1) and
//! ends, wherever its pointers lead.

use super::record::{Record, RecordData, RecordKind};

/// Bytes before the question.
const HEADER: usize = 12;
/// The class of the Internet (RFC 1035, 3.2.4).
const IN: u16 = 1;
/// Bytes that a name may have, its lengths and the root's included (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;

/// As much of an answer as is looked at here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The response code (RFC 1035, 4.1.1): 0 for no error.
    pub(crate) code: u8,
    /// Whether it was too long for its way. Then its records are not to be used (RFC 2181, 9), and
    /// there are none here.
    pub(crate) truncated: bool,
    /// The answer section, in its order.
    pub(crate) records: Vec<Record>,
}

/// A query for an absolute name, recursion desired; nothing when that is no name.
pub(crate) fn query(id: u16, name: &str, kind: RecordKind) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        match u8::try_from(label.len()) {
            Ok(length @ 1..=63) => bytes.push(length),
            _ => return None,
        }
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    if bytes.len() > HEADER + MAX_NAME {
        return None;
    }
    bytes.extend(kind.code().to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    Some(bytes)
}

/// Whether a message has the query's number, and its question if it has any (RFC 5452, 9.1): an
/// answer to an earlier query may come late.
pub(crate) fn is_for(query: &[u8], message: &[u8]) -> bool {
    let has_question = message.get(4..6).is_some_and(|count| count != [0, 0]);
    let question = message.get(HEADER..query.len());
    query.get(..2) == message.get(..2)
        && question
            .is_none_or(|question| !has_question || question.eq_ignore_ascii_case(&query[HEADER..]))
}

/// Reads an answer; nothing when it is none, or a broken one.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut reader = Reader { bytes, at: 2 };
    let (flags, code) = (reader.u8()?, reader.u8()? & 0x0f);
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    if flags & 0x80 == 0 {
        return None;
    }
    let truncated = flags & 0x02 != 0;
    let mut records = Vec::new();
    if !truncated {
        reader.at = HEADER;
        for _ in 0..questions {
            reader.name()?;
            reader.take(4)?;
        }
        for _ in 0..answers {
            records.push(reader.record()?);
        }
    }
    Some(Answer {
        code,
        truncated,
        records,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..)?.get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut length = 1;
        let mut labels = Reader { ..*self };
        let mut end = None;
        // Pointers lead to what came before (RFC 1035, 4.1.4): each further back than the one that
        // led here, so none leads in a circle.
        let mut before = self.at;
        loop {
            let first = labels.u8()?;
            match first >> 6 {
                0 if first == 0 => break,
                0 => {
                    let label = labels.take(first.into())?;
                    length += 1 + label.len();
                    if length > MAX_NAME {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&escaped(label, b". \\"));
                }
                3 => {
                    let to = usize::from(u16::from_be_bytes([first & 0x3f, labels.u8()?]));
                    end.get_or_insert(labels.at);
                    if to >= before {
                        return None;
                    }
                    (before, labels.at) = (to, to);
                }
                _ => return None,
            }
        }
        self.at = end.unwrap_or(labels.at);
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    fn record(&mut self) -> Option<Record> {
        let name = self.name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        if class != IN {
            return None;
        }
        let ttl = self.array().map(u32::from_be_bytes)?;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let data = self.data(kind, length)?;
        // The data's own lengths must agree with the record's.
        (self.at == end).then_some(Record { name, ttl, data })
    }

    fn data(&mut self, code: u16, length: usize) -> Option<RecordData> {
        Some(match RecordKind::of(code) {
            Some(RecordKind::A) => RecordData::A(self.array::<4>()?.into()),
            Some(RecordKind::Aaaa) => RecordData::Aaaa(self.array::<16>()?.into()),
            Some(RecordKind::Cname) => RecordData::Cname(self.name()?),
            Some(RecordKind::Ptr) => RecordData::Ptr(self.name()?),
            Some(RecordKind::Srv) => RecordData::Srv {
                priority: self.u16()?,
                weight: self.u16()?,
                port: self.u16()?,
                target: self.name()?,
            },
            Some(RecordKind::Txt) => {
                let (end, mut strings) = (self.at + length, Vec::new());
                while self.at < end {
                    let length = self.u8()?;
                    strings.push(escaped(self.take(length.into())?, b"\"\\"));
                }
                RecordData::Txt(strings)
            }
            None => RecordData::Other {
                code,
                hex: hex(self.take(length)?),
            },
        })
    }
}

/// Text as in a zone's file (RFC 1035, 5.1), where some characters have a meaning of their own.
fn escaped(bytes: &[u8], special: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            byte if special.contains(byte) => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            byte => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer without an error and without a question.
    fn answer(records: &[&[u8]]) -> Vec<u8> {
        let count = u8::try_from(records.len()).unwrap();
        let header = [0, 7, 0x81, 0x80, 0, 0, 0, count, 0, 0, 0, 0];
        [&header, records.concat().as_slice()].concat()
    }

    fn lines(bytes: &[u8]) -> Option<Vec<String>> {
        let records = parse(bytes)?.records;
        Some(records.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_query_asks_for_an_absolute_name() {
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x05node2\x04test\0\0\x21\0\x01";
        for name in ["node2.test", "node2.test."] {
            assert_eq!(query(0x1234, name, RecordKind::Srv).unwrap(), expected);
        }
        // 253 characters are the most: with the first length and the root they make 255 bytes.
        let longest = format!("{}{}", "a.".repeat(126), "a");
        assert!(query(1, &longest, RecordKind::A).is_some());
        let long = [format!("a.{longest}"), "a".repeat(64)];
        for name in ["", ".", "a..b", ".a", "a..", &long[0], &long[1]] {
            assert_eq!(query(1, name, RecordKind::A), None, "{name:?}");
        }
    }

    #[test]
    fn only_an_answer_to_the_same_question_is_taken() {
        let asked = query(7, "Web.test", RecordKind::A).unwrap();
        assert!(is_for(
            &asked,
            &query(7, "wEB.test", RecordKind::A).unwrap()
        ));
        assert!(!is_for(
            &asked,
            &query(8, "web.test", RecordKind::A).unwrap()
        ));
        assert!(!is_for(
            &asked,
            &query(7, "web.tent", RecordKind::A).unwrap()
        ));
        assert!(!is_for(
            &asked,
            &query(7, "web.test", RecordKind::Srv).unwrap()
        ));
        let refused_without_question = b"\0\x07\x81\x85\0\0\0\0\0\0\0\0";
        assert!(is_for(&asked, refused_without_question));
    }

    #[test]
    fn every_record_of_the_answer_is_read_in_its_order() {
        let mut bytes = answer(&[
            b"\x03www\x04test\0\0\x05\0\x01\0\0\0\x1e\0\x06\x03web\xc0\x10",
            b"\xc0\x20\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x01\x01\x02",
            b"\xc0\x20\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x01\x01\x02",
            b"\xc0\x20\0\x1c\0\x01\0\0\0\x1e\0\x10\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01",
            b"\xc0\x20\0\x21\0\x01\0\0\0\x05\0\x08\0\x01\0\x64\x1f\x90\xc0\x20",
            b"\x012\x011\0\0\x0c\0\x01\0\0\0\x05\0\x02\xc0\x20",
            b"\xc0\x20\0\x10\0\x01\0\0\0\x05\0\x0a\x051.1.0\0\x02\"\xff",
            b"\0\0\x40\0\x01\xff\xff\xff\xff\0\x03\0\x0a\xff",
        ]);
        // What follows, the authority section and the additional one, is not looked at.
        bytes.extend(b"\xff\xff");
        insta::assert_snapshot!(lines(&bytes).unwrap().join("\n"), @r#"
        www.test 30 CNAME web.test
        web.test 30 A 10.1.1.2
        web.test 30 A 10.1.1.2
        web.test 30 AAAA fd00::1
        web.test 5 SRV 1 100 8080 web.test
        2.1 5 PTR web.test
        web.test 5 TXT "1.1.0" "" "\"\255"
        . 4294967295 TYPE64 000aff
        "#);
    }

    #[test]
    fn names_are_escaped_where_they_are_no_host_names() {
        let bytes = answer(&[b"\x05a. \\\xe4\x01b\0\0\x05\0\x01\0\0\0\0\0\x01\0"]);
        assert_eq!(
            lines(&bytes).unwrap(),
            [r"a\.\ \\\228.b 0 CNAME ."],
            "a name with every kind of byte, an alias of the root"
        );
    }

    #[test]
    fn a_truncated_answer_has_no_records_and_is_not_broken() {
        let mut bytes = answer(&[b"\x03cut"]);
        assert_eq!(parse(&bytes), None);
        bytes[2] |= 0x02;
        let expected = Answer {
            code: 0,
            truncated: true,
            records: Vec::new(),
        };
        assert_eq!(parse(&bytes), Some(expected));
    }

    #[test]
    fn what_is_no_answer_or_broken_is_refused() {
        let sound = answer(&[b"\x01a\0\0\x05\0\x01\0\0\0\0\0\x04\x01b\xc0\x0c"]);
        assert_eq!(lines(&sound).unwrap(), ["a 0 CNAME b.a"]);
        for cut in 0..sound.len() {
            assert_eq!(parse(&sound[..cut]), None, "cut at {cut}");
        }
        assert_eq!(parse(&query(7, "a.test", RecordKind::A).unwrap()), None);
        let record = |name: &[u8], rest: &[u8]| parse(&answer(&[&[name, rest].concat()]));
        let address = b"\0\x01\0\x01\0\0\0\0\0\x04\x0a\x01\x01\x02";
        assert!(record(b"\x01a\0", address).is_some());
        let far = [b"\x3f".as_slice(), &[b'a'; 63]].concat();
        let rest = [b"\x3d".as_slice(), &[b'a'; 61], b"\0"].concat();
        let longest = [far.repeat(3), rest].concat();
        assert!(record(&longest, address).is_some());
        for (what, name) in [
            ("a pointer to itself", b"\xc0\x0c".as_slice()),
            ("a pointer forwards", b"\xc0\x0e"),
            ("a pointer beyond the message", b"\xff\xff"),
            ("a circle by way of a label", b"\x01a\xc0\x0c"),
            ("a label of an unknown kind", b"\x41a\0"),
            ("more than 255 bytes", &[far.repeat(4), vec![0]].concat()),
        ] {
            assert_eq!(record(name, address), None, "{what}");
        }
        for (what, rest) in [
            (
                "another class",
                b"\0\x01\0\x03\0\0\0\0\0\x04\x0a\x01\x01\x02".as_slice(),
            ),
            (
                "an address too short",
                b"\0\x01\0\x01\0\0\0\0\0\x03\x0a\x01\x01",
            ),
            (
                "an address too long",
                b"\0\x01\0\x01\0\0\0\0\0\x05\x0a\x01\x01\x02\x03",
            ),
            (
                "a name shorter than its data",
                b"\0\x05\0\x01\0\0\0\0\0\x04\x01b\0\0",
            ),
            (
                "a name beyond its data",
                b"\0\x05\0\x01\0\0\0\0\0\x02\x01b\0\0",
            ),
            (
                "a text beyond its data",
                b"\0\x10\0\x01\0\0\0\0\0\x02\x02bb",
            ),
        ] {
            assert_eq!(record(b"\x01a\0", rest), None, "{what}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let _ = is_for(&bytes, &bytes);
        }

        /// Mostly small numbers and pointers, after a header that lets the parser go on.
        #[test]
        fn no_names_do_harm(
            bytes in proptest::collection::vec(
                prop_oneof![0_u8..4, 12_u8..60, Just(0xc0_u8), any::<u8>()],
                0..600,
            ),
        ) {
            let _ = parse(&[&[0, 7, 0x81, 0x80, 0, 1, 0, 9, 0, 0, 0, 0], bytes.as_slice()].concat());
        }

        #[test]
        fn no_damage_to_an_answer_does_harm(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = answer(&[
                b"\x03www\x04test\0\0\x05\0\x01\0\0\0\x1e\0\x06\x03web\xc0\x10",
                b"\xc0\x20\0\x21\0\x01\0\0\0\x05\0\x08\0\x01\0\x64\x1f\x90\xc0\x20",
                b"\xc0\x20\0\x10\0\x01\0\0\0\x05\0\x06\x051.1.0",
            ]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes);
        }
    }
}

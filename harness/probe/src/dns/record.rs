//! What the DNS answers with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// A type of records that can be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    /// An IPv4 address (RFC 1035, 3.4.1).
    #[default]
    A,
    /// An IPv6 address (RFC 3596, 2.1).
    Aaaa,
    /// What an alias stands for (RFC 1035, 3.3.1).
    Cname,
    /// The name of an address in `in-addr.arpa` (RFC 1035, 3.3.12).
    Ptr,
    /// Hosts and ports of a service (RFC 2782).
    Srv,
    /// Text (RFC 1035, 3.3.14).
    Txt,
}

impl RecordKind {
    /// The number of the type (RFC 1035, 3.2.2; RFC 3596, 2.1; RFC 2782).
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Cname => 5,
            Self::Ptr => 12,
            Self::Txt => 16,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }

    /// The type with this number, if it is one of these.
    pub(crate) fn of(code: u16) -> Option<Self> {
        let all = [
            Self::A,
            Self::Aaaa,
            Self::Cname,
            Self::Ptr,
            Self::Srv,
            Self::Txt,
        ];
        all.into_iter().find(|kind| kind.code() == code)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Ptr => "PTR",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        })
    }
}

/// One record of an answer (RFC 1035, 4.1.3), of class IN. Names, here and in the data, are absolute
/// and without the final dot (the root is `.`), in the case in which they came; bytes that no host
/// name has are escaped as RFC 1035, 5.1 says.
///
/// In JSON a record is one object: `{"name":"a.test","ttl":30,"kind":"A","data":"10.1.1.2"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Whose record it is.
    pub name: String,
    /// For how long it may be kept, in seconds.
    pub ttl: u32,
    /// Its type, and what it says.
    #[serde(flatten)]
    pub data: RecordData,
}

/// The data of a record, by its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data", rename_all = "UPPERCASE")]
pub enum RecordData {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// The name that this one is an alias of.
    Cname(String),
    /// The name of this address.
    Ptr(String),
    /// Where a service is (RFC 2782).
    Srv {
        /// Those with the lowest number are tried first.
        priority: u16,
        /// Its share among those of the same priority.
        weight: u16,
        /// The port there.
        port: u16,
        /// The name of the host.
        target: String,
    },
    /// The strings of a text, escaped as names are.
    Txt(Vec<String>),
    /// A type that cannot be asked for.
    Other {
        /// Its number.
        code: u16,
        /// The data, two hexadecimal digits a byte.
        hex: String,
    },
}

impl RecordData {
    /// Its type; nothing for one that cannot be asked for.
    pub fn kind(&self) -> Option<RecordKind> {
        Some(match self {
            Self::A(_) => RecordKind::A,
            Self::Aaaa(_) => RecordKind::Aaaa,
            Self::Cname(_) => RecordKind::Cname,
            Self::Ptr(_) => RecordKind::Ptr,
            Self::Srv { .. } => RecordKind::Srv,
            Self::Txt(_) => RecordKind::Txt,
            Self::Other { .. } => return None,
        })
    }
}

/// The type and the data, nearly as in a zone's file: `SRV 0 100 80 a.test`.
impl fmt::Display for RecordData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "A {address}"),
            Self::Aaaa(address) => write!(f, "AAAA {address}"),
            Self::Cname(name) => write!(f, "CNAME {name}"),
            Self::Ptr(name) => write!(f, "PTR {name}"),
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => write!(f, "SRV {priority} {weight} {port} {target}"),
            Self::Txt(strings) => {
                f.write_str("TXT")?;
                strings.iter().try_for_each(|text| write!(f, " \"{text}\""))
            }
            Self::Other { code, hex } => write!(f, "TYPE{code} {hex}"),
        }
    }
}

/// Nearly as in a zone's file: `a.test 30 A 10.1.1.2`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.ttl, self.data)
    }
}

/// The addresses of all A and AAAA records, in their order.
pub(crate) fn addresses(records: &[Record]) -> impl Iterator<Item = IpAddr> {
    records.iter().filter_map(|record| match record.data {
        RecordData::A(address) => Some(address.into()),
        RecordData::Aaaa(address) => Some(address.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_object_in_json() {
        let record = |data| Record {
            name: "a.test".into(),
            ttl: 30,
            data,
        };
        let records = [
            record(RecordData::A([10, 1, 1, 2].into())),
            record(RecordData::Aaaa("fd00::1".parse().unwrap())),
            record(RecordData::Srv {
                priority: 0,
                weight: 100,
                port: 80,
                target: "b.test".into(),
            }),
            record(RecordData::Txt(vec!["1.1.0".into(), String::new()])),
            record(RecordData::Other {
                code: 64,
                hex: "0a0b".into(),
            }),
        ];
        let lines: Vec<String> = records
            .iter()
            .map(|record| format!("{}\n{record}", serde_json::to_string(record).unwrap()))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"name":"a.test","ttl":30,"kind":"A","data":"10.1.1.2"}
        a.test 30 A 10.1.1.2
        {"name":"a.test","ttl":30,"kind":"AAAA","data":"fd00::1"}
        a.test 30 AAAA fd00::1
        {"name":"a.test","ttl":30,"kind":"SRV","data":{"priority":0,"weight":100,"port":80,"target":"b.test"}}
        a.test 30 SRV 0 100 80 b.test
        {"name":"a.test","ttl":30,"kind":"TXT","data":["1.1.0",""]}
        a.test 30 TXT "1.1.0" ""
        {"name":"a.test","ttl":30,"kind":"OTHER","data":{"code":64,"hex":"0a0b"}}
        a.test 30 TYPE64 0a0b
        "#);
        for record in records {
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record);
        }
    }
}

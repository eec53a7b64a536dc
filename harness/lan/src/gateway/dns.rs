//! DNS (RFC 1035) over UDP for the plan's names, and NXDOMAIN for all others.

use smoltcp::wire::{DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode};

use crate::SegmentPlan;

pub(super) const PORT: u16 = 53;

/// Octets of the header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// Seconds an answer may be kept: short, names are cheap here and a stage's clock stands still.
const TTL: u32 = 5;

/// The answer to a query; none for what is not a query.
pub(super) fn answer(plan: &SegmentPlan, payload: &[u8]) -> Option<Vec<u8>> {
    let query = DnsPacket::new_checked(payload).ok()?;
    let flags = query.flags();
    if flags.contains(DnsFlags::RESPONSE) {
        return None;
    }
    let (rcode, question, address) = judge(plan, &query);
    let mut reply = vec![0; HEADER];
    if let Some(question) = &question {
        let start = reply.len();
        reply.resize(start + question.buffer_len(), 0);
        question.emit(&mut reply[start..]);
    }
    if let Some(address) = address {
        // The name is the question's, at offset 12 (RFC 1035 section 4.1.4).
        reply.extend([0xc0, 12]);
        reply.extend(u16::from(DnsQueryType::A).to_be_bytes());
        reply.extend(1u16.to_be_bytes());
        reply.extend(TTL.to_be_bytes());
        reply.extend(4u16.to_be_bytes());
        reply.extend(address.octets());
    }
    let mut header = DnsPacket::new_unchecked(&mut reply[..]);
    header.set_transaction_id(query.transaction_id());
    header.set_flags(
        DnsFlags::RESPONSE
            | DnsFlags::AUTHORITATIVE
            | DnsFlags::RECURSION_AVAILABLE
            | (flags & DnsFlags::RECURSION_DESIRED),
    );
    header.set_opcode(query.opcode());
    header.set_question_count(question.is_some().into());
    header.set_answer_record_count(address.is_some().into());
    header.set_authority_record_count(0);
    header.set_additional_record_count(0);
    // smoltcp has no setter for the code, the low four bits of the flags.
    reply[3] |= u8::from(rcode);
    Some(reply)
}

fn judge<'a>(
    plan: &SegmentPlan,
    query: &'a DnsPacket<&'a [u8]>,
) -> (
    DnsRcode,
    Option<DnsQuestion<'a>>,
    Option<std::net::Ipv4Addr>,
) {
    if query.opcode() != DnsOpcode::Query {
        return (DnsRcode::NotImp, None, None);
    }
    let question = match DnsQuestion::parse(query.payload()) {
        Ok((_, question)) if query.question_count() == 1 => question,
        _ => return (DnsRcode::FormErr, None, None),
    };
    let Some(name) = name(query, question.name) else {
        return (DnsRcode::FormErr, None, None);
    };
    let address = plan.resolve(&name);
    match (address, question.type_) {
        (None, _) => (DnsRcode::NXDomain, Some(question), None),
        (Some(address), DnsQueryType::A) => (DnsRcode::NoError, Some(question), Some(address)),
        (Some(_), _) => (DnsRcode::NoError, Some(question), None),
    }
}

/// A name as people write it, without the last dot.
fn name(query: &DnsPacket<&[u8]>, bytes: &[u8]) -> Option<String> {
    let mut labels = Vec::new();
    for label in query.parse_name(bytes) {
        labels.push(String::from_utf8(label.ok()?.to_vec()).ok()?);
    }
    Some(labels.join("."))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::example;

    const A: u16 = 1;
    const PTR: u16 = 12;
    const AAAA: u16 = 28;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend(kind.to_be_bytes());
        query.extend([0, 1]);
        // An EDNS option record, as resolvers send it (RFC 6891).
        query.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        query
    }

    fn ask(name: &str, kind: u16) -> String {
        let reply = answer(&example(), &query(name, kind)).unwrap();
        let packet = DnsPacket::new_checked(&reply[..]).unwrap();
        assert_eq!(packet.transaction_id(), 0xabcd);
        assert_eq!(packet.question_count(), 1);
        assert_eq!(packet.additional_record_count(), 0);
        let flags = packet.flags();
        assert!(flags.contains(DnsFlags::RESPONSE | DnsFlags::RECURSION_DESIRED));
        let (rest, question) = DnsQuestion::parse(packet.payload()).unwrap();
        assert_eq!(u16::from(question.type_), kind);
        let records: Vec<_> = (0..packet.answer_record_count())
            .map(|_| smoltcp::wire::DnsRecord::parse(rest).unwrap().1.data)
            .collect();
        format!("{:?} {records:?}", packet.rcode())
    }

    #[test]
    fn machines_and_the_outside_host_have_addresses() {
        insta::assert_snapshot!(ask("node1", A), @"NoError [A(172.30.0.11)]");
        insta::assert_snapshot!(ask("Node3", A), @"NoError [A(172.30.0.13)]");
        insta::assert_snapshot!(ask("outside.test", A), @"NoError [A(192.0.2.10)]");
    }

    #[test]
    fn other_records_of_known_names_are_empty_and_not_missing() {
        insta::assert_snapshot!(ask("node1", AAAA), @"NoError []");
        insta::assert_snapshot!(ask("outside.test", AAAA), @"NoError []");
    }

    #[test]
    fn all_other_names_do_not_exist() {
        for (name, kind) in [
            ("node4", A),
            ("node1.cluster.local", A),
            ("node1.cluster.local", AAAA),
            ("test", A),
            ("", A),
            ("11.0.30.172.in-addr.arpa", PTR),
        ] {
            assert_eq!(ask(name, kind), "NXDomain []", "{name}");
        }
    }

    #[test]
    fn what_is_no_query_for_one_name_is_said_so() {
        let rcode = |change: fn(&mut Vec<u8>)| {
            let mut query = query("node1", A);
            change(&mut query);
            answer(&example(), &query)
                .map(|reply| DnsPacket::new_checked(&reply[..]).unwrap().rcode())
        };
        assert_eq!(rcode(|query| query[2] |= 0x80), None, "a response");
        assert_eq!(rcode(|query| query[2] |= 2 << 3), Some(DnsRcode::NotImp));
        assert_eq!(rcode(|query| query[5] = 2), Some(DnsRcode::FormErr));
        assert_eq!(rcode(|query| query.truncate(15)), Some(DnsRcode::FormErr));
        assert_eq!(rcode(|query| query.truncate(11)), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, flip in 0usize..40, value: u8) {
            let _ = answer(&example(), &bytes);
            let mut near = query("node1", A);
            if let Some(byte) = near.get_mut(flip) {
                *byte = value;
            }
            let _ = answer(&example(), &near);
        }
    }
}

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

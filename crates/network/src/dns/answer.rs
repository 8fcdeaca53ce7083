//! One query in, one decision out: an answer of our own, somebody else's business, or nothing at all.

use std::net::{IpAddr, Ipv4Addr};

use rand::seq::SliceRandom;
use simple_dns::rdata::{A, PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, ResourceRecord, TYPE};

use super::Zone;

/// Addresses change with restarts: answers are not to be kept long.
const TTL_SECONDS: u32 = 30;

/// What to do about a query.
pub(super) enum Answer {
    /// Send this.
    Here(Vec<u8>),
    /// Ask these.
    Forward(Vec<IpAddr>),
    /// Not a query.
    Drop,
}

pub(super) fn answer(query: &[u8], zone: &dyn Zone) -> Answer {
    let Ok(packet) = Packet::parse(query) else { return Answer::Drop };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Answer::Drop;
    }
    let [question] = packet.questions.as_slice() else { return reply_or_drop(&packet, RCODE::FormatError, Vec::new()) };
    if packet.opcode() != OPCODE::StandardQuery {
        return reply_or_drop(&packet, RCODE::NotImplemented, Vec::new());
    }
    let internet = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    let name = question.qname.to_string().trim_end_matches('.').to_ascii_lowercase();
    let record = |data| ResourceRecord::new(question.qname.clone(), CLASS::IN, TTL_SECONDS, data);
    if internet && question.qtype == QTYPE::TYPE(TYPE::PTR) {
        let found = reversed(&name).and_then(|address| zone.name_of(address));
        if let Some(target) = found {
            let target = Name::new_unchecked(&target).into_owned();
            return reply_or_drop(&packet, RCODE::NoError, vec![record(RData::PTR(PTR(target)))]);
        }
    } else if internet && let Some(mut addresses) = zone.addresses(&name) {
        addresses.shuffle(&mut rand::rng());
        // A name of ours has addresses only: anything else asked about it exists and is empty (NODATA).
        let wanted = matches!(question.qtype, QTYPE::TYPE(TYPE::A) | QTYPE::ANY);
        let records = addresses.into_iter().filter(|_| wanted).map(|ip| record(RData::A(A::from(ip)))).collect();
        return reply_or_drop(&packet, RCODE::NoError, records);
    }
    match zone.forwarders() {
        servers if servers.is_empty() => reply_or_drop(&packet, RCODE::ServerFailure, Vec::new()),
        servers => Answer::Forward(servers),
    }
}

/// SERVFAIL to this query.
pub(super) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(query).ok()?;
    reply(&packet, RCODE::ServerFailure, Vec::new())
}

fn reply_or_drop<'a>(query: &Packet<'a>, code: RCODE, answers: Vec<ResourceRecord<'a>>) -> Answer {
    reply(query, code, answers).map_or(Answer::Drop, Answer::Here)
}

fn reply<'a>(query: &Packet<'a>, code: RCODE, answers: Vec<ResourceRecord<'a>>) -> Option<Vec<u8>> {
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    *reply.rcode_mut() = code;
    reply.questions = query.questions.clone();
    reply.answers = answers;
    reply.build_bytes_vec_compressed().ok()
}

/// `2.0.17.172.in-addr.arpa` → 172.17.0.2.
fn reversed(name: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut labels = name.strip_suffix(".in-addr.arpa")?.split('.');
    for octet in octets.iter_mut().rev() {
        *octet = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use simple_dns::Question;

    use super::*;

    struct Fake;

    impl Zone for Fake {
        fn addresses(&self, name: &str) -> Option<Vec<Ipv4Addr>> {
            (name == "my_db").then(|| vec![Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)])
        }
        fn name_of(&self, address: Ipv4Addr) -> Option<String> {
            (address == Ipv4Addr::new(10, 0, 0, 2)).then(|| "my_db.net".to_owned())
        }
        fn forwarders(&self) -> Vec<IpAddr> {
            Vec::new()
        }
    }

    fn ask(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name).into_owned();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    }

    fn here(query: &[u8]) -> Vec<u8> {
        match answer(query, &Fake) {
            Answer::Here(reply) => reply,
            _ => panic!("not answered here"),
        }
    }

    #[test]
    fn names_are_found_whatever_their_case() {
        let bytes = here(&ask("My_DB", TYPE::A));
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.id(), reply.rcode(), reply.answers.len()), (7, RCODE::NoError, 2));
        assert!(
            reply.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED)
        );
        let bytes = here(&ask("2.0.0.10.in-addr.arpa", TYPE::PTR));
        let reply = Packet::parse(&bytes).unwrap();
        assert!(matches!(&reply.answers[0].rdata, RData::PTR(name) if name.0.to_string() == "my_db.net"));
    }

    #[test]
    fn other_types_are_empty_and_other_names_fail_without_forwarders() {
        let bytes = here(&ask("my_db", TYPE::AAAA));
        let reply = Packet::parse(&bytes).unwrap();
        assert_eq!((reply.rcode(), reply.answers.len()), (RCODE::NoError, 0));
        let bytes = here(&ask("example.org", TYPE::A));
        assert_eq!(Packet::parse(&bytes).unwrap().rcode(), RCODE::ServerFailure);
    }

    #[test]
    fn garbage_is_dropped() {
        for length in 0..40 {
            assert!(!matches!(answer(&vec![0xff; length], &Fake), Answer::Forward(_)));
        }
        let query = ask("my_db", TYPE::A);
        for length in 0..query.len() {
            let _ = answer(&query[..length], &Fake);
        }
        let mut response = query.clone();
        response[2] |= 0x80;
        assert!(matches!(answer(&response, &Fake), Answer::Drop));
    }
}

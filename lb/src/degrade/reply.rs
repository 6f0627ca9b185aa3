//! A fixed reply: protobuf's JSON to the bytes of a message, and those to a frame of gRPC. Pure.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, prost::Message as _};

/// gRPC over HTTP/2, "Length-Prefixed-Message": a flag for compression and the length in four bytes.
const PREFIX: usize = 5;

/// Why a reply cannot be made.
#[derive(Debug)]
pub(super) struct NoReply {
    pub(super) reason: String,
    /// Line and column within the reply's own text, from 1, if that is where the reason is.
    pub(super) within: Option<(usize, usize)>,
}

/// The reply of a method, as it travels. An empty one needs no descriptors: every type's empty message has no bytes.
pub(super) fn encode(
    written: &str,
    method: Option<(&str, &str)>,
    descriptors: Option<&DescriptorPool>,
) -> Result<Bytes, NoReply> {
    if is_empty(written) {
        return Ok(framed(&[]));
    }
    let elsewhere = |reason: &str| NoReply {
        reason: reason.to_owned(),
        within: None,
    };
    let Some((service, method)) = method else {
        return Err(elsewhere(
            "can only be {} where the name has no method, since methods differ in their types",
        ));
    };
    let Some(descriptors) = descriptors else {
        return Err(elsewhere(
            "needs descriptors to become a message, and the channel was given none (Builder::descriptors)",
        ));
    };
    let Some(output) = output_of(descriptors, service, method) else {
        return Err(elsewhere(&format!(
            "is for {service}/{method}, which the descriptors do not have"
        )));
    };
    let mut json = serde_json::Deserializer::from_str(written);
    let message = DynamicMessage::deserialize(output, &mut json).map_err(|error| {
        let whole = error.to_string();
        NoReply {
            reason: format!("is refused: {}", whole.split(" at line ").next().unwrap_or(&whole)),
            within: (error.line() > 0).then(|| (error.line(), error.column())),
        }
    })?;
    Ok(framed(&message.encode_to_vec()))
}

/// A message as it travels, not compressed.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    // Longer ones no peer would take either.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// The message in a body that is exactly one, not compressed.
pub(crate) fn unframed(body: &Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    (prefix[0] == 0 && usize::try_from(length) == Ok(message.len())).then(|| body.slice(PREFIX..))
}

fn output_of(descriptors: &DescriptorPool, service: &str, method: &str) -> Option<MessageDescriptor> {
    let service = descriptors.get_service_by_name(service)?;
    let found = service.methods().find(|found| found.name() == method)?;
    Some(found.output())
}

fn is_empty(written: &str) -> bool {
    written
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inside| inside.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> DescriptorPool {
        DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("a descriptor set")
    }

    const LIST: Option<(&str, &str)> = Some(("tessera.ticket.v1.TicketService", "ListEvents"));

    #[test]
    fn a_reply_becomes_a_message_of_its_methods_type() {
        let pool = pool();
        let frame = encode(r#"{"events": [{"id": "e1"}], "nextPageToken": "p"}"#, LIST, Some(&pool)).expect("good");
        let message = unframed(&frame).expect("one message");
        let kind = pool
            .get_message_by_name("tessera.ticket.v1.ListEventsResponse")
            .expect("known");
        let reply = DynamicMessage::decode(kind, message).expect("of that type");
        let text = reply.to_string();
        assert!(
            text.contains(r#"id:"e1""#) && text.contains(r#"next_page_token:"p""#),
            "{text}"
        );
        assert_eq!(encode("{ \n}", None, None).expect("empty"), framed(&[]));
    }

    #[test]
    fn what_cannot_be_a_reply_says_why() {
        let pool = pool();
        let reason = |written: &str, method, pool| encode(written, method, pool).expect_err("no reply");
        assert!(reason(r#"{"a": 1}"#, None, Some(&pool)).reason.contains("only be {}"));
        assert!(
            reason(r#"{"a": 1}"#, LIST, None)
                .reason
                .contains("Builder::descriptors")
        );
        let unknown = Some(("tessera.ticket.v1.TicketService", "Nope"));
        assert!(
            reason(r#"{"a": 1}"#, unknown, Some(&pool))
                .reason
                .contains("do not have")
        );
        let wrong = reason("{\n\"evnts\": []}", LIST, Some(&pool));
        assert!(wrong.reason.contains("evnts"), "{wrong:?}");
        assert_eq!(wrong.within.map(|(line, _)| line), Some(2), "{wrong:?}");
    }

    #[test]
    fn only_a_body_of_one_plain_message_is_taken_apart() {
        let frame = framed(b"abc");
        assert_eq!(unframed(&frame).as_deref(), Some(&b"abc"[..]));
        for bad in [
            &frame[..4],
            &frame[..7],
            &b"\x01\0\0\0\x01a"[..],
            &b"\0\0\0\0\x01ab"[..],
        ] {
            assert_eq!(unframed(&Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
    }
}

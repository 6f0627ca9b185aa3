//! Passes of the waiting room: who was called by one instance is let in first by every other one. Made and checked here; whose turn it
//! is, `room` knows.
//!
//! `TSP1.PAYLOAD.SIGNATURE`, both parts in base64url without padding: the event (16 bytes), until when it is good (8), and the buyer's name,
//! signed with Ed25519 by the key that signs tickets. The prefix is part of what is signed, so no pass is ever taken for a ticket.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use identity::{KeyPair, KeySet, Signature};
use service_store::Timestamp;

use crate::domain::line::Visitor;

const PREFIX: &str = "TSP1.";

/// The longest pass: a buyer's name has at most 64 characters of 4 bytes.
pub(crate) const MAX_PASS: usize = 512;

/// The pass of a visitor.
pub(crate) fn sign(keys: &KeyPair, visitor: &Visitor, until: Timestamp) -> String {
    let mut payload = Vec::with_capacity(24 + visitor.buyer.len());
    payload.extend_from_slice(visitor.event.as_bytes());
    payload.extend_from_slice(&until.as_nanos().to_be_bytes());
    payload.extend_from_slice(visitor.buyer.as_bytes());
    let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = keys.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Until when the pass is good. `None` when it is not one of ours for this visitor.
pub(crate) fn verify(keys: &KeySet, visitor: &Visitor, pass: &str) -> Option<Timestamp> {
    let (signed, signature) = pass.rsplit_once('.').filter(|_| pass.len() <= MAX_PASS)?;
    let signature: Signature = URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
    let payload = URL_SAFE_NO_PAD.decode(signed.strip_prefix(PREFIX)?).ok()?;
    let (event, rest) = payload.split_first_chunk::<16>()?;
    let (until, buyer) = rest.split_first_chunk::<8>()?;
    let theirs = *event == *visitor.event.as_bytes() && buyer == visitor.buyer.as_bytes();
    let ours = keys.iter().any(|key| key.verify(signed.as_bytes(), &signature));
    (theirs && ours).then(|| Timestamp::from_nanos(i64::from_be_bytes(*until)))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn visitor(event: u128, buyer: &str) -> Visitor {
        Visitor {
            event: Uuid::from_u128(event),
            buyer: buyer.to_owned(),
        }
    }

    #[test]
    fn a_pass_is_good_for_its_event_and_buyer_and_nothing_else() {
        let pair = KeyPair::generate().expect("randomness");
        let keys = KeySet::new([pair.public_key().clone()]);
        let (ada, until) = (visitor(1, "ada"), Timestamp::from_nanos(7));
        let pass = sign(&pair, &ada, until);
        assert_eq!(verify(&keys, &ada, &pass), Some(until));
        for other in [visitor(2, "ada"), visitor(1, "bob"), visitor(1, "")] {
            assert_eq!(verify(&keys, &other, &pass), None);
        }
        let stranger = KeyPair::generate().expect("randomness");
        let ticket = crate::code::sign(&pair, Uuid::from_u128(1), Uuid::from_u128(1), "ada");
        for bad in [
            "",
            "TSP1.",
            &pass[..pass.len() - 1],
            &pass.replace("TSP1", "TSR1"),
            &sign(&stranger, &ada, until),
            &ticket,
            &ticket.replace("TSR1", "TSP1"),
        ] {
            assert_eq!(verify(&keys, &ada, bad), None, "{bad}");
        }
        let longest = visitor(1, &"\u{1f3ab}".repeat(64));
        assert!(sign(&pair, &longest, until).len() <= MAX_PASS);
    }
}

//! The code on a ticket: what a gate without a network reads and checks. Made and checked here; not where keys are kept.
//!
//! `TSR1.PAYLOAD.SIGNATURE`, both parts in base64url without padding (RFC 4648, 5): short enough for a QR code that a telephone
//! reads, some 190 characters. The payload is the ticket's id (16 bytes), the event's (16), the first 8 bytes of the key's hash, by
//! which it is named, and the seat's name. Signed is everything before the second full stop, with Ed25519 (RFC 8032).
//!
//! A good signature says that the ticket was sold, for this seat of this event. It cannot say that it was not refunded since: who has a
//! network asks CheckTicket.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
pub use identity::KeySet;
use identity::{KeyPair, Kid, Signature};
use uuid::Uuid;

/// What codes of this make begin with.
const PREFIX: &str = "TSR1.";

/// The longest code: a seat's name has at most 40 + 1 + 10 + 1 + 10 characters.
pub const MAX_CODE: usize = 300;

/// What a good code says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The ticket.
    pub ticket_id: Uuid,
    /// The event that it is for.
    pub event_id: Uuid,
    /// The seat, for example `A/3/12`.
    pub seat: String,
    /// Which key signed it.
    pub kid: Kid,
}

/// Why a code is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// It does not have the shape of a code.
    #[error("this is no ticket code: one begins with TSR1. and has three parts")]
    Shape,
    /// It names a key that is not among those given.
    #[error("the code is signed with key {0}, which is not among the keys given")]
    KeyUnknown(Kid),
    /// Its signature is not its key's: it was changed, or made up.
    #[error("the signature is not good: this code was changed or made up")]
    Forged,
}

/// The code of a ticket. The same ticket and key give the same code.
pub(crate) fn sign(keys: &KeyPair, ticket_id: Uuid, event_id: Uuid, seat: &str) -> String {
    let mut payload = Vec::with_capacity(40 + seat.len());
    payload.extend_from_slice(ticket_id.as_bytes());
    payload.extend_from_slice(event_id.as_bytes());
    payload.extend_from_slice(&kid_bytes(keys.kid()));
    payload.extend_from_slice(seat.as_bytes());
    let signed = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = keys.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Checks a code without asking anybody.
///
/// # Errors
/// [`CodeError`], which says what is wrong with it.
pub fn verify(keys: &KeySet, code: &str) -> Result<Admission, CodeError> {
    if code.len() > MAX_CODE {
        return Err(CodeError::Shape);
    }
    let (signed, signature) = code.rsplit_once('.').ok_or(CodeError::Shape)?;
    let payload = signed.strip_prefix(PREFIX).ok_or(CodeError::Shape)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| CodeError::Shape)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| CodeError::Shape)?;
    let signature: Signature = signature.try_into().map_err(|_| CodeError::Shape)?;
    let (ticket_id, rest) = payload.split_first_chunk::<16>().ok_or(CodeError::Shape)?;
    let (event_id, rest) = rest.split_first_chunk::<16>().ok_or(CodeError::Shape)?;
    let (kid, seat) = rest.split_first_chunk::<8>().ok_or(CodeError::Shape)?;
    let kid = kid.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let kid = Kid::try_new(&kid).ok_or(CodeError::Shape)?;
    let key = keys
        .get(kid.as_str())
        .ok_or_else(|| CodeError::KeyUnknown(kid.clone()))?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(CodeError::Forged);
    }
    Ok(Admission {
        ticket_id: Uuid::from_bytes(*ticket_id),
        event_id: Uuid::from_bytes(*event_id),
        seat: String::from_utf8(seat.to_vec()).map_err(|_| CodeError::Shape)?,
        kid,
    })
}

/// A key's name has 16 hexadecimal digits.
fn kid_bytes(kid: &Kid) -> [u8; 8] {
    u64::from_str_radix(kid.as_str(), 16).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICKET: Uuid = Uuid::from_u128(1);
    const EVENT: Uuid = Uuid::from_u128(2);

    fn keys() -> (KeyPair, KeySet) {
        let pair = KeyPair::generate().expect("randomness");
        let set = KeySet::new([pair.public_key().clone()]);
        (pair, set)
    }

    #[test]
    fn a_code_says_what_was_signed_and_with_which_key() {
        let (pair, set) = keys();
        let code = sign(&pair, TICKET, EVENT, "FLOOR/ga/17");
        assert_eq!(
            code,
            sign(&pair, TICKET, EVENT, "FLOOR/ga/17"),
            "equal tickets have equal codes"
        );
        let admission = Admission {
            ticket_id: TICKET,
            event_id: EVENT,
            seat: "FLOOR/ga/17".to_owned(),
            kid: pair.kid().clone(),
        };
        assert_eq!(verify(&set, &code), Ok(admission));
        let longest = sign(
            &pair,
            TICKET,
            EVENT,
            &format!("{}/4294967295/4294967295", "x".repeat(40)),
        );
        assert!(longest.len() <= MAX_CODE, "{}", longest.len());
        assert!(code.len() < 180, "{}", code.len());
    }

    #[test]
    fn another_key_of_the_same_name_or_none_at_all_is_told_apart() {
        let ((pair, _), (_, others)) = (keys(), keys());
        let code = sign(&pair, TICKET, EVENT, "A/1/1");
        assert_eq!(verify(&others, &code), Err(CodeError::KeyUnknown(pair.kid().clone())));
        assert!(matches!(
            verify(&KeySet::default(), &code),
            Err(CodeError::KeyUnknown(_))
        ));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let (pair, set) = keys();
        let code = sign(&pair, TICKET, EVENT, "A/1/1");
        for bad in [
            String::new(),
            "TSR1.".to_owned(),
            "TSR1..".to_owned(),
            code.replace("TSR1.", "TSR2."),
            code.replace("TSR1.", ""),
            format!("{code}="),
            format!("{code}A"),
            format!(" {code}"),
            format!("TSR1.AAAA{}", &code[code.len() - 87..]),
            "x".repeat(1 << 20),
        ] {
            assert!(verify(&set, &bad).is_err(), "{bad:.80}");
        }
    }

    proptest! {
        /// Not one character may be another one.
        #[test]
        fn a_changed_code_is_never_good(at in 0_usize..1_000, to in "[A-Za-z0-9_.-]") {
            let (pair, set) = keys();
            let code = sign(&pair, TICKET, EVENT, "A/1/1");
            let at = at % code.len();
            let mut changed = code.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(verify(&set, &changed).is_ok(), changed == code);
        }
    }
}

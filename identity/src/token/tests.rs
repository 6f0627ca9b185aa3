//! Tokens that are good, and every way that we know of to make one that is not.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

use super::*;
use crate::keys::PublicKey;

const NOW: u64 = 1_800_000_000;

fn user() -> Claims {
    Claims {
        issuer: "user-svc".into(),
        subject: Subject::User {
            id: Uuid::from_u128(7),
            session: Uuid::from_u128(8),
        },
        roles: Roles::BUYER.and(Roles::ORGANISER),
        audience: "tessera".into(),
        issued_at: NOW,
        expires_at: NOW + 900,
    }
}

fn service() -> Claims {
    Claims {
        subject: Subject::Service("user-svc".into()),
        roles: Roles::SERVICE,
        audience: "ticket-svc".into(),
        ..user()
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a pair")
}

fn verifier(key: &PublicKey) -> Verifier {
    Verifier::new("user-svc", ["tessera", "ticket-svc"], KeySet::new([key.clone()]))
}

/// A token with these parts, signed as ours are.
fn signed(key: &KeyPair, header: &Value, body: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", part(header), part(body));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

fn header(key: &KeyPair) -> Value {
    json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.kid().as_str()})
}

fn body() -> Value {
    json!({
        "iss": "user-svc", "sub": Uuid::from_u128(7).to_string(), "sid": Uuid::from_u128(8).to_string(), "roles": ["buyer", "organiser"],
        "aud": "tessera", "iat": NOW, "exp": NOW + 900,
    })
}

fn with(mut value: Value, field: &str, new: Value) -> Value {
    value[field] = new;
    value
}

#[test]
fn what_was_signed_is_read_again() {
    let key = key();
    let verifier = verifier(key.public_key());
    for claims in [user(), service()] {
        let token = claims.sign(&key);
        assert!(token.expose().len() < 600, "{}", token.expose().len());
        assert_eq!(verifier.verify(token.expose(), NOW), Ok(claims));
    }
    // The tests' own way to make one is the right one, or the forgeries below would prove nothing.
    assert_eq!(verifier.verify(&signed(&key, &header(&key), &body()), NOW), Ok(user()));
    let more = with(body(), "locale", json!("de"));
    assert_eq!(verifier.verify(&signed(&key, &header(&key), &more), NOW), Ok(user()));
}

#[test]
fn a_token_is_good_from_its_first_second_to_before_its_last() {
    let key = key();
    let verifier = verifier(key.public_key());
    let token = user().sign(&key);
    for (now, expected) in [
        (NOW - LEEWAY - 1, Err(TokenError::TooEarly)),
        (NOW - LEEWAY, Ok(user())),
        (NOW + 899, Ok(user())),
        (NOW + 900, Err(TokenError::Expired)),
        (u64::MAX - LEEWAY, Err(TokenError::Expired)),
    ] {
        assert_eq!(verifier.verify(token.expose(), now), expected, "{now}");
    }
    let later = with(body(), "nbf", json!(NOW + 61));
    let token = signed(&key, &header(&key), &later);
    assert_eq!(verifier.verify(&token, NOW), Err(TokenError::TooEarly));
    assert!(verifier.verify(&token, NOW + 1).is_ok());
}

#[test]
fn algorithms_are_not_for_the_token_to_choose() {
    let key = key();
    let verifier = verifier(key.public_key());
    let check = |token: &str, why: &str| assert_eq!(verifier.verify(token, NOW), Err(TokenError::Malformed), "{why}");
    for name in ["none", "None", "HS256", "RS256", "ES256", "Ed448", "eddsa", ""] {
        check(&signed(&key, &with(header(&key), "alg", json!(name)), &body()), name);
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(&with(header(&key), "alg", json!("none"))), part(&body()));
    check(&none, "alg none without a signature");
    // The public key as the secret of an HMAC: what a verifier that lets the header choose would accept.
    let input = format!("{}.{}", part(&with(header(&key), "alg", json!("HS256"))), part(&body()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_key().as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&secret, input.as_bytes()));
    check(&format!("{input}.{tag}"), "HS256 with the public key");
    for field in ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip"] {
        check(&signed(&key, &with(header(&key), field, json!([])), &body()), field);
    }
    for typ in [json!("JWT"), json!("at+JWT"), json!(null)] {
        check(&signed(&key, &with(header(&key), "typ", typ), &body()), "typ");
    }
    for kid in ["", "../../etc/passwd", "0123456789ABCDEF", "0123456789abcdef0"] {
        check(&signed(&key, &with(header(&key), "kid", json!(kid)), &body()), kid);
    }
}

#[test]
fn only_the_keys_of_the_set_are_believed() {
    let (key, other) = (key(), key());
    let verifier = verifier(key.public_key());
    let foreign = user().sign(&other);
    assert_eq!(
        verifier.verify(foreign.expose(), NOW),
        Err(TokenError::KeyUnknown(other.kid().clone()))
    );
    // Another's signature under the name of ours.
    let forged = signed(&other, &header(&key), &body());
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::Forged));
    let nobody = Verifier::new("user-svc", ["tessera"], KeySet::default());
    assert!(matches!(
        nobody.verify(user().sign(&key).expose(), NOW),
        Err(TokenError::KeyUnknown(_))
    ));
}

#[test]
fn whatever_is_cut_bent_or_padded_is_refused() {
    let key = key();
    let verifier = verifier(key.public_key());
    let token = user().sign(&key);
    let token = token.expose();
    for end in 0..token.len() {
        assert!(verifier.verify(&token[..end], NOW).is_err(), "cut at {end}");
    }
    for at in 0..token.len() {
        let mut bent = token.to_owned().into_bytes();
        bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).expect("ASCII");
        assert!(verifier.verify(&bent, NOW).is_err(), "bent at {at}");
    }
    let parts: Vec<_> = token.split('.').collect();
    for padded in [
        format!("{token}="),
        format!("{token}=="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{token}"),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        String::new(),
        ".".into(),
        "..".into(),
        "Bearer x".into(),
        "ä.ö.ü".into(),
    ] {
        assert!(verifier.verify(&padded, NOW).is_err(), "{padded}");
    }
    // Right in all but its size.
    let long = with(body(), "note", json!("x".repeat(MAX_TOKEN)));
    let long = signed(&key, &header(&key), &long);
    assert_eq!(verifier.verify(&long, NOW), Err(TokenError::Malformed));
}

#[test]
fn what_was_signed_for_others_is_refused() {
    let key = key();
    let verifier = verifier(key.public_key());
    for (field, value) in [("aud", "console"), ("aud", ""), ("iss", "me"), ("iss", "")] {
        let token = signed(&key, &header(&key), &with(body(), field, json!(value)));
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(TokenError::Misplaced),
            "{field} {value}"
        );
    }
}

#[test]
fn claims_that_make_no_sense_are_refused_also_when_they_are_signed() {
    let key = key();
    let verifier = verifier(key.public_key());
    for (field, value) in [
        ("sub", json!("root")),
        ("sub", json!(7)),
        ("sid", json!("x")),
        ("sid", json!(null)),
        ("roles", json!(["king"])),
        ("roles", json!("buyer")),
        ("roles", json!(["buyer", "service"])),
        ("roles", json!(["service"])),
        ("aud", json!(["tessera"])),
        ("iat", json!("now")),
        ("iat", json!(-1)),
        ("exp", json!(null)),
        ("exp", json!(1.5e9)),
        ("nbf", json!("soon")),
    ] {
        let token = signed(&key, &header(&key), &with(body(), field, value.clone()));
        assert_eq!(
            verifier.verify(&token, NOW),
            Err(TokenError::Malformed),
            "{field} {value}"
        );
    }
    for missing in ["iss", "sub", "roles", "aud", "iat", "exp"] {
        let mut body = body();
        body.as_object_mut().expect("an object").remove(missing);
        let token = signed(&key, &header(&key), &body);
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Malformed), "{missing}");
    }
    // A field twice: which of them counts would be each reader's own choice.
    let twice = body().to_string().replacen('{', r#"{"sub":"x","#, 1);
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header(&key).to_string()),
        URL_SAFE_NO_PAD.encode(twice)
    );
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())));
    assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Malformed));
}

#[test]
fn a_token_is_never_printed() {
    assert_eq!(format!("{:?}", user().sign(&key())), "AccessToken([redacted])");
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_token_or_a_panic(text in "\\PC{0,200}") {
        let key = key();
        proptest::prop_assert!(verifier(key.public_key()).verify(&text, NOW).is_err());
    }
}

//! The token's bytes: three parts of base64url without padding, and the JSON in two of them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Claims, MAX_TOKEN, Subject, TokenError};
use crate::{
    keys::{KeyPair, KeySet, Kid, PublicKey},
    roles::Roles,
};

/// RFC 8037: the one algorithm there is here.
const ALGORITHM: &str = "EdDSA";

/// RFC 9068: what says that this is an access token, and not another JWT that the same key might sign one day.
const TYPE: &str = "at+jwt";

/// Unknown fields are refused: `crit`, `jwk`, `jku`, `x5u` and their like change what a signature means (RFC 8725, 3.10).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// Unknown claims are passed over (RFC 7519, 4): an older service must understand what a newer one signs. `nbf` is not among
/// those that we sign, but where it stands it counts.
#[derive(Serialize, Deserialize)]
struct Body {
    iss: String,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    roles: Vec<String>,
    aud: String,
    iat: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    exp: u64,
}

pub(super) fn sign(claims: &Claims, key: &KeyPair) -> String {
    let header = Header {
        alg: ALGORITHM.to_owned(),
        typ: TYPE.to_owned(),
        kid: key.kid().to_string(),
    };
    let (sub, sid) = match &claims.subject {
        Subject::User { id, session } => (id.to_string(), Some(session.to_string())),
        Subject::Service(name) => (name.clone(), None),
    };
    let body = Body {
        iss: claims.issuer.clone(),
        sub,
        sid,
        roles: claims.roles.names().map(str::to_owned).collect(),
        aud: claims.audience.clone(),
        iat: claims.issued_at,
        nbf: None,
        exp: claims.expires_at,
    };
    let mut token = format!("{}.{}", part(&header), part(&body));
    let signature = key.sign(token.as_bytes());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    token
}

/// Strings and numbers only: this cannot fail.
fn part(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// What a token says whose signature is right. Whether it is good here and now is not looked at.
pub(super) fn open(token: &str, keys: &KeySet) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = read(header)?;
    if header.alg != ALGORITHM || header.typ != TYPE {
        return Err(TokenError::Malformed);
    }
    let key = find(&header.kid, keys)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    if !key.verify(signed.as_bytes(), &signature) {
        return Err(TokenError::Forged);
    }
    let body: Body = read(body)?;
    claims(body).ok_or(TokenError::Malformed)
}

fn find<'a>(kid: &str, keys: &'a KeySet) -> Result<&'a PublicKey, TokenError> {
    match (keys.get(kid), Kid::try_new(kid)) {
        (Some(key), _) => Ok(key),
        (None, Some(kid)) => Err(TokenError::KeyUnknown(kid)),
        (None, None) => Err(TokenError::Malformed),
    }
}

/// Padding, blanks, bits that mean nothing and fields that come twice are refused: one token, one spelling.
fn read<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

fn claims(body: Body) -> Option<Claims> {
    let roles = Roles::all_named(body.roles.iter().map(String::as_str))?;
    let subject = match body.sid {
        Some(sid) if !roles.meets(Roles::SERVICE) => Subject::User {
            id: Uuid::try_parse(&body.sub).ok()?,
            session: Uuid::try_parse(&sid).ok()?,
        },
        None if roles == Roles::SERVICE && !body.sub.is_empty() => Subject::Service(body.sub),
        // A person who is a service as well, or a service with a session.
        _ => return None,
    };
    Some(Claims {
        issuer: body.iss,
        subject,
        roles,
        audience: body.aud,
        // Not good before the later one.
        issued_at: body.iat.max(body.nbf.unwrap_or_default()),
        expires_at: body.exp,
    })
}

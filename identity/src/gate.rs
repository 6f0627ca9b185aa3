//! Decides about an RPC by its exact path and the token that came with it. Knows no HTTP server and no statuses.
//!
//! A table names a rule for each RPC; what is not in the table is refused. The rule looks at roles only; whose order or event it
//! is about stands in the body, which only the API reads: it compares with the [`Caller`] that this found.

use std::fmt;

use crate::{
    caller::Caller,
    roles::Roles,
    token::{TokenError, Verifier},
};

/// What an RPC needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: anybody may call it. A token that came along is read, and passed over when it is not good: whoever signs in or
    /// renews has an old one.
    Public,
    /// The token of a person, whatever they are.
    Person,
    /// A token with one of these roles.
    Role(Roles),
}

/// A method and its rule.
pub type Line = (&'static str, Rule);

/// What a call shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Nothing.
    Nothing,
    /// A token, which nobody has looked at yet.
    Token(&'a str),
    /// Something that is no token: not to be taken for an anonymous call.
    Unreadable,
}

/// Never what was sent.
impl fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Token(_) => "Token([redacted])",
            Self::Unreadable => "Unreadable",
        })
    }
}

/// Why a call does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such method here.
    NoSuchMethod,
    /// It needs a token and shows none.
    NoToken,
    /// What it shows is not good.
    BadToken(TokenError),
    /// It is who it says, and may not: one of these roles is needed; with none of them any person.
    Denied(Roles),
    /// There are no keys yet to check a token with.
    NoKeys,
}

/// The rule of a path, exactly as it is written. The table is in the order of its paths.
#[must_use]
pub fn rule(table: &[Line], path: &str) -> Option<Rule> {
    let at = table.binary_search_by(|(known, _)| (*known).cmp(path)).ok()?;
    Some(table[at].1)
}

/// Who calls, if they may call `path` at `now` (seconds since 1970).
///
/// # Errors
/// [`Refused`]. Nothing of the call may run then.
pub fn decide(table: &[Line], path: &str, shown: Shown<'_>, verifier: &Verifier, now: u64) -> Result<Caller, Refused> {
    let verified = || match shown {
        Shown::Nothing => Err(Refused::NoToken),
        Shown::Unreadable => Err(Refused::BadToken(TokenError::Malformed)),
        // Before the keys are there a good token cannot be told from a forged one, and to be told that it is bad would make
        // its holder sign in again.
        Shown::Token(_) if verifier.keys().is_empty() => Err(Refused::NoKeys),
        Shown::Token(token) => verifier
            .verify(token, now)
            .map(|claims| Caller::of(&claims))
            .map_err(Refused::BadToken),
    };
    match rule(table, path) {
        None => Err(Refused::NoSuchMethod),
        Some(Rule::Public) => Ok(verified().unwrap_or(Caller::Nobody)),
        Some(Rule::Person) => {
            let caller = verified()?;
            match caller {
                Caller::User { .. } => Ok(caller),
                _ => Err(Refused::Denied(Roles::NONE)),
            }
        }
        Some(Rule::Role(roles)) => {
            let caller = verified()?;
            if caller.roles().meets(roles) {
                Ok(caller)
            } else {
                Err(Refused::Denied(roles))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        keys::{KeyPair, KeySet},
        token::{Claims, Subject},
    };

    const TABLE: &[Line] = &[
        ("/a.A/Make", Rule::Role(Roles::ORGANISER.and(Roles::OPERATOR))),
        ("/a.A/Own", Rule::Person),
        ("/a.A/Show", Rule::Public),
        ("/a.A/Serve", Rule::Role(Roles::SERVICE)),
    ];

    fn table() -> Vec<Line> {
        let mut table = TABLE.to_vec();
        table.sort_by_key(|line| line.0);
        table
    }

    fn token(key: &KeyPair, roles: Roles) -> String {
        let subject = if roles == Roles::SERVICE {
            Subject::Service("user-svc".into())
        } else {
            Subject::User {
                id: Uuid::nil(),
                session: Uuid::nil(),
            }
        };
        let claims = Claims {
            issuer: "i".into(),
            subject,
            roles,
            audience: "a".into(),
            issued_at: 100,
            expires_at: 200,
        };
        claims.sign(key).expose().to_owned()
    }

    #[test]
    fn the_table_decides() {
        let key = KeyPair::generate().expect("a pair");
        let verifier = Verifier::new("i", ["a"], KeySet::new([key.public_key().clone()]));
        let [buyer, organiser, service] =
            [Roles::BUYER, Roles::ORGANISER, Roles::SERVICE].map(|roles| token(&key, roles));
        let ended = |path: &str| decide(&table(), path, Shown::Token(&organiser), &verifier, 200);
        let check = |path: &str, shown| decide(&table(), path, shown, &verifier, 150);
        let roles = |result: Result<Caller, Refused>| result.map(|caller| caller.roles());

        assert_eq!(check("/a.A/Show", Shown::Nothing), Ok(Caller::Nobody));
        assert_eq!(check("/a.A/Show", Shown::Unreadable), Ok(Caller::Nobody));
        assert_eq!(check("/a.A/Show", Shown::Token("x")), Ok(Caller::Nobody));
        assert_eq!(roles(check("/a.A/Show", Shown::Token(&buyer))), Ok(Roles::BUYER));
        assert_eq!(ended("/a.A/Show"), Ok(Caller::Nobody));

        let needs = Roles::ORGANISER.and(Roles::OPERATOR);
        assert_eq!(check("/a.A/Make", Shown::Nothing), Err(Refused::NoToken));
        assert_eq!(
            roles(check("/a.A/Make", Shown::Token(&organiser))),
            Ok(Roles::ORGANISER)
        );
        assert_eq!(check("/a.A/Make", Shown::Token(&buyer)), Err(Refused::Denied(needs)));
        assert_eq!(check("/a.A/Make", Shown::Token(&service)), Err(Refused::Denied(needs)));
        assert_eq!(ended("/a.A/Make"), Err(Refused::BadToken(TokenError::Expired)));
        assert_eq!(
            check("/a.A/Make", Shown::Unreadable),
            Err(Refused::BadToken(TokenError::Malformed))
        );
        assert_eq!(roles(check("/a.A/Serve", Shown::Token(&service))), Ok(Roles::SERVICE));

        for path in [
            "/a.A/Else",
            "/a.A/make",
            "/a.A/Make/",
            "//a.A/Make",
            "/a.A/Make?x",
            "",
            "/",
        ] {
            assert_eq!(
                check(path, Shown::Token(&organiser)),
                Err(Refused::NoSuchMethod),
                "{path}"
            );
        }
    }

    #[test]
    fn without_keys_nobody_is_told_that_their_token_is_bad() {
        let key = KeyPair::generate().expect("a pair");
        let verifier = Verifier::new("i", ["a"], KeySet::default());
        let token = token(&key, Roles::ORGANISER);
        let check = |path: &str, shown| decide(&table(), path, shown, &verifier, 150);
        assert_eq!(check("/a.A/Make", Shown::Token(&token)), Err(Refused::NoKeys));
        assert_eq!(check("/a.A/Make", Shown::Nothing), Err(Refused::NoToken));
        assert_eq!(check("/a.A/Show", Shown::Token(&token)), Ok(Caller::Nobody));
    }
}

//! Accounts: who they are and how they prove it. Hashing is not done here.

use std::fmt;

use identity::Roles;
use service_store::{Currency, Invalid, Money, Text, Timestamp};
use uuid::Uuid;

/// How to address a person.
pub(crate) type DisplayName = Text<100>;

/// An e-mail address in the one spelling under which it is compared: lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Email(String);

/// A password of 8 to 128 characters, as typed. Never printed, stored or logged.
#[derive(Clone)]
pub(crate) struct Password(String);

/// Asks for an account.
#[derive(Debug)]
pub(crate) struct NewUser {
    pub(crate) request_id: Uuid,
    pub(crate) email: Email,
    pub(crate) display_name: DisplayName,
    pub(crate) currency: Currency,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: Uuid,
    pub(crate) email: String,
    pub(crate) display_name: String,
    pub(crate) balance: Money,
    pub(crate) roles: Roles,
    pub(crate) created_at: Timestamp,
}

/// What of an account is to be changed. What is `None` stays.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) display_name: Option<DisplayName>,
    pub(crate) email: Option<Email>,
    pub(crate) new_password: Option<Password>,
}

impl Change {
    /// Whether somebody who found an open session could take the account over with it: then the password is asked for again.
    pub(crate) fn needs_password(&self) -> bool {
        self.email.is_some() || self.new_password.is_some()
    }
}

impl NewUser {
    /// Does a repeated request ask for the account that was made? The password is compared apart, by its hash: a fingerprint
    /// that contained it would be a fast hash of it, which is what Argon2 is there to avoid.
    pub(crate) fn asks_for(&self, user: &User) -> bool {
        self.email.as_str() == user.email
            && self.display_name.as_str() == user.display_name
            && self.currency == user.balance.currency()
    }
}

impl Email {
    /// Takes 3 to 254 characters with one '@' between two parts, without blanks and control characters.
    pub(crate) fn try_new(email: &str) -> Result<Self, Invalid> {
        const LIMIT: Invalid = Invalid("must have 3 to 254 characters with one '@' inside, and no blanks");
        let normal = email.to_lowercase();
        let (local, domain) = normal.split_once('@').ok_or(LIMIT)?;
        let one_at = !local.is_empty() && !domain.is_empty() && !domain.contains('@');
        let clean = !normal
            .chars()
            .any(|character| character.is_whitespace() || character.is_control());
        if !one_at || !clean || normal.chars().count() > 254 {
            return Err(LIMIT);
        }
        Ok(Self(normal))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Password {
    pub(crate) const MAX_CHARS: usize = 128;

    /// Takes a new password.
    pub(crate) fn try_new(password: String) -> Result<Self, Invalid> {
        if !(8..=Self::MAX_CHARS).contains(&password.chars().count()) {
            return Err(Invalid("must have 8 to 128 characters"));
        }
        Ok(Self(password))
    }

    /// Takes what was typed as the present password. Too short is not told apart from wrong; too long is refused unhashed.
    pub(crate) fn try_typed(password: String) -> Result<Self, Invalid> {
        if password.chars().count() > Self::MAX_CHARS {
            return Err(Invalid("must have at most 128 characters"));
        }
        Ok(Self(password))
    }

    pub(crate) fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_compared_without_regard_to_case() {
        assert_eq!(Email::try_new("Ada@Example.ORG"), Email::try_new("ada@example.org"));
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b\n",
            &format!("{}@b", "a".repeat(253)),
        ] {
            assert!(Email::try_new(bad).is_err(), "{bad:?}");
        }
        assert!(Email::try_new("a@b").is_ok());
        assert!(Email::try_new(&format!("{}@b", "a".repeat(252))).is_ok());
    }

    #[test]
    fn a_password_is_bounded_and_never_printed() {
        let password = Password::try_new("correct horse".to_owned()).expect("long enough");
        assert!(!format!("{password:?}").contains("horse"));
        assert!(Password::try_new("1234567".to_owned()).is_err());
        assert!(Password::try_new("x".repeat(129)).is_err());
        assert!(Password::try_typed("x".repeat(129)).is_err());
        assert!(Password::try_typed(String::new()).is_ok());
    }
}

//! What a caller can be. A small closed set; what each may do is in the services' tables.

use std::fmt;

/// Some of the roles there are.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

const NAMES: [(Roles, &str); 4] = [
    (Roles::BUYER, "buyer"),
    (Roles::ORGANISER, "organiser"),
    (Roles::OPERATOR, "operator"),
    (Roles::SERVICE, "service"),
];

impl Roles {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Has a wallet and buys.
    pub const BUYER: Self = Self(1);
    /// Makes events.
    pub const ORGANISER: Self = Self(2);
    /// Looks after the platform: may do what any of its users may.
    pub const OPERATOR: Self = Self(4);
    /// Is one of the platform's services and no person.
    pub const SERVICE: Self = Self(8);
    /// Those that a person can have.
    pub const OF_PEOPLE: Self = Self::BUYER.and(Self::ORGANISER).and(Self::OPERATOR);

    /// These and those.
    #[must_use]
    pub const fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// Whether one of them is among these.
    #[must_use]
    pub const fn meets(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// Whether all of them are among these.
    #[must_use]
    pub const fn has_all(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Their names, in one fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(role, _)| self.meets(*role))
            .map(|(_, name)| *name)
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(role, _)| *role)
    }

    /// Those of these names; `None` when one is unknown.
    #[must_use]
    pub fn all_named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut names = names.into_iter();
        names.try_fold(Self::NONE, |roles, name| Some(roles.and(Self::named(name)?)))
    }
}

/// The names, joined with `,`.
impl fmt::Display for Roles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        formatter.write_str(&names.join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Roles({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_back_from_their_names() {
        for bits in 0..16 {
            let roles = Roles(bits);
            assert_eq!(Roles::all_named(roles.names()), Some(roles));
        }
        assert_eq!(Roles::all_named(["buyer", "king"]), None);
        assert_eq!(Roles::named("Buyer"), None);
        assert!(!Roles::OF_PEOPLE.meets(Roles::SERVICE));
        assert!(Roles::OF_PEOPLE.has_all(Roles::OPERATOR.and(Roles::BUYER)));
        assert_eq!(Roles::BUYER.and(Roles::OPERATOR).to_string(), "buyer,operator");
    }
}

//! Searching events: what the words of a text are, and which event fits a query best. Finding the events that have all the words is
//! the store's full-text index; the order is decided here, so that it is the same on every store.
//!
//! Both sides are folded to plain words, letters and digits without marks and case. Nothing else of a query ever reaches a store,
//! so there are no operators in it, whatever its maker wrote.

use service_store::{Invalid, Timestamp};
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};
use uuid::Uuid;

use super::venue::Venue;

/// The longest query, in characters.
const MAX_TEXT: usize = 200;
/// The most words of it that count.
const MAX_WORDS: usize = 8;
/// The most characters of a word that count.
const MAX_WORD: usize = 40;

/// Words of a text, folded, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Words(Vec<String>);

/// What is looked for. All of it has to fit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Query {
    /// Begin words of the title or the place. `None`: anything fits. Without words in it, nothing does.
    pub(crate) text: Option<Words>,
    /// Begin words of the venue's name, city or address.
    pub(crate) place: Option<Words>,
    /// Events that begin then or later.
    pub(crate) from: Option<Timestamp>,
    /// Events that begin earlier.
    pub(crate) before: Option<Timestamp>,
}

/// Where an event stands among those that were found: the best first, then the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    /// Less is better.
    rank: u32,
    starts_at: Timestamp,
    id: Uuid,
}

impl Words {
    /// All words of a text.
    pub(crate) fn of(text: &str) -> Self {
        let folded: String = text
            .nfkd()
            .filter(|character| !is_combining_mark(*character))
            .flat_map(char::to_lowercase)
            .collect();
        let words = folded.split(|character: char| !character.is_alphanumeric());
        Self(
            words
                .filter(|word| !word.is_empty())
                .map(|word| word.chars().take(MAX_WORD).collect())
                .collect(),
        )
    }

    /// The words of a query: the first 8 of at most 200 characters. `None` when it is empty.
    pub(crate) fn asked(text: &str) -> Result<Option<Self>, Invalid> {
        // Bytes first: counting the characters of a megabyte is work as well.
        if text.len() > MAX_TEXT * 4 || text.chars().count() > MAX_TEXT {
            return Err(Invalid("must have at most 200 characters"));
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        let Self(mut words) = Self::of(text);
        words.truncate(MAX_WORDS);
        Ok(Some(Self(words)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 2 if it is one of the words, 1 if one begins so.
    fn fit(&self, asked: &str) -> u32 {
        let fit = |word: &str| match word.strip_prefix(asked) {
            Some("") => 2,
            Some(_) => 1,
            None => 0,
        };
        self.iter().map(fit).max().unwrap_or_default()
    }
}

impl Venue {
    /// The words of where something is.
    pub(crate) fn words(&self) -> Words {
        let parts = [self.name.as_str(), self.city(), self.address()];
        Words(parts.into_iter().flat_map(|part| Words::of(part).0).collect())
    }
}

impl Query {
    /// Nothing can fit: there are words to be found, and none in them.
    pub(crate) fn is_hopeless(&self) -> bool {
        [&self.text, &self.place]
            .into_iter()
            .any(|words| words.as_ref().is_some_and(Words::is_empty))
    }

    /// Where an event stands that fits. A word of the title is worth more than one of the place, a whole one more than a beginning.
    pub(crate) fn standing(&self, title: &Words, place: &Words, starts_at: Timestamp, id: Uuid) -> Standing {
        let text = self.text.iter().flat_map(Words::iter);
        let worth: u32 = text.map(|asked| title.fit(asked) * 2 + place.fit(asked)).sum();
        Standing {
            rank: u32::MAX - worth,
            starts_at,
            id,
        }
    }
}

impl Standing {
    /// As a page token.
    pub(crate) fn to_token(self) -> String {
        format!("{}.{}.{}", self.rank, self.starts_at.as_nanos(), self.id)
    }

    /// From a page token; `None` if it is none.
    pub(crate) fn from_token(token: &str) -> Option<Self> {
        let mut parts = token.splitn(3, '.');
        Some(Self {
            rank: parts.next()?.parse().ok()?,
            starts_at: Timestamp::from_nanos(parts.next()?.parse().ok()?),
            id: Uuid::try_parse(parts.next()?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        Words::of(text).0
    }

    #[test]
    fn words_are_folded_and_everything_else_separates_them() {
        assert_eq!(
            words("Nova Quartet: Late  Beethoven"),
            ["nova", "quartet", "late", "beethoven"]
        );
        assert_eq!(
            words("Zürich ZURICH Crème BRÛLÉE"),
            ["zurich", "zurich", "creme", "brulee"]
        );
        assert_eq!(words("O'Neill's 2nd-best"), ["o", "neill", "s", "2nd", "best"]);
        assert_eq!(words("שלום"), ["שלום"]);
        for empty in ["", " ", "\"\"", "*:&|!()<->", "\0\u{7}\u{202e}"] {
            assert!(words(empty).is_empty(), "{empty:?}");
        }
    }

    #[test]
    fn a_query_is_bounded() {
        assert_eq!(Words::asked("  "), Ok(None));
        let many = "a b c d e f g h i j".to_owned();
        assert_eq!(Words::asked(&many).expect("short").expect("words").0.len(), MAX_WORDS);
        assert!(Words::asked(&"x".repeat(200)).is_ok());
        assert!(Words::asked(&"x".repeat(201)).is_err());
        assert!(Words::asked(&"ü".repeat(1 << 20)).is_err());
        assert_eq!(Words::of(&"x".repeat(90)).0[0].len(), MAX_WORD);
        let nothing = Query {
            text: Words::asked("\"*\"").expect("short"),
            ..Query::default()
        };
        assert!(nothing.is_hopeless() && !Query::default().is_hopeless());
    }

    #[test]
    fn a_whole_word_fits_better_than_a_beginning() {
        let title = Words::of("Late Latecomers");
        assert_eq!(
            ["late", "lat", "latec", "x"].map(|asked| title.fit(asked)),
            [2, 1, 1, 0]
        );
    }

    #[test]
    fn a_title_counts_more_than_a_place_and_then_the_earlier_event() {
        let query = Query {
            text: Words::asked("river").expect("short"),
            ..Query::default()
        };
        let standing = |title: &str, place: &str, at| {
            query.standing(
                &Words::of(title),
                &Words::of(place),
                Timestamp::from_nanos(at),
                Uuid::nil(),
            )
        };
        let in_order = [
            standing("The River", "Riverside", 9),
            standing("The River", "Hall", 1),
            standing("Riverdance", "Hall", 1),
            standing("Riverdance", "Hall", 2),
            standing("Dance", "Riverside", 0),
        ];
        assert!(in_order.is_sorted(), "{in_order:?}");
    }

    proptest! {
        /// What reaches a store has letters and digits only: it needs no quoting in either query language.
        #[test]
        fn words_are_plain_whatever_they_are_made_of(text in "\\PC{0,60}|[ -~]{0,60}|.{0,60}") {
            for word in Words::of(&text).iter() {
                prop_assert!(!word.is_empty() && word.chars().all(char::is_alphanumeric), "{word:?}");
            }
        }

        #[test]
        fn a_standing_comes_back_from_its_token(rank: u32, at: i64, id: u128) {
            let standing = Standing { rank, starts_at: Timestamp::from_nanos(at), id: Uuid::from_u128(id) };
            prop_assert_eq!(Standing::from_token(&standing.to_token()), Some(standing));
        }
    }
}

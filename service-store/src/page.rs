//! Page sizes and page tokens. A token is opaque to callers; here it is the last row's place in the order.

use uuid::Uuid;

use crate::{time::Timestamp, violations::Violations};

/// What part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<C> {
    /// At most so many rows, 1 or more.
    pub size: u32,
    /// After this row; from the start without one.
    pub cursor: Option<C>,
}

/// How many rows a page of some list may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSizes {
    /// When the request does not say.
    pub default: u32,
    /// At most.
    pub max: u32,
}

/// A place in a list that is ordered by an instant, and by id where instants are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeCursor {
    /// The row's instant.
    pub at: Timestamp,
    /// Its id.
    pub id: Uuid,
}

impl<C> Page<C> {
    /// Reads `page_size` (0 means the default) and `page_token`, which `parse` understands. `None` with violations.
    pub fn read(
        violations: &mut Violations,
        PageSizes { default, max }: PageSizes,
        page_size: i32,
        page_token: &str,
        parse: impl FnOnce(&str) -> Option<C>,
    ) -> Option<Self> {
        let size = match u32::try_from(page_size) {
            Ok(0) => Some(default),
            Ok(size) if size <= max => Some(size),
            _ => violations.check("page_size", Err(format!("must be 1 to {max}, or 0 for {default}"))),
        };
        let cursor = match page_token {
            "" => Some(None),
            token => violations
                .check(
                    "page_token",
                    parse(token).ok_or("must be the next_page_token of the page before"),
                )
                .map(Some),
        };
        Some(Self {
            size: size?,
            cursor: cursor?,
        })
    }

    /// Takes the row too many off `rows` and makes the last one that stays the token; empty when there is none too many.
    pub fn cut<T>(&self, rows: &mut Vec<T>, token: impl FnOnce(&T) -> String) -> String {
        let size = self.size as usize;
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last().map(token).unwrap_or_default()
    }
}

impl TimeCursor {
    /// As a page token.
    #[must_use]
    pub fn to_token(self) -> String {
        format!("{}.{}", self.at.as_nanos(), self.id)
    }

    /// From a page token; `None` if it is none.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        let (at, id) = token.split_once('.')?;
        Some(Self {
            at: Timestamp::from_nanos(at.parse().ok()?),
            id: Uuid::try_parse(id).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: PageSizes = PageSizes { default: 2, max: 3 };

    fn read(size: i32, token: &str) -> Result<Page<u32>, Vec<String>> {
        let mut violations = Violations::default();
        Page::read(&mut violations, SIZES, size, token, |token| token.parse().ok())
            .ok_or_else(|| violations.into_iter().map(|(field, _)| field).collect())
    }

    #[test]
    fn sizes_and_tokens_are_read_or_all_of_their_violations_told() {
        let page = |size, cursor| Ok(Page { size, cursor });
        assert_eq!(read(0, ""), page(2, None));
        assert_eq!(read(3, "7"), page(3, Some(7)));
        for bad in [-1, 4, i32::MIN, i32::MAX] {
            assert_eq!(read(bad, ""), Err(vec!["page_size".to_owned()]), "{bad}");
        }
        assert_eq!(read(4, "x"), Err(vec!["page_size".to_owned(), "page_token".to_owned()]));
    }

    #[test]
    fn a_row_too_many_makes_a_token_of_the_last_one_that_stays() {
        let page = Page::<u32> { size: 2, cursor: None };
        for (mut rows, left, token) in [
            (vec![], vec![], ""),
            (vec![1, 2], vec![1, 2], ""),
            (vec![1, 2, 3], vec![1, 2], "2"),
        ] {
            assert_eq!(page.cut(&mut rows, ToString::to_string), token);
            assert_eq!(rows, left);
        }
    }

    #[test]
    fn a_time_cursor_comes_back_from_its_token_and_from_nothing_else() {
        for nanos in [i64::MIN, -1, 0, i64::MAX] {
            let cursor = TimeCursor {
                at: Timestamp::from_nanos(nanos),
                id: Uuid::from_u128(7),
            };
            assert_eq!(TimeCursor::from_token(&cursor.to_token()), Some(cursor));
        }
        for bad in [
            "",
            ".",
            "1",
            "1.",
            ".1",
            "x.00000000-0000-0000-0000-000000000007",
            "1.7",
        ] {
            assert_eq!(TimeCursor::from_token(bad), None, "{bad:?}");
        }
    }
}

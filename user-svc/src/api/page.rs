//! Page sizes and page tokens. A token is opaque to callers; here it is the last row's place in the order.

use uuid::Uuid;

use super::violations::Violations;
use crate::{
    domain::{order::Order, time::Timestamp},
    store::OrderCursor,
};

/// What part of a list is asked for.
#[derive(Debug)]
pub(super) struct Page<C> {
    /// At most so many.
    pub(super) size: u32,
    /// After this row; from the start without one.
    pub(super) cursor: Option<C>,
}

impl<C> Page<C> {
    /// Takes the row too many off `rows` and makes it a token; empty when there is none.
    pub(super) fn cut<T>(&self, rows: &mut Vec<T>, token: impl FnOnce(&T) -> String) -> String {
        let size = self.size as usize;
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last().map(token).unwrap_or_default()
    }
}

/// Reads `page_size` (0 means `default`) and `page_token`.
pub(super) fn read<C>(
    violations: &mut Violations,
    (size, default, max): (i32, u32, u32),
    token: &str,
    parse: impl FnOnce(&str) -> Option<C>,
) -> Option<Page<C>> {
    let size = match u32::try_from(size) {
        Ok(0) => Some(default),
        Ok(size) if size <= max => Some(size),
        _ => violations.check("page_size", Err(format!("must be 1 to {max}, or 0 for {default}"))),
    };
    let cursor = match token {
        "" => Some(None),
        token => violations
            .check(
                "page_token",
                parse(token).ok_or("must be the next_page_token of the page before"),
            )
            .map(Some),
    };
    Some(Page {
        size: size?,
        cursor: cursor?,
    })
}

pub(super) fn order_token(order: &Order) -> String {
    format!("{}.{}", order.created_at.as_nanos(), order.id)
}

pub(super) fn order_cursor(token: &str) -> Option<OrderCursor> {
    let (created_at, id) = token.split_once('.')?;
    Some(OrderCursor {
        created_at: Timestamp::from_nanos(created_at.parse().ok()?),
        id: Uuid::try_parse(id).ok()?,
    })
}

//! Finding events by their words. The one place where the two kinds of store search differently: FTS5 in a file, tsvector on a server. Both
//! find, and neither ranks: that is `domain::search`'s, so that the answers are the same.

use service_store::{Connection, Dialect, Timestamp, Write};

use super::{
    Store, StoreError,
    events::{self, Counted},
    rows::{self, EventRow},
};
use crate::domain::search::{Query, Standing, Words};

/// So many events that fit are looked at. Each is some 20 µs of work, and nobody reads more.
const CANDIDATES: i64 = 1_000;

impl Store {
    /// At most `limit` events that fit, the best first, after `cursor`; each with where it stands.
    pub(crate) async fn search(
        &self,
        query: &Query,
        cursor: Option<Standing>,
        limit: u32,
    ) -> Result<Vec<(Standing, Counted)>, StoreError> {
        if query.is_hopeless() {
            return Ok(Vec::new());
        }
        let mut reader = self.database.reader().acquire().await?;
        let found = self.candidates(&mut reader, query).await?;
        let mut standing: Vec<(Standing, EventRow)> = Vec::with_capacity(found.len());
        for row in found {
            let (title, place, starts_at, id) = row.searched()?;
            standing.push((query.standing(&title, &place, starts_at, id), row));
        }
        standing.sort_unstable_by_key(|(standing, _)| *standing);
        let after = standing
            .into_iter()
            .filter(|(standing, _)| cursor.is_none_or(|cursor| cursor < *standing));
        let now = self.database.now();
        let mut page = Vec::new();
        for (standing, row) in after.take(limit as usize) {
            let stored = rows::with_plan(&mut reader, row).await?;
            page.push((standing, events::count(&mut reader, stored, now).await?));
        }
        Ok(page)
    }

    async fn candidates(&self, reader: &mut Connection, query: &Query) -> Result<Vec<EventRow>, StoreError> {
        let expression = expression(self.database.dialect(), query);
        let statement = match (self.database.dialect(), expression.is_empty()) {
            (_, true) => rows::events!(
                "WHERE $1 = '' AND starts_at >= $2 AND starts_at < $3 ORDER BY starts_at, events.id LIMIT $4"
            ),
            (Dialect::Sqlite, false) => rows::events!(
                "WHERE events.seq IN (SELECT rowid FROM events_words WHERE events_words MATCH $1)
                   AND starts_at >= $2 AND starts_at < $3 ORDER BY starts_at, events.id LIMIT $4"
            ),
            (Dialect::Postgres, false) => rows::events!(
                "WHERE words @@ CAST($1 AS tsquery)
                   AND starts_at >= $2 AND starts_at < $3 ORDER BY starts_at, events.id LIMIT $4"
            ),
        };
        Ok(sqlx::query_as(statement)
            .bind(expression)
            .bind(query.from.map_or(i64::MIN, Timestamp::as_nanos))
            .bind(query.before.map_or(i64::MAX, Timestamp::as_nanos))
            .bind(CANDIDATES)
            .fetch_all(reader)
            .await?)
    }
}

/// Makes an event findable, in the transaction that makes the event.
pub(super) async fn index(write: &mut Write, event: i64, title: &Words, place: &Words) -> Result<(), StoreError> {
    let query = match write.dialect {
        Dialect::Sqlite => sqlx::query("INSERT INTO events_words (rowid, title, place) VALUES ($1, $2, $3)")
            .bind(event)
            .bind(joined(title))
            .bind(joined(place)),
        Dialect::Postgres => sqlx::query("UPDATE events SET words = CAST($2 AS tsvector) WHERE seq = $1")
            .bind(event)
            .bind(vector(title, place)),
    };
    query.execute(&mut *write.tx).await?;
    Ok(())
}

fn joined(words: &Words) -> String {
    words.iter().collect::<Vec<_>>().join(" ")
}

/// In a server's notation: each word with where it stands, of weight A in the title and B in the place. Words are letters and digits and
/// need no quoting.
fn vector(title: &Words, place: &Words) -> String {
    let title = title.iter().map(|word| (word, 'A'));
    let both = title.chain(place.iter().map(|word| (word, 'B')));
    let placed = (1..)
        .zip(both)
        .map(|(at, (word, weight))| format!("{word}:{at}{weight}"));
    placed.collect::<Vec<_>>().join(" ")
}

/// All words have to be there, each as the beginning of one; those of the place, in the place. Empty when nothing is asked of words.
fn expression(dialect: Dialect, query: &Query) -> String {
    let text = query.text.iter().flat_map(Words::iter);
    let place = query.place.iter().flat_map(Words::iter);
    let parts: Vec<String> = match dialect {
        Dialect::Sqlite => text
            .map(|word| format!("\"{word}\" *"))
            .chain(place.map(|word| format!("place : \"{word}\" *")))
            .collect(),
        Dialect::Postgres => text
            .map(|word| format!("{word}:*"))
            .chain(place.map(|word| format!("{word}:*B")))
            .collect(),
    };
    parts.join(match dialect {
        Dialect::Sqlite => " AND ",
        Dialect::Postgres => " & ",
    })
}

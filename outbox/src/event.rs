//! An event as it is written and as it is delivered. Knows no SQL and no broker.

use serde_json::{Value, json};
use service_store::Timestamp;
use telemetry::TraceParent;
use uuid::Uuid;

/// What happened, for [`record`](crate::record).
#[derive(Debug, Clone)]
pub struct Event {
    /// Whose events are in order: the row that the writer has locked, for example an order's id.
    pub key: String,
    /// `THING.HAPPENED`, for example `order.succeeded`; from code, never from input.
    pub kind: &'static str,
    /// The version of the body's schema. It grows when a reader of the old one could be misled.
    pub schema: u32,
    /// An object: ids and facts. No personal data: events outlive accounts.
    pub body: Value,
}

/// An event that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its place in the order of its key. Means nothing across stores.
    pub(crate) seq: i64,
    /// Unique; what consumers and brokers know repetitions by.
    pub id: Uuid,
    /// Whose events are in order.
    pub key: String,
    /// What happened.
    pub kind: String,
    /// The body, with the version of its schema as `schema`.
    pub body: Value,
    /// The span that it was written under.
    pub trace: Option<TraceParent>,
    /// When it was written.
    pub created_at: Timestamp,
    /// How often it has been taken to be delivered, this time included.
    pub attempts: i64,
}

impl Recorded {
    /// As a CloudEvent (1.0, JSON, structured), for brokers. `source` is the service's name.
    #[must_use]
    pub fn to_cloud_event(&self, source: &str) -> Value {
        let mut event = json!({
            "specversion": "1.0",
            "id": self.id.to_string(),
            "source": source,
            "type": self.kind,
            "subject": self.key,
            "datacontenttype": "application/json",
            // An extension: RFC 3339 would need a calendar, and consumers that compare need the nanoseconds anyway.
            "unixnanos": self.created_at.as_nanos().to_string(),
            "data": self.body,
        });
        // The "distributed tracing" extension.
        if let (Some(trace), Some(fields)) = (self.trace, event.as_object_mut()) {
            fields.insert("traceparent".to_owned(), trace.to_string().into());
        }
        event
    }

    /// From a CloudEvent of [`Recorded::to_cloud_event`]; `None` if it is none.
    #[must_use]
    pub fn from_cloud_event(event: &Value) -> Option<Self> {
        let text = |name: &str| event.get(name)?.as_str();
        if text("specversion") != Some("1.0") {
            return None;
        }
        Some(Self {
            seq: 0,
            id: text("id")?.parse().ok()?,
            key: text("subject")?.to_owned(),
            kind: text("type")?.to_owned(),
            body: event.get("data").filter(|data| data.is_object())?.clone(),
            trace: text("traceparent").and_then(|trace| trace.parse().ok()),
            created_at: Timestamp::from_nanos(text("unixnanos")?.parse().ok()?),
            attempts: 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_event_comes_back_as_it_was() {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for trace in [None, trace.parse().ok()] {
            let event = Recorded {
                seq: 0,
                id: Uuid::from_u128(7),
                key: "k".to_owned(),
                kind: "order.succeeded".to_owned(),
                body: json!({"schema": 1, "order_id": "o"}),
                trace,
                created_at: Timestamp::from_nanos(i64::MAX),
                attempts: 1,
            };
            let sent = event.to_cloud_event("user-svc");
            assert_eq!(Recorded::from_cloud_event(&sent), Some(event), "{sent}");
        }
        for bad in [json!({}), json!({"specversion": "0.3"}), json!([]), Value::Null] {
            assert_eq!(Recorded::from_cloud_event(&bad), None);
        }
    }
}

//! What the demo tells at the end: a line an order for one buyer, a summary for many, everything for a machine.

use std::time::Duration;

use proto::ticket::v1::Event;
use serde_json::{Value, json};

use super::{
    Buyer,
    audit::Finding,
    purchase::{Purchase, Summary, millis},
};
use crate::output::{self, Table};

/// So many failed purchases are shown one by one; the rest is in the JSON.
const SHOWN: usize = 10;

/// Everything there is to tell.
pub(crate) struct Report<'a> {
    /// The event after the run.
    pub(crate) event: &'a Event,
    /// Whether the ticket service could be asked after the run; if not, the event is that of before.
    pub(crate) checked: bool,
    /// Who bought.
    pub(crate) buyers: &'a [Buyer],
    /// What they bought.
    pub(crate) purchases: &'a [Purchase],
    /// All of it together.
    pub(crate) summary: &'a Summary,
    /// What does not add up.
    pub(crate) findings: &'a [Finding],
    /// How many bought at the same time.
    pub(crate) concurrency: usize,
    /// How long the accounts took.
    pub(crate) opened: Duration,
    /// How long the purchases took.
    pub(crate) bought: Duration,
}

impl Report<'_> {
    /// One document.
    pub(crate) fn as_json(&self) -> Value {
        let Self { event, summary, .. } = self;
        json!({
            "event": {
                "id": event.id,
                "title": event.title,
                "venue": event.venue,
                "seats_total": event.seats_total,
                "seats_free": event.seats_free,
                "seats_held": event.seats_held,
                "seats_sold": event.seats_sold,
            },
            "buyers": self.buyers.len(),
            "concurrency": self.concurrency,
            "sold": summary.sold,
            "seats": summary.seats,
            "sold_out": summary.sold_out,
            "failed": summary.failed,
            "sold_twice": summary.sold_twice,
            "checked": self.checked,
            "findings": self.findings,
            "p50_ms": millis(summary.p50),
            "p99_ms": millis(summary.p99),
            "took_ms": millis(self.bought),
            "instances": summary.spread,
            "orders": self.purchases.iter().map(Purchase::as_json).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub(crate) fn human(&self) -> String {
        let mut text = self.heading();
        if self.purchases.len() == 1 {
            text.push_str(&self.buyer());
            text.push_str(&orders(self.purchases.iter()));
        } else {
            text.push_str(&self.totals());
            let failed: Vec<&Purchase> = self
                .purchases
                .iter()
                .filter(|purchase| purchase.outcome.is_failure())
                .collect();
            if !failed.is_empty() {
                text.push_str(&format!("\nThe first of {}:\n", output::count(failed.len(), "failure")));
                text.push_str(&orders(failed.into_iter().take(SHOWN)));
            }
        }
        if self.checked && self.findings.is_empty() {
            text.push_str(&self.checked());
        }
        text
    }

    fn heading(&self) -> String {
        let Event {
            title,
            venue,
            starts_at,
            ..
        } = self.event;
        let bold = anstyle::Style::new().bold();
        format!(
            "{bold}{}{bold:#}, {}, {} UTC\n",
            output::plain(title),
            output::plain(venue),
            output::timestamp(starts_at.as_ref())
        )
    }

    fn buyer(&self) -> String {
        let Some(Buyer { user, balance, .. }) = self.buyers.first() else {
            return "\n".to_owned();
        };
        format!(
            "{} <{}> has put in {}\n\n",
            output::plain(&user.display_name),
            output::plain(&user.email),
            output::money(balance.as_ref())
        )
    }

    fn totals(&self) -> String {
        let Self { summary, .. } = self;
        let all = self.purchases.len();
        let a_second = all as f64 / self.bought.as_secs_f64().max(0.001);
        let spread: Vec<String> = summary
            .spread
            .iter()
            .map(|(instance, orders)| format!("{} {orders}", output::plain(instance)))
            .collect();
        let mut lines = vec![
            (
                "buyers",
                format!(
                    "{all}, {} at a time; accounts in {}, purchases in {}",
                    self.concurrency,
                    output::duration(self.opened),
                    output::duration(self.bought)
                ),
            ),
            (
                "sold",
                format!(
                    "{}, {}, {}",
                    output::count(summary.sold, "order"),
                    output::count(summary.seats, "seat"),
                    output::money(summary.paid.as_ref())
                ),
            ),
            ("sold out", summary.sold_out.to_string()),
            ("failed", summary.failed.to_string()),
            (
                "BuyTicket",
                format!(
                    "p50 {}, p99 {}, {a_second:.0} a second",
                    output::duration(summary.p50),
                    output::duration(summary.p99)
                ),
            ),
        ];
        if !spread.is_empty() {
            lines.push(("served by", spread.join(", ")));
        }
        lines
            .into_iter()
            .map(|(name, value)| format!("  {name:<10} {value}\n"))
            .collect()
    }

    fn checked(&self) -> String {
        let Event {
            seats_sold,
            seats_total,
            ..
        } = self.event;
        let sold_here = match self.summary.seat_ids.len() {
            0 => "no seat was sold".to_owned(),
            1 => "1 seat was sold, once".to_owned(),
            seats => format!("{seats} seats were sold, each once"),
        };
        format!("\nChecked with the ticket service: {sold_here}; {seats_sold} of {seats_total} are sold by now.\n")
    }
}

fn orders<'a>(purchases: impl Iterator<Item = &'a Purchase>) -> String {
    let mut table = Table::new(["order", "seats", "price", "served by", "took", "trace"]);
    let (mut reasons, mut links) = (String::new(), String::new());
    for purchase in purchases {
        let order = purchase.outcome.order();
        table.row([
            purchase.outcome.state().to_owned(),
            order.map(|order| order.seat_ids.join(" ")).unwrap_or_default(),
            output::money(order.and_then(|order| order.total.as_ref())),
            order.map(|order| order.ticket_instance_id.clone()).unwrap_or_default(),
            output::duration(purchase.took),
            purchase.trace_id.clone(),
        ]);
        if let Some(url) = &purchase.trace_url {
            links.push_str(&format!("  {url}\n"));
        }
        let why = purchase.outcome.why();
        if !why.is_empty() {
            reasons.push_str(&format!("{}: {}\n", purchase.trace_id, output::plain(&why)));
        }
    }
    let mut text = table.render();
    if !reasons.is_empty() {
        text.push_str(&format!("\n{reasons}"));
    }
    if !links.is_empty() {
        text.push_str(&format!("\nIn Jaeger:\n{links}"));
    }
    text
}

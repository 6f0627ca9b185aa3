//! A pool without servers, for `benches/pick.rs`: there is no other way to a pick alone. Only with the feature `bench`.

use std::{sync::Arc, time::Duration};

use http::uri::Authority;
use tokio::time::Instant;

use crate::{
    Policy,
    endpoint::{Ending, Endpoint, connection::Connection},
    load::{Load, Report},
    pool::{Admission, Choice, Member, Pool, Wish},
};

/// A pool of idle endpoints, of each of which a latency of some 5 ms is known.
#[derive(Debug)]
pub struct Picks {
    pool: Pool,
}

/// A call that was picked for; it ends when this is dropped.
#[derive(Debug)]
pub struct Picked {
    _choice: Choice,
}

impl Picks {
    /// `weight` of each, by its number. They share one connection to nobody: that is only cloned by a pick.
    pub async fn new(policy: Policy, count: u32, weight: impl Fn(u32) -> u32) -> Self {
        let pool = Pool::new(policy);
        let connection = Connection::idle(1).await;
        let members = (0..count).map(|number| {
            let id = format!("instance-{number}");
            let authority = Authority::from_static("127.0.0.1:1");
            let endpoint = Endpoint::new(id.as_str().into(), id.as_str().into(), authority);
            let endpoint = Arc::new(endpoint.measured_by(Load::new(Arc::clone(pool.fleet()))));
            let before = Duration::from_micros(4500 + u64::from(number % 1000));
            let began = Instant::now().checked_sub(before).unwrap_or_else(Instant::now);
            endpoint.begin(began).ends(Ending::Served);
            Member {
                endpoint,
                connections: Arc::new([connection.clone()]),
                weight: weight(number),
                attributes: Arc::default(),
                registry: 0,
                admission: Admission::All,
            }
        });
        pool.set_members(members);
        Self { pool }
    }

    /// Prequal gets reports of the first instances, more than it keeps: they wear out, and here nobody probes.
    pub fn hear(&self) {
        let now = self.pool.fleet().tick(Instant::now());
        if let Some(probes) = self.pool.fleet().probes() {
            for number in 1..=32 {
                let report = Report {
                    rif: number as u16 % 5,
                    latency: 5000 + number,
                };
                probes.add_for_ever(number, report, now);
            }
        }
    }

    /// Chooses, and does nothing with it: the snapshot, the clock, the random bits, the policy. The number of the choice.
    #[must_use]
    pub fn choose(&self, key: Option<u64>) -> Option<usize> {
        self.pool.choose(Wish { key, ..Wish::default() })
    }

    /// As a call does: with the call counted, and the connection in hand.
    #[must_use]
    pub fn pick(&self, key: Option<u64>) -> Option<Picked> {
        let wish = Wish { key, ..Wish::default() };
        self.pool.pick(wish).map(|choice| Picked { _choice: choice })
    }
}

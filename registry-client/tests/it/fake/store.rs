//! What a scripted registry keeps: leases and answers. Replicas share one.

use std::time::Duration;

use proto::registry::v1;
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Store {
    leases: Vec<Lease>,
    answered: Vec<(v1::RegisterRequest, v1::RegisterResponse)>,
    revision: i64,
}

#[derive(Debug)]
struct Lease {
    id: String,
    ttl: Duration,
    end: Instant,
}

impl Store {
    /// Those that live.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &str> {
        let now = Instant::now();
        self.leases
            .iter()
            .filter(move |lease| now < lease.end)
            .map(|lease| &*lease.id)
    }

    /// Forgets them all.
    pub(crate) fn forget_leases(&mut self) {
        self.leases.clear();
    }

    pub(crate) fn next_revision(&mut self) -> i64 {
        self.revision += 1;
        self.revision
    }

    /// Grants a lease, or repeats an answer for as long as its lease lives. `None` for a request id with another body.
    pub(crate) fn register(&mut self, request: &v1::RegisterRequest) -> Option<v1::RegisterResponse> {
        let lives: Vec<&str> = self.leases().collect();
        let repeated = self.answered.iter().find(|(known, answer)| {
            !known.request_id.is_empty() && known.request_id == request.request_id && lives.contains(&&*answer.lease_id)
        });
        match repeated {
            Some((known, response)) => (known == request).then(|| response.clone()),
            None => {
                let response = self.grant(request);
                self.answered.push((request.clone(), response.clone()));
                Some(response)
            }
        }
    }

    fn grant(&mut self, request: &v1::RegisterRequest) -> v1::RegisterResponse {
        let interval = request.heartbeat_interval.expect("this client says it");
        let ttl = Duration::try_from(interval).expect("not negative") * request.misses_allowed;
        let revision = self.next_revision();
        let id = format!("lease-{revision}");
        let end = Instant::now() + ttl;
        self.leases.push(Lease {
            id: id.clone(),
            ttl,
            end,
        });
        v1::RegisterResponse {
            lease_id: id,
            lease_secret: "secret".into(),
            instance_ids: request.instances.iter().map(|i| i.id.clone()).collect(),
            epoch: revision,
            ttl: prost_types::Duration::try_from(ttl).ok(),
            revision,
        }
    }

    /// Whether the lease lives.
    pub(crate) fn knows(&self, lease: &str) -> bool {
        self.leases().any(|id| id == lease)
    }

    /// The lifetime of a lease that lives, and lives on.
    pub(crate) fn renew(&mut self, lease: &str) -> Option<Duration> {
        let now = Instant::now();
        let lease = self
            .leases
            .iter_mut()
            .find(|known| known.id == lease && now < known.end)?;
        lease.end = now + lease.ttl;
        Some(lease.ttl)
    }

    pub(crate) fn end(&mut self, lease: &str) {
        self.leases.retain(|known| known.id != lease);
    }
}

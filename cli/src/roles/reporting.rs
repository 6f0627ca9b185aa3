//! How a role reports what it counts: to the monitor that its registry knows of. A monitor that is away never keeps a role from
//! starting, serving or ending.

use std::{net::SocketAddr, time::Duration};

use monitor_client::{Reporter, Settings};
use registry_client::{Registry, Token};

use crate::{
    args::{HostArgs, MemberArgs, ReportArgs},
    failure::Failure,
    registry::{self, credentials},
};

/// How long the last report may take at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// Where to report and how often; nowhere when it is turned off.
pub(super) struct Reporting(Option<(Registry, Duration)>);

/// A role that reports, or does not.
pub(super) struct Reports(Option<Reporter>);

impl Reporting {
    /// Nowhere.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// As a member of a cluster: through the registry that it registers with, showing it the same.
    pub(super) fn member(
        host: &HostArgs,
        member: &MemberArgs,
        tls: Option<&tls::Client>,
        token: Option<Token>,
    ) -> Result<Self, Failure> {
        let Some(interval) = interval(&host.report) else {
            return Ok(Self(None));
        };
        let endpoints = member.registry.iter().map(|url| url.as_str());
        let registry = registry::connect(endpoints, &member.namespace, tls)?;
        let registry = match token {
            Some(token) => credentials::with(registry, token, &member.shown)?,
            None => registry,
        };
        Ok(Self(Some((registry, interval))))
    }

    /// As the registry itself, which finds the monitor in what it serves at that address, with that token if it asks for one. Its own
    /// namespace is the default one.
    pub(super) fn of_registry(
        args: &ReportArgs,
        listen: SocketAddr,
        tls: Option<&tls::Client>,
        is_secured: bool,
        token: Option<Token>,
    ) -> Self {
        let Some(interval) = interval(args) else {
            return Self(None);
        };
        let mut here = listen;
        if listen.ip().is_unspecified() {
            here.set_ip(match listen {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let scheme = if is_secured { "https" } else { "http" };
        match Registry::connect_with([format!("{scheme}://{here}")], tls) {
            Ok(registry) => {
                let registry = match token {
                    Some(token) => registry.with_token_in_the_clear(token),
                    None => registry,
                };
                Self(Some((registry, interval)))
            }
            Err(error) => {
                tracing::info!(%error, "this registry cannot dial itself, so it reports nothing to a monitor");
                Self(None)
            }
        }
    }

    /// From here on it counts and reports.
    pub(super) fn start(self, service: &str, instance: &str) -> Reports {
        let start = |(registry, interval)| {
            let settings = Settings::new(service, instance).interval(interval);
            Reporter::start(&registry, settings)
        };
        Reports(self.0.and_then(start))
    }
}

impl Reports {
    /// Sends what is left.
    pub(super) async fn stop(self) {
        if let Some(reporter) = self.0 {
            reporter.stop(LAST).await;
        }
    }
}

fn interval(args: &ReportArgs) -> Option<Duration> {
    let wanted = !args.no_monitor && !args.monitor_interval.is_zero();
    wanted.then_some(args.monitor_interval)
}

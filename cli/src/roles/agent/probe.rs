//! One question to the endpoint, bounded. What the answers come to is `streak`'s to say.

use std::{fmt, time::Duration};

use tokio::net::TcpStream;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::{
    args::{AgentArgs, ProbeKind, Spoken},
    failure::Failure,
    healthcheck::{self, Trouble},
};

/// What is asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    what: What,
    address: String,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum What {
    Health {
        service: String,
    },
    /// The same where TLS is spoken, by whom callers expect there.
    Secured {
        service: String,
        tls: tls::Client,
        expected: tls::Expected,
    },
    Connection,
    Nothing,
}

/// Why a probe has failed, in one line for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Miss(String);

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Probe {
    /// As the flags have it, and the files that they name.
    pub(crate) fn try_new(args: &AgentArgs, tls: Option<&tls::Client>) -> Result<Self, Failure> {
        let probing = &args.probing;
        let kind = probing.probe.unwrap_or(match (args.protocol, tls) {
            (Spoken::Grpc, _) | (Spoken::Grpcs, Some(_)) => ProbeKind::Grpc,
            (Spoken::Grpcs, None) | (Spoken::Http, _) => ProbeKind::Tcp,
        });
        let what = match (kind, args.protocol, tls) {
            (ProbeKind::Grpc, Spoken::Grpc, _) => What::Health {
                service: probing.probe_service.clone(),
            },
            (ProbeKind::Grpc, Spoken::Http, _) => {
                return Err(
                    Failure::usage("--probe grpc cannot ask an endpoint of --protocol http").advice("pass --probe tcp")
                );
            }
            (ProbeKind::Grpc, Spoken::Grpcs, Some(tls)) => What::Secured {
                service: probing.probe_service.clone(),
                tls: tls.clone(),
                expected: tls::Expected::service(&args.member.namespace, &args.service),
            },
            (ProbeKind::Grpc, Spoken::Grpcs, None) => {
                return Err(Failure::usage(
                    "--probe grpc of --protocol grpcs has no CA bundle to verify the server with",
                )
                .advice("pass --tls-ca, or --probe tcp"));
            }
            (ProbeKind::Tcp, ..) => What::Connection,
            (ProbeKind::None, ..) => What::Nothing,
        };
        if !probing.probe_service.is_empty() && !matches!(what, What::Health { .. } | What::Secured { .. }) {
            return Err(Failure::usage("--probe-service is for --probe grpc").advice("leave it out"));
        }
        Ok(Self {
            what,
            address: args.endpoint.clone(),
            timeout: probing.probe_timeout,
        })
    }

    /// False where there is nothing to ask.
    pub(crate) fn asks(&self) -> bool {
        !matches!(self.what, What::Nothing)
    }

    /// Asks once, over a connection of its own: a server that has stopped accepting is found too.
    pub(crate) async fn ask(&self) -> Result<(), Miss> {
        match &self.what {
            What::Nothing => Ok(()),
            What::Connection => match tokio::time::timeout(self.timeout, TcpStream::connect(&self.address)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(Miss(format!("{} cannot be reached ({error})", self.address))),
                Err(_) => Err(Miss(format!(
                    "{} did not accept within {:?}",
                    self.address, self.timeout
                ))),
            },
            What::Health { service } => self.heard(healthcheck::ask(&self.address, service, self.timeout, None).await),
            What::Secured { service, tls, expected } => {
                let origin = format!("https://{}", self.address);
                let tls = Some((tls.clone(), expected.clone()));
                self.heard(healthcheck::ask(&origin, service, self.timeout, tls).await)
            }
        }
    }

    fn heard(&self, answer: Result<ServingStatus, Trouble>) -> Result<(), Miss> {
        match answer {
            Ok(ServingStatus::Serving) => Ok(()),
            Ok(status) => Err(Miss(format!("{} is {}", self.address, status.as_str_name()))),
            Err(trouble) => Err(Miss(trouble.told(&self.address).to_string())),
        }
    }
}

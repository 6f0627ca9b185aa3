//! Asks the user service for the keys that it signs with. The one place here that calls another service.

use std::{path::Path, time::Duration};

use identity::{ISSUER, KeySet, PublicKey};
use proto::user::v1::{GetSigningKeysRequest, user_service_client::UserServiceClient};
use registry_client::Registry;
use tonic::Request;

/// Who publishes keys, as the registry knows it.
const USER_SERVICE: &str = "user-svc";

/// How long one look may take; the next one comes soon.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The keys of the user service, wherever it is.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    client: UserServiceClient<lb::Channel>,
}

impl Published {
    /// Of the user services that the registry tells, or, while it is away, told last: that is kept in `cache`.
    pub(crate) fn new(registry: &Registry, tls: Option<tls::Client>, cache: Option<&Path>) -> Self {
        let mut builder = lb::Channel::builder(registry.discover(USER_SERVICE))
            .tls(tls)
            .ready_timeout(ATTEMPT);
        if let Some(cache) = cache {
            builder = builder.cache_dir(cache);
        }
        Self {
            client: UserServiceClient::new(builder.build()),
        }
    }

    /// What it publishes now.
    pub(crate) async fn fetch(&self) -> Result<KeySet, String> {
        let mut request = Request::new(GetSigningKeysRequest {});
        request.set_timeout(ATTEMPT);
        let answer = self.client.clone().get_signing_keys(request).await;
        let answer = answer
            .map_err(|status| format!("user-svc does not tell its keys: {}", status.message()))?
            .into_inner();
        if answer.issuer != ISSUER {
            return Err(format!("user-svc signs as {:?}, which is not {ISSUER}", answer.issuer));
        }
        let keys: Result<Vec<_>, _> = answer
            .keys
            .iter()
            .map(|key| PublicKey::from_bytes(&key.public_key))
            .collect();
        match keys {
            Ok(keys) if !keys.is_empty() => Ok(KeySet::new(keys)),
            _ => Err("user-svc tells keys that are none".to_owned()),
        }
    }
}

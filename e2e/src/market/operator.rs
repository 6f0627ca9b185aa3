//! The operator of a market: an account that was made one with the store, and that signs in again when its token has ended. The
//! services may be killed at any time meanwhile, so nothing here fails; what did not succeed is done at the next call.

use std::time::Duration;

use proto::user::v1::{CreateUserRequest, SignInRequest, user_service_client::UserServiceClient};
use registry_client::{Bearer, Token};
use tokio::{sync::Mutex, time::Instant};
use tonic::{Request, service::interceptor::InterceptedService};
use uuid::Uuid;

/// A channel on which the operator's token is shown.
pub(super) type Line = InterceptedService<lb::Channel, Bearer>;

/// Many calls find at once that the token has ended; one of them renews it.
const JUST_NOW: Duration = Duration::from_secs(1);

/// How long the store may take to write that down.
const GRANT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Operator {
    users: UserServiceClient<lb::Channel>,
    /// The user service's.
    store: String,
    /// Shown by every line; what it holds is replaced.
    token: Token,
    email: String,
    password: String,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    is_operator: bool,
    signed_in: Option<Instant>,
}

impl Operator {
    pub(super) fn new(users: lb::Channel, store: String) -> Self {
        let id = Uuid::new_v4();
        Self {
            users: UserServiceClient::new(users),
            store,
            token: "not-signed-in".parse().expect("visible characters"),
            email: format!("operator-{}@example.com", id.simple()),
            password: id.to_string(),
            progress: Mutex::default(),
        }
    }

    /// What a line shows.
    pub(super) fn bearer(&self) -> Bearer {
        Bearer::new(Some(self.token.clone()))
    }

    /// Renews the token, as far as the services let it.
    pub(super) async fn sign_in(&self) {
        let mut progress = self.progress.lock().await;
        if progress.signed_in.is_some_and(|at| at.elapsed() < JUST_NOW) {
            return;
        }
        if !progress.is_operator {
            progress.is_operator = self.become_operator().await;
        }
        if progress.is_operator {
            let request = SignInRequest {
                email: self.email.clone(),
                password: self.password.clone(),
            };
            if let Ok(answer) = self.users.clone().sign_in(soon(request)).await {
                let token = answer.into_inner().session_token.parse().expect("a token");
                self.token.replace(&token);
                progress.signed_in = Some(Instant::now());
            }
        }
    }

    async fn become_operator(&self) -> bool {
        let request = CreateUserRequest {
            // The same each time: the account is made once.
            request_id: self.password.clone(),
            email: self.email.clone(),
            display_name: "Operator".into(),
            password: self.password.clone(),
            currency_code: "EUR".into(),
        };
        self.users.clone().create_user(soon(request)).await.is_ok() && self.grant().await
    }

    /// Writes down that it is one, whether it was or not.
    pub(super) async fn grant(&self) -> bool {
        let granted = user_svc::offline::grant(self.store.as_str(), &self.email, identity::Roles::OPERATOR);
        // Whoever waits longer for the file meets one who stands still.
        tokio::time::timeout(GRANT, granted)
            .await
            .is_ok_and(|granted| granted.is_ok())
    }
}

fn soon<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(super::ATTEMPT);
    request
}

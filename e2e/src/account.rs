//! Accounts as people have them: signed up and signed in with the tool, made more than a buyer with the store.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Cluster;

const PASSWORD: &str = "correct horse battery";

/// Somebody who has signed in.
#[derive(Debug, Clone)]
pub struct Account {
    /// The account.
    pub id: String,
    /// Its address.
    pub email: String,
    /// `@FILE` with its access token, as `--bearer` takes it.
    pub bearer: String,
}

impl Cluster {
    /// An account with these roles beside the one that everybody has.
    ///
    /// # Panics
    /// When the cluster does not do it.
    pub async fn account(&self, roles: &[&str]) -> Account {
        let id = uuid::Uuid::new_v4();
        let email = format!("{}@example.com", id.simple());
        let request = json!({
            "requestId": id.to_string(), "email": email, "displayName": "Ada", "password": PASSWORD,
        });
        let made = self.ask("CreateUser", &request).await;
        if !roles.is_empty() {
            let store = self.store("user");
            let mut args = vec!["account", "grant", &email, "--store", &store];
            args.extend(roles.iter().flat_map(|role| ["--role", role]));
            crate::run(args).await.success();
        }
        let session = self
            .ask("SignIn", &json!({ "email": email, "password": PASSWORD }))
            .await;
        let token = session["sessionToken"].as_str().expect("a token");
        let file: PathBuf = self.data().join(format!("{}.token", id.simple()));
        std::fs::write(&file, token).expect("written");
        Account {
            id: made["user"]["id"].as_str().expect("an id").to_owned(),
            email,
            bearer: format!("@{}", file.display()),
        }
    }

    async fn ask(&self, method: &str, request: &Value) -> Value {
        let (method, request) = (format!("tessera.user.v1.UserService/{method}"), request.to_string());
        let args = ["call", &self.user, &method, &request, "--output", "json"];
        crate::run(args).await.success().json()
    }
}

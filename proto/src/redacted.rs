//! `Debug` of the messages that carry a secret: everything else is shown, the secret never is. Keeps one careless `{:?}` in a log
//! or an error from telling a password. Not a policy of what may be logged; that is the services'.

use std::fmt;

/// Stands for a secret: tells whether there is one, and nothing of it, not even its length.
struct Secret<'a>(&'a str);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "[redacted]" })
    }
}

macro_rules! redacted {
    ($($message:ident { $($shown:ident),* ; $($secret:ident),+ })+) => { $(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $( .field(stringify!($shown), &self.$shown) )*
                    $( .field(stringify!($secret), &Secret(&self.$secret)) )+
                    .finish()
            }
        }
    )+ };
}

mod registry {
    use std::fmt;

    use super::Secret;
    use crate::registry::v1::{
        DeregisterRequest, RegisterRequest, RegisterResponse, RenewRequest, UpdateInstanceRequest,
    };

    redacted! {
        RegisterRequest { request_id, instances, heartbeat_interval, misses_allowed, lease_id; lease_secret }
        RegisterResponse { lease_id, instance_ids, epoch, ttl, revision; lease_secret }
        RenewRequest { lease_id; lease_secret }
        DeregisterRequest { lease_id, instance_ids, reason, detail; lease_secret }
        UpdateInstanceRequest { lease_id, instance, update_mask, epoch; lease_secret }
    }
}

mod user {
    use std::fmt;

    use super::Secret;
    use crate::user::v1::{
        CreateUserRequest, DeleteUserRequest, RefreshSessionRequest, RefreshSessionResponse, SignInRequest,
        SignInResponse, UpdateProfileRequest,
    };

    redacted! {
        CreateUserRequest { request_id, email, display_name, currency_code; password }
        SignInRequest { email; password }
        SignInResponse { user, expires_at, refresh_expires_at, session_id; session_token, refresh_token }
        RefreshSessionRequest { ; refresh_token }
        RefreshSessionResponse { expires_at, refresh_expires_at, user; session_token, refresh_token }
        UpdateProfileRequest { user_id, display_name, email; new_password, password }
        DeleteUserRequest { user_id, forfeit_balance; password }
    }
}

#[cfg(test)]
mod tests {
    use crate::{registry::v1::RenewRequest, user::v1::SignInRequest};

    #[test]
    fn a_secret_is_never_shown_and_the_rest_is() {
        let request = SignInRequest {
            email: "ada@example.com".to_owned(),
            password: "correct horse".to_owned(),
        };
        let shown = format!("{request:?} {:?}", RenewRequest::default());
        assert!(
            shown.contains("ada@example.com") && shown.contains("[redacted]"),
            "{shown}"
        );
        assert!(!shown.contains("correct"), "{shown}");
        assert!(
            shown.contains("none"),
            "an absent secret is told from a present one: {shown}"
        );
    }

    /// A message that gains a secret must come here too: every field whose name speaks of one is listed.
    #[test]
    fn every_message_with_a_secret_is_redacted() {
        use prost::Message as _;
        let redacted = include_str!("redacted.rs");
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("decodes");
        for file in set.file.iter().filter(|file| file.package().starts_with("tessera.")) {
            for message in &file.message_type {
                for field in &message.field {
                    let speaks = ["password", "secret", "session_token", "refresh_token"]
                        .iter()
                        .any(|word| field.name().contains(word));
                    let listed = format!("        {} {{", message.name());
                    assert!(
                        !speaks || redacted.contains(&listed),
                        "{}.{} would be shown",
                        message.name(),
                        field.name()
                    );
                }
            }
        }
    }
}

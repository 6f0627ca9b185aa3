//! UpdateInstance.

use proto::registry::v1 as wire;
use tonic::Code;

use crate::support::{Fixture, instance, reason, register};

fn update(owner: &wire::RegisterResponse, paths: &[&str], said: wire::Instance) -> wire::UpdateInstanceRequest {
    wire::UpdateInstanceRequest {
        lease_id: owner.lease_id.clone(),
        lease_secret: owner.lease_secret.clone(),
        instance: Some(said),
        update_mask: Some(prost_types::FieldMask {
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        }),
        epoch: owner.epoch,
    }
}

#[tokio::test]
async fn takes_the_fields_of_the_mask_and_no_others() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let owner = register(&mut client, "a-svc", "1").await;
    let mut said = instance("a-svc", "1");
    said.weight = Some(7);
    said.set_status(wire::InstanceStatus::Draining);
    said.metadata = [("k".to_owned(), "v".to_owned())].into();

    let answer = client
        .update_instance(update(&owner, &["status"], said.clone()))
        .await
        .expect("updates")
        .into_inner();
    let told = answer.instance.expect("told");
    assert_eq!(
        (told.status(), told.weight, told.metadata.len()),
        (wire::InstanceStatus::Draining, Some(100), 0)
    );
    assert_eq!(
        (answer.revision, told.revision, told.epoch),
        (2, 2, 1),
        "an update is no registration"
    );

    let answer = client
        .update_instance(update(&owner, &["weight", "metadata"], said.clone()))
        .await
        .expect("updates");
    let told = answer.into_inner().instance.expect("told");
    assert_eq!((told.weight, told.metadata.len()), (Some(7), 1));

    // Saying the same again is no news.
    let answer = client
        .update_instance(update(&owner, &["weight", "metadata", "status"], said))
        .await
        .expect("updates");
    assert_eq!(answer.into_inner().revision, 3);
}

#[tokio::test]
async fn what_was_never_registered_cannot_change() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client().await;
    let owner = register(&mut client, "a-svc", "1").await;
    let error = client
        .update_instance(update(&owner, &["status"], instance("a-svc", "2")))
        .await
        .expect_err("unknown");
    assert_eq!(
        (error.code(), reason(&error).as_str()),
        (Code::NotFound, "INSTANCE_UNKNOWN")
    );
}

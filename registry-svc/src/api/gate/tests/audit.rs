//! Whose a decision is, on the record: whoever showed the token, whatever the request says.

use proto::registry::v1::governance_service_client::GovernanceServiceClient;

use super::*;

/// `--who` was taken at its word: with any operator's token one could drain an instance in somebody else's name.
#[tokio::test]
async fn nobody_decides_in_somebody_elses_name() {
    let guarded = Guarded::start().await;
    let (id, token) = guarded.token(&["operate:team", "register:team/app"]).await;
    let (other_id, other) = guarded.token(&["operate:team"]).await;
    let channel = guarded.channel().await;
    let mut registry = RegistryServiceClient::new(channel.clone());
    leases::register(&mut registry, &token, "app", "one").await;
    let mut governance = GovernanceServiceClient::new(channel);
    let instance = Some(wire::InstanceRef {
        namespace: "team".into(),
        service: "app".into(),
        id: "one".into(),
    });
    let drain = |who: &str| wire::DrainRequest {
        instance: instance.clone(),
        who: who.into(),
        ack_timeout: Some(prost_types::Duration::default()),
        ..Default::default()
    };
    // As the other one would be shown, and worse.
    let forged = format!("the token \"test\" ({other_id}), as \"root\"");
    let drained = governance.drain(bearing(&token, drain(&forged))).await.expect("may");
    let weigh = wire::SetWeightRequest {
        instance: instance.clone(),
        weight: Some(7),
        who: "bob".into(),
        ..Default::default()
    };
    governance.set_weight(bearing(&other, weigh)).await.expect("may");

    // Asked for once more it is the same decision; in the same words by somebody else it is another one.
    let again = governance.drain(bearing(&token, drain(&forged))).await.expect("may");
    assert_eq!(again.get_ref().revision, drained.get_ref().revision);

    let explain = wire::ExplainInstanceRequest {
        instance: instance.clone(),
    };
    let told = governance.explain_instance(bearing(&token, explain.clone())).await;
    let told = told.expect("may").into_inner();
    let first = format!("the token \"test\" ({id}), as \"the token \\\"test\\\" ({other_id}), as \\\"root\\\"\"");
    let second = format!("the token \"test\" ({other_id}), as \"bob\"");
    let decisions = told.r#override.expect("laid").decisions;
    let decided: Vec<&str> = decisions.iter().map(|decision| decision.who.as_str()).collect();
    assert_eq!(decided, [&first, &second]);
    let steps: Vec<_> = told.steps.iter().filter(|step| !step.who.is_empty()).collect();
    let signed: std::collections::BTreeSet<&str> = steps.iter().map(|step| step.who.as_str()).collect();
    assert_eq!(signed, [first.as_str(), second.as_str()].into());
    for step in steps {
        // Where it came from beside it, and not once more who.
        step.peer.parse::<SocketAddr>().expect("an address");
    }

    let undrain = wire::UndrainRequest {
        instance,
        who: "nobody".into(),
        ..Default::default()
    };
    governance.undrain(bearing(&other, undrain)).await.expect("may");
    let told = governance.explain_instance(bearing(&token, explain)).await;
    let steps = told.expect("may").into_inner().steps;
    let undrained = steps
        .iter()
        .find(|step| step.what() == wire::instance_step::What::Undrained);
    let who = &undrained.expect("a step").who;
    assert_eq!(*who, format!("the token \"test\" ({other_id}), as \"nobody\""));
}

/// Where nobody is asked who they are there is nothing better than what they say, and it looks as it was said.
#[test]
fn whoever_is_not_known_signs_as_they_please() {
    use super::super::super::caller::Caller;
    use crate::model::Who;

    let said = Who::of("ann");
    assert_eq!(Caller::of(&http::Extensions::new(), false).signs(said.clone()), said);
    let operator = tls::Identity {
        spiffe: Some("spiffe://acme/operator/ada".parse().expect("an id")),
        ..tls::Identity::default()
    };
    let mut extensions = http::Extensions::new();
    extensions.insert(Principal::Identity(Arc::new(operator)));
    let signed = Caller::of(&extensions, true).signs(said);
    assert_eq!(
        signed.as_str(),
        "the certificate of spiffe://acme/operator/ada, as \"ann\""
    );
}

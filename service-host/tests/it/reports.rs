//! Load reports, for callers that ask for them.

use crate::support::{client::ask, config, server_and_client};

#[tokio::test]
async fn a_caller_that_asks_is_told_how_loaded_the_instance_is() {
    let (_running, client) = server_and_client(config()).await;
    for asks in [false, true] {
        let mut request = ask("hello", None);
        if asks {
            let value = "1".parse().expect("ASCII");
            request.metadata_mut().insert("tessera-load-report", value);
        }
        let response = client.say(request).await.expect("answered");
        let report = response.metadata().get_bin("endpoint-load-metrics-bin");
        assert_eq!(report.is_some(), asks);
        let Some(report) = report else { continue };
        let report = report.to_bytes().expect("base64");
        // Both metrics by name; what they are made of is the layer's own test.
        for name in ["rif", "latency"] {
            let found = report.windows(name.len()).any(|bytes| bytes == name.as_bytes());
            assert!(found, "{name} in {report:?}");
        }
    }
}

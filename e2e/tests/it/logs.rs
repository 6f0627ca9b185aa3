//! What a running process logs is looked at and changed at its admin port.

use e2e::{Cluster, ClusterOptions, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A request as somebody else than our command would make it.
async fn raw(address: &str, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("listening");
    socket.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_of_a_running_process_is_shown_changed_and_taken_back() {
    let options = ClusterOptions {
        tickets: 0,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::with(options).await;
    let admin = &*cluster.registry_admin;
    let tessera = async |args: &[&str]| e2e::run(["log-level", admin].iter().chain(args)).await;
    assert_eq!(tessera(&[]).await.success().stdout, "info\n");

    // At info nobody hears of a caller that speaks something else.
    let said = || cluster.process("registry").stderr();
    let noise = async || {
        let mut socket = TcpStream::connect(&cluster.registry).await.expect("listening");
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("written");
        // Until it is closed, which is when it is logged.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    };
    noise().await;
    let shown = tessera(&["info,service_host=debug", "--for", "1h", "--output", "json"]).await;
    let shown = shown.success().json();
    assert_eq!(shown["filter"], "info,service_host=debug");
    assert_eq!(
        (&shown["then"], &shown["started_with"]),
        (&"info".into(), &"info".into())
    );
    assert!(!said().contains("connection ended"), "{}", said());
    assert!(said().contains("the log filter was changed"), "{}", said());
    noise().await;
    wait::until("a line at debug", || async {
        if said().contains("connection ended") {
            Ok(())
        } else {
            Err(said())
        }
    })
    .await;

    for (wrong, why) in [
        ("debgu", "is no level"),
        ("info,a b=debug", "TARGET=LEVEL"),
        ("", "at least a level"),
    ] {
        let refused = tessera(&[wrong]).await;
        assert_eq!(refused.code(), 2, "{wrong:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(why), "{wrong:?}: {}", refused.stderr);
    }
    let refused = tessera(&["info", "--for", "30d"]).await;
    assert!(refused.stderr.contains("at most 24h"), "{}", refused.stderr);
    let put = |headers: &str, query: &str| {
        format!(
            "PUT /log-level{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: 5\r\n\r\ntrace"
        )
    };
    // A page in a browser on this machine is not whoever works on it.
    let page = raw(admin, &put("origin: http://attacker.test\r\n", "")).await;
    assert!(page.starts_with("HTTP/1.1 403"), "{page}");
    let mistaken = raw(admin, &put("", "?for=soon")).await;
    assert!(mistaken.starts_with("HTTP/1.1 400"), "{mistaken}");
    let still = tessera(&[]).await.success().stdout;
    assert!(still.starts_with("info,service_host=debug for another "), "{still}");

    assert_eq!(tessera(&["--reset"]).await.success().stdout, "info\n");
}

/// A filter that ends goes back by itself, with nobody asking.
#[tokio::test(flavor = "multi_thread")]
async fn a_passing_log_level_ends_by_itself() {
    let options = ClusterOptions {
        tickets: 0,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::with(options).await;
    let admin = &*cluster.registry_admin;
    e2e::run(["log-level", admin, "error,telemetry=warn", "--for", "1ms"])
        .await
        .success();
    wait::until("the end of the filter", || async {
        let said = cluster.process("registry").stderr();
        if said.contains("the log filter's time is over") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    let shown = e2e::run(["log-level", admin]).await.success().stdout;
    assert_eq!(shown, "info\n");
}

//! Bad input from outside: each gets the documented error with what to do next, and disturbs nobody else.
//!
//! The tables of single fields are in the crates that own them; here is what only whole processes can show.

use e2e::{Cluster, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_what_it_takes() {
    for (args, words) in [
        (&["upp"][..], &["unrecognized subcommand", "up"][..]),
        (&["demo", "--buyers", "-3"], &["--buyers"]),
        (&["demo", "--buyers", "many"], &["--buyers", "many"]),
        (&["demo", "--seats", "11"], &["--seats", "1..=10"]),
        (&["registry", "--listen", "here"], &["--listen", "here"]),
        (&["registry", "--listen", "127.0.0.1:70000"], &["--listen", "70000"]),
        (&["instances", "../etc"], &["../etc"]),
        (&["call", "ticket-svc", "NoSlash", "{}"], &["NoSlash"]),
        (&["weight", "ticket-svc/a", "1001"], &["1001", "1000"]),
        (&["services", "--registry", "ftp://x"], &["--registry"]),
    ] {
        let ended = run(args).await;
        assert_eq!(ended.code(), 2, "{args:?}: {}{}", ended.stdout, ended.stderr);
        for word in words {
            assert!(
                ended.stderr.contains(word),
                "{args:?} does not say {word}: {}",
                ended.stderr
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_registry_is_one_clear_line() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("its address")
        .to_string();
    for args in [
        &["services"][..],
        &["instances"],
        &["demo"],
        &["call", "ticket-svc", "a.B/C", "{}"],
    ] {
        let ended = run(args.iter().copied().chain(["--registry", &closed])).await;
        assert!(ended.code() != 0 && ended.code() != 2, "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&closed), "{args:?} names it: {}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{args:?}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_name_the_field_and_harm_nobody() {
    let cluster = Cluster::start().await;
    let operator = cluster.account(&["operator"]).await;
    let user = "tessera.user.v1.UserService";
    let ticket = "tessera.ticket.v1.TicketService";
    let id = "6f1c1c7e-0d5e-4c55-9b7c-3a6f5a1f2b00";
    let other = "6f1c1c7e-0d5e-4c55-9b7c-3a6f5a1f2b01";
    for (service, method, body, code, word) in [
        (
            "user-svc",
            format!("{user}/TopUp"),
            format!(r#"{{"requestId":"{id}","userId":"{other}","amount":{{"currencyCode":"EUR","minorUnits":"-5"}}}}"#),
            3,
            "amount",
        ),
        (
            "user-svc",
            format!("{user}/TopUp"),
            format!(
                r#"{{"requestId":"{id}","userId":"{other}","amount":{{"currencyCode":"EUR","minorUnits":"9223372036854775807"}}}}"#
            ),
            3,
            "amount",
        ),
        (
            "user-svc",
            format!("{user}/TopUp"),
            format!(r#"{{"requestId":"one","userId":"{other}","amount":{{"currencyCode":"EUR","minorUnits":"5"}}}}"#),
            3,
            "request_id",
        ),
        (
            "user-svc",
            format!("{user}/GetUser"),
            format!(r#"{{"userId":"{other}"}}"#),
            5,
            "USER_UNKNOWN",
        ),
        (
            "user-svc",
            format!("{user}/BuyTicket"),
            format!(
                r#"{{"requestId":"{id}","userId":"{other}","eventId":"{other}","bestAvailable":{{"quantity":11}}}}"#
            ),
            3,
            "quantity",
        ),
        (
            "ticket-svc",
            format!("{ticket}/HoldSeats"),
            format!(
                r#"{{"requestId":"{id}","eventId":"{other}","buyerId":"b","seats":{{"seatIds":["A/1/1","A/1/1"]}}}}"#
            ),
            // An operator is no service: what is wrong with a hold is told to the user service alone.
            7,
            "ROLE_MISSING",
        ),
        (
            "ticket-svc",
            format!("{ticket}/ListSeats"),
            r#"{"eventId":"x"}"#.to_owned(),
            3,
            "event_id",
        ),
    ] {
        let args = ["call", service, &method, &body, "--bearer", &operator.bearer];
        let ended = cluster.tessera(&args).await;
        assert_eq!(ended.code(), 64 + code, "{method} {body}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(word),
            "{method} {body} does not say {word}: {}",
            ended.stderr
        );
    }
    cluster.tessera(&["demo"]).await.success();
}

/// The same request id with another body is an error, whichever instance hears it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_means_one_request() {
    let cluster = Cluster::start().await;
    let id = uuid::Uuid::new_v4();
    let create = |name: &str| {
        format!(
            r#"{{"requestId":"{id}","email":"{id}@example.com","displayName":"{name}","password":"correct horse"}}"#
        )
    };
    let method = "tessera.user.v1.UserService/CreateUser";
    let first = cluster
        .tessera(&["call", "user-svc", method, &create("Ada")])
        .await
        .success()
        .json();
    let again = cluster
        .tessera(&["call", "user-svc", method, &create("Ada")])
        .await
        .success()
        .json();
    assert_eq!(first["user"]["id"], again["user"]["id"]);
    let reused = cluster.tessera(&["call", "user-svc", method, &create("Eve")]).await;
    assert_eq!(reused.code(), 64 + 6, "{}", reused.stderr);
    assert!(reused.stderr.contains("REQUEST_ID_REUSED"), "{}", reused.stderr);
}

/// Bytes that are no HTTP/2, and messages that are no protobuf, end with an answer or a closed connection, never a crash.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_any_port_disturbs_nobody() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let cluster = Cluster::start().await;
    for address in [
        &cluster.registry,
        &cluster.registry_admin,
        &cluster.user,
        &cluster.tickets["ticket-1"],
    ] {
        for garbage in [
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            &[0x16, 0x03, 0x01, 0x02, 0x00],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
            // The peer may close while we still write: that is an answer too.
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let closed = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
            assert!(closed.is_ok(), "{address} keeps a connection that sent garbage");
        }
    }
    cluster.tessera(&["demo"]).await.success();
}

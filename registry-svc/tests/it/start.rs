//! Starting: what cannot work is said in one line.

use registry_svc::{Registry, StartError};

use crate::support::{Fixture, config};

#[tokio::test]
async fn a_directory_belongs_to_one_registry() {
    let mut fixture = Fixture::start().await;
    let error = Registry::start(fixture.config()).await.expect_err("it is taken");
    let expected = format!(
        "data directory {} is in use by another registry",
        fixture.data_dir().display()
    );
    assert_eq!(error.to_string(), expected);
    // And is free again afterwards.
    fixture.restart().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let parent = tempfile::TempDir::new().expect("a directory");
    let file = parent.path().join("file");
    std::fs::write(&file, "not a directory").expect("writes");
    for directory in [file.clone(), file.join("below")] {
        let error = Registry::start(config(directory.clone(), |_| {}))
            .await
            .expect_err("not a directory");
        let text = error.to_string();
        assert!(
            matches!(error, StartError::Store(_)) && text.contains(&directory.display().to_string()),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_not_overwritten() {
    let parent = tempfile::TempDir::new().expect("a directory");
    let file = parent.path().join("registry.redb");
    let garbage = vec![7_u8; 10_000];
    std::fs::write(&file, &garbage).expect("writes");
    let error = Registry::start(config(parent.path().to_owned(), |_| {}))
        .await
        .expect_err("garbage");
    assert!(matches!(error, StartError::Store(_)), "{error}");
    assert!(error.to_string().starts_with("data directory "), "{error}");
    assert_eq!(std::fs::read(&file).expect("reads"), garbage);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let mut fixture = Fixture::start().await;
    let parent = tempfile::TempDir::new().expect("a directory");
    let mut config = config(parent.path().to_owned(), |_| {});
    config.listen = fixture.running().local_addr();
    let error = Registry::start(config).await.expect_err("taken");
    assert!(matches!(error, StartError::Bind(_)), "{error}");
    assert!(
        error.to_string().contains(&fixture.running().local_addr().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn settings_have_rules() {
    let fixture = Fixture::start().await;
    for (change, setting) in [
        (
            (|config| config.history_len = 0) as fn(&mut registry_svc::Config),
            "history_len",
        ),
        (
            |config| config.bookmark_interval = std::time::Duration::ZERO,
            "bookmark_interval",
        ),
    ] {
        let mut config = fixture.config();
        change(&mut config);
        let error = Registry::start(config).await.expect_err("breaks a rule");
        assert!(error.to_string().starts_with(setting), "{error}");
    }
}

#[tokio::test]
async fn what_is_measured_is_on_the_admin_port() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut fixture = Fixture::with(|config| config.admin_listen = "127.0.0.1:0".parse().ok()).await;
    crate::support::register(&mut fixture.client().await, "a-svc", "1").await;
    let address = fixture.running().admin_addr().expect("an admin port");
    let mut connection = tokio::net::TcpStream::connect(address).await.expect("listens");
    let request = "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("read");
    for name in [
        "instances",
        "leases",
        "watchers",
        "commit_seconds_bucket",
        "expired_total",
    ] {
        assert!(
            answer.contains(&format!("\ntessera_registry_{name}")),
            "{name} is missing from {answer}"
        );
    }
}

//! grpcurl works on every server without proto files: it is how people will look at Tessera first.

use std::{path::PathBuf, process::Stdio};

use e2e::{Cluster, wait};
use tokio::process::Command;

/// grpcurl from the PATH or from `make setup`; `None` with a printed reason when there is none.
fn grpcurl() -> Option<PathBuf> {
    let of_setup = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/bin/grpcurl"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join("grpcurl"))
        .chain([of_setup])
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("skipped: grpcurl is not installed (make setup installs it where Go is there)");
    }
    found
}

async fn ask(grpcurl: &PathBuf, args: &[&str]) -> (bool, String) {
    let output = Command::new(grpcurl)
        .arg("-plaintext")
        .args(["-max-time", "20"])
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("grpcurl starts");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_lists_describes_and_answers_health() {
    let Some(grpcurl) = grpcurl() else { return };
    let cluster = Cluster::start().await;
    let servers = [
        (&cluster.registry, "tessera.registry.v1.RegistryService"),
        (&cluster.tickets["ticket-1"], "tessera.ticket.v1.TicketService"),
        (&cluster.user, "tessera.user.v1.UserService"),
    ];
    for (address, service) in servers {
        let (ok, list) = ask(&grpcurl, &[address, "list"]).await;
        assert!(
            ok && list.contains(service) && list.contains("grpc.health.v1.Health"),
            "{address} list: {list}"
        );
        let (ok, described) = ask(&grpcurl, &[address, "describe", service]).await;
        assert!(
            ok && described.contains(&format!("service {}", service.rsplit('.').next().expect("a name"))),
            "{described}"
        );

        let named = format!(r#"{{"service":"{service}"}}"#);
        for body in ["{}", &named] {
            let (ok, health) = ask(&grpcurl, &["-d", body, address, "grpc.health.v1.Health/Check"]).await;
            assert!(
                ok && health.contains("SERVING") && !health.contains("NOT_SERVING"),
                "{address} {body}: {health}"
            );
        }
        let (ok, health) = ask(
            &grpcurl,
            &["-d", r#"{"service":"no.Such"}"#, address, "grpc.health.v1.Health/Check"],
        )
        .await;
        assert!(!ok && health.contains("NotFound"), "{address}: {health}");
    }
}

/// Imports have to be in the descriptor set too: without google/protobuf/*.proto grpcurl cannot describe a message.
#[tokio::test(flavor = "multi_thread")]
async fn messages_with_well_known_types_are_described_and_errors_are_decoded() {
    let Some(grpcurl) = grpcurl() else { return };
    let cluster = Cluster::start().await;
    let (ok, described) = ask(
        &grpcurl,
        &[&cluster.registry, "describe", "tessera.registry.v1.Instance"],
    )
    .await;
    assert!(
        ok && described.contains("google.protobuf.Timestamp started_at"),
        "{described}"
    );

    let (ok, refused) = ask(
        &grpcurl,
        &[
            "-d",
            "{}",
            &cluster.registry,
            "tessera.registry.v1.RegistryService/Register",
        ],
    )
    .await;
    assert!(!ok && refused.contains("InvalidArgument"), "{refused}");
    assert!(
        refused.contains("google.rpc.BadRequest") && refused.contains("instances"),
        "details are readable: {refused}"
    );
}

/// A watch shows a snapshot, and then what happens when an instance leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_streams_a_snapshot_and_then_what_happens() {
    let Some(grpcurl) = grpcurl() else { return };
    let mut cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let seen = folder.path().join("watch.json");
    let mut watch = Command::new(&grpcurl)
        .args([
            "-plaintext",
            "-max-time",
            "120",
            "-d",
            r#"{"service":"ticket-svc"}"#,
            &cluster.registry,
        ])
        .arg("tessera.registry.v1.RegistryService/Watch")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&seen).expect("a file"))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("grpcurl starts");
    let read = || std::fs::read_to_string(&seen).unwrap_or_default();
    wait::until("the snapshot", || async {
        let text = read();
        if text.contains("\"snapshot\"") && text.matches("\"id\": \"ticket-").count() == 3 {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;

    cluster.stop("ticket-2").await.success();
    wait::until("the drain and the removal", || async {
        let text = read();
        let told = text.contains("INSTANCE_STATUS_DRAINING") && text.contains("REMOVAL_REASON_DRAINED");
        if told { Ok(()) } else { Err(text) }
    })
    .await;

    cluster.kill("ticket-3").await;
    wait::until("the expiry", || async {
        let text = read();
        if text.contains("REMOVAL_REASON_EXPIRED") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    watch.kill().await.expect("grpcurl ends");
}

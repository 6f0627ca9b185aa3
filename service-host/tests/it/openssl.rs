//! What another make of TLS finds at our listener: which versions and ciphers it may choose, and that it needs a certificate where
//! that is asked for. Our own client would never offer what is to be refused. Needs `openssl`; without it these tests say so and
//! are skipped.

use std::{net::SocketAddr, process::Stdio};

use tls::{ClientAuth, issue::Purpose};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use crate::support::{
    PATIENCE, config,
    raw::{PREFACE, SETTINGS},
    serve,
    world::World,
};

/// OpenSSL's own floor is out of the way, so that what is refused is refused by us.
const ANY: &str = ":@SECLEVEL=0";

async fn is_there() -> bool {
    let found = Command::new("openssl").arg("version").output().await;
    let is_there = found.is_ok_and(|found| found.status.success());
    if !is_there {
        eprintln!("skipped: there is no openssl here (tools/setup.sh installs it)");
    }
    is_there
}

/// Opens HTTP/2 with OpenSSL's client: what it says of the connection where the server answers with its settings, and what it
/// says of the failure otherwise.
async fn meet(world: &World, address: SocketAddr, args: &[&str]) -> Result<String, String> {
    let authority = world.path("ca.crt");
    let mut child = Command::new("openssl")
        .args([
            "s_client",
            "-brief",
            "-nocommands",
            "-alpn",
            "h2",
            "-verify_return_error",
        ])
        .args(["-servername", "localhost", "-connect", &address.to_string(), "-CAfile"])
        .arg(&authority)
        .args(args)
        // The system's file may raise the floor, too.
        .env("OPENSSL_CONF", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it was there a moment ago");
    let mut stdin = child.stdin.take().expect("piped");
    // One that has been refused reads no more.
    let _ = stdin
        .write_all(&[PREFACE, &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]].concat())
        .await;
    let mut frame = [0; 9];
    let mut stdout = child.stdout.take().expect("piped");
    let answered = tokio::time::timeout(PATIENCE, stdout.read_exact(&mut frame)).await;
    let answered = answered.expect("an answer or an end").is_ok();
    let _ = child.start_kill();
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).await.expect("text");
    if answered {
        assert_eq!(frame[3], SETTINGS, "{said}");
        return Ok(said);
    }
    Err(said)
}

#[tokio::test]
async fn old_versions_and_weak_ciphers_are_refused_and_all_others_serve() {
    if !is_there().await {
        return;
    }
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    let running = serve(config().tls(server.server().cloned())).await;
    let address = running.local_addr();

    let all = format!("ALL{ANY}");
    for (version, is_good) in [
        ("-tls1", false),
        ("-tls1_1", false),
        ("-tls1_2", true),
        ("-tls1_3", true),
    ] {
        match (meet(&world, address, &[version, "-cipher", &all]).await, is_good) {
            (Ok(said), true) => {
                let name = version.replace("-tls1_", "TLSv1.");
                assert!(said.contains(&name), "{version}: {said}");
            }
            (Err(said), false) => assert!(said.contains(" alert "), "{version}: {said}"),
            (met, _) => panic!("{version}: {met:?}"),
        }
    }

    // Ephemeral keys and authenticated encryption, and nothing else.
    for cipher in [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        let said = meet(&world, address, &["-tls1_2", "-cipher", cipher])
            .await
            .expect(cipher);
        assert!(said.contains(cipher), "{said}");
    }
    let mut refused = 0;
    for cipher in [
        // Block chaining.
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES128-SHA256",
        "ECDHE-ECDSA-AES256-SHA384",
        // Keys that a thief of the certificate's key finds out later.
        "AES128-GCM-SHA256",
        "AES256-SHA",
        // Nobody's, or nothing hidden.
        "ADH-AES128-GCM-SHA256",
        "AECDH-AES128-SHA",
        "ECDHE-ECDSA-NULL-SHA",
        "ECDHE-ECDSA-AES128-CCM8",
    ] {
        let offered = format!("{cipher}{ANY}");
        let said = meet(&world, address, &["-tls1_2", "-cipher", &offered])
            .await
            .expect_err(cipher);
        // What this OpenSSL does not have it cannot offer.
        if !said.contains("no cipher") {
            assert!(said.contains("alert handshake failure"), "{cipher}: {said}");
            refused += 1;
        }
    }
    assert!(refused >= 5, "{refused} were offered");

    for (suite, is_good) in [
        ("TLS_AES_128_GCM_SHA256", true),
        ("TLS_AES_256_GCM_SHA384", true),
        ("TLS_CHACHA20_POLY1305_SHA256", true),
        ("TLS_AES_128_CCM_SHA256", false),
    ] {
        match (
            meet(&world, address, &["-tls1_3", "-ciphersuites", suite]).await,
            is_good,
        ) {
            (Ok(said), true) => assert!(said.contains(suite), "{said}"),
            (Err(said), false) => assert!(said.contains("alert handshake failure"), "{suite}: {said}"),
            (met, _) => panic!("{suite}: {met:?}"),
        }
    }
}

#[tokio::test]
async fn where_certificates_are_required_nobody_gets_in_without_a_good_one() {
    if !is_there().await {
        return;
    }
    let world = World::new();
    let server = world.tls("server", ClientAuth::Required);
    let running = serve(config().tls(server.server().cloned())).await;
    let stranger = World::new();
    world.write("ticket", &world.issue("ticket", Purpose::Both));
    world.write("server-only", &world.issue("server-only", Purpose::Server));
    world.write("stranger", &stranger.issue("stranger", Purpose::Both));
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, is_good) in [
            (None, false),
            (Some("server-only"), false),
            (Some("stranger"), false),
            (Some("ticket"), true),
        ] {
            let files = name.map(|name| ["crt", "key"].map(|ending| world.path(&format!("{name}.{ending}"))));
            let files = files.map(|files| files.map(|file| file.display().to_string()));
            let mut args = vec![version];
            if let Some([certificate, key]) = &files {
                args.extend(["-cert", certificate, "-key", key]);
            }
            match (meet(&world, running.local_addr(), &args).await, is_good) {
                (Ok(_), true) => {}
                (Err(said), false) => assert!(said.contains("alert"), "{version} {name:?}: {said}"),
                (met, _) => panic!("{version} {name:?}: {met:?}"),
            }
        }
    }
}

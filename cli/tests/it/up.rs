//! `tessera up` on ground that does not carry. That it stands on good ground is tested with the whole cluster, in e2e.

use std::{fs::OpenOptions, io::Write as _, net::TcpListener};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::run::{end, run, tessera};

/// `up` in this folder, on any ports.
fn up(data_dir: &str, more: &[&str]) -> crate::run::Ended {
    let args = [
        "up",
        "--data-dir",
        data_dir,
        "--registry-port",
        "0",
        "--ticket-port",
        "0",
        "--user-port",
        "0",
        "--console-port",
        "0",
    ];
    run(&args.iter().chain(more).copied().collect::<Vec<_>>())
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// Below a file there can be no folder, whoever asks: tests may run as root, whom no permission stops.
#[test]
fn an_unwritable_data_directory_is_one_line() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let below = file.join("data").display().to_string();
    up(&below, &[])
        .code(1)
        .one_line(&[&below, "cannot be written", "--data-dir"]);
}

#[test]
fn a_second_up_on_the_same_folder_is_one_line() {
    let folder = folder();
    let mut lock = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(folder.path().join("up.lock"))
        .expect("a lock file");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("free");
    writeln!(lock, "4711").expect("written");
    let path = folder.path().display().to_string();
    up(&path, &[])
        .code(1)
        .one_line(&["another `tessera up`", "4711", &path, "--data-dir"]);
}

/// Nobody read what `up --once` printed before the demo, and so there was no demo, and the exit code said that all is
/// well. Without events the demo fails, which shows that it ran.
#[test]
fn once_runs_the_demo_though_nobody_reads() {
    let folder = folder();
    let path = folder.path().display().to_string();
    let mut command = tessera(&[
        "up",
        "--once",
        "--no-seed",
        "--instances",
        "1",
        "--data-dir",
        &path,
        "--registry-port",
        "0",
        "--ticket-port",
        "0",
        "--user-port",
        "0",
        "--console-port",
        "0",
    ]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.stdout(writer);
    end(command).code(1).says(&["there are no events"]);
}

#[test]
fn a_port_in_use_is_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    // Above it the administration port might not exist; the kernel gives out ports far below on most machines, not on
    // all.
    if port > 63_535 {
        return;
    }
    let folder = folder();
    let path = folder.path().display().to_string();
    let text = port.to_string();
    let args = [
        "up",
        "--data-dir",
        &path,
        "--ticket-port",
        "0",
        "--user-port",
        "0",
        "--console-port",
        "0",
        "--registry-port",
        &text,
    ];
    run(&args).code(1).one_line(&[
        &format!("port {port} is in use (registry)"),
        "stop what listens there",
        "--registry-port",
    ]);
}

//! Nobody is there: every command says so on one line, soon, and what to do next.

use std::net::TcpListener;

use crate::run::{end, run, tessera};

/// A port on which nothing listens: bound once, and given back.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

#[test]
fn an_unreachable_registry_is_named_with_what_to_do() {
    let registry = format!("http://127.0.0.1:{}", free_port());
    let commands: [&[&str]; 5] = [
        &["services"],
        &["instances", "ticket-svc"],
        &["watch", "ticket-svc"],
        &["demo"],
        &["call", "ticket-svc", "tessera.ticket.v1.TicketService/ListEvents", "{}"],
    ];
    for command in commands {
        let args: Vec<&str> = command.iter().copied().chain(["--registry", &registry]).collect();
        let ended = run(&args)
            .code(1)
            .one_line(&[&registry, "cannot be reached", "tessera up"]);
        assert_eq!(ended.stdout, "", "{command:?}");
    }
}

#[test]
fn the_registry_can_be_told_by_the_environment() {
    let registry = format!("http://127.0.0.1:{}", free_port());
    let mut command = tessera(&["services"]);
    command.env("TESSERA_REGISTRY", &registry);
    end(command).code(1).one_line(&[&registry]);
}

#[test]
fn healthcheck_of_nobody_fails_at_once() {
    let address = format!("127.0.0.1:{}", free_port());
    run(&["healthcheck", &address])
        .code(1)
        .one_line(&[&address, "cannot be reached"]);
}

/// A process that is stopped or hangs still accepts TCP; a healthcheck that waited for it would be worse than none.
#[test]
fn healthcheck_of_a_silent_server_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    run(&["healthcheck", &address, "--timeout", "200ms"])
        .code(1)
        .one_line(&["did not answer within 200ms"]);
}

#[test]
fn governance_of_nobody_ends_with_the_code_of_unavailable() {
    let registry = format!("127.0.0.1:{}", free_port());
    run(&["drain", "ticket-svc/ticket-1", "--registry", &registry])
        .code(64 + 14)
        .one_line(&["the registry cannot be reached", &registry]);
}

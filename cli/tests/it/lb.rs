//! `tessera lb` and `tessera explain call`, over a registry, a ticket service and a user service, each a process.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::{
    role::Registry,
    run::{Ended, run, tessera, wait_for},
};

/// A service on free ports; killed at the end of its test.
struct Role {
    child: Child,
    admin: String,
}

impl Role {
    fn start(role: &str, registry: &Registry, data: &std::path::Path, more: &[&str]) -> Self {
        let data = data.display().to_string();
        let args = [role, "--listen", "127.0.0.1:0", "--data-dir", &data];
        let of = ["--registry", &registry.address];
        let mut command = tessera(&[&args[..], &of, more].concat());
        // Its stdin is at its end at once, which without TESSERA_EXIT_WITH_PARENT is nothing to it.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let admin = line
            .trim_end()
            .rsplit_once("(admin ")
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        let admin = admin
            .unwrap_or_else(|| panic!("not the line of the contract: {line:?}"))
            .to_owned();
        Self { child, admin }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.code(0).stdout).expect("JSON")
}

fn find<'a>(shown: &'a Value, id: &str) -> &'a Value {
    let instances = shown["instances"].as_array().expect("instances");
    let found = instances.iter().find(|instance| instance["instance_id"] == id);
    found.unwrap_or_else(|| panic!("no {id} in {shown}"))
}

#[test]
fn whom_a_process_calls_is_shown_with_what_keeps_it_from_the_others() {
    let data = tempfile::tempdir().expect("a folder");
    let registry = Registry::start();
    let _tickets = [
        Role::start(
            "ticket",
            &registry,
            &data.path().join("1"),
            &["--instance-id", "ticket-1"],
        ),
        Role::start(
            "ticket",
            &registry,
            &data.path().join("2"),
            &["--instance-id", "ticket-2"],
        ),
    ];
    let user = Role::start("user", &registry, data.path(), &[]);
    let at_registry = ["--registry", &*registry.address];
    wait_for(|| {
        let listed = json(run(&[
            &["instances", "ticket-svc", "--output", "json"][..],
            &at_registry,
        ]
        .concat()));
        (listed["instances"].as_array().map(Vec::len) == Some(2)).then_some(())
    });
    let drain = [
        "drain",
        "ticket-svc/ticket-2",
        "--who",
        "ann",
        "--why",
        "disk is failing",
    ];
    run(&[&drain[..], &at_registry].concat()).code(0);

    let live = || json(run(&["lb", "ticket-svc", "--admin", &user.admin, "--output", "json"]));
    let shown = wait_for(|| {
        let shown = live();
        let candidate = shown[0]["candidates"] == 1 && shown[0]["instances"][0]["instance_id"] == "ticket-1";
        (candidate && shown[0]["known"] == 2).then_some(shown)
    });
    let drained = find(&shown[0], "ticket-2");
    assert_eq!(drained["removed"]["by"], "DRAIN", "{shown}");
    assert!(
        drained["removed"]["why"].as_str().expect("why").contains("ann"),
        "{shown}"
    );
    let table = run(&["lb", "ticket-svc", "--admin", &user.admin]).code(0).stdout;
    for expected in ["1 of 2 can be called now", "READY", "drained: by ann: disk is failing"] {
        assert!(table.contains(expected), "{expected} in\n{table}");
    }
    run(&["lb", "nobody", "--admin", &user.admin])
        .code(1)
        .one_line(&["no channel to nobody", "ticket-svc"]);
    // A ticket service calls nobody, and has no such page.
    run(&["lb", "ticket-svc", "--admin", &_tickets[0].admin])
        .code(1)
        .one_line(&["no page /lb", "user service"]);

    // A caller that starts now comes to the same, and calls nobody.
    let method = "tessera.ticket.v1.TicketService/ListEvents";
    let explain = ["explain", "call", "ticket-svc", method];
    let told = json(run(&[&explain[..], &at_registry, &["--output", "json"]].concat()));
    assert_eq!((&told["candidates"], &told["known"]), (&1.into(), &2.into()), "{told}");
    assert_eq!(find(&told, "ticket-1")["served"], 0, "{told}");
    assert_eq!(find(&told, "ticket-2")["removed"]["by"], "DRAIN", "{told}");
    let tagged = ["--header", "tessera-tag=gray", "--header", "tessera-tag-force=true"];
    let told = json(run(
        &[&explain[..], &at_registry, &tagged, &["--output", "json"]].concat()
    ));
    assert_eq!(told["candidates"], 0, "{told}");
    assert_eq!(find(&told, "ticket-1")["removed"]["by"], "ROUTE", "{told}");
    run(&[&["explain", "call", "tickets"][..], &at_registry].concat())
        .code(1)
        .one_line(&["no service tickets", "ticket-svc"]);
}

#[test]
fn nobody_at_the_admin_port_is_one_line_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    // Accepts, and says nothing.
    run(&["lb", "--admin", &address, "--timeout", "200ms"])
        .code(1)
        .one_line(&[&address, "did not answer within 200ms"]);
    drop(listener);
    run(&["lb", "ticket-svc", "--admin", &address])
        .code(1)
        .one_line(&[&address, "nobody answers", "--admin-listen"]);
}

#[test]
fn explain_is_of_an_instance_or_of_a_call() {
    run(&["explain"]).code(2).says(&["INSTANCE"]);
    run(&["explain", "call"]).code(2).says(&["SERVICE"]);
    let help = run(&["explain", "call", "--help"]).code(0).stdout;
    assert!(help.contains("tessera explain call ticket-svc"), "{help}");
}

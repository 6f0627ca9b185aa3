//! `tessera backup` and `tessera restore`, as an operator uses them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    role::Registry,
    run::{Ended, run},
};

fn call(registry: &Registry, method: &str, request: Value) -> Value {
    let method = format!("tessera.registry.v1.RegistryService/{method}");
    let ended = run(&["call", &registry.address, &method, &request.to_string()]).code(0);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

fn register(registry: &Registry, id: &str) -> Value {
    let endpoint = json!({ "protocol": "PROTOCOL_GRPC", "host": "127.0.0.1", "port": 7101 });
    let instance = json!({ "service": "ticket-svc", "id": id, "endpoints": [endpoint] });
    let request = json!({ "instances": [instance], "heartbeatInterval": "60s" });
    call(registry, "Register", request)
}

/// Of each instance its id, its epoch and its lease.
fn instances(registry: &Registry) -> Value {
    let list = call(registry, "ListInstances", json!({ "service": "ticket-svc" }));
    let list = list["instances"].as_array().expect("some").iter();
    list.map(|instance| json!([instance["id"], instance["epoch"], instance["revision"]]))
        .collect()
}

fn backup(file: &Path, args: &[&str]) -> Ended {
    run(&[&["backup", &file.display().to_string(), "--output", "json"], args].concat())
}

fn restore(file: &Path, data_dir: &Path) -> Ended {
    let (file, data_dir) = (file.display().to_string(), data_dir.display().to_string());
    run(&["restore", &file, "--data-dir", &data_dir, "--output", "json"])
}

fn summary(ended: Ended) -> Value {
    serde_json::from_str(&ended.code(0).stdout).expect("JSON")
}

#[test]
fn a_registry_is_backed_up_while_it_serves_and_while_it_is_stopped() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let registry = Registry::over(&at("first"));
    let granted = register(&registry, "i1");
    register(&registry, "i2");
    let listed = instances(&registry);

    let serving = summary(backup(&at("serving"), &["--registry", &registry.address]));
    assert_eq!(serving["instances"], 2, "{serving}");
    assert_eq!(serving["leases"], 2, "{serving}");
    assert_eq!(serving["revision"], 2, "{serving}");
    assert_eq!(serving["bytes"], fs::metadata(at("serving")).expect("is there").len());
    // What comes later is not in it.
    register(&registry, "i3");
    let in_use = at("first").display().to_string();
    backup(&at("none"), &["--data-dir", &in_use])
        .code(1)
        .one_line(&["in use", "--registry"]);
    registry.stop();

    let stopped = summary(backup(&at("stopped"), &["--data-dir", &in_use]));
    assert_eq!(stopped["instances"], 3, "{stopped}");
    assert_eq!(stopped["history_id"], serving["history_id"]);

    let restored = summary(restore(&at("serving"), &at("second")));
    assert_eq!(restored["revision"], 2, "{restored}");
    let registry = Registry::over(&at("second"));
    assert_eq!(instances(&registry), listed);
    let list = call(&registry, "ListInstances", json!({ "service": "ticket-svc" }));
    assert_eq!(list["confidence"]["state"], "STATE_RECOVERING", "{list}");
    // Who held a lease holds it still.
    let renewal = json!({ "leaseId": granted["leaseId"], "leaseSecret": granted["leaseSecret"] });
    call(&registry, "Renew", renewal);
    registry.stop();

    let left: Vec<_> = fs::read_dir(folder.path())
        .expect("reads")
        .map(|entry| entry.expect("reads").file_name())
        .filter(|name| name.to_string_lossy().ends_with(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_backed_up_or_restored_says_why_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let registry = Registry::over(&at("first"));
    register(&registry, "i1");
    let file = at("backup");
    summary(backup(&file, &["--registry", &registry.address]));

    backup(&file, &["--registry", &registry.address])
        .code(1)
        .one_line(&["is there already"]);
    let empty = at("empty").display().to_string();
    backup(&at("none"), &["--data-dir", &empty])
        .code(1)
        .one_line(&["holds no registry's state"]);
    backup(&at("none"), &["--registry", "127.0.0.1:1"])
        .code(64 + 14)
        .one_line(&["cannot be reached"]);
    assert!(!at("none").exists() && !at("empty").exists() && !at("none.part").exists());

    restore(&file, folder.path())
        .code(1)
        .one_line(&["is not empty", "new directory"]);
    restore(&at("nothing"), &at("second")).code(1).one_line(&["nothing"]);
    let mut bytes = fs::read(&file).expect("reads");
    bytes.pop();
    fs::write(&file, &bytes).expect("writes");
    restore(&file, &at("second"))
        .code(1)
        .one_line(&["damaged", "ends too early"]);
    assert!(!at("second").exists());
}

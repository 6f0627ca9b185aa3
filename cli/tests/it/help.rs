//! `--help` and `--version`.

use crate::run::{end, run, tessera};

const COMMANDS: [&str; 25] = [
    "up",
    "demo",
    "services",
    "instances",
    "watch",
    "call",
    "healthcheck",
    "drain",
    "undrain",
    "weight",
    "explain",
    "lb",
    "top",
    "stats",
    "backup",
    "restore",
    "token",
    "account",
    "events",
    "registry",
    "ticket",
    "user",
    "console",
    "agent",
    "help",
];

#[test]
fn help_lists_every_command_and_how_to_start() {
    let help = run(&["--help"]).code(0).stdout;
    for command in COMMANDS {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is missing:\n{help}"
        );
    }
    assert!(help.contains("tessera up"), "{help}");
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS.into_iter().filter(|command| *command != "help") {
        let help = run(&[command, "--help"]).code(0).stdout;
        assert!(help.contains("Example"), "{command}:\n{help}");
        assert!(help.contains(&format!("tessera {command}")), "{command}:\n{help}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    let version = run(&["--version"]).code(0).stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

/// A pipe whose reader has left is how `tessera help | head -1` ends; a panic there was the default of `println!`.
#[test]
fn a_reader_that_leaves_is_no_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tessera(&["--help"]);
    command.stdout(writer);
    let ended = end(command);
    assert!(!ended.stderr.contains("panicked"), "{ended:?}");
}

//! Where the binary under test is.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The path of the `tessera` binary: `TESSERA_BIN` if that is set, else the one of this build profile, built if need be.
///
/// # Panics
/// When the binary cannot be built.
pub fn tessera() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("TESSERA_BIN") {
            return PathBuf::from(path);
        }
        // A test binary is target/PROFILE/deps/NAME; a doctest is elsewhere, but needs no process.
        let this = std::env::current_exe().expect("the test's own path");
        let profile = this.ancestors().nth(2).expect("target/PROFILE").to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "cli",
            "--bin",
            "tessera",
            "--all-features",
        ]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .env("CARGO_TARGET_DIR", profile.parent().expect("target"))
            .stdin(Stdio::null())
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the binary under test does not build");
        profile.join("tessera")
    })
}

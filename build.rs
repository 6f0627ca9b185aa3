//! The workspace's only code generation: compiles `proto/tessera/**/*.proto` for the `proto` crate.
//!
//! protox is a protobuf compiler in Rust, so a fresh clone builds without protoc. Output goes to `OUT_DIR`, never into the
//! source tree. A build script beside a virtual manifest is ignored by cargo, hence `build = "../build.rs"` in `proto/`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use prost::Message as _;

/// Messages that carry a secret: `proto/src/redacted.rs` shows the rest of them.
const SECRETIVE: [&str; 12] = [
    "tessera.registry.v1.RegisterRequest",
    "tessera.registry.v1.RegisterResponse",
    "tessera.registry.v1.RenewRequest",
    "tessera.registry.v1.DeregisterRequest",
    "tessera.registry.v1.UpdateInstanceRequest",
    "tessera.user.v1.CreateUserRequest",
    "tessera.user.v1.SignInRequest",
    "tessera.user.v1.SignInResponse",
    "tessera.user.v1.RefreshSessionRequest",
    "tessera.user.v1.RefreshSessionResponse",
    "tessera.user.v1.UpdateProfileRequest",
    "tessera.user.v1.DeleteUserRequest",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    collect(&root.join("tessera"), &mut files)?;
    // A fixed order keeps the descriptor set the same on every file system.
    files.sort();
    println!("cargo:rerun-if-changed={}", root.join("tessera").display());

    // With imports: reflection must be able to resolve google/protobuf/*.proto, or grpcurl cannot describe anything.
    let mut compiler = protox::Compiler::new([&root])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(&files)?;
    let descriptors = compiler.file_descriptor_set();
    fs::write(out.join("tessera.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .skip_debug(SECRETIVE)
        .bytes(".")
        .compile_well_known_types(false)
        .compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

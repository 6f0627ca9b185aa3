//! ARCHITECTURE.md as tests: crate edges, module docs, sizes, where generated types may be named, and what may be linked.
//!
//! Each rule reads the tree or `cargo metadata`; none of them knows what the code does.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, semver::Version};

/// The table of edges: which of our crates each crate may use. Dev-dependencies may reach further, except into services.
const EDGES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("telemetry", &[]),
    ("tls", &[]),
    ("identity", &[]),
    ("service-host", &["telemetry", "tls"]),
    ("service-store", &["telemetry"]),
    ("outbox", &["proto", "service-host", "service-store", "telemetry"]),
    ("registry-client", &["proto", "telemetry", "tls"]),
    ("lb", &["registry-client", "telemetry", "tls"]),
    ("registry-svc", &["proto", "service-host", "telemetry", "tls"]),
    (
        "user-svc",
        &[
            "proto",
            "identity",
            "registry-client",
            "lb",
            "service-host",
            "service-store",
            "outbox",
            "telemetry",
            "tls",
        ],
    ),
    (
        "ticket-svc",
        &[
            "proto",
            "identity",
            "registry-client",
            "lb",
            "service-host",
            "service-store",
            "outbox",
            "telemetry",
            "tls",
        ],
    ),
    (
        "console-svc",
        &[
            "proto",
            "registry-client",
            "service-host",
            "service-store",
            "telemetry",
            "tls",
        ],
    ),
    ("monitor-client", &["proto", "registry-client", "lb", "telemetry"]),
    (
        "cli",
        &[
            "proto",
            "identity",
            "registry-client",
            "lb",
            "service-host",
            "telemetry",
            "tls",
            "registry-svc",
            "user-svc",
            "ticket-svc",
            "console-svc",
            "monitor-client",
        ],
    ),
    (
        "e2e",
        &[
            "proto",
            "identity",
            "registry-client",
            "lb",
            "service-host",
            "service-store",
            "telemetry",
            "tls",
            "registry-svc",
            "user-svc",
            "ticket-svc",
        ],
    ),
];

/// One version each: two of these in a binary would not understand each other's types.
const ONE_VERSION: &[&str] = &[
    "tonic",
    "prost",
    "prost-types",
    "hyper",
    "h2",
    "http",
    "http-body",
    "tower",
    "tower-http",
    "axum",
    "opentelemetry",
    "opentelemetry_sdk",
    "rustls",
    "tokio",
    "redb",
];

/// Floors below which a known hole is open (RustSec), and crates that may not be linked at all.
const FLOORS: &[(&str, &str)] = &[
    ("h2", "0.4.16"),
    ("tonic", "0.12.3"),
    ("rustls", "0.23.18"),
    ("rustls-webpki", "0.103.13"),
    ("bytes", "1.11.1"),
    ("tracing-subscriber", "0.3.20"),
];
const BANNED: &[&str] = &[
    "openssl-sys",
    "aws-lc-sys",
    "rustls-pemfile",
    "backoff",
    "reqwest",
    "madsim-tonic",
    "envoy-types",
];

/// Each licence expression of a dependency needs one of these in every AND-branch.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unlicense",
    "BSL-1.0",
    "MIT-0",
];

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        MetadataCommand::new()
            .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .other_options(vec!["--locked".to_owned(), "--all-features".to_owned()])
            .exec()
            .expect("cargo metadata answers")
    })
}

fn root() -> &'static Path {
    metadata().workspace_root.as_std_path()
}

fn members() -> BTreeMap<&'static str, &'static Package> {
    metadata()
        .workspace_packages()
        .into_iter()
        .map(|package| (package.name.as_str(), package))
        .collect()
}

fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn crates_use_only_what_the_table_of_edges_allows() {
    let members = members();
    let table: BTreeMap<_, _> = EDGES.iter().copied().collect();
    assert_eq!(
        members.keys().copied().collect::<BTreeSet<_>>(),
        table.keys().copied().collect(),
        "the table lists exactly the workspace's crates"
    );
    let mut problems = Vec::new();
    for (name, package) in &members {
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            if !members.contains_key(to) || to == *name {
                continue;
            }
            let allowed = table[name].contains(&to);
            let service_to_service = name.ends_with("-svc") && to.ends_with("-svc");
            match dependency.kind {
                DependencyKind::Development if !service_to_service => {}
                _ if allowed => {}
                _ => problems.push(format!(
                    "{name} may not use {to}: the table of edges in ARCHITECTURE.md forbids it"
                )),
            }
        }
    }
    none(problems);
}

#[test]
fn architecture_md_prints_the_same_table() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, text) = text
        .split_once("## Who may use whom")
        .expect("the section with the table");
    let problems = EDGES
        .iter()
        .filter(|(name, uses)| {
            let mut uses: Vec<String> = uses.iter().map(|name| format!("`{name}`")).collect();
            uses.sort();
            let row = text.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
            let Some(row) = row else { return true };
            let mut printed: Vec<String> = row
                .split('|')
                .nth(2)
                .unwrap_or_default()
                .split(',')
                .map(|cell| cell.trim().to_owned())
                .filter(|cell| cell.starts_with('`'))
                .collect();
            printed.sort();
            printed != uses
        })
        .map(|(name, uses)| format!("ARCHITECTURE.md: the row of `{name}` does not say {uses:?}"))
        .collect();
    none(problems);
}

/// Rust files that we maintain, by crate, with their text.
fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = vec![("root".to_owned(), root().join("build.rs"))];
    for name in members().keys() {
        let mut found = Vec::new();
        for folder in ["src", "tests", "benches", "examples"] {
            walk(&root().join(name).join(folder), &mut found);
        }
        files.extend(found.into_iter().map(|path| ((*name).to_owned(), path)));
    }
    files
        .into_iter()
        .map(|(name, path)| {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            (name, path, text)
        })
        .collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let problems = sources()
        .iter()
        .filter(|(_, _, text)| !text.starts_with("//!"))
        .map(|(_, path, _)| format!("{}: the first line is no //! comment", relative(path)))
        .collect();
    none(problems);
}

#[test]
fn files_hold_one_idea() {
    let problems = sources()
        .iter()
        .filter(|(_, _, text)| text.lines().count() > 600)
        .map(|(_, path, text)| format!("{}: {} lines; split it by idea", relative(path), text.lines().count()))
        .collect();
    none(problems);
}

#[test]
fn main_is_short_and_folders_are_shallow() {
    let mut problems = Vec::new();
    for (name, path, text) in sources() {
        if path.ends_with("src/main.rs") && text.lines().count() > 60 {
            problems.push(format!(
                "{}: main.rs is the life of the process and nothing else",
                relative(&path)
            ));
        }
        let depth = path
            .strip_prefix(root().join(&name).join("src"))
            .map_or(0, |inside| inside.components().count().saturating_sub(1));
        if depth > 3 {
            problems.push(format!("{}: deeper than three under src", relative(&path)));
        }
    }
    none(problems);
}

#[test]
fn generated_types_are_named_only_at_the_wire() {
    // In services the api and error files, in clients the one file that speaks to a peer (user-svc's tickets.rs, ticket-svc's
    // published.rs); the operator's tool and the tests are peers themselves.
    let at_the_wire = |path: &str| {
        [
            "/api",
            "/wire",
            "/error",
            "/tickets.rs",
            "/published.rs",
            "/tests/",
            "/testing",
            "/benches/",
            "/examples/",
            "/client",
        ]
        .iter()
        .any(|part| path.contains(part))
    };
    let problems = sources()
        .iter()
        .filter(|(name, ..)| !matches!(name.as_str(), "proto" | "cli" | "e2e" | "root"))
        .filter(|(_, path, text)| {
            !at_the_wire(&format!("/{}", relative(path)))
                && text.lines().any(|line| {
                    let code = line.split("//").next().unwrap_or_default();
                    code.contains("proto::") && !code.contains("_proto::") && !code.contains("FILE_DESCRIPTOR_SET")
                })
        })
        .map(|(_, path, _)| format!("{}: names generated types outside the wire files", relative(path)))
        .collect();
    none(problems);
}

#[test]
fn one_version_of_what_must_be_one_and_nothing_banned() {
    let mut versions: BTreeMap<&str, BTreeSet<&Version>> = BTreeMap::new();
    for package in &metadata().packages {
        versions
            .entry(package.name.as_str())
            .or_default()
            .insert(&package.version);
    }
    let mut problems = Vec::new();
    for name in ONE_VERSION {
        if versions.get(name).is_some_and(|found| found.len() > 1) {
            problems.push(format!("{name} is there in several versions: {:?}", versions[name]));
        }
    }
    for (name, floor) in FLOORS {
        let floor = Version::parse(floor).expect("a floor is a version");
        for version in versions.get(name).into_iter().flatten() {
            if **version < floor {
                problems.push(format!("{name} {version} is below {floor}, which closes a known hole"));
            }
        }
    }
    for name in BANNED {
        if versions.contains_key(name) {
            problems.push(format!("{name} is linked; deny.toml says why it may not be"));
        }
    }
    none(problems);
}

#[test]
fn licences_are_clean_and_sources_are_crates_io() {
    let mut problems = Vec::new();
    for package in &metadata().packages {
        if let Some(source) = &package.source
            && !source.is_crates_io()
        {
            problems.push(format!("{} comes from {source}", package.name));
        }
        let expression = package.license.as_deref().unwrap_or("none").replace('/', " OR ");
        let fits = expression.split(" AND ").all(|branch| {
            branch
                .split(" OR ")
                .any(|licence| LICENCES.contains(&licence.trim().trim_matches(['(', ')'])))
        });
        if !fits {
            problems.push(format!("{} {} is under {expression}", package.name, package.version));
        }
    }
    none(problems);
}

//! `tessera certs`: an authority of one's own and a certificate for each process of a cluster. To get started with: it revokes
//! nothing, and its key is a file.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use registry_client::REGISTRY_IDENTITY;
use serde_json::json;
use tls::{
    SpiffeId,
    issue::{Authority, IssueError, Issued, Leaf, Purpose},
};

use crate::{args::CertsArgs, failure::Failure, output::Output};

/// File name and service of what every cluster has besides its registry.
const SERVICES: [(&str, &str); 2] = [("ticket", "ticket-svc"), ("user", "user-svc")];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Issues, writes, and says what to do next.
pub(crate) fn run(args: &CertsArgs, output: Output) -> Result<(), Failure> {
    fs::create_dir_all(&args.out).map_err(|error| unwritable(&args.out, &error))?;
    let lifetime = DAY * u32::from(args.days);
    let authority = authority(&args.out, &args.trust_domain, lifetime * 10)?;
    let mut written = Vec::new();
    // In its own namespace, whatever that of the services is: in another one nobody takes it for the registry.
    let (home, registry) = REGISTRY_IDENTITY;
    let further = args.service.iter().map(|name| (name.as_str(), name.as_str()));
    let services = SERVICES.into_iter().chain(further);
    let services = services.map(|(file, service)| (file, args.namespace.as_str(), service));
    for (file, namespace, service) in std::iter::once(("registry", home, registry)).chain(services) {
        let id = SpiffeId::of_service(&args.trust_domain, namespace, service);
        let leaf = Leaf {
            lifetime,
            ..reachable(&args.host, id.map_err(|error| wrong(&error))?)
        };
        written.push(issue(&args.out, file, &authority, &leaf)?);
    }
    let id = SpiffeId::of_operator(&args.trust_domain, "operator").map_err(|error| wrong(&error))?;
    let operator = Leaf {
        spiffe: Some(id),
        purpose: Purpose::Client,
        lifetime,
        ..Leaf::default()
    };
    written.push(issue(&args.out, "operator", &authority, &operator)?);

    let out = args.out.display().to_string();
    let issued: Vec<_> = written
        .iter()
        .map(|(file, id)| json!({ "certificate": format!("{out}/{file}.crt"), "key": format!("{out}/{file}.key"), "id": id }))
        .collect();
    let document = json!({ "ca": format!("{out}/ca.crt"), "days": args.days, "issued": issued });
    output.print(&document, || {
        let lines: Vec<String> = written
            .iter()
            .map(|(file, id)| format!("  {out}/{file}.crt  {id}"))
            .collect();
        format!("{}\n\n{}", lines.join("\n"), next(&out))
    })
}

/// What to run next, ready to be pasted.
fn next(out: &str) -> String {
    format!(
        "Good for mTLS. Next, each in a terminal of its own:\n\
         \x20 tessera registry --tls-cert {out}/registry.crt --tls-key {out}/registry.key --tls-ca {out}/ca.crt\n\
         \x20 tessera ticket --seed --registry https://127.0.0.1:7000 --tls-cert {out}/ticket.crt --tls-key {out}/ticket.key --tls-ca {out}/ca.crt\n\
         \x20 tessera user --registry https://127.0.0.1:7000 --tls-cert {out}/user.crt --tls-key {out}/user.key --tls-ca {out}/ca.crt\n\
         \x20 tessera demo --registry https://127.0.0.1:7000 --tls-cert {out}/operator.crt --tls-key {out}/operator.key --tls-ca {out}/ca.crt"
    )
}

/// The one that is there, or a new one: whoever believes in the first must not have to be told of another.
fn authority(folder: &Path, name: &str, lifetime: Duration) -> Result<Authority, Failure> {
    let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
    match (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
        (Ok(certificate), Ok(key)) => Authority::from_pem(&certificate, &key).map_err(|error| {
            Failure::new(format!("the authority in {} cannot be used", folder.display()))
                .because(&error)
                .advice("remove ca.crt and ca.key, or pass another --out")
        }),
        (Err(one), Err(other)) if is_absent(&one) && is_absent(&other) => {
            let authority = Authority::generate(&format!("{name} CA"), lifetime).map_err(|error| not_issued(&error))?;
            write(&key, authority.key_pem())
                .and_then(|()| write(&certificate, authority.certificate_pem()))
                .map_err(|error| unwritable(folder, &error))?;
            Ok(authority)
        }
        _ => Err(Failure::new(format!(
            "{} has one of ca.crt and ca.key, and not the other",
            folder.display()
        ))
        .advice("bring back the missing one, or pass another --out")),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A server's certificate: for this machine, and under the names that were given.
fn reachable(hosts: &[String], id: SpiffeId) -> Leaf {
    let mut leaf = Leaf {
        spiffe: Some(id),
        dns_names: vec!["localhost".to_owned()],
        addresses: vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()],
        ..Leaf::default()
    };
    for host in hosts {
        match host.parse() {
            Ok(address) => leaf.addresses.push(address),
            Err(_) => leaf.dns_names.push(host.clone()),
        }
    }
    leaf
}

fn issue(folder: &Path, name: &str, authority: &Authority, leaf: &Leaf) -> Result<(String, String), Failure> {
    let Issued {
        certificate_pem,
        key_pem,
    } = authority.issue(leaf).map_err(|error| not_issued(&error))?;
    let file = |ending| folder.join(format!("{name}.{ending}"));
    write(&file("key"), &key_pem)
        .and_then(|()| write(&file("crt"), &certificate_pem))
        .map_err(|error| unwritable(folder, &error))?;
    let id = leaf.spiffe.as_ref().map(ToString::to_string).unwrap_or_default();
    Ok((name.to_owned(), id))
}

/// Whole or not at all, and for nobody else to read: a process may be reading the old one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    match fs::remove_file(&unfinished) {
        Err(error) if !is_absent(&error) => return Err(error),
        _ => {}
    }
    // Created by us and nobody else, so that nobody else's file or link is written to.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn unwritable(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be written", folder.display()))
        .because(error)
        .advice("pass --out with a folder that you may write")
}

fn wrong(error: &tls::InvalidSpiffeId) -> Failure {
    Failure::usage("no SPIFFE id can be made of these names").because(error)
}

fn not_issued(error: &IssueError) -> Failure {
    Failure::new("no certificate was issued").because(error)
}

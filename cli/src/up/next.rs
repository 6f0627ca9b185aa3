//! What to type next, ready to paste: the program as it was started, and the ports as they are.

use std::path::{Path, PathBuf};

use super::{cluster::Member, plan::Role};

/// A command with what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// To paste into a shell.
    pub(crate) command: String,
    /// Why one would.
    pub(crate) what: &'static str,
}

/// The surroundings that decide how commands are written.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// This program.
    pub(crate) binary: PathBuf,
    /// Where the shell is.
    pub(crate) here: PathBuf,
    /// Where the shell looks for programs.
    pub(crate) path: Vec<PathBuf>,
    /// The namespace of the cluster.
    pub(crate) namespace: String,
}

impl Surroundings {
    /// Those of this process.
    pub(crate) fn of_this_process(namespace: &str) -> std::io::Result<Self> {
        Ok(Self {
            binary: std::env::current_exe()?,
            here: std::env::current_dir()?,
            path: std::env::var_os("PATH")
                .map(|path| std::env::split_paths(&path).collect())
                .unwrap_or_default(),
            namespace: namespace.to_owned(),
        })
    }
}

/// The commands worth trying on this cluster.
pub(crate) fn hints(surroundings: &Surroundings, members: &[Member]) -> Vec<Hint> {
    let Some(registry) = members.iter().find(|member| member.role == Role::Registry) else {
        return Vec::new();
    };
    let registry = registry.serving.listen;
    let tessera = program(surroundings);
    let mut flags = String::new();
    if registry.port() != 7000 {
        flags.push_str(&format!(" --registry http://{registry}"));
    }
    if surroundings.namespace != "default" {
        flags.push_str(&format!(" --namespace {}", surroundings.namespace));
    }
    let mut hints = vec![
        Hint {
            command: format!("{tessera} demo{flags}"),
            what: "buy a ticket",
        },
        Hint {
            command: format!("{tessera} demo --buyers 200 --concurrency 16{flags}"),
            what: "let many people buy",
        },
        Hint {
            command: format!("{tessera} instances ticket-svc{flags}"),
            what: "who serves tickets",
        },
        Hint {
            command: format!("{tessera} top{flags}"),
            what: "what is called now, and by whom",
        },
        Hint {
            command: format!("{tessera} watch ticket-svc{flags}"),
            what: "who comes and goes",
        },
        Hint {
            command: format!("{tessera} call ticket-svc tessera.ticket.v1.TicketService/ListEvents '{{}}'{flags}"),
            what: "any method, with JSON",
        },
        Hint {
            command: format!("grpcurl -plaintext {registry} list"),
            what: "every server has reflection",
        },
        Hint {
            command: format!(
                "grpcurl -plaintext -d '{{\"service\":\"ticket-svc\"}}' {registry} \
                 tessera.registry.v1.RegistryService/Watch"
            ),
            what: "the registry's own stream",
        },
    ];
    if let Some(victim) = members.iter().filter(|member| member.role == Role::Ticket).nth(1) {
        hints.push(Hint {
            command: format!("kill -9 {}", victim.serving.pid),
            what: "calls go on without it, and it comes back",
        });
    }
    if surroundings.here.join("docker-compose.yml").is_file() {
        hints.push(Hint {
            command: "docker compose up --build".to_owned(),
            what: "the same in containers, after Ctrl-C here",
        });
    }
    hints
}

/// The program as short as the shell understands it: by name when it is on the path, relative when it lies below, else
/// absolute.
fn program(surroundings: &Surroundings) -> String {
    let Surroundings { binary, here, path, .. } = surroundings;
    let on_path = path
        .iter()
        .map(|folder| folder.join("tessera"))
        .find(|candidate| candidate.is_file());
    let same = |candidate: PathBuf| candidate.canonicalize().is_ok_and(|found| found == *binary);
    if on_path.is_some_and(same) {
        return "tessera".to_owned();
    }
    match binary.strip_prefix(here) {
        Ok(relative) => quoted(&Path::new(".").join(relative)),
        Err(_) => quoted(binary),
    }
}

/// As one word for a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%:,".contains(letter);
    if text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::up::keeper::Serving;

    fn member(role: Role, name: &str, port: u16) -> Member {
        Member {
            role,
            serving: Serving {
                name: name.to_owned(),
                listen: ([127, 0, 0, 1], port).into(),
                admin: None,
                pid: u32::from(port),
                took: Duration::ZERO,
            },
            log: PathBuf::new(),
        }
    }

    fn surroundings(binary: &str) -> Surroundings {
        Surroundings {
            binary: binary.into(),
            here: "/srv/tessera".into(),
            path: Vec::new(),
            namespace: "default".to_owned(),
        }
    }

    #[test]
    fn default_ports_need_no_flags_and_others_do() {
        let surroundings = surroundings("/srv/tessera/target/release/tessera");
        let first = |port| {
            hints(&surroundings, &[member(Role::Registry, "registry", port)])
                .remove(0)
                .command
        };
        assert_eq!(first(7000), "./target/release/tessera demo");
        assert_eq!(
            first(17000),
            "./target/release/tessera demo --registry http://127.0.0.1:17000"
        );
    }

    #[test]
    fn the_second_ticket_service_is_the_one_to_kill() {
        let members = [
            member(Role::Registry, "registry", 7000),
            member(Role::Ticket, "ticket-1", 7101),
            member(Role::Ticket, "ticket-2", 7102),
        ];
        let hints = hints(&surroundings("/opt/tessera"), &members);
        assert!(hints.iter().any(|hint| hint.command == "kill -9 7102"), "{hints:?}");
    }

    #[test]
    fn paths_survive_a_shell() {
        assert_eq!(program(&surroundings("/opt/bin/tessera")), "/opt/bin/tessera");
        assert_eq!(
            program(&surroundings("/opt/my tools/tessera")),
            "'/opt/my tools/tessera'"
        );
        assert_eq!(program(&surroundings("/opt/it's/tessera")), r"'/opt/it'\''s/tessera'");
    }
}

//! What `tessera up` will run: from flags to children with names, ports and stores. Checks what the flags alone can
//! tell; looks at neither the disk nor the network.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::restart::{PortRole, Ports};
use crate::args::{Admin, LogFormat, UpArgs};

/// The demo cluster listens on this machine only: it has no authentication.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The cluster to run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Stores, logs and the lock.
    pub(crate) data_dir: PathBuf,
    /// The registry first, then the ticket services, then the user service and the monitor.
    pub(crate) children: Vec<ChildPlan>,
}

/// One process of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct ChildPlan {
    /// Its name, which is also its instance id and its log's name.
    pub(crate) name: String,
    /// What it runs.
    pub(crate) role: Role,
    /// Its port; 0 for any free one.
    pub(crate) port: u16,
    data_dir: PathBuf,
    namespace: String,
    log_format: LogFormat,
    seed: bool,
    /// Where events go besides; of those that write any.
    events: Option<String>,
}

/// The subcommand that a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// `tessera registry`
    Registry,
    /// `tessera ticket`
    Ticket,
    /// `tessera user`
    User,
    /// `tessera console`
    Console,
}

impl Role {
    /// The subcommand.
    pub(crate) fn subcommand(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Ticket => "ticket",
            Self::User => "user",
            Self::Console => "console",
        }
    }

    /// The name that it registers under; the registry has none.
    pub(crate) fn service(self) -> Option<&'static str> {
        match self {
            Self::Registry => None,
            Self::Ticket => Some("ticket-svc"),
            Self::User => Some("user-svc"),
            Self::Console => Some("console"),
        }
    }

    /// The flag of `up` that moves it.
    pub(crate) fn port_flag(self) -> &'static str {
        match self {
            Self::Registry => "--registry-port",
            Self::Ticket => "--ticket-port",
            Self::User => "--user-port",
            Self::Console => "--console-port",
        }
    }

    /// Who relies on its port.
    pub(crate) fn port_role(self) -> PortRole {
        match self {
            Self::Registry => PortRole::Fixed,
            Self::Ticket | Self::User | Self::Console => PortRole::Discovered,
        }
    }
}

/// Why flags make no cluster.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("there is no port {port} + 2000 for the administration of {name}; pass a lower {flag}")]
    PortTooHigh {
        name: String,
        port: u32,
        flag: &'static str,
    },
    #[error("port {port} is meant for {first} and for {second}; pass another {flag}")]
    PortTwice {
        port: u16,
        first: String,
        second: String,
        flag: &'static str,
    },
}

impl Plan {
    /// The cluster that the flags describe.
    pub(crate) fn try_new(args: &UpArgs, log_format: LogFormat) -> Result<Self, PlanError> {
        let child = |name: String, role, port: u16| ChildPlan {
            seed: role == Role::Ticket && !args.no_seed,
            events: args
                .events
                .clone()
                .filter(|_| matches!(role, Role::Ticket | Role::User)),
            name,
            role,
            port,
            data_dir: args.data_dir.clone(),
            namespace: args.namespace.clone(),
            // Children write to files that people read; JSON there is for those who ask.
            log_format: match log_format {
                LogFormat::Json => LogFormat::Json,
                LogFormat::Auto | LogFormat::Text => LogFormat::Text,
            },
        };
        let mut children = vec![child("registry".to_owned(), Role::Registry, args.registry_port)];
        for number in 1..=args.instances {
            let name = format!("ticket-{number}");
            let port = match args.ticket_port {
                0 => 0,
                first => first.checked_add(number - 1).ok_or_else(|| PlanError::PortTooHigh {
                    name: name.clone(),
                    port: u32::from(first) + u32::from(number) - 1,
                    flag: Role::Ticket.port_flag(),
                })?,
            };
            children.push(child(name, Role::Ticket, port));
        }
        children.push(child("user".to_owned(), Role::User, args.user_port));
        children.push(child("console".to_owned(), Role::Console, args.console_port));
        check_ports(&children)?;
        Ok(Self {
            data_dir: args.data_dir.clone(),
            children,
        })
    }
}

impl ChildPlan {
    /// The administration port; 0 for any free one. `None` when there is no such port.
    pub(crate) fn admin_port(&self) -> Option<u16> {
        admin_port(self.port)
    }

    /// What it is to listen on when it is started first.
    pub(crate) fn ports(&self) -> Ports {
        Ports {
            listen: self.port,
            admin: self.admin_port().unwrap_or(0),
        }
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> PathBuf {
        logs(&self.data_dir).join(format!("{}.log", self.name))
    }

    /// The arguments of the process when it listens on `ports` and the registry on `registry`.
    pub(crate) fn arguments(&self, ports: Ports, registry: Option<SocketAddr>) -> Vec<String> {
        let listen = SocketAddr::from((HOST, ports.listen));
        let admin = SocketAddr::from((HOST, ports.admin));
        let mut arguments = vec![self.role.subcommand().to_owned()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--listen", listen.to_string());
        flag("--admin-listen", admin.to_string());
        flag("--instance-id", self.name.clone());
        flag(
            "--log-format",
            if self.log_format == LogFormat::Json {
                "json"
            } else {
                "text"
            }
            .to_owned(),
        );
        let in_data_dir = |name: &str| self.data_dir.join(name).display().to_string();
        match self.role {
            Role::Registry => {
                // Against the environment: TESSERA_STORE may be there for another role.
                flag("--store", "embedded".to_owned());
                flag("--data-dir", in_data_dir("registry"));
            }
            Role::Ticket => flag("--store", in_data_dir("tickets.db")),
            Role::User => flag("--store", in_data_dir("users.db")),
            Role::Console => flag("--store", in_data_dir("monitor.redb")),
        }
        if let (Some(_), Some(registry)) = (self.role.service(), registry) {
            flag("--registry", format!("http://{registry}"));
            flag("--namespace", self.namespace.clone());
        }
        if let Some(events) = &self.events {
            flag("--events", events.clone());
        }
        if self.seed {
            arguments.push("--seed".to_owned());
        }
        arguments
    }
}

/// The folder of all logs.
pub(crate) fn logs(data_dir: &Path) -> PathBuf {
    data_dir.join("logs")
}

fn admin_port(port: u16) -> Option<u16> {
    let beside = Admin::beside(SocketAddr::from((HOST, port))).ok()?;
    beside.address().map(|address| address.port())
}

/// Fails on ports that do not exist, and on ports that two children would share.
fn check_ports(children: &[ChildPlan]) -> Result<(), PlanError> {
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for child in children.iter().filter(|child| child.port != 0) {
        let admin = child.admin_port().ok_or_else(|| PlanError::PortTooHigh {
            name: child.name.clone(),
            port: child.port.into(),
            flag: child.role.port_flag(),
        })?;
        for port in [child.port, admin] {
            if let Some(first) = taken.insert(port, &child.name) {
                return Err(PlanError::PortTwice {
                    port,
                    first: first.to_owned(),
                    second: child.name.clone(),
                    flag: child.role.port_flag(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn plan(flags: &[&str]) -> Result<Plan, PlanError> {
        let words = ["tessera", "up", "--data-dir", "/data"].iter().chain(flags);
        match Cli::parse_from(words).command {
            Command::Up(args) => Plan::try_new(&args, LogFormat::Auto),
            other => panic!("not up: {other:?}"),
        }
    }

    #[test]
    fn the_default_is_the_cluster_of_the_documentation() {
        let plan = plan(&[]).expect("valid");
        let children: Vec<_> = plan
            .children
            .iter()
            .map(|child| (child.name.as_str(), child.port, child.admin_port()))
            .collect();
        assert_eq!(
            children,
            [
                ("registry", 7000, Some(9000)),
                ("ticket-1", 7101, Some(9101)),
                ("ticket-2", 7102, Some(9102)),
                ("ticket-3", 7103, Some(9103)),
                ("user", 7200, Some(9200)),
                ("console", 8090, Some(10_090)),
            ]
        );
    }

    #[test]
    fn children_are_told_everything_by_flags() {
        let plan = plan(&["--instances", "1"]).expect("valid");
        let registry = Some(SocketAddr::from((HOST, 7000)));
        assert_eq!(
            plan.children[1].arguments(plan.children[1].ports(), registry).join(" "),
            "ticket --listen 127.0.0.1:7101 --admin-listen 127.0.0.1:9101 --instance-id ticket-1 --log-format text \
             --store /data/tickets.db --registry http://127.0.0.1:7000 --namespace default --seed"
        );
        assert_eq!(
            plan.children[0]
                .arguments(Ports { listen: 0, admin: 0 }, None)
                .join(" "),
            "registry --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --instance-id registry --log-format text \
             --store embedded --data-dir /data/registry"
        );
    }

    #[test]
    fn those_who_write_events_are_told_where_they_go() {
        let plan = plan(&["--instances", "1", "--events", "@/run/nats"]).expect("valid");
        let told = |child: &ChildPlan| {
            child
                .arguments(child.ports(), None)
                .join(" ")
                .contains("--events @/run/nats")
        };
        let told: Vec<_> = plan
            .children
            .iter()
            .filter(|child| told(child))
            .map(|child| child.role)
            .collect();
        assert_eq!(told, [Role::Ticket, Role::User]);
    }

    #[test]
    fn ports_that_cannot_be_are_refused() {
        let text = |flags: &[&str]| plan(flags).expect_err("refused").to_string();
        assert!(text(&["--registry-port", "7102"]).contains("pass another --ticket-port"));
        assert!(text(&["--user-port", "9000"]).contains("pass another --user-port"));
        assert!(text(&["--user-port", "64000"]).contains("pass a lower --user-port"));
        assert!(text(&["--ticket-port", "65535"]).contains("pass a lower --ticket-port"));
    }

    #[test]
    fn any_free_port_may_be_asked_for_more_than_once() {
        plan(&[
            "--registry-port",
            "0",
            "--ticket-port",
            "0",
            "--user-port",
            "0",
            "--console-port",
            "0",
        ])
        .expect("valid");
    }
}

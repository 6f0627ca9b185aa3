//! A cluster of processes as an operator would start them: one registry, some ticket services on one store, one user service.

use std::{collections::BTreeMap, path::Path};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Ended, Process, proxy::Proxy};

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many ticket services share the store. Default: 3.
    pub tickets: usize,
    /// How many user services share theirs. Default: 1.
    pub users: usize,
    /// Where the ticket and the user services keep their records. Default: a file each, in the cluster's folder.
    pub stores: Option<Stores>,
    /// Environment variables for every process.
    pub env: Vec<(&'static str, String)>,
    /// Flags for the ticket and user services, for example a short heartbeat.
    pub provider_flags: Vec<String>,
    /// Flags for the user services alone.
    pub user_flags: Vec<String>,
}

/// The databases of a cluster, as `--store` takes them.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Of the ticket services.
    pub ticket: String,
    /// Of the user services.
    pub user: String,
}

/// Running processes. All of them end with it.
#[derive(Debug)]
pub struct Cluster {
    /// The registry's address, `host:port`.
    pub registry: String,
    /// The registry's admin address.
    pub registry_admin: String,
    /// The first user service's address.
    pub user: String,
    /// The user services' addresses by instance name.
    pub users: BTreeMap<String, String>,
    /// The ticket services' addresses by instance name.
    pub tickets: BTreeMap<String, String>,
    /// The administration addresses by process name.
    pub admins: BTreeMap<String, String>,
    processes: BTreeMap<String, Process>,
    options: ClusterOptions,
    data: TempDir,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            tickets: 3,
            users: 1,
            stores: None,
            env: Vec::new(),
            user_flags: Vec::new(),
            // A dead instance is seen after 1.5 s instead of 15 s: tests wait for it.
            provider_flags: ["--heartbeat-interval", "500ms"].map(String::from).to_vec(),
        }
    }
}

impl Cluster {
    /// Starts the default cluster: three ticket services.
    pub async fn start() -> Self {
        Self::with(ClusterOptions::default()).await
    }

    /// Starts a cluster and waits until every process serves.
    ///
    /// # Panics
    /// With the process's output, when one does not.
    pub async fn with(options: ClusterOptions) -> Self {
        let data = tempfile::tempdir().expect("a folder for data");
        let mut cluster = Self {
            registry: String::new(),
            registry_admin: String::new(),
            user: String::new(),
            users: BTreeMap::new(),
            tickets: BTreeMap::new(),
            admins: BTreeMap::new(),
            processes: BTreeMap::new(),
            options,
            data,
        };
        cluster.start_registry("127.0.0.1:0").await;
        for number in 1..=cluster.options.tickets {
            cluster.start_ticket(&format!("ticket-{number}"), "127.0.0.1:0").await;
        }
        for number in 1..=cluster.options.users {
            cluster
                .start_user_as(&format!("user-{number}"), "127.0.0.1:0", &[])
                .await;
        }
        cluster
    }

    /// Starts the registry on this address; its store is the same each time.
    pub async fn start_registry(&mut self, listen: &str) {
        let args = [
            "registry",
            "--listen",
            listen,
            "--admin-listen",
            "127.0.0.1:0",
            "--data-dir",
        ]
        .map(String::from);
        let folder = self.data.path().join("registry").display().to_string();
        let mut process = Process::spawn("registry", args.into_iter().chain([folder]), &self.options.env);
        (self.registry, self.registry_admin) = process.addresses().await;
        self.admins.insert("registry".to_owned(), self.registry_admin.clone());
        self.processes.insert("registry".to_owned(), process);
    }

    /// Takes away all that a killed registry has stored: the next one begins on an empty disk.
    ///
    /// # Panics
    /// When the disk does not let it.
    pub fn wipe_registry(&self) {
        std::fs::remove_dir_all(self.data.path().join("registry")).expect("the registry's data removed");
    }

    /// Starts a ticket service on the shared store.
    pub async fn start_ticket(&mut self, name: &str, listen: &str) {
        self.start_ticket_as(name, listen, &[]).await;
    }

    /// The same with environment variables of its own.
    pub async fn start_ticket_as(&mut self, name: &str, listen: &str, env: &[(&'static str, String)]) {
        let (grpc, _) = self.start_provider("ticket", name, listen, &["--seed"], env).await;
        self.tickets.insert(name.to_owned(), grpc);
    }

    /// Starts a ticket service that others reach through this network only.
    pub async fn start_ticket_behind(&mut self, name: &str, network: &Proxy, env: &[(&'static str, String)]) {
        let more = ["--seed", "--advertise", &network.address];
        let (grpc, _) = self.start_provider("ticket", name, "127.0.0.1:0", &more, env).await;
        network.lead_to(&grpc);
        self.tickets.insert(name.to_owned(), grpc);
    }

    /// The same for one that dies by what `env` says, perhaps before it serves.
    pub async fn start_doomed_ticket(&mut self, name: &str, network: &Proxy, env: &[(&'static str, String)]) {
        let more = ["--seed", "--advertise", &network.address];
        let mut process = self.spawn_provider("ticket", name, "127.0.0.1:0", &more, env);
        if let Some((grpc, _)) = process.addresses_or_end().await {
            network.lead_to(&grpc);
            self.tickets.insert(name.to_owned(), grpc);
        }
        self.processes.insert(name.to_owned(), process);
    }

    /// Starts a user service that dies by what `env` says, perhaps before it serves.
    pub async fn start_doomed_user(&mut self, name: &str, env: &[(&'static str, String)]) {
        let flags = self.options.user_flags.clone();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut process = self.spawn_provider("user", name, "127.0.0.1:0", &flags, env);
        if let Some((grpc, _)) = process.addresses_or_end().await {
            self.users.insert(name.to_owned(), grpc);
        }
        self.processes.insert(name.to_owned(), process);
    }

    /// Starts the user service on its store.
    pub async fn start_user(&mut self) {
        self.start_user_as("user-1", "127.0.0.1:0", &[]).await;
    }

    /// Starts a user service on the store of all, with environment variables of its own.
    pub async fn start_user_as(&mut self, name: &str, listen: &str, env: &[(&'static str, String)]) {
        let flags = self.options.user_flags.clone();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (grpc, _) = self.start_provider("user", name, listen, &flags, env).await;
        if name == "user-1" {
            self.user.clone_from(&grpc);
        }
        self.users.insert(name.to_owned(), grpc);
    }

    /// Starts the monitor on its store, which is the same each time.
    pub async fn start_console(&mut self) {
        self.start_provider("console", "console", "127.0.0.1:0", &[], &[]).await;
    }

    async fn start_provider(
        &mut self,
        role: &str,
        name: &str,
        listen: &str,
        more: &[&str],
        env: &[(&'static str, String)],
    ) -> (String, String) {
        let mut process = self.spawn_provider(role, name, listen, more, env);
        let addresses = process.addresses().await;
        self.admins.insert(name.to_owned(), addresses.1.clone());
        self.processes.insert(name.to_owned(), process);
        addresses
    }

    fn spawn_provider(
        &self,
        role: &str,
        name: &str,
        listen: &str,
        more: &[&str],
        env: &[(&'static str, String)],
    ) -> Process {
        let store = self.store(role);
        let args = [
            role,
            "--listen",
            listen,
            "--admin-listen",
            "127.0.0.1:0",
            "--registry",
            &self.registry,
        ]
        .into_iter()
        .chain(["--store", &store, "--instance-id", name])
        .chain(more.iter().copied())
        .map(String::from)
        .chain(self.options.provider_flags.iter().cloned())
        .collect::<Vec<_>>();
        let env = [self.options.env.as_slice(), env].concat();
        Process::spawn(name, args, &env)
    }

    pub(crate) fn store(&self, role: &str) -> String {
        match (role, &self.options.stores) {
            ("ticket", Some(stores)) => stores.ticket.clone(),
            ("user", Some(stores)) => stores.user.clone(),
            _ => self.data.path().join(format!("{role}.db")).display().to_string(),
        }
    }

    /// Where its stores are.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Its processes by name.
    pub fn processes(&self) -> impl Iterator<Item = (&str, &Process)> {
        self.processes.iter().map(|(name, process)| (name.as_str(), process))
    }

    /// A process of the cluster by name: `registry`, `user-1`, `ticket-1` ...
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn process(&self, name: &str) -> &Process {
        self.processes.get(name).unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Kills a process with SIGKILL and waits for its end.
    pub async fn kill(&mut self, name: &str) -> Ended {
        let process = self
            .processes
            .remove(name)
            .unwrap_or_else(|| panic!("no process {name}"));
        process.signal(Signal::KILL);
        process.end().await
    }

    /// Stops a process with SIGTERM and waits for its end.
    pub async fn stop(&mut self, name: &str) -> Ended {
        self.processes
            .remove(name)
            .unwrap_or_else(|| panic!("no process {name}"))
            .stop()
            .await
    }

    /// Waits for the end of a process that was told to end.
    ///
    /// # Panics
    /// When there is none of that name, or it does not end.
    pub async fn ended(&mut self, name: &str) -> Ended {
        let process = self.processes.remove(name);
        process.unwrap_or_else(|| panic!("no process {name}")).end().await
    }

    /// Runs an operator's command against this cluster: `tessera ARGS --registry ADDRESS`.
    pub async fn tessera(&self, args: &[&str]) -> Ended {
        self.command(args).end().await
    }

    /// Starts an operator's command against this cluster.
    pub fn command(&self, args: &[&str]) -> Process {
        let args = args.iter().copied().chain(["--registry", &self.registry]);
        Process::spawn("tessera", args, &self.options.env)
    }
}

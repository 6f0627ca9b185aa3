//! A PostgreSQL server of this process, in a temporary folder, reached by a socket in it. It ends when this process does, however
//! that comes about, and its folder goes with it.
//!
//! What ends it is a shell that reads from a pipe of ours: when we are gone, also by SIGKILL, the pipe is at its end. A guard
//! alone would not do: what tests share is never dropped, and nobody drops anything after SIGKILL. The signal that a child can
//! ask for at its parent's death comes when the *thread* ends that started it, which is some test's.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr as _,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use sqlx::{AnyConnection, AssertSqlSafe, ConnectOptions as _, any::AnyConnectOptions};

use crate::Location;

/// A running server. The last owner's drop ends it; the shared one ends with the process.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    port: u16,
    /// The end of its input is the server's.
    shell: Mutex<Child>,
    /// The thread that makes databases, once one was wanted.
    wanted: OnceLock<mpsc::Sender<Wanted>>,
}

/// How a server of its own is reached from other machines: over TCP on loopback, by a password (SCRAM-SHA-256), and with TLS where
/// there is a certificate. Its socket stays open to everybody, as that of every server here.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Of the user `postgres`. Letters and digits.
    pub password: String,
    /// A certificate and its key, both PEM.
    pub certificate: Option<(String, String)>,
}

/// What the thread is asked that talks to the server.
#[derive(Debug)]
enum Wanted {
    Made(String, mpsc::Sender<()>),
    Gone(String),
}

/// A database of one test.
#[derive(Debug)]
pub(super) struct TestDatabase {
    name: String,
    url: String,
    wanted: mpsc::Sender<Wanted>,
}

/// Starts and stops the server as it is told line by line, and ends it when its input ends. TERM, INT and HUP are for the
/// tests, which tell it by ending.
const SHELL: &str = r#"
trap '' INT TERM HUP
server=
stop() { [ -z "$server" ] || { kill -QUIT "$server" 2>/dev/null; wait "$server"; server=; }; }
while read -r word; do
  case "$word" in
    start) "$@" >>"$0/log" 2>&1 </dev/null & server=$! ;;
    stop) stop; echo stopped ;;
  esac
done
stop
rm -rf "$0"
"#;

/// Starting takes a second or two; this is for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(60);

impl Server {
    /// The server of this process, started by the first who asks. `None`, and a word on stderr, where there is no PostgreSQL.
    #[must_use]
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        let shared = SHARED.get_or_init(Self::start).as_ref();
        if shared.is_none() {
            eprintln!("SKIPPED: no PostgreSQL on this machine; tools/setup.sh installs it");
        }
        shared
    }

    /// Another server, for a test that stops it. `None` where there is no PostgreSQL.
    ///
    /// # Panics
    /// When there is one and it does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::make(None).map(|(server, _)| server)
    }

    /// One that asks for a password over TCP, and the port that it listens on. `None` where there is no PostgreSQL.
    ///
    /// # Panics
    /// When there is one and it does not start.
    #[must_use]
    pub fn guarded(guard: &Guard) -> Option<(Self, u16)> {
        Self::make(Some(guard))
    }

    fn make(guard: Option<&Guard>) -> Option<(Self, u16)> {
        let programs = programs()?;
        let folder = tempfile::Builder::new()
            .prefix("tessera-pg-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        let as_owner = owner(&folder);
        let data = folder.join("data");
        let made = run(&as_owner, &programs.join("initdb"))
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = match guard {
            None => STANDARD_PORT,
            Some(guard) => {
                lock(&data, guard, !as_owner.is_empty());
                free_port()
            }
        };
        let shell = shell(&as_owner, &programs, &folder, guard.map(|guard| (guard, port)));
        let server = Self {
            folder,
            programs,
            port,
            shell: Mutex::new(shell),
            wanted: OnceLock::new(),
        };
        server.up();
        if let Some(guard) = guard {
            server.administer(format!("ALTER ROLE postgres PASSWORD '{}'", guard.password));
        }
        Some((server, port))
    }

    /// Executes a statement as the administrator.
    fn administer(&self, statement: String) {
        let admin = self.url();
        let done = thread::spawn(move || {
            runtime().block_on(async {
                let mut connection = reached(&admin).await.expect("it runs");
                sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await
            })
        });
        done.join().expect("no panic").expect("an administrator may");
    }

    /// Starts it (again), and waits until it takes connections.
    ///
    /// # Panics
    /// When it does not start.
    pub fn up(&self) {
        self.tell("start");
        let admin = self.url();
        // On a thread of its own, because whoever asks may be within a runtime or not.
        let waits = thread::spawn(move || runtime().block_on(reached(&admin)));
        let reached = waits.join().expect("no panic");
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(reached.is_some(), "PostgreSQL did not start: {}", log());
    }

    /// Ends it at once, as a crash would. What was committed is there when it is [`Server::up`] again.
    ///
    /// # Panics
    /// When its shell is gone.
    pub fn crash(&self) {
        self.tell("stop");
        let mut shell = self.shell.lock().expect("no panic");
        let out = shell.stdout.as_mut().expect("a pipe");
        let mut said = [0; "stopped\n".len()];
        out.read_exact(&mut said).expect("the shell answers");
    }

    fn tell(&self, word: &str) {
        let mut shell = self.shell.lock().expect("no panic");
        let told = writeln!(shell.stdin.as_mut().expect("a pipe"), "{word}");
        told.expect("the shell listens");
    }

    fn wanted(&self) -> mpsc::Sender<Wanted> {
        let wanted = self.wanted.get_or_init(|| {
            let (wanted, asked) = mpsc::channel();
            let admin = self.url();
            thread::spawn(move || runtime().block_on(keep(&admin, &asked)));
            wanted
        });
        wanted.clone()
    }

    /// A new database, of this caller alone.
    pub(super) fn database(&self) -> TestDatabase {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (made, is_made) = mpsc::channel();
        let wanted = self.wanted();
        let asked = wanted.send(Wanted::Made(name.clone(), made));
        asked.expect("the server is kept");
        is_made.recv().expect("a new database");
        TestDatabase {
            url: self.url_of(&name),
            name,
            wanted,
        }
    }

    /// Where PostgreSQL's own programs are: `pg_dump` and the others.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The database that every server has, for those who want a server of their own.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    fn url_of(&self, database: &str) -> String {
        // Nothing in a temporary folder's name needs escaping.
        let (port, folder) = (self.port, self.folder.display());
        format!("postgres://postgres@localhost:{port}/{database}?host={folder}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let shell = self.shell.get_mut().expect("no panic");
        // The end of its input; then it ends the server and takes the folder away.
        drop(shell.stdin.take());
        drop(shell.wait());
    }
}

impl TestDatabase {
    pub(super) fn location(&self) -> Location {
        Location::from(self.url.as_str())
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // For the disk's sake. Nobody minds when the server is gone before.
        drop(self.wanted.send(Wanted::Gone(std::mem::take(&mut self.name))));
    }
}

/// Makes and drops databases, one after another: two at once would meet over the template.
async fn keep(admin: &str, asked: &mpsc::Receiver<Wanted>) {
    while let Ok(wanted) = asked.recv() {
        let Some(mut connection) = reached(admin).await else {
            return;
        };
        let (statement, made) = match &wanted {
            Wanted::Made(name, made) => (format!("CREATE DATABASE {name}"), Some(made)),
            Wanted::Gone(name) => (format!("DROP DATABASE {name} WITH (FORCE)"), None),
        };
        let done = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await;
        match (done, made) {
            (Ok(_), Some(made)) => drop(made.send(())),
            (Ok(_), None) => {}
            (Err(error), _) => eprintln!("{wanted:?}: {error}"),
        }
    }
}

async fn reached(admin: &str) -> Option<AnyConnection> {
    sqlx::any::install_default_drivers();
    let options = AnyConnectOptions::from_str(admin).expect("a URL");
    let give_up = Instant::now() + PATIENCE;
    loop {
        match options.connect().await {
            Ok(connection) => return Some(connection),
            Err(_) if Instant::now() < give_up => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(_) => return None,
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// What its socket is called by where it listens nowhere else.
const STANDARD_PORT: u16 = 5432;

/// One that nobody had a moment ago. Whoever takes it first is not this server, which then does not start.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}

/// Who comes over TCP is asked for a password, and finds a certificate if there is one.
fn lock(data: &Path, guard: &Guard, is_others: bool) {
    let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(data.join("pg_hba.conf"), rules).expect("written");
    let Some((certificate, key)) = &guard.certificate else {
        return;
    };
    for (name, content) in [("server.crt", certificate), ("server.key", key)] {
        let path = data.join(name);
        fs::write(&path, content).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(&path, mode).expect("our file");
        if is_others {
            let given = Command::new("chown").arg("postgres:postgres").arg(&path).status();
            assert!(given.is_ok_and(|status| status.success()), "there is a user postgres");
        }
    }
}

/// Where PostgreSQL's programs are: beside the one that is found first, or Debian's newest.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    let found = folders.into_iter().find(|folder| folder.join("initdb").exists())?;
    // Debian links some of them elsewhere; the others are where the real one is.
    found.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned)
}

/// PostgreSQL does not run as root: then it is the user `postgres`, whom Debian's package makes. Gives the folder to it.
fn owner(folder: &Path) -> Vec<String> {
    if !is_root() {
        return Vec::new();
    }
    let given = Command::new("chown").arg("postgres:postgres").arg(folder).status();
    assert!(given.is_ok_and(|status| status.success()), "there is a user postgres");
    // Its socket and its log are read by tests.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(folder, mode).expect("our folder");
    let words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"];
    words.map(str::to_owned).to_vec()
}

/// Whose process is this?
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn run(as_owner: &[String], program: &Path) -> Command {
    match as_owner.split_first() {
        None => Command::new(program),
        Some((first, others)) => {
            let mut command = Command::new(first);
            command.args(others).arg(program);
            command
        }
    }
}

fn shell(as_owner: &[String], programs: &Path, folder: &Path, guard: Option<(&Guard, u16)>) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("sh");
    command.arg("-c").arg(SHELL).arg(folder).args(as_owner);
    command
        .arg(programs.join("postgres"))
        .arg("-D")
        .arg(folder.join("data"));
    let mut settings = match guard {
        None => vec!["listen_addresses=".to_owned()],
        Some((guard, port)) => {
            let ssl = if guard.certificate.is_some() { "on" } else { "off" };
            vec![
                "listen_addresses=127.0.0.1".to_owned(),
                format!("port={port}"),
                format!("ssl={ssl}"),
            ]
        }
    };
    settings.extend([
        format!("unix_socket_directories={}", folder.display()),
        // As in production: a commit is on the disk.
        "fsync=on".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=64MB".to_owned(),
        // Deadlocks are made again; a test need not wait for long.
        "deadlock_timeout=100ms".to_owned(),
    ]);
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    // A group of its own: what a terminal sends to the tests is not for it.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("sh runs")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise of the header: nothing of it is left when its owner is gone.
    #[tokio::test]
    async fn a_server_comes_and_goes_and_comes_back_from_a_crash() {
        let Some(server) = Server::start() else { return };
        let (folder, url) = (server.folder.clone(), server.url());
        let table = sqlx::query("CREATE TABLE kept (n BIGINT)");
        let mut connection = reached(&url).await.expect("a connection");
        table.execute(&mut connection).await.expect("made");
        server.crash();
        assert!(
            sqlx::query("SELECT n FROM kept")
                .execute(&mut connection)
                .await
                .is_err()
        );
        server.up();
        let mut connection = reached(&url).await.expect("a connection");
        let kept = sqlx::query("SELECT n FROM kept").execute(&mut connection).await;
        kept.expect("what was committed is there");
        drop(server);
        assert!(!folder.exists(), "its folder is gone");
    }
}

//! An etcd cluster on loopback, whose members are killed, stopped and started again.

use std::{process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::{registry::loopback, wait};

/// See the module. All members end with it.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Cluster {
    /// Starts so many members and waits until they have a leader.
    ///
    /// # Panics
    /// When they do not.
    pub async fn start(size: usize) -> Self {
        let mut members = Vec::new();
        for number in 0..size {
            // An address of its own, on which nobody else takes ports: see there.
            let host = loopback();
            let mut ports = Vec::new();
            for _ in 0..2 {
                ports.push(TcpListener::bind((host.as_str(), 0)).await.expect("a free port"));
            }
            let mut addresses = ports
                .iter()
                .map(|port| port.local_addr().expect("its address").to_string());
            members.push(Member {
                name: format!("m{number}"),
                client: addresses.next().expect("two"),
                peer: addresses.next().expect("two"),
                process: None,
            });
        }
        let mut cluster = Self {
            members,
            folder: tempfile::tempdir().expect("a folder"),
        };
        for number in 0..size {
            cluster.begin(number);
        }
        cluster.leads().await;
        cluster
    }

    /// What `--store` takes.
    pub fn url(&self) -> String {
        let members: Vec<&str> = self.members.iter().map(|member| member.client.as_str()).collect();
        format!("etcd://{}", members.join(","))
    }

    /// How many members there are, running or not.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Starts a member, again.
    ///
    /// # Panics
    /// When it runs, or cannot be started.
    pub fn begin(&mut self, number: usize) {
        let everybody: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://{}", member.name, member.peer))
            .collect();
        let member = &mut self.members[number];
        assert!(member.process.is_none(), "{} runs already", member.name);
        let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
        let mut command = Command::new("etcd");
        command
            .args(["--name", &member.name, "--log-level", "error", "--data-dir"])
            .arg(self.folder.path().join(&member.name))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args([
                "--initial-cluster",
                &everybody.join(","),
                "--initial-cluster-token",
                "e2e",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        member.process = Some(command.spawn().expect("etcd starts"));
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// When it does not run.
    pub async fn kill(&mut self, number: usize) {
        let mut process = self.members[number].process.take().expect("it runs");
        process.kill().await.expect("its own child can be killed");
    }

    /// Sends a signal to a member.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, number: usize, signal: Signal) {
        let process = self.members[number].process.as_ref().expect("it runs");
        let id = i32::try_from(process.id().expect("it runs")).expect("a pid fits");
        kill_process(Pid::from_raw(id).expect("a pid is not 0"), signal).expect("its own child can be signalled");
    }

    /// Waits until there is a leader, and says who.
    pub async fn leads(&self) -> usize {
        wait::until("a leader", || async {
            for (number, member) in self.members.iter().enumerate() {
                let status = ask(&member.client, "/v3/maintenance/status").await;
                let Ok(status) = status else { continue };
                if status["leader"].is_string() && status["leader"] == status["header"]["member_id"] {
                    return Ok(number);
                }
            }
            Err("nobody says that he leads")
        })
        .await
    }

    /// etcd's revision: how many writes it has seen.
    pub async fn revision(&self) -> i64 {
        wait::until("etcd's revision", || async {
            for member in &self.members {
                if let Ok(status) = ask(&member.client, "/v3/maintenance/status").await
                    && let Some(revision) = status["header"]["revision"].as_str()
                {
                    return revision.parse::<i64>().map_err(|error| error.to_string());
                }
            }
            Err("nobody answers".to_owned())
        })
        .await
    }
}

/// etcd's JSON gateway, so that no client is needed.
async fn ask(address: &str, path: &str) -> Result<Value, String> {
    let answer = async {
        let mut socket = TcpStream::connect(address).await?;
        let head = format!(
            "POST {path} HTTP/1.0\r\nhost: etcd\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        socket.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), answer).await;
    let answer = answer
        .map_err(|late| late.to_string())?
        .map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    serde_json::from_str(body).map_err(|error| error.to_string())
}

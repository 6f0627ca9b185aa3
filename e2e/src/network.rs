//! A branch of the network: a namespace with one cable to ours, in which packets to a single address can be dropped. The
//! machine's own packet filter is never touched. Needs root.

use std::process::Command;

use crate::trial::sh;

/// See the module. Taken down when dropped; what runs in it must have ended.
#[derive(Debug)]
pub struct Branch {
    name: String,
    cable: String,
    ours: String,
    theirs: String,
}

impl Branch {
    /// Builds one.
    ///
    /// # Panics
    /// When the kernel does not let us.
    pub fn build() -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        // One at a time, so the process's number is name enough. 10.213/16 is nobody's by convention, and only ours here.
        let branch = Self {
            name: format!("tessera-{}", std::process::id()),
            cable: format!("ts{}", std::process::id()),
            ours: format!("10.213.{high}.{}", low & !3 | 1),
            theirs: format!("10.213.{high}.{}", low & !3 | 2),
        };
        let (name, cable) = (&branch.name, &branch.cable);
        let end = format!("{cable}b");
        sh("ip", &["netns", "add", name]);
        sh(
            "ip",
            &[
                "link", "add", cable, "type", "veth", "peer", "name", &end, "netns", name,
            ],
        );
        sh("ip", &["addr", "add", &format!("{}/30", branch.ours), "dev", cable]);
        sh("ip", &["link", "set", cable, "up"]);
        branch.inside("ip", &["addr", "add", &format!("{}/30", branch.theirs), "dev", &end]);
        branch.inside("ip", &["link", "set", &end, "up"]);
        branch.inside("ip", &["link", "set", "lo", "up"]);
        branch
    }

    /// The namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Our address, as seen from inside.
    pub fn ours(&self) -> &str {
        &self.ours
    }

    /// Its address.
    pub fn theirs(&self) -> &str {
        &self.theirs
    }

    /// Drops all packets to and from one of our ports; the other ports are not touched. Nobody is told that they are dropped.
    pub fn cut(&self, port: &str) {
        self.rules("-A", port);
    }

    /// Undoes [`Branch::cut`].
    pub fn heal(&self, port: &str) {
        self.rules("-D", port);
    }

    fn rules(&self, action: &str, port: &str) {
        self.inside(
            "iptables",
            &[action, "OUTPUT", "-p", "tcp", "--dport", port, "-j", "DROP"],
        );
        self.inside(
            "iptables",
            &[action, "INPUT", "-p", "tcp", "--sport", port, "-j", "DROP"],
        );
    }

    fn inside(&self, program: &str, args: &[&str]) {
        let command = ["netns", "exec", &self.name, program];
        sh(
            "ip",
            &command.into_iter().chain(args.iter().copied()).collect::<Vec<_>>(),
        );
    }
}

impl Drop for Branch {
    fn drop(&mut self) {
        for args in [["link", "del", &self.cable], ["netns", "del", &self.name]] {
            // While unwinding there may be less to take down than was built.
            let _ = Command::new("ip").args(args).output();
        }
    }
}

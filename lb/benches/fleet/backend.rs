//! One instance: a process that answers as it was told to, and the handle by which the bench holds it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rand::RngExt as _;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_server::{Health, HealthServer},
};

use crate::Failed;

/// In the command line of an instance; its [`Nature`] follows.
pub(crate) const FLAG: &str = "--instance";

/// How an instance behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    /// What it takes for a call, evenly spread over 80 to 120 % of this.
    pub(crate) takes: Duration,
    /// How many calls it works on at a time; the others wait in it.
    pub(crate) at_once: usize,
    /// Answers UNAVAILABLE, at once.
    pub(crate) fails: bool,
}

impl Nature {
    pub(crate) const fn takes(millis: u64) -> Self {
        Self {
            takes: Duration::from_millis(millis),
            at_once: 100_000,
            fails: false,
        }
    }

    pub(crate) const fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }

    pub(crate) const fn failing() -> Self {
        Self {
            fails: true,
            ..Self::takes(0)
        }
    }
}

/// A running instance; killed with this value.
pub(crate) struct Instance {
    child: Child,
    number: usize,
    nature: Nature,
    pub(crate) address: SocketAddr,
}

impl Instance {
    /// Starts instance `number` on a free port.
    pub(crate) fn start(number: usize, nature: Nature) -> Result<Self, Failed> {
        Self::at(number, nature, 0)
    }

    fn at(number: usize, nature: Nature, port: u16) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(FLAG)
            .args([
                number.to_string(),
                port.to_string(),
                nature.takes.as_micros().to_string(),
                nature.at_once.to_string(),
                nature.fails.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        Ok(Self {
            address: line
                .trim()
                .parse()
                .map_err(|_| format!("instance {number} says {line:?}"))?,
            child,
            number,
            nature,
        })
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as a service ends: GOAWAY, calls under way finish, and then it is gone.
    pub(crate) fn stop(&mut self) -> Result<(), Failed> {
        drop(self.child.stdin.take());
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again where it was.
    pub(crate) fn again(&mut self) -> Result<(), Failed> {
        *self = Self::at(self.number, self.nature, self.address.port())?;
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It has ended, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fleet, numbered in order.
pub(crate) fn fleet(natures: &[Nature]) -> Result<Vec<Instance>, Failed> {
    natures
        .iter()
        .enumerate()
        .map(|(number, nature)| Instance::start(number, *nature))
        .collect()
}

pub(crate) fn addresses(fleet: &[Instance]) -> Vec<String> {
    fleet.iter().map(|instance| instance.address.to_string()).collect()
}

struct Answers {
    number: i32,
    nature: Nature,
    room: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Health for Answers {
    /// The status is the number of the instance: who answered.
    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if self.nature.fails {
            return Err(Status::unavailable("told to fail"));
        }
        let _room = self.room.acquire().await.map_err(|_| Status::internal("closed"))?;
        let share = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(self.nature.takes.mul_f64(share)).await;
        Ok(Response::new(HealthCheckResponse { status: self.number }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// The process of an instance: until its stdin ends.
pub(crate) fn serve(args: &[String]) -> Result<(), Failed> {
    let [number, port, takes, at_once, fails] = args else {
        return Err("an instance takes five arguments".into());
    };
    let answers = Answers {
        number: number.parse()?,
        nature: Nature {
            takes: Duration::from_micros(takes.parse()?),
            at_once: at_once.parse()?,
            fails: fails.parse()?,
        },
        room: Arc::new(Semaphore::new(at_once.parse()?)),
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen(address)?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        let (ended, end) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // The bench's end of the pipe closes when it says so, or ends, however it ends.
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = ended.send(());
        });
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Server::builder()
            .add_service(HealthServer::new(answers))
            .serve_with_incoming_shutdown(incoming, async { drop(end.await) })
            .await?;
        Ok(())
    })
}

/// One that may be where another one was a moment ago.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

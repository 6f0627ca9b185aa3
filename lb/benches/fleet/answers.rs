//! The process of an instance: it answers as it was told to, by sleeping, and computes nothing.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
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

use crate::{
    Failed,
    backend::Nature,
    reports::{Meter, Reporting},
};

struct Answers {
    number: i32,
    nature: Nature,
    room: Arc<Semaphore>,
    meter: Arc<Meter>,
}

#[tonic::async_trait]
impl Health for Answers {
    /// The status is the number of the instance: who answered.
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service.is_empty() {
            // A probe: it is no work, and answered ahead of everything that is.
            return Ok(Response::new(HealthCheckResponse { status: self.number }));
        }
        if self.nature.fails {
            return Err(Status::unavailable("told to fail"));
        }
        let call = self.meter.begin();
        if call.among() > self.nature.at_once.saturating_add(self.nature.queue) {
            return Err(Status::unavailable("too much to do"));
        }
        let _room = self.room.acquire().await.map_err(|_| Status::internal("closed"))?;
        let share = rand::rng().random_range(0.8..1.2);
        tokio::time::sleep(self.nature.takes.mul_f64(share)).await;
        call.served();
        Ok(Response::new(HealthCheckResponse { status: self.number }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

/// The process of an instance: until its stdin ends.
pub(crate) fn serve(args: &[String]) -> Result<(), Failed> {
    let [number, port, nature @ ..] = args else {
        return Err("an instance has a number and a port".into());
    };
    let (number, nature) = (number.parse()?, Nature::from_args(nature)?);
    let (room, meter) = (Arc::new(Semaphore::new(nature.at_once)), Arc::<Meter>::default());
    let answers = Answers {
        number,
        nature,
        room: Arc::clone(&room),
        meter: Arc::clone(&meter),
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
        let server = Server::builder()
            .layer(tower::layer::layer_fn(move |inner| {
                Reporting::new(inner, Arc::clone(&meter))
            }))
            .add_service(HealthServer::new(answers))
            .serve_with_incoming_shutdown(incoming, async { drop(end.await) });
        tokio::select! {
            served = server => served?,
            () = squeeze(&room, number, nature) => {}
        }
        Ok(())
    })
}

/// Takes half of the room away in every other turn; instances with even numbers in one, those with odd ones in the next, so that
/// the fleet as a whole can always do the same.
async fn squeeze(room: &Semaphore, number: i32, nature: Nature) {
    if nature.squeezed.is_zero() {
        return std::future::pending().await;
    }
    // All of them by the same clock.
    let turns = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut taken = None;
    loop {
        let (turn, length) = (turns(), nature.squeezed.as_nanos());
        let is_taken = (turn.as_nanos() / length + number as u128).is_multiple_of(2);
        taken = match taken {
            // Work that has begun is finished first.
            None if is_taken => room.acquire_many((nature.at_once / 2) as u32).await.ok(),
            Some(taken) if is_taken => Some(taken),
            _ => None,
        };
        let left = length - turns().as_nanos() % length;
        tokio::time::sleep(Duration::from_nanos(left as u64) + Duration::from_millis(1)).await;
    }
}

/// One that may be where another one was a moment ago.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

//! What counting one call costs at one end: nanoseconds from the look-up to the counters, alone and beside other threads. Arms are
//! interleaved, and the least of several rounds is told: noise only adds.
//!
//! `cargo bench -p telemetry --bench stats`. A call through lb counts three times: the call, its attempt, and at the provider.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use telemetry::stats;

const ROUNDS: usize = 15;
const CALLS: u32 = 200_000;
const SERVICE: &str = "ticket-svc";
const METHODS: [&str; 4] = [
    "tessera.ticket.v1.TicketService/HoldSeats",
    "tessera.ticket.v1.TicketService/ConfirmHold",
    "tessera.ticket.v1.TicketService/ListEvents",
    "tessera.ticket.v1.TicketService/GetEvent",
];

fn round() -> f64 {
    let started = Instant::now();
    for n in 0..CALLS {
        let method = METHODS[n as usize % METHODS.len()];
        let took = Duration::from_micros(u64::from(n % 5_000) + 100);
        stats::count_one(black_box(SERVICE), black_box(method), 0, black_box(took));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn together(threads: usize) -> f64 {
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(round)).collect();
        let each = running.into_iter().map(|thread| thread.join().unwrap_or(f64::INFINITY));
        each.fold(0.0, f64::max)
    })
}

fn main() {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut least = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        // Nobody takes: what everyone pays who does not use it.
        least[0] = least[0].min(round());
        let Some(taker) = stats::install("bench") else {
            return;
        };
        // The first calls make the series.
        round();
        least[1] = least[1].min(round());
        least[2] = least[2].min(together(threads));
        black_box(taker.take());
    }
    println!("ns a count, least of {ROUNDS} rounds of {CALLS}:");
    println!("  nobody takes                 {:>7.1}", least[0]);
    println!("  counted, one thread          {:>7.1}", least[1]);
    println!("  counted, {threads:>2} threads at once  {:>7.1}", least[2]);
    println!("a call counts three times: {:.0} ns", 3.0 * least[1]);
}

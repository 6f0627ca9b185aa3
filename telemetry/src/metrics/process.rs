//! What the operating system and the runtime know of this process, read when somebody scrapes: the names that Prometheus client
//! libraries give it (`process_*`), and tokio's figures. What cannot be read is left out. Not here: how late the runtime is, which has to be measured as
//! it happens (`runtime`).

use std::{
    fmt, fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Clock ticks a second in `/proc`: part of Linux's interface to programs, on every architecture that Rust has.
const TICKS: f64 = 100.0;

/// Reads all of it, anew for each scrape.
#[derive(Debug)]
pub(super) struct Figures;

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut write = |name: &str, help: &str, value: Option<Value>| match value {
            Some(Value::Counter(value)) => {
                ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
            }
            Some(Value::Gauge(value)) => {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
            }
            None => Ok(()),
        };
        let stat = read("/proc/self/stat").and_then(|text| Stat::read(&text));
        let status = read("/proc/self/status").unwrap_or_default();
        let uptime = read("/proc/uptime").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
        let running = stat.as_ref().zip(uptime).map(|(stat, uptime)| uptime - stat.started);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limits = read("/proc/self/limits").unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let kib = |name| field(&status, name).map(|value| value * 1024.0);

        let cpu = stat.as_ref().map(|stat| Value::Counter(stat.cpu));
        write(
            "process_cpu_seconds",
            "Processor time of this process, user and system.",
            cpu,
        )?;
        write(
            "process_resident_memory_bytes",
            "Memory of this process that is in RAM.",
            kib("VmRSS:").map(Value::Gauge),
        )?;
        write(
            "process_virtual_memory_bytes",
            "Address space of this process.",
            kib("VmSize:").map(Value::Gauge),
        )?;
        write(
            "process_threads",
            "Threads of this process.",
            field(&status, "Threads:").map(Value::Gauge),
        )?;
        // One of them is that of looking.
        let files = files.map(|count| Value::Gauge(count.saturating_sub(1) as f64));
        write("process_open_fds", "Open file descriptors.", files)?;
        write(
            "process_max_fds",
            "How many file descriptors this process may open.",
            field(&limits, "Max open files").map(Value::Gauge),
        )?;
        let started = running.map(|running| Value::Gauge(now.as_secs_f64() - running));
        write(
            "process_start_time_seconds",
            "When this process was started, as Unix time.",
            started,
        )?;
        write(
            "process_uptime_seconds",
            "For how long this process has been running.",
            running.map(Value::Gauge),
        )?;

        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Ok(());
        };
        let runtime = runtime.metrics();
        let workers = runtime.num_workers();
        let busy = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker).as_secs_f64());
        write(
            "tokio_runtime_workers",
            "Threads that run tasks.",
            Some(Value::Gauge(workers as f64)),
        )?;
        write(
            "tokio_runtime_alive_tasks",
            "Tasks that were spawned and have not ended.",
            Some(Value::Gauge(runtime.num_alive_tasks() as f64)),
        )?;
        write(
            "tokio_runtime_global_queue_depth",
            "Tasks that are ready and wait in the queue that all workers share.",
            Some(Value::Gauge(runtime.global_queue_depth() as f64)),
        )?;
        write(
            "tokio_runtime_busy_seconds",
            "For how long workers were not parked, all together.",
            Some(Value::Counter(busy.sum())),
        )
    }
}

enum Value {
    Counter(f64),
    Gauge(f64),
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The number after a name at the start of a line; a limit may be `unlimited`, which is none.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What is read of `/proc/self/stat`: see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    /// Seconds in user and kernel mode.
    cpu: f64,
    /// Seconds from the machine's start to that of the process.
    started: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may have any character in it.
        let after_name = text.get(text.rfind(')')? + 1..)?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        // The manual counts from 1, and the first here is its third.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu: (ticks(14)? + ticks(15)?) / TICKS,
            started: ticks(22)? / TICKS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 123400 1000 200 184467";
        let expected = Stat {
            cpu: 3.0,
            started: 1_234.0,
        };
        assert_eq!(Stat::read(stat), Some(expected));
        assert_eq!(Stat::read("42 (a) S 1"), None);
        assert_eq!(Stat::read(""), None);
        let status = "Name:\ttessera\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2_048.0));
        assert_eq!(field(status, "VmSwap:"), None);
        let limits = "Max cpu time              unlimited            unlimited            seconds\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(field(limits, "Max open files"), Some(1_024.0));
        assert_eq!(field(limits, "Max cpu time"), None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn this_process_has_all_of_them() {
        let text = crate::metrics::encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {text}"))
                .parse()
                .expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_cpu_seconds_total") < 3_600.0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started <= now && now - started < 3_600.0, "{started} {now}");
        assert!(value("process_uptime_seconds") >= 0.0);
        assert!(value("tokio_runtime_workers") >= 1.0);
        assert!(value("tokio_runtime_alive_tasks") >= 0.0);
        assert!(value("tokio_runtime_busy_seconds_total") >= 0.0);
    }
}

//! `tessera backup` and `tessera restore`: a registry's state to a file and back. What is in the file is registry-svc's
//! business; this brings it here, says how far it is, and what it was.

use std::{path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use proto::registry::v1::{BackupRequest, governance_service_client::GovernanceServiceClient};
use registry_svc::backup::{self, Error, Summary, Unfinished};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorInfo, StatusExt as _};

use crate::{
    args::{BackupArgs, RestoreArgs},
    failure::{Exit, Failure},
    output::{self, Output},
    status,
};

/// A registry that sends nothing for so long hangs. It gives up on us after 30 s, for the same reason.
const SILENT: Duration = Duration::from_secs(30);

/// Takes a backup.
pub(crate) async fn backup(args: &BackupArgs, output: Output) -> Result<(), Failure> {
    let file = &args.file;
    let summary = match &args.data_dir {
        Some(data_dir) => {
            let progress = Progress::new(format!("reading {}", data_dir.display()));
            let (data_dir, to) = (data_dir.clone(), file.clone());
            let summary = off_the_runtime(move || backup::save(&data_dir, &to)).await?;
            progress.over();
            summary.map_err(|error| not_saved(&error))?
        }
        None => fetch(args).await?,
    };
    output.print(&document(file, &summary), || {
        format!("{} holds {}.", file.display(), described(&summary))
    })
}

/// Makes a data directory of a backup.
pub(crate) async fn restore(args: &RestoreArgs, output: Output) -> Result<(), Failure> {
    let progress = Progress::new(format!("reading {}", args.file.display()));
    let (file, data_dir) = (args.file.clone(), args.data_dir.clone());
    let summary = off_the_runtime(move || backup::restore(&file, &data_dir)).await?;
    progress.over();
    let summary = summary.map_err(|error| not_restored(&error))?;
    let mut document = document(&args.file, &summary);
    document["data_dir"] = json!(args.data_dir.display().to_string());
    output.print(&document, || {
        let data_dir = args.data_dir.display();
        format!(
            "{data_dir} holds {}. Start it with `tessera registry --data-dir {data_dir}`.",
            described(&summary)
        )
    })
}

/// From a registry that serves.
async fn fetch(args: &BackupArgs) -> Result<Summary, Failure> {
    let mut unfinished = Unfinished::create(&args.file).map_err(|error| not_saved(&error))?;
    let channel = crate::channel::to_registry(&args.registry, &args.tls, &args.shown)?;
    let mut client = GovernanceServiceClient::new(channel);
    let progress = Progress::new("asking the registry".to_owned());
    let begun = within(client.backup(BackupRequest {})).await;
    let mut pieces = begun.map_err(|status| not_sent(&status))?.into_inner();
    let mut bytes = 0;
    while let Some(piece) = within(pieces.message()).await.map_err(|status| not_sent(&status))? {
        unfinished.write(&piece.data).map_err(|error| not_saved(&error))?;
        bytes += piece.data.len() as u64;
        progress.has(bytes);
    }
    let summary = off_the_runtime(move || unfinished.finish()).await?;
    progress.over();
    summary.map_err(|error| not_saved(&error))
}

async fn within<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(SILENT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "nothing came for {} s",
            SILENT.as_secs()
        ))),
    }
}

/// Disks block.
async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::new("the work was not finished").because(&error))
}

fn document(file: &Path, summary: &Summary) -> Value {
    json!({
        "file": file.display().to_string(),
        "bytes": summary.bytes,
        "history_id": summary.history_id,
        "revision": summary.revision,
        "instances": summary.instances,
        "leases": summary.leases,
        "overrides": summary.overrides,
        "taken": taken(summary),
    })
}

fn described(summary: &Summary) -> String {
    format!(
        "{} under {}, at revision {} of {}",
        count(summary.instances, "instance"),
        count(summary.leases, "lease"),
        summary.revision,
        taken(summary),
    )
}

fn count(number: u64, singular: &str) -> String {
    output::count(usize::try_from(number).unwrap_or(usize::MAX), singular)
}

fn taken(summary: &Summary) -> String {
    // Only a clock that is thousands of years off is not a timestamp.
    Timestamp::try_from(summary.taken).map_or_else(|_| "-".to_owned(), output::instant)
}

fn not_saved(error: &Error) -> Failure {
    let failure = Failure::new("there is no backup").because(error);
    match error {
        Error::Exists { .. } => failure.advice("give it another name, or move that file away"),
        Error::NoStore { .. } => failure.advice("give --data-dir as the registry has it"),
        Error::Unusable { .. } => failure.advice("what the registry sent was cut short: try again"),
        Error::InUse { .. } => failure.advice("a registry that serves is backed up through --registry"),
        _ => failure,
    }
}

fn not_restored(error: &Error) -> Failure {
    let failure = Failure::new("nothing was restored").because(error);
    match error {
        Error::NotEmpty { .. } => failure.advice("give a new directory: a backup replaces nothing"),
        Error::Unusable { .. } => failure.advice("take another backup: this one does not read back"),
        _ => failure,
    }
}

fn not_sent(status: &Status) -> Failure {
    let details = status.get_error_details();
    let failed = |info: &ErrorInfo| info.reason == "BACKUP_FAILED";
    match status.code() {
        _ if details.error_info().is_some_and(failed) => {
            status::failure("the registry did not finish the backup", status)
        }
        Code::Unavailable => Failure::new("the registry cannot be reached")
            .why(status.message())
            .advice("pass --registry, or --data-dir when it does not run")
            .exit(Exit::Grpc(Code::Unavailable)),
        _ => status::failure("the registry sent no backup", status),
    }
}

/// What is told on a terminal meanwhile.
struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    fn new(doing: String) -> Self {
        let spinner = output::is_interactive().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner.set_message(output::plain(&doing));
            spinner
        });
        Self { spinner }
    }

    fn has(&self, bytes: u64) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!("{} MB", bytes / 1_000_000));
        }
    }

    fn over(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.over();
    }
}

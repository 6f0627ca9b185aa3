//! What `up` tells while it works, on stderr: one line for each thing that happened, and on a terminal a spinner for
//! what is happening. Results are not told here.

use std::time::Duration;

use anstyle::AnsiColor;
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    keeper::{Death, Serving},
    plan::{ChildPlan, Role},
};
use crate::output;

/// The teller.
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
}

impl Progress {
    /// With a spinner where a person looks.
    pub(crate) fn new() -> Self {
        let spinner = output::is_interactive().then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self { spinner }
    }

    /// These are being started.
    pub(crate) fn starting(&self, children: &[ChildPlan]) {
        let names: Vec<&str> = children.iter().map(|child| child.name.as_str()).collect();
        self.doing(format!("starting {} …", names.join(", ")));
    }

    /// Something takes a moment.
    pub(crate) fn doing(&self, what: String) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(what);
        }
    }

    /// One serves.
    pub(crate) fn started(&self, serving: &Serving) {
        let green = AnsiColor::Green.on_default();
        let Serving { name, listen, pid, .. } = serving;
        let took = output::duration(serving.took);
        self.line(&format!(
            "{green}✓{green:#} {name:<9} listens on {listen} (process {pid}, {took})"
        ));
    }

    /// Nothing takes a moment any more.
    pub(crate) fn idle(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }

    /// One died.
    pub(crate) fn died(&self, death: &Death) {
        let red = AnsiColor::Red.on_default().bold();
        let Death { name, how, .. } = death;
        let again_in = output::duration(death.again_in);
        self.line(&format!("{red}✗{red:#} {name} {how}; starting it again in {again_in}"));
        for line in &death.last_lines {
            self.line(&format!("    {line}"));
        }
    }

    /// One that had died serves again.
    pub(crate) fn back(&self, serving: &Serving) {
        let green = AnsiColor::Green.on_default();
        let Serving { name, listen, pid, .. } = serving;
        // Its former one may have been taken meanwhile.
        let admin = serving
            .admin
            .map(|admin| format!(", metrics on {admin}"))
            .unwrap_or_default();
        self.line(&format!(
            "{green}✓{green:#} {name} is back on {listen} (process {pid}{admin})"
        ));
    }

    /// These are being stopped.
    pub(crate) fn stopping(&self, role: Role) {
        self.line(&format!(
            "stopping {}",
            match role {
                Role::Registry => "the registry",
                Role::Ticket => "the ticket services",
                Role::User => "the user service",
                Role::Console => "the monitor",
            }
        ));
    }

    /// A line, above the spinner.
    pub(crate) fn line(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }
}

//! What was measured, beside what it should come to: printed as a table, and written as JSON for machines.

use std::fs;

use serde_json::{Value, json};

use crate::{
    Failed,
    machine::Machine,
    server::{Kind, output},
    stats::{median, ratio},
};

/// Measurements of the opponents, round by round.
#[derive(Default)]
pub(crate) struct Series {
    tessera: Vec<f64>,
    etcd: Vec<f64>,
    zookeeper: Vec<f64>,
}

impl Series {
    /// Adds one of `kind`.
    pub(crate) fn push(&mut self, kind: Kind, value: f64) {
        match kind {
            Kind::Tessera => self.tessera.push(value),
            Kind::Etcd => self.etcd.push(value),
            Kind::ZooKeeper => self.zookeeper.push(value),
        }
    }

    /// All of `kind`.
    pub(crate) fn of(&self, kind: Kind) -> &[f64] {
        match kind {
            Kind::Tessera => &self.tessera,
            Kind::Etcd => &self.etcd,
            Kind::ZooKeeper => &self.zookeeper,
        }
    }
}

/// What a figure should come to: this project's goals, not limits of nature.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// At least so many times etcd's.
    TimesEtcd(f64),
    /// At most this part of etcd's.
    PartOfEtcd(f64),
}

/// One figure: medians of its rounds.
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    series: Series,
    goals: Vec<Goal>,
    note: String,
    /// Percent of the machine that others took meanwhile.
    others: Option<f64>,
}

impl Figure {
    /// Without goals yet.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, series: Series) -> Self {
        Self {
            name: name.into(),
            unit,
            series,
            goals: Vec::new(),
            note: String::new(),
            others: None,
        }
    }

    /// Of one measurement each.
    pub(crate) fn single(name: impl Into<String>, unit: &'static str, tessera: f64, etcd: Option<f64>) -> Self {
        let mut series = Series::default();
        series.push(Kind::Tessera, tessera);
        series.etcd.extend(etcd);
        Self::new(name, unit, series)
    }

    /// With a goal.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }

    /// What one has to know of it.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn value(&self, kind: Kind) -> Option<f64> {
        Some(median(self.series.of(kind))).filter(|value| !value.is_nan())
    }

    fn ratio(&self) -> Option<f64> {
        let ratio = ratio(self.series.of(Kind::Tessera), self.series.of(Kind::Etcd));
        Some(ratio).filter(|ratio| !ratio.is_nan())
    }

    /// What the goal says, and whether it is met; `None` where the opponent is not there.
    fn judged(&self, goal: Goal) -> (String, Option<bool>) {
        let (ours, ratio) = (self.value(Kind::Tessera), self.ratio());
        match goal {
            Goal::AtLeast(bound) => (format!(">= {}", short(bound)), ours.map(|ours| ours >= bound)),
            Goal::AtMost(bound) => (format!("<= {}", short(bound)), ours.map(|ours| ours <= bound)),
            Goal::TimesEtcd(bound) => (format!(">= {bound}x etcd"), ratio.map(|ratio| ratio >= bound)),
            Goal::PartOfEtcd(bound) => (format!("<= {bound}x etcd"), ratio.map(|ratio| ratio <= bound)),
        }
    }

    fn row(&self) -> String {
        let value = |kind| self.value(kind).map_or_else(|| "-".to_owned(), short);
        let ratio = self
            .ratio()
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let goals: Vec<String> = self.goals.iter().map(|&goal| verdict(self.judged(goal))).collect();
        format!(
            "{:<47}{:>6}{:>10}{:>10}{:>10}{:>8}  {}",
            self.name,
            self.unit,
            value(Kind::Tessera),
            value(Kind::Etcd),
            value(Kind::ZooKeeper),
            ratio,
            goals.join("; ")
        )
    }

    fn json(&self) -> Value {
        let goals = self.goals.iter().map(|&goal| {
            let (text, met) = self.judged(goal);
            json!({ "goal": text, "met": met })
        });
        json!({
            "figure": self.name,
            "unit": self.unit,
            "tessera": self.value(Kind::Tessera),
            "etcd": self.value(Kind::Etcd),
            "zookeeper": self.value(Kind::ZooKeeper),
            "ratio_to_etcd": self.ratio(),
            "rounds": {
                "tessera": self.series.tessera,
                "etcd": self.series.etcd,
                "zookeeper": self.series.zookeeper,
            },
            "goals": goals.collect::<Vec<_>>(),
            "note": self.note,
            "others_percent": self.others,
        })
    }
}

fn verdict((goal, met): (String, Option<bool>)) -> String {
    let word = match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not compared",
    };
    format!("{goal}: {word}")
}

/// Three digits that matter, and whole numbers from a hundred on.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Figures in the order in which they were taken.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Prints what the columns are.
    pub(crate) fn head() {
        println!(
            "{:<47}{:>6}{:>10}{:>10}{:>10}{:>8}  goal",
            "figure", "unit", "tessera", "etcd", "zookeeper", "t / e"
        );
    }

    /// Prints a figure, and keeps it.
    pub(crate) fn add(&mut self, figure: Figure) {
        println!("{}", figure.row());
        if !figure.note.is_empty() {
            println!("    {}", figure.note);
        }
        self.figures.push(figure);
    }

    /// Says of the figures since the last time how much of the machine others took while they were taken.
    pub(crate) fn others(&mut self, others: f64) {
        for figure in self
            .figures
            .iter_mut()
            .rev()
            .take_while(|figure| figure.others.is_none())
        {
            figure.others = Some(others);
        }
        if let Some(verdict) = Machine::verdict(others) {
            println!("    {verdict}");
        }
    }

    /// Writes `target/bench/registry.json`: figures of this run replace those of the same name, the others stay.
    pub(crate) fn write(&self) -> Result<(), Failed> {
        let path = output().join("registry.json");
        let before: Value = fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        let taken = |figure: &Value| self.figures.iter().any(|taken| figure["figure"] == taken.name.as_str());
        let stay = before["figures"].as_array().into_iter().flatten();
        let figures: Vec<Value> = stay
            .filter(|figure| !taken(figure))
            .cloned()
            .chain(self.figures.iter().map(Figure::json))
            .collect();
        fs::write(&path, format!("{:#}\n", json!({ "figures": figures })))?;
        println!("\nwritten to target/bench/registry.json");
        Ok(())
    }
}

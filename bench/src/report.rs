//! The table and the file.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::live::percentile;
use crate::machine::Machine;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Too few rounds to be quoted.
    quick: bool,
    /// What has to be known of the figures.
    notes: Vec<String>,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// Which case.
    pub(crate) case: &'static str,
    /// What was measured, and under what.
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    /// Starling's.
    pub(crate) starling: Option<f64>,
    /// What it is compared with, in the same run.
    pub(crate) compared: Option<f64>,
    /// Starling's by the other's.
    pub(crate) ratio: Option<f64>,
    /// What it is to be.
    pub(crate) goal: Option<&'static str>,
}

impl Report {
    pub(crate) fn new(machine: Machine, quick: bool) -> Self {
        println!("{} x {}, Linux {}", machine.cores, machine.cpu, machine.kernel);
        println!("{:<72} {:>12} {:>12} {:>7}  goal", "", "starling", "compared", "ratio");
        Self { machine, quick, notes: Vec::new(), rows: Vec::new() }
    }

    /// Says how figures were come by, or why some are missing.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("note: {note}");
        self.notes.push(note);
    }

    pub(crate) fn add(&mut self, row: Row) {
        let number = |value: Option<f64>| {
            value
                .filter(|value| value.is_finite())
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
        };
        println!(
            "{:<72} {:>12} {:>12} {:>7}  {}",
            format!("{}: {} [{}]", row.case, row.what, row.unit),
            number(row.starling),
            number(row.compared),
            number(row.ratio),
            row.goal.unwrap_or("")
        );
        self.rows.push(row);
    }

    /// A figure that stands alone.
    pub(crate) fn figure(
        &mut self,
        case: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        value: f64,
        goal: Option<&'static str>,
    ) {
        let what = what.into();
        self.add(Row { case, what, unit, starling: Some(value), compared: None, ratio: None, goal });
    }

    /// How figures are spread.
    pub(crate) fn spread(
        &mut self,
        case: &'static str,
        what: &str,
        unit: &'static str,
        values: &[f64],
        goal: Option<&'static str>,
    ) {
        for (name, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let goal = if name == "max" { None } else { goal };
            let what = format!("{what}, {name} of {}", values.len());
            self.figure(case, what, unit, percentile(values, part), goal);
        }
    }

    /// A figure beside another's.
    pub(crate) fn ratio(
        &mut self,
        case: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        pair: (f64, f64),
        goal: Option<&'static str>,
    ) {
        let (starling, compared) = pair;
        let (what, ratio) = (what.into(), Some(starling / compared));
        self.add(Row { case, what, unit, starling: Some(starling), compared: Some(compared), ratio, goal });
    }

    pub(crate) fn finish(&self, name: &str) -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("written to {}", file.display());
        Ok(())
    }
}

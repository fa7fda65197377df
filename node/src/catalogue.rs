//! `starling models`: the engine crate's catalogue with bars and tables.

use anyhow::anyhow;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use starling_engine::catalogue::import::{ImportRequest, import};
use starling_engine::catalogue::{
    Catalogue, Entry, FetchError, Home, Kind, PrepareError, Progress, fetch, remove, verify,
};

use crate::cli::{CatalogueCommand, ImportArguments};
use crate::exit::{Exit, Failure};
use crate::models::Capable;

/// Does what was asked with the models in `home`.
///
/// # Errors
/// What went wrong, with the exit code for it.
pub fn run(home: &Home, command: CatalogueCommand) -> Result<(), Failure> {
    let catalogue = Catalogue::load(home).map_err(|error| Failure::new(Exit::Data, error))?;
    match command {
        CatalogueCommand::List { json } => list(home, &catalogue, json),
        CatalogueCommand::Fetch { names } => {
            let mut bars = Bars::default();
            each(&catalogue, &names, |entry| fetch_one(home, &catalogue, entry, &mut bars))
        }
        CatalogueCommand::Verify { names } => verify_all(home, &catalogue, names),
        CatalogueCommand::Remove { names } => {
            let mut bars = Bars::default();
            each(&catalogue, &names, |entry| {
                remove(home, entry, &mut bars).map_err(|error| Failure::new(Exit::NoInput, error))?;
                println!("{} is removed", entry.name);
                Ok(())
            })
        }
        CatalogueCommand::Import(arguments) => import_one(home, &catalogue, &arguments),
    }
}

/// Does the same with each, to the end of the list whatever fails.
fn each(
    catalogue: &Catalogue,
    names: &[String],
    mut work: impl FnMut(&Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for name in names {
        let found = catalogue.get(name).map_err(|error| Failure::new(Exit::Usage, error));
        if let Err(failure) = found.and_then(&mut work) {
            failures.push(failure);
        }
    }
    if failures.len() == names.len().max(1) && failures.len() == 1 {
        return failures.pop().map_or(Ok(()), Err);
    }
    for failure in &failures {
        eprintln!("starling: {failure}");
    }
    let (failed, all) = (failures.len(), names.len());
    let exit = if failed == all { failures.pop().map_or(Exit::Ok, |last| last.exit) } else { Exit::Partial };
    if failed == 0 { Ok(()) } else { Err(Failure::new(exit, anyhow!("{failed} of {all} failed"))) }
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    language: &'a str,
    engine: String,
    sample_rate: Option<u32>,
    size_bytes: u64,
    licence: &'a str,
    state: &'static str,
    /// `None` while there are no files that would say.
    capabilities: Option<Capable>,
    notes: &'a str,
}

fn list(home: &Home, catalogue: &Catalogue, json: bool) -> Result<(), Failure> {
    let rows: Vec<Row<'_>> = catalogue.of_kind(Kind::Model).map(|entry| row(home, entry)).collect();
    if json {
        let text =
            serde_json::to_string_pretty(&rows).map_err(|error| Failure::new(Exit::Software, error))?;
        println!("{text}");
        return Ok(());
    }
    println!("Models in {}:", home.root().display());
    rows_shown(&rows).iter().for_each(|line| println!("  {line}"));
    println!("Get one with: starling models fetch NAME");
    Ok(())
}

/// A line for each, with what a prepared one can be asked for.
fn rows_shown(rows: &[Row<'_>]) -> Vec<String> {
    let widest = |of: fn(&Row<'_>) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (names, licences) = (widest(|row| row.name.len()), widest(|row| row.licence.len()));
    let shown = rows.iter().map(|row| {
        let size = HumanBytes(row.size_bytes).to_string();
        let can = row.capabilities.map_or_else(|| "-".to_owned(), |capable| capable.names());
        format!(
            "{:names$}  {:8}  {:9}  {size:>10}  {:9}  {:licences$}  {can}",
            row.name, row.language, row.engine, row.state, row.licence
        )
    });
    shown.collect()
}

fn row<'a>(home: &Home, entry: &'a Entry) -> Row<'a> {
    let prepared = home.prepared(entry);
    let state = match &prepared {
        Ok(_) => "prepared",
        Err(PrepareError::Missing { .. }) => "-",
        Err(PrepareError::Outdated { .. }) => "outdated",
        Err(_) => "damaged",
    };
    Row {
        name: &entry.name,
        language: &entry.language,
        engine: entry.engine.map(|engine| engine.to_string()).unwrap_or_default(),
        sample_rate: entry.sample_rate_hz,
        size_bytes: entry.size_bytes,
        licence: &entry.licence,
        state,
        capabilities: prepared.as_ref().ok().map(Capable::of),
        notes: &entry.notes,
    }
}

fn fetch_one(home: &Home, catalogue: &Catalogue, entry: &Entry, bars: &mut Bars) -> Result<(), Failure> {
    let fetched = fetch(home, catalogue, entry, bars);
    bars.end();
    let fetched = fetched.map_err(|error| {
        let exit = match error {
            FetchError::DiskFull { .. } => Exit::Os,
            _ => Exit::Unavailable,
        };
        Failure::new(exit, error)
    })?;
    for item in fetched {
        let state = if item.was_there { "was there" } else { "is prepared" };
        println!("{} {state}: {}", item.name, item.dir.display());
    }
    Ok(())
}

fn verify_all(home: &Home, catalogue: &Catalogue, mut names: Vec<String>) -> Result<(), Failure> {
    if names.is_empty() {
        let there = catalogue.entries().filter(|entry| home.manifest_path(entry).exists());
        names = there.map(|entry| entry.name.clone()).collect();
    }
    let mut bars = Bars::default();
    each(catalogue, &names, |entry| {
        let report = verify(home, entry, &mut bars);
        bars.end();
        let report = report.map_err(|error| Failure::new(Exit::NoInput, error))?;
        if report.is_intact() {
            println!("{} is intact: {} files, {}", entry.name, report.files, HumanBytes(report.bytes));
            return Ok(());
        }
        let faults = report.faults.join("; ");
        Err(Failure::new(Exit::Data, anyhow!("`{}` is damaged: {faults}", entry.name)))
    })
}

fn import_one(home: &Home, catalogue: &Catalogue, arguments: &ImportArguments) -> Result<(), Failure> {
    let folder = arguments.dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(folder).unwrap_or_default();
    let request = ImportRequest {
        dir: &arguments.dir,
        engine_yaml: arguments.engine.as_deref(),
        name: &name,
        language: &arguments.language,
        licence: &arguments.licence,
    };
    let mut bars = Bars::default();
    let imported = import(home, catalogue, &request, &mut bars);
    bars.end();
    let report = imported.map_err(|error| Failure::new(Exit::Data, error))?;
    println!("{} is prepared: {} ({} Hz)", report.name, report.dir.display(), report.sample_rate_hz);
    for (key, value) in &report.settings {
        println!("  carried over: {key} = {value}");
    }
    for unused in &report.unused {
        println!("  not used: {} = {} ({}): {}", unused.key, unused.value, unused.file.display(), unused.why);
    }
    for note in &report.notes {
        println!("  {note}");
    }
    Ok(())
}

/// A bar for each step, on a terminal; a line for each otherwise.
#[derive(Default)]
struct Bars {
    bar: Option<ProgressBar>,
}

impl Bars {
    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn step(&mut self, what: &str, total_bytes: Option<u64>) {
        self.end();
        if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            eprintln!("{what}");
            return;
        }
        let template = match total_bytes {
            Some(_) => "{msg} {bar:30} {bytes}/{total_bytes} {eta}",
            None => "{spinner} {msg} {bytes}",
        };
        let bar = total_bytes.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        self.bar = Some(bar);
    }

    fn at(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_listed_says_what_a_prepared_model_can_be_asked_for() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let home = Home::at(folder.path()).expect("a home");
        let catalogue = Catalogue::load(&home).expect("the built-in one");
        let names = ["moonshine-tiny-en", "vosk-ko-small", "scripted"];
        let entries: Vec<&Entry> = names.map(|name| catalogue.get(name).expect("is there")).into();
        let rows: Vec<Row<'_>> = entries.into_iter().map(|entry| row(&home, entry)).collect();
        insta::assert_snapshot!(rows_shown(&rows).join("\n"));
        insta::assert_json_snapshot!(rows.last().map(|row| row.capabilities));
    }

    #[test]
    fn a_vosk_model_takes_phrases_if_its_files_do() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let graph = folder.path().join("graph");
        fs::create_dir(&graph).expect("made");
        let can = || {
            let model = starling_engine::catalogue::PreparedModel {
                name: "ours".to_owned(),
                engine: starling_engine::catalogue::EngineKind::Vosk,
                language: "en".to_owned(),
                sample_rate_hz: 16_000,
                dir: folder.path().to_owned(),
                library_dir: None,
                digest: String::new(),
            };
            Capable::of(&model).names()
        };
        assert_eq!(can(), "words, confidences, alternatives, phrases");
        fs::write(graph.join("HCLG.fst"), "x").expect("written");
        assert_eq!(can(), "words, confidences, alternatives");
    }
}

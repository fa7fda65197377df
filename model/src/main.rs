//! Searches all states of a small cluster: `cargo run -p starling-model -- crashes=1 pauses=1 early_timers=1`. With `mistake=AckBeforeCopy`
//! and its like something is done wrong on purpose.

use std::process::ExitCode;

use starling_model::{Cluster, Mistake};

fn main() -> ExitCode {
    let mut cluster = Cluster::default();
    for argument in std::env::args().skip(1) {
        if let Err(problem) = set(&mut cluster, &argument) {
            eprintln!("error: {argument:?} is not understood: {problem}");
            return ExitCode::from(64);
        }
    }
    println!("{:?}, {:?}", cluster.faults, cluster.mistake);
    let found = cluster.search();
    for counterexample in &found.counterexamples {
        println!("\n{counterexample}");
    }
    println!(
        "\n{} states, {} steps deep; the client can be told all: {}",
        found.states, found.depth, found.can_end
    );
    ExitCode::from(u8::from(!found.counterexamples.is_empty()))
}

fn set(cluster: &mut Cluster, argument: &str) -> Result<(), String> {
    let (name, value) = argument.split_once('=').ok_or("it has to be NAME=VALUE")?;
    let faults = &mut cluster.faults;
    let count = match name {
        "losses" => &mut faults.losses,
        "hangups" => &mut faults.hangups,
        "duplicates" => &mut faults.duplicates,
        "crashes" => &mut faults.crashes,
        "pauses" => &mut faults.pauses,
        "early_timers" => &mut faults.early_timers,
        "steps" => {
            cluster.most_steps = Some(value.parse().map_err(|_| "a number")?);
            return Ok(());
        }
        "mistake" => {
            let known = Mistake::ALL.into_iter().find(|mistake| format!("{mistake:?}") == value);
            cluster.mistake = Some(known.ok_or_else(|| format!("one of {:?}", Mistake::ALL))?);
            return Ok(());
        }
        _ => {
            return Err("losses, hangups, duplicates, crashes, pauses, early_timers, steps or mistake".into());
        }
    };
    *count = value.parse().map_err(|_| "a small number")?;
    Ok(())
}

//! The program `starling`.

use std::process::ExitCode;

use clap::Parser;
use starling_node::cli::{Cli, run};
use starling_node::exit::Exit;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed output has nobody to be told.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    match run(cli) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            eprintln!("starling: {failure}");
            failure.exit.into()
        }
    }
}

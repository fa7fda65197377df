//! The README's commands and links are part of the product: what it tells a newcomer to type must exist.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::CommandFactory;

use crate::Cli;
use crate::command::{self, output_of, root};

pub(crate) fn check() -> Result<()> {
    let path = root().join("README.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    command::build_programs()?;
    let commands = commands_in(&text);
    if commands.is_empty() {
        bail!("README.md shows no command in a ```sh block");
    }
    let mut faults: Vec<String> = commands.iter().filter_map(|line| fault_of(line)).collect();
    faults.extend(broken_links(&text, &root()));
    if !faults.is_empty() {
        bail!("README.md is wrong:\n  {}", faults.join("\n  "));
    }
    eprintln!("README.md: {} commands and all links are right", commands.len());
    Ok(())
}

/// The lines of all `sh` blocks, without comments and continued lines joined.
fn commands_in(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let (mut inside, mut continued) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            inside = !inside && matches!(line, "```sh" | "```bash" | "```console");
            continue;
        }
        let line = line.split(" #").next().unwrap_or_default().trim();
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if !inside || line.is_empty() || line.starts_with('#') {
            continue;
        }
        let part = line.trim_end_matches('\\').trim();
        match commands.last_mut() {
            Some(last) if continued => *last = format!("{last} {part}"),
            _ => commands.push(part.to_owned()),
        }
        continued = line.ends_with('\\');
    }
    commands
}

/// Why a command would not work, for those that the project itself provides.
fn fault_of(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "xtask", rest @ ..] => {
            let args = std::iter::once("cargo xtask").chain(rest.iter().copied());
            let parsed = Cli::command().try_get_matches_from(args);
            parsed.err().map(|error| format!("`{line}`: {}", first_line(&error.to_string())))
        }
        [program, rest @ ..] if Path::new(program).file_name().is_some_and(|name| name == "starling") => {
            let names =
                rest.iter().take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
            let subcommand: Vec<&str> =
                names.copied().filter(|word| !word.starts_with('-')).take(1).collect();
            let help = output_of(Command::new(command::built("starling")).args(&subcommand).arg("--help"));
            help.is_none().then(|| format!("`{line}`: starling has no such command"))
        }
        _ => None,
    }
}

/// Relative links to what is not there.
fn broken_links(text: &str, root: &Path) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !root.join(target).exists())
        .map(|target| format!("the link to {target} leads nowhere"))
        .collect()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_shell_blocks_count() {
        let text = "```sh\n# a comment\n$ cargo xtask demo   # shows it\ncargo build \\\n  --release\n```\n\
                    ```toml\nkey = 1\n```\n```console\nls\n```\n";
        assert_eq!(commands_in(text), ["cargo xtask demo", "cargo build --release", "ls"]);
    }

    #[test]
    fn tasks_that_do_not_exist_are_faults() {
        assert_eq!(fault_of("cargo xtask test --no-capture x"), None);
        assert!(fault_of("cargo xtask dance").unwrap().contains("dance"));
        assert_eq!(fault_of("git clone there"), None);
    }

    #[test]
    fn links_are_followed_within_the_checkout_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.md"), "").unwrap();
        let text = "[a](a.md#x) [b](b.md) [c](https://example.org/c) [d](#d)";
        assert_eq!(broken_links(text, dir.path()), ["the link to b.md leads nowhere"]);
    }
}

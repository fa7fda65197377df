//! `starling keys`: API keys and what is kept of them; and how a command shows one.
//!
//! Must never: write a key anywhere but to the terminal of whoever asked for a new one.

use std::io::Read;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use crate::exit::{Exit, Failure};
use crate::remote::print;
use crate::tenants::{KeyHash, new_key};

/// The longest key that is hashed.
const MOST_KEY_BYTES: u64 = 4_096;

/// A key, for a node that asks for one.
#[derive(Debug, Clone, Default, Args)]
pub struct KeyArguments {
    /// The API key, for servers that ask for one
    #[arg(long, value_name = "KEY", env = "STARLING_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
}

/// What is to be done with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Draw a key, and print it with its hash
    ///
    /// The key is for the client. The hash is for the node: in `keys` of a [[tenant]] in its configuration, in the file that `keys_file` names there, or with the tenant's name in the variable STARLING_KEYS.
    New,
    /// Read a key from standard input and print its hash
    ///
    /// Only for keys that were drawn at random: the hash is a fast one.
    Hash,
}

/// Does it.
///
/// # Errors
/// Exit code 65 for what is no key.
pub fn run(command: &KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::New => {
            let key = new_key();
            print(&format!("key:  {key}\nhash: {}\n", KeyHash::of(&key)))
        }
        KeysCommand::Hash => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(MOST_KEY_BYTES).read_to_string(&mut text);
            read.map_err(|error| Failure::new(Exit::Data, anyhow!("the key cannot be read: {error}")))?;
            let key = text.trim();
            if key.is_empty() {
                return Err(Failure::new(Exit::Data, anyhow!("standard input holds no key")));
            }
            print(&format!("{}\n", KeyHash::of(key)))
        }
    }
}

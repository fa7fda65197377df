//! `starling drain` and `starling models add`: what an operator has running nodes do.

use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http::{Method, StatusCode};
use serde::Deserialize;

use crate::cli::{AddArguments, DrainArguments};
use crate::cluster::ModelOutcome;
use crate::exit::{Exit, Failure};
use crate::remote::{Answer, Remote, print};
use crate::status::understood;
use crate::terminal::one_line;

/// A node that does not answer for so long is not there.
const ANSWER: Duration = Duration::from_secs(5);

/// Longer than a node waits for the others, which read every file of the model.
const ADDED: Duration = Duration::from_secs(30);

/// Lets a node go.
///
/// # Errors
/// Exit code 69 if the server can't be reached or the node is unknown, 64 if the server's address is none.
pub async fn drain(arguments: DrainArguments) -> Result<(), Failure> {
    let remote = Remote::new(&arguments.server, &arguments.key, &arguments.trust);
    let remote = remote.map_err(|error| Failure::new(Exit::Usage, error))?;
    let mut query = query_of("/v1/cluster/drain");
    query.append_pair("node", &arguments.node);
    if let Some(deadline) = arguments.deadline {
        query.append_pair("deadline_ms", &deadline.as_millis().to_string());
    }
    if let Some(stay) = arguments.stay {
        query.append_pair("stay_ms", &stay.as_millis().to_string());
    }
    let path = query.finish();
    let asked = remote.ask(Method::POST, &path, ANSWER).await.and_then(Answer::fine);
    let asked = asked.with_context(|| format!("node {} was not told to drain", arguments.node));
    asked.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    print(&format!("{} drains; `starling status` shows when it is gone\n", arguments.node))
}

#[derive(Deserialize)]
struct Outcomes {
    nodes: Vec<ModelOutcome>,
}

/// Has nodes serve a model.
///
/// # Errors
/// Exit code 69 if the server can't be reached or no node takes the model, 1 if only some do, 64 if the server's address is
/// none.
pub async fn add_model(arguments: AddArguments) -> Result<(), Failure> {
    let remote = Remote::new(&arguments.server, &arguments.key, &arguments.trust);
    let remote = remote.map_err(|error| Failure::new(Exit::Usage, error))?;
    let path = add_path(&arguments);
    let asked = remote.ask(Method::POST, &path, ADDED).await.and_then(|answer| match answer.status {
        StatusCode::CONFLICT => Ok(answer.body),
        _ => answer.fine(),
    });
    let asked = asked.with_context(|| format!("no node was told to serve {}", arguments.name));
    let body = asked.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    let outcomes = parsed(&body)?;
    print(&table(&outcomes))?;
    let failures = failures(&outcomes);
    failures.iter().for_each(|failure| eprintln!("starling: {failure}"));
    let (failed, all) = (failures.len(), outcomes.len());
    let exit = match failed {
        0 => return Ok(()),
        _ if failed == all => Exit::Unavailable,
        _ => Exit::Partial,
    };
    Err(Failure::new(exit, anyhow!("{failed} of {all} nodes do not serve {}", arguments.name)))
}

fn add_path(arguments: &AddArguments) -> String {
    let mut query = query_of("/v1/models");
    query.append_pair("name", &arguments.name);
    if let Some(node) = &arguments.node {
        query.append_pair("node", node);
    }
    let numbers = [
        ("hosts", arguments.hosts),
        ("slots", arguments.slots),
        ("threads", arguments.threads),
        ("prewarm", arguments.prewarm),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            query.append_pair(name, &value.to_string());
        }
    }
    query.finish()
}

fn query_of(path: &str) -> form_urlencoded::Serializer<'static, String> {
    let address = format!("{path}?");
    let length = address.len();
    form_urlencoded::Serializer::for_suffix(address, length)
}

/// What each node says that was asked to serve a model.
pub(crate) fn parsed(answer: &[u8]) -> Result<Vec<ModelOutcome>, Failure> {
    understood(answer).map(|Outcomes { nodes }| nodes)
}

/// Who has taken it, and how.
pub(crate) fn table(outcomes: &[ModelOutcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        if let (Some(change), Some(digest)) = (&outcome.change, &outcome.digest) {
            let digest: String = digest.chars().take(12).collect();
            let line = format!("{}: {change}, files {digest}", outcome.node);
            text.extend([&*one_line(&line), "\n"]);
        }
    }
    text
}

/// Who has not, and why.
pub(crate) fn failures(outcomes: &[ModelOutcome]) -> Vec<String> {
    let failed = outcomes.iter().filter_map(|outcome| Some((&outcome.node, outcome.error.as_ref()?)));
    failed.map(|(node, error)| one_line(&format!("{node}: {error}")).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyArguments;
    use crate::remote::TrustArguments;

    #[test]
    fn only_what_was_typed_is_asked_for() {
        let mut arguments = AddArguments {
            name: "m".into(),
            server: String::new(),
            key: KeyArguments::default(),
            trust: TrustArguments::default(),
            node: None,
            hosts: None,
            slots: Some(8),
            threads: None,
            prewarm: None,
        };
        assert_eq!(add_path(&arguments), "/v1/models?name=m&slots=8");
        (arguments.node, arguments.hosts) = (Some("a&b".into()), Some(1));
        assert_eq!(add_path(&arguments), "/v1/models?name=m&node=a%26b&hosts=1&slots=8");
    }

    #[test]
    fn who_took_it_is_shown_like_this() {
        let of = |node: &str, change: Option<&str>, error: Option<&str>| ModelOutcome {
            node: node.into(),
            change: change.map(Into::into),
            digest: change.map(|_| "0123456789abcdef".into()),
            error: error.map(Into::into),
        };
        let outcomes = [of("a", Some("added"), None), of("b", None, Some("there is none"))];
        assert_eq!(table(&outcomes), "a: added, files 0123456789ab\n");
        assert_eq!(failures(&outcomes), ["b: there is none"]);
    }
}

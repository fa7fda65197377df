//! What goes wrong inside of the product and is healed there: a panic, or what it logs as an error.
//!
//! Owns: hearing of it. Must never: change what is logged, or the run.

use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// What the earlier of two runs under one name has to say: the wire's ghosts are such runs.
const EXPECTED: &str = "another process runs under this node's name with a later generation";

static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on all of this process is heard. What `RUST_LOG` names is printed besides.
pub(crate) fn set() {
    let printed = std::env::var_os("RUST_LOG").is_some().then(|| {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt::layer().without_time().with_filter(filter)
    });
    tracing_subscriber::registry().with(printed).with(Errors.with_filter(LevelFilter::ERROR)).init();
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        hear(&format!("panic: {panic}"));
        told(panic);
    }));
}

/// What was heard, each in a line.
pub(crate) fn heard() -> Vec<String> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn hear(what: &str) {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner).push(what.replace('\n', " "));
}

struct Errors;

impl<S: Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut text = Text(String::new());
            event.record(&mut text);
            if text.0.contains(EXPECTED) {
                return;
            }
            hear(&format!("error:{}", text.0));
        }
    }
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        let name = field.name();
        // Writing into a String does not fail.
        let _ = if name == "message" {
            write!(self.0, " {value:?}")
        } else {
            write!(self.0, " {name}={value:?}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_and_errors_are_heard() {
        set();
        tracing::error!(node = 1, "it broke");
        tracing::warn!("it did not");
        let nothing: Option<u8> = std::hint::black_box(None);
        let panicked = std::thread::spawn(move || nothing.expect("something")).join();
        assert!(panicked.is_err());
        let heard = heard();
        assert_eq!((heard.len(), heard[0].as_str()), (2, "error: it broke node=1"), "{heard:?}");
        assert!(heard[1].starts_with("panic: ") && !heard[1].contains('\n'), "{heard:?}");
    }
}

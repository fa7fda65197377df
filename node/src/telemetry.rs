//! The log: one subscriber, set up once, on standard error.

use anyhow::{Context, anyhow};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

type SetFilter = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// What is logged can be changed while the process lives.
pub struct Log {
    set: SetFilter,
}

impl Log {
    /// Sets the log up for the rest of the process's life.
    ///
    /// # Errors
    /// The directives are wrong, which the settings' check has ruled out, or a subscriber is set up already.
    pub fn start(settings: &LogSettings) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&settings.level).context("log.level")?;
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // It would complain on standard error of what standard error did not take, and panic when that is not taken either: a full
        // disk must not end what goes on.
        let builder = builder.log_internal_errors(false);
        let (started, set): (_, SetFilter) = match settings.format {
            LogFormat::Human => {
                let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
                let builder = builder.with_ansi(colours).with_filter_reloading();
                let handle = builder.reload_handle();
                (builder.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)))
            }
            LogFormat::Json => {
                // The innermost span, which is the session's, says all that the others would.
                let builder =
                    builder.json().flatten_event(true).with_span_list(false).with_filter_reloading();
                let handle = builder.reload_handle();
                (builder.try_init(), Box::new(move |filter| Ok(handle.reload(filter)?)))
            }
        };
        started.map_err(|error| anyhow!(error)).context("the log could not be set up")?;
        Ok(Self { set })
    }

    /// From now on this is logged: a level, or directives.
    ///
    /// # Errors
    /// The directives are wrong; what was logged before is logged on.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        (self.set)(EnvFilter::try_new(level).context("log.level")?)
    }
}

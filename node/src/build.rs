//! What was built from what.

/// The version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit.
pub const COMMIT: &str = env!("STARLING_COMMIT");
/// The commit's date, not the build's: the same source gives the same binary.
pub const COMMIT_DATE: &str = env!("STARLING_COMMIT_DATE");
/// The machine that it runs on.
pub const TARGET: &str = env!("STARLING_TARGET");
/// `debug` or `release`.
pub const PROFILE: &str = env!("STARLING_PROFILE");

/// All of it in a line.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("STARLING_COMMIT"),
    " of ",
    env!("STARLING_COMMIT_DATE"),
    ", ",
    env!("STARLING_TARGET"),
    ", ",
    env!("STARLING_PROFILE"),
    ")"
);

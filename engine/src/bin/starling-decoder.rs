//! The decoder host's process: takes its link from the environment and serves it.
//!
//! Owns: descriptors, logging, and the process's own rules (a panic is death, like any native crash). Must never: be started
//! by hand; a node starts it.
#![allow(unsafe_code)] // Inherited descriptors are taken by number.

use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use starling_engine::host::Link;
use starling_engine::{host, pin};
use starling_protocol::lease::{FLIGHT_FD_VARIABLE, SENTINEL_FDS_VARIABLE, SOCKET_FD_VARIABLE};

/// The native libraries' too, since it has the names `malloc` and `free`: recognizers allocate all the time, and in threads
/// beside the first the C library makes them pay for it. With this one Vosk needs 18 % less CPU and Moonshine 7 % (medians of
/// 9, turn about, on two virtual cores), in the same memory.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABOUT: &str = "starling-decoder: the process Starling's recognizers run in.
A node starts it and speaks to it over an inherited socket (STARLING_HOST_SOCKET_FD); arguments are
labels for `ps`. To transcribe something, run `starling transcribe FILE`.";

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--version" | "-V") => {
            println!("starling-decoder {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Some("--help" | "-h") => {
            println!("{ABOUT}");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr)
        // Of a line that a full disk does not take it would complain there, too, and panic.
        .log_internal_errors(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("STARLING_LOG").unwrap_or_else(|_| "info".into()),
        )
        .init();
    let code = match serve() {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<host::ProtocolError>() { host::EXIT_PROTOCOL } else { host::EXIT_USAGE }
        }
    };
    // SAFETY: _exit has no preconditions. Destructors are left out: decode threads may be inside a native library.
    unsafe { libc::_exit(code) }
}

fn serve() -> Result<i32> {
    pin_arithmetic()?;
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default_hook(info);
        std::process::abort();
    }));
    let socket = inherited(SOCKET_FD_VARIABLE)?
        .pop()
        .with_context(|| format!("{SOCKET_FD_VARIABLE} is not set: a node starts this program\n{ABOUT}"))?;
    let (mut flight, sentinels) = (inherited(FLIGHT_FD_VARIABLE)?, inherited(SENTINEL_FDS_VARIABLE)?);
    Ok(host::run(Link { socket: UnixStream::from(socket), flight: flight.pop(), sentinels })?)
}

/// OpenBLAS reads its settings when libvosk is opened. A parent that does not pass them makes this process start over with
/// them, before it has threads; descriptors are inherited.
fn pin_arithmetic() -> Result<()> {
    let missing = pin::blas_environment().into_iter().any(|(name, _)| env::var_os(name).is_none());
    if !missing {
        return Ok(());
    }
    let program = env::current_exe().context("this program's own path is not known")?;
    let set = pin::blas_environment().into_iter().map(|(name, value)| match env::var(name) {
        Ok(given) => (name, given),
        Err(_) => (name, value.to_owned()),
    });
    let error = Command::new(program).args(env::args_os().skip(1)).envs(set).exec();
    Err(error).context("this program cannot be started again with OpenBLAS pinned")
}

/// Takes the descriptors that a variable names, so that no process started from here inherits them.
fn inherited(variable: &str) -> Result<Vec<OwnedFd>> {
    let Some(value) = env::var_os(variable) else { return Ok(Vec::new()) };
    let numbers: Option<Vec<RawFd>> = value.to_str().and_then(|value| {
        value.split(',').map(|number| number.parse().ok().filter(|number| *number > 2)).collect()
    });
    let Some(numbers) = numbers else {
        bail!("{variable} is {}; numbers of open descriptors above 2 are wanted", value.display());
    };
    // Taken twice, a descriptor would be closed under its other owner.
    ensure!(
        numbers.iter().enumerate().all(|(at, number)| !numbers[..at].contains(number)),
        "{variable} names a descriptor twice"
    );
    numbers.into_iter().map(|number| take(variable, number)).collect()
}

fn take(variable: &str, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_SETFD on a number that is no open descriptor is an error, which is handled.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)
        .with_context(|| format!("{variable} is {number}, which is no open descriptor"))?;
    // SAFETY: it is open (just checked), it was inherited for this purpose, and nothing else in this process uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

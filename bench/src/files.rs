//! How many files this process, and those that it starts, may have open.

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to `wanted`, or as far as it may be raised; how many it is now.
pub(crate) fn allow(wanted: usize) -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let (current, most) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let next = (wanted as u64).min(most).max(current);
    if next > current {
        let limit = Rlimit { current: Some(next), maximum: limit.maximum };
        setrlimit(Resource::Nofile, limit).context("raising the limit of open files")?;
    }
    Ok(usize::try_from(next).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(allow(1).unwrap() as u64 >= before);
        let most = getrlimit(Resource::Nofile).maximum.map_or(usize::MAX, |most| most as usize);
        assert_eq!(allow(most).unwrap(), most);
    }
}

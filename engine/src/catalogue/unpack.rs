//! Takes files out of a ZIP archive (a wheel is one) by the entry's rules.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::entry::FileRule;
use super::manifest::is_plain_path;
use super::progress::Progress;

/// Files are copied in pieces of this size, so that a progress bar moves within the large ones.
const COPY_CHUNK_BYTES: usize = 1024 * 1024;

/// Why an archive could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error("no ZIP archive that can be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("`{0}` would be written outside of the folder")]
    Traversal(String),
    #[error("`{0}` is a link, and links are not taken")]
    Link(String),
    #[error("nothing in it matches `{0}`")]
    NoMatch(String),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Unpacks what `rules` name from `archive` into `dir`.
pub(super) fn unpack(
    archive: &Path,
    rules: &[FileRule],
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<(), UnpackError> {
    let file = File::open(archive).map_err(|source| UnpackError::Io { path: archive.to_owned(), source })?;
    let mut zip = ZipArchive::new(file)?;
    let plan = plan(&mut zip, rules)?;
    // As the archive says; it may say anything.
    let all_bytes = plan.iter().fold(0, |sum: u64, item| sum.saturating_add(item.size_bytes));
    progress.step("unpack", Some(all_bytes));
    let mut done = 0;
    for item in plan {
        let target = dir.join(&item.target);
        let mut source = zip.by_index(item.index)?;
        let copied = copy(&mut source, &target, item.size_bytes, &mut |bytes| progress.at(done + bytes));
        done += copied.map_err(|source| UnpackError::Io { path: target.clone(), source })?;
    }
    Ok(())
}

struct Item {
    index: usize,
    target: String,
    size_bytes: u64,
}

fn plan(zip: &mut ZipArchive<File>, rules: &[FileRule]) -> Result<Vec<Item>, UnpackError> {
    let mut plan = Vec::new();
    let mut used = vec![false; rules.len()];
    for index in 0..zip.len() {
        let file = zip.by_index_raw(index)?;
        let name = file.name()?.into_owned();
        if !is_plain_path(name.trim_end_matches('/')) {
            return Err(UnpackError::Traversal(name));
        }
        if file.is_dir() {
            continue;
        }
        for (rule, used) in rules.iter().zip(&mut used) {
            let Some(target) = target_of(rule, &name) else { continue };
            if file.is_symlink() {
                return Err(UnpackError::Link(name));
            }
            if !is_plain_path(&target) {
                return Err(UnpackError::Traversal(target));
            }
            *used = true;
            plan.push(Item { index, target, size_bytes: file.size() });
        }
    }
    match rules.iter().zip(used).find(|(_, used)| !used) {
        Some((rule, _)) => Err(UnpackError::NoMatch(rule.from.clone())),
        None => Ok(plan),
    }
}

/// Where the rule puts the archive's `name`, if it takes it at all.
fn target_of(rule: &FileRule, name: &str) -> Option<String> {
    if rule.from.ends_with('/') {
        return name.strip_prefix(rule.from.as_str()).map(|rest| format!("{}{rest}", rule.to));
    }
    let (patterns, parts): (Vec<&str>, Vec<&str>) =
        (rule.from.split('/').collect(), name.split('/').collect());
    let takes = patterns.len() == parts.len() && patterns.iter().zip(&parts).all(|(p, n)| matches(p, n));
    takes.then(|| match (rule.to.as_str(), parts.last()) {
        (to, Some(own)) if to.is_empty() || to.ends_with('/') => format!("{to}{own}"),
        (to, _) => to.to_owned(),
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        }
    }
}

/// Copies at most `size_bytes`, the size that was announced, so that an archive cannot fill a disk by lying. Returns how many there
/// were.
fn copy(source: &mut dyn Read, target: &Path, size_bytes: u64, seen: &mut dyn FnMut(u64)) -> io::Result<u64> {
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::create(target)?;
    let mut done = 0;
    loop {
        let count = io::copy(&mut Read::take(&mut *source, COPY_CHUNK_BYTES as u64), &mut file)?;
        done += count;
        seen(done);
        if done > size_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than the archive says"));
        }
        if count == 0 {
            return Ok(done);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::progress::Quiet;
    use super::*;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    pub(in super::super) fn write_zip(path: &Path, files: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, content) in files {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    }

    fn rule(from: &str, to: &str) -> FileRule {
        FileRule { from: from.into(), to: to.into() }
    }

    fn unpacked(files: &[(&str, &[u8])], rules: &[FileRule]) -> Result<Vec<String>, UnpackError> {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.zip");
        write_zip(&archive, files);
        let out = dir.path().join("out/inner");
        std::fs::create_dir_all(&out).unwrap();
        let result = unpack(&archive, rules, &out, &mut Quiet);
        assert_eq!(
            std::fs::read_dir(dir.path().join("out")).unwrap().count(),
            1,
            "nothing beside the folder"
        );
        result?;
        let mut found = super::super::manifest::list_files(&out).unwrap();
        found.sort();
        Ok(found)
    }

    #[test]
    fn folders_single_files_and_stars_go_where_the_rules_say() {
        let files: &[(&str, &[u8])] = &[
            ("p/m/a.txt", b"1"),
            ("p/m/s/b.txt", b"2"),
            ("p/lib-12.so.1", b"3"),
            ("p/x.wav", b"4"),
            ("q", b"5"),
        ];
        let rules = [rule("p/m/", "in/"), rule("p/lib-*.so.1", "lib.so"), rule("p/*.wav", "")];
        assert_eq!(unpacked(files, &rules).unwrap(), ["in/a.txt", "in/s/b.txt", "lib.so", "x.wav"]);
    }

    #[test]
    fn a_rule_that_takes_nothing_is_an_error() {
        let error = unpacked(&[("p/a", b"1")], &[rule("p/", ""), rule("p/b", "b")]).unwrap_err();
        assert!(error.to_string().contains("`p/b`"), "{error}");
    }

    #[test]
    fn paths_that_climb_are_refused() {
        for name in ["../evil", "p/../../evil", "/evil", "p/./../../evil"] {
            let error = unpacked(&[("p/a", b"1"), (name, b"2")], &[rule("p/", "")]).unwrap_err();
            assert!(matches!(error, UnpackError::Traversal(_)), "{name}: {error}");
        }
        let error = unpacked(&[("p/a", b"1")], &[rule("p/", "../")]).unwrap_err();
        assert!(matches!(error, UnpackError::Traversal(_)), "{error}");
    }
}

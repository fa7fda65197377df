//! Finds the line of a key in a TOML file: the layers that settings are merged from keep no positions.

use toml_edit::{Document, Item, TableLike, Value};

/// A parsed file that remembers where its keys stand.
#[derive(Debug)]
pub(super) struct Positions {
    document: Document<String>,
}

impl Positions {
    pub(super) fn parse(text: &str) -> Result<Self, toml_edit::TomlError> {
        Document::parse(text.to_owned()).map(|document| Self { document })
    }

    /// The line of `path` (`listen.http`, `model.2.hosts`), from 1; the nearest enclosing table's where it isn't there.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        let offset = offset(self.document.as_table(), path)?;
        let before = self.document.raw().get(..offset)?;
        Some(before.matches('\n').count() + 1)
    }
}

fn offset(root: &dyn TableLike, path: &str) -> Option<usize> {
    let mut table = root;
    let mut found = None;
    let mut parts = path.split('.');
    while let Some(part) = parts.next() {
        let Some((key, item)) = table.get_key_value(part) else {
            break;
        };
        found = start(key.span()).or_else(|| start(item.span())).or(found);
        if let Some(inner) = item.as_table_like() {
            table = inner;
            continue;
        }
        let Some(index) = parts.next().and_then(|part| part.parse().ok()) else {
            break;
        };
        let Some((inner, span)) = element(item, index) else {
            break;
        };
        found = start(span).or(found);
        table = inner;
    }
    found
}

type Span = Option<std::ops::Range<usize>>;

fn element(item: &Item, index: usize) -> Option<(&dyn TableLike, Span)> {
    if let Some(tables) = item.as_array_of_tables() {
        let table = tables.get(index)?;
        return Some((table, table.span()));
    }
    let table = item.as_array()?.get(index).and_then(Value::as_inline_table)?;
    Some((table, table.span()))
}

fn start(span: Span) -> Option<usize> {
    span.map(|span| span.start)
}

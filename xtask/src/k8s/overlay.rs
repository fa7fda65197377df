//! A chart's output as a base and what differs from it, in kustomize's words. Text alone; no YAML is read.

use std::collections::BTreeMap;

/// Files by name.
pub(super) type Files = BTreeMap<String, String>;

/// Lines that are true of what Helm installs only.
const HELMS_OWN: [&str; 3] =
    ["app.kubernetes.io/managed-by: ", "helm.sh/chart: ", "helm.sh/resource-policy: "];

const HEAD: &str =
    "# Rendered from the chart by `cargo xtask k8s render`. Change the chart or values.yaml, not this.\n";

/// One object of a rendered chart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Object {
    kind: String,
    name: String,
    text: String,
}

impl Object {
    fn file(&self) -> String {
        format!("{}-{}.yaml", self.kind.to_lowercase(), self.name)
    }

    fn is_same(&self, other: &Self) -> bool {
        (&self.kind, &self.name) == (&other.kind, &other.name)
    }
}

/// All objects as one file, and the kustomization that names it.
pub(super) fn base(rendered: &str) -> Files {
    let texts: Vec<String> = objects(rendered).into_iter().map(|object| object.text).collect();
    Files::from([
        ("starling.yaml".to_owned(), format!("{HEAD}{}", texts.join("---\n"))),
        ("kustomization.yaml".to_owned(), format!("{HEAD}{KUSTOMIZATION}resources: [starling.yaml]\n")),
    ])
}

const KUSTOMIZATION: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";

/// What makes `rendered` out of the base: objects that are there too, those that are otherwise, and those that are not there.
pub(super) fn overlay(base: &str, rendered: &str) -> Files {
    let (base, wanted) = (objects(base), objects(rendered));
    let (mut files, mut patches) = (Files::new(), String::new());
    let mut added = Vec::new();
    for object in &wanted {
        match base.iter().find(|old| old.is_same(object)) {
            Some(old) if old == object => {}
            Some(_) => {
                patches += &patch(object, &format!("path: {}", object.file()));
                files.insert(object.file(), whole(object));
            }
            None => added.push(object.text.clone()),
        }
    }
    for gone in base.iter().filter(|old| !wanted.iter().any(|object| object.is_same(old))) {
        let delete = format!(
            "patch: \"$patch: delete\\napiVersion: {}\\nkind: {}\\nmetadata: {{name: {}}}\"",
            version(gone),
            gone.kind,
            gone.name
        );
        patches += &format!("  - {{target: {{kind: {}, name: {}}}, {delete}}}\n", gone.kind, gone.name);
    }
    let mut kustomization = format!("{HEAD}{KUSTOMIZATION}resources:\n  - ../../base\n");
    if !added.is_empty() {
        kustomization += "  - added.yaml\n";
        files.insert("added.yaml".to_owned(), format!("{HEAD}{}", added.join("---\n")));
    }
    if !patches.is_empty() {
        kustomization += &format!("patches:\n{patches}");
    }
    files.insert("kustomization.yaml".to_owned(), kustomization);
    files
}

fn patch(object: &Object, what: &str) -> String {
    format!("  - {{target: {{kind: {}, name: {}}}, {what}}}\n", object.kind, object.name)
}

/// A patch that puts the object in the place of the one of its name. A merge would keep what the new one lacks.
fn whole(object: &Object) -> String {
    let indented = object.text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("    {line}\n"),
    });
    format!("{HEAD}- op: replace\n  path: \"\"\n  value:\n{}", indented.collect::<String>())
}

fn version(object: &Object) -> &str {
    field(&object.text, "apiVersion: ").unwrap_or_default()
}

/// What Helm printed, apart.
fn objects(rendered: &str) -> Vec<Object> {
    let mut texts = vec![String::new()];
    for line in rendered.lines() {
        let trimmed = line.trim_start();
        if line == "---" {
            texts.push(String::new());
        } else if !line.starts_with("# Source: ")
            && !HELMS_OWN.iter().any(|own| trimmed.starts_with(own))
            && let Some(text) = texts.last_mut()
        {
            *text += line.trim_end();
            text.push('\n');
        }
    }
    texts
        .into_iter()
        .filter_map(|text| {
            let kind = field(&text, "kind: ")?.to_owned();
            let (_, metadata) = text.split_once("\nmetadata:\n")?;
            let name = field(metadata, "  name: ")?.to_owned();
            Some(Object { kind, name, text })
        })
        .collect()
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "---\n# Source: a\napiVersion: v1\nkind: A\nmetadata:\n  name: one\n  labels:\n    helm.sh/chart: x-1\n    \
                        app: x\n---\n# Source: b\napiVersion: v2\nkind: B\nmetadata:\n  name: two\n";

    #[test]
    fn objects_lose_what_is_helms_own() {
        let found = objects(BASE);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].text, "apiVersion: v1\nkind: A\nmetadata:\n  name: one\n  labels:\n    app: x\n");
        assert_eq!((found[1].kind.as_str(), found[1].name.as_str()), ("B", "two"));
        assert!(
            base(BASE)["starling.yaml"]
                .ends_with("    app: x\n---\napiVersion: v2\nkind: B\nmetadata:\n  name: two\n")
        );
    }

    #[test]
    fn the_same_again_is_the_base_alone() {
        let files = overlay(BASE, BASE);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["kustomization.yaml"]);
        assert!(!files["kustomization.yaml"].contains("patches"));
    }

    #[test]
    fn what_differs_is_replaced_what_is_new_added_and_what_is_gone_deleted() {
        let wanted = "---\napiVersion: v1\nkind: A\nmetadata:\n  name: one\ndata: |\n  a\n\n  b\n---\napiVersion: v3\nkind: C\nmetadata:\n  name: new\n";
        let files = overlay(BASE, wanted);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a-one.yaml", "added.yaml", "kustomization.yaml"]);
        assert!(files["a-one.yaml"].ends_with("    data: |\n      a\n\n      b\n"));
        assert!(files["added.yaml"].ends_with("apiVersion: v3\nkind: C\nmetadata:\n  name: new\n"));
        let kustomization = &files["kustomization.yaml"];
        assert!(kustomization.contains("target: {kind: A, name: one}, path: a-one.yaml"), "{kustomization}");
        assert!(kustomization.contains("$patch: delete\\napiVersion: v2\\nkind: B"), "{kustomization}");
    }
}

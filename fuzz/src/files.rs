//! Files that an operator writes, or that were fetched.

use std::path::Path;

use starling_engine::catalogue::{Catalogue, Home, MANIFEST_FILE, Manifest};
use starling_node::config::load;
use tempfile::TempDir;

/// A folder of this thread's, with these bytes in a file of this name.
fn with_file(name: &str, data: &[u8], work: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: TempDir = TempDir::new().expect("a folder");
    }
    FOLDER.with(|folder| {
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("is written");
        work(&path);
    });
}

/// The settings' file; what a node can be started with can be printed and read again.
pub fn config(data: &[u8]) {
    // Other files that it may name are not looked at: what stands in them is no part of this.
    if ["_file", "_dir"].iter().any(|name| data.windows(name.len()).any(|window| window == name.as_bytes())) {
        return;
    }
    with_file("cluster.toml", data, |path| match load(Some(path), [], &[], true) {
        Ok(loaded) => {
            let written = toml::to_string(&loaded.settings).expect("is written");
            with_file("again.toml", written.as_bytes(), |path| {
                let again =
                    load(Some(path), [], &[], true).unwrap_or_else(|error| panic!("{error}\n{written}"));
                assert_eq!(again.settings, loaded.settings);
            });
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    });
}

/// A home's manifest of a model, by itself and as one that was imported.
pub fn manifest(data: &[u8]) {
    thread_local! {
        static HOME: TempDir = TempDir::new().expect("a folder");
    }
    HOME.with(|root| {
        let model = root.path().join("models/a");
        std::fs::create_dir_all(&model).expect("a folder");
        let path = model.join(MANIFEST_FILE);
        std::fs::write(&path, data).expect("is written");
        let home = Home::at(root.path()).expect("a home");
        let catalogue = Catalogue::load(&home).expect("what is built in can be read");
        if let Ok(manifest) = Manifest::read(&path) {
            for file in &manifest.files {
                let path = Path::new(&file.path);
                assert!(path.is_relative() && !path.components().any(|part| part.as_os_str() == ".."));
            }
            assert!(!manifest.name.contains('/') && !manifest.name.starts_with('.'), "{}", manifest.name);
            assert!(!manifest.imported || catalogue.get(&manifest.name).is_ok());
        }
    });
}

/// A catalogue of models.
pub fn catalogue(data: &[u8]) {
    with_file("models.toml", data, |path| {
        let home = Home::at(Path::new("/nonexistent/home")).expect("a home");
        match Catalogue::load_with(&home, &[path.to_owned()]) {
            Ok(catalogue) => assert!(catalogue.entries().all(|entry| !entry.name.is_empty())),
            Err(error) => assert!(error.to_string().contains("models.toml"), "{error}"),
        }
    });
}

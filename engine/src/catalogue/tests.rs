#[cfg(feature = "url-sources")]
#[path = "../../../chaos/tests/common/not_run.rs"]
mod not_run;
#[cfg(feature = "url-sources")]
pub(super) mod server;

use std::fs;
use std::path::Path;

use super::unpack::tests::write_zip;
use super::*;
#[cfg(feature = "url-sources")]
use not_run::not_run;
#[cfg(feature = "url-sources")]
use server::{Behaviour, Server};

const MFCC: &[u8] = b"--num-ceps=40\n--dither=1.0\n";

struct Place {
    dir: tempfile::TempDir,
    home: Home,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(&dir.path().join("home")).unwrap();
    Place { dir, home }
}

impl Place {
    fn catalogue(&self, text: &str) -> Result<Catalogue, CatalogueError> {
        fs::create_dir_all(self.home.root()).unwrap();
        fs::write(self.home.root().join(USER_CATALOGUE), text).unwrap();
        Catalogue::load(&self.home)
    }

    /// A small Vosk model behind a web server, without the library that Vosk needs.
    #[cfg(feature = "url-sources")]
    fn served(&self, behaviour: Behaviour) -> (Catalogue, Server) {
        let archive = self.dir.path().join("served.zip");
        let noise = noise(3_000_000);
        write_zip(&archive, &[("m/am/final.mdl", &noise), ("m/conf/mfcc.conf", MFCC), ("m/README", b"x")]);
        let server = Server::start(fs::read(&archive).unwrap(), behaviour);
        let catalogue = self.catalogue(&entry("tiny", &server.url("m.zip"))).unwrap();
        (catalogue, server)
    }

    fn put_library(&self) {
        let catalogue = Catalogue::load(&self.home).unwrap();
        let entry = catalogue.get("vosk").unwrap();
        let work = self.dir.path().join("library");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join("libvosk.so"), b"no real library").unwrap();
        let files = manifest::record_files(&work, &mut Quiet).unwrap();
        let manifest = Manifest::new(entry, entry.recipe(current_arch()), false, files);
        let scratch = fetch::fresh_scratch(&self.home).unwrap();
        fetch::place(&self.home, entry, &work, &manifest, scratch.path()).unwrap();
    }
}

/// Bytes that no compression makes smaller, the same every time.
#[cfg(feature = "url-sources")]
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn entry(name: &str, url: &str) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\nengine = \"vosk\"\nlanguage = \"en\"\nsample_rate_hz = 16000\n\
         licence = \"MIT\"\nsize_bytes = 1000\n[[model.source]]\nurl = \"{url}\"\n\
         file = [{{ from = \"m/\", to = \"\" }}]\n"
    )
}

#[test]
fn the_built_in_catalogue_is_right_and_complete() {
    let catalogue = Catalogue::load(&place().home).unwrap();
    for name in ["vosk-ko-small", "moonshine-tiny-en", "scripted", "vosk-en-us-small", "vosk", "samples"] {
        catalogue.get(name).unwrap();
    }
    for entry in catalogue.of_kind(Kind::Model) {
        let library = entry.engine.unwrap().library();
        assert_eq!(entry.requires.first().map(String::as_str), library, "{}", entry.name);
        for required in &entry.requires {
            catalogue.get(required).unwrap();
        }
    }
    assert!(catalogue.get("vosk-en-us-small").unwrap().needs_internet());
    assert!(!catalogue.get("vosk-ko-small").unwrap().needs_internet());
    let error = catalogue.get("klingon").unwrap_err().to_string();
    assert!(error.contains("`klingon`") && error.contains("vosk-ko-small"), "{error}");
}

#[test]
fn the_home_folders_own_catalogue_adds_and_replaces() {
    let place = place();
    let text =
        entry("mine", "https://example.org/m.zip") + &entry("vosk-ko-small", "https://example.org/k.zip");
    let catalogue = place.catalogue(&text).unwrap();
    assert!(catalogue.get("mine").is_ok() && catalogue.get("vosk-ko-small").unwrap().needs_internet());
}

#[test]
fn wrong_entries_are_refused_with_the_field_and_what_would_be_right() {
    let place = place();
    let good = entry("mine", "https://example.org/m.zip");
    let pip = good.replace("url = \"https://example.org/m.zip\"", "pip = \"thing==1\"");
    for (text, wants) in [
        (good.replace("name = \"mine\"", "name = \"../mine\""), "name is `../mine`"),
        (good.replace("16000", "44"), "sample_rate_hz is `44`, but must be from 8000 to 48000"),
        (
            good.replace("engine = \"vosk\"\n", ""),
            "engine is `missing`, but must be vosk, moonshine or scripted",
        ),
        (good.replace("https://", "ftp://"), "must begin with https://"),
        (pip.clone(), "sha256 is `missing`"),
        (pip.replace("thing==1", "thing"), "must be `name==version`"),
        (good.replace("licence", "license"), "unknown field `license`"),
        (
            good.replace("file = [{ from = \"m/\", to = \"\" }]", "sha256 = \"12\"\nfile = []"),
            "file is `empty`",
        ),
        (good.replace("[[model.source]]", "[[model.source]]\nsha256 = \"12\""), "64 lower-case hex digits"),
    ] {
        let error = place.catalogue(&text).unwrap_err().to_string();
        assert!(error.contains(wants), "wanted {wants:?} in: {error}");
        assert!(error.contains(USER_CATALOGUE), "{error}");
    }
}

#[test]
fn the_scripted_model_needs_no_files() {
    let place = place();
    let catalogue = Catalogue::load(&place.home).unwrap();
    let entry = catalogue.get("scripted").unwrap();
    let model = place.home.verified(entry).unwrap();
    assert_eq!((model.engine, model.library_dir), (EngineKind::Scripted, None));
    let fetched = fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap();
    assert!(fetched[0].was_there && !place.home.root().exists());
}

#[test]
fn what_is_missing_is_named_with_the_command_that_gets_it() {
    let place = place();
    let catalogue = Catalogue::load(&place.home).unwrap();
    let error = place.home.prepared(catalogue.get("vosk-ko-small").unwrap()).unwrap_err().to_string();
    assert!(error.contains("starling models fetch vosk-ko-small"), "{error}");
    let error = place.home.prepared(catalogue.get("vosk").unwrap()).unwrap_err().to_string();
    assert!(error.contains("no model but a library"), "{error}");
}

#[cfg(feature = "url-sources")]
#[test]
fn a_model_is_fetched_prepared_verified_and_removed() {
    let place = place();
    let (catalogue, server) =
        place.served(Behaviour { drop_first_after: Some(1_000_000), ..Behaviour::default() });
    let entry = catalogue.get("tiny").unwrap();
    let fetched = fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap();
    assert!(!fetched[0].was_there);
    let conf = fs::read_to_string(place.home.model_dir("tiny").join("conf/mfcc.conf")).unwrap();
    assert_eq!(conf, "--num-ceps=40\n--dither=0.0\n");

    let error = place.home.prepared(entry).unwrap_err().to_string();
    assert!(error.contains("the library `vosk` is not there") && error.contains("fetch tiny"), "{error}");
    place.put_library();
    let model = place.home.verified(entry).unwrap();
    assert_eq!(model.digest.len(), 64);
    assert_eq!(model.library_dir, Some(place.home.library_dir("vosk")));

    let requests = server.ranges().len();
    assert!(fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap()[0].was_there);
    assert_eq!(server.ranges().len(), requests, "nothing is fetched again");
    assert!(fs::read_dir(place.home.scratch_dir()).unwrap().next().is_none(), "no work is left over");

    remove(&place.home, entry, &mut Quiet).unwrap();
    assert!(!place.home.model_dir("tiny").exists());
    assert!(matches!(remove(&place.home, entry, &mut Quiet), Err(RemoveError::NotThere { .. })));
    fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap();
    assert_eq!(server.ranges().len(), requests, "the archive was kept");
    assert!(remove_downloads(&place.home, &mut Quiet).unwrap() > 1_000_000);
}

#[cfg(feature = "url-sources")]
#[test]
fn a_model_that_is_held_stays_on_the_disk_while_others_take_its_place() {
    let place = place();
    place.put_library();
    let (catalogue, _server) = place.served(Behaviour::default());
    let tiny = catalogue.get("tiny").unwrap();
    fetch(&place.home, &catalogue, tiny, &mut Quiet).unwrap();
    let (old, hold) = place.home.held(tiny).unwrap();
    let replaced = || fs::read_dir(place.home.root().join("replaced")).map_or(0, Iterator::count);

    // Another archive under the same name.
    let archive = place.dir.path().join("other.zip");
    write_zip(&archive, &[("m/am/final.mdl", b"other"), ("m/conf/mfcc.conf", MFCC)]);
    let server = Server::start(fs::read(&archive).unwrap(), Behaviour::default());
    let catalogue = place.catalogue(&entry("tiny", &server.url("other.zip"))).unwrap();
    let tiny = catalogue.get("tiny").unwrap();
    fetch(&place.home, &catalogue, tiny, &mut Quiet).unwrap();
    let (new, new_hold) = place.home.held(tiny).unwrap();
    assert_ne!(new.digest, old.digest);
    assert_eq!(locate(&new.dir, &new.digest), Some(new.dir.clone()));
    let aside = locate(&old.dir, &old.digest).expect("is kept");
    assert_eq!(fs::read(aside.join("am/final.mdl")).unwrap().len(), 3_000_000);
    place.home.delete_unheld();
    assert_eq!(locate(&old.dir, &old.digest), Some(aside));
    drop(hold);
    place.home.delete_unheld();
    assert_eq!((locate(&old.dir, &old.digest), replaced()), (None, 0));

    // What is removed is replaced by nothing.
    remove(&place.home, tiny, &mut Quiet).unwrap();
    assert!(locate(&new.dir, &new.digest).is_some_and(|dir| dir != new.dir));
    assert!(matches!(place.home.held(tiny), Err(PrepareError::Missing { .. })));
    drop(new_hold);
    fetch(&place.home, &catalogue, tiny, &mut Quiet).unwrap();
    assert_eq!(replaced(), 0, "whoever changes something clears up");
    remove(&place.home, tiny, &mut Quiet).unwrap();
    assert_eq!(replaced(), 0, "nobody held it");
}

#[cfg(feature = "url-sources")]
#[test]
fn damage_is_found_before_a_load_and_repaired_by_a_fetch() {
    let place = place();
    let (catalogue, _server) = place.served(Behaviour::default());
    let entry = catalogue.get("tiny").unwrap();
    fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap();
    place.put_library();
    place.home.verified(entry).unwrap();
    let digest = place.home.prepared(entry).unwrap().digest;
    let weights = place.home.model_dir("tiny").join("am/final.mdl");

    let mut bytes = fs::read(&weights).unwrap();
    bytes[12_345] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    assert!(place.home.prepared(entry).is_ok(), "the size is right, and only that is looked at");
    let error = place.home.verified(entry).unwrap_err().to_string();
    assert!(error.contains("am/final.mdl") && error.contains("starling models fetch tiny"), "{error}");
    assert_eq!(verify(&place.home, entry, &mut Quiet).unwrap().faults.len(), 1);
    assert!(!fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap()[0].was_there);
    assert_eq!(place.home.verified(entry).unwrap().digest, digest, "the same model again");

    fs::write(&weights, b"short").unwrap();
    assert!(
        place.home.prepared(entry).unwrap_err().to_string().contains("has 5 bytes, but must have 3000000")
    );
    fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap();

    fs::write(place.home.model_dir("tiny").join("conf/extra.conf"), b"x").unwrap();
    let error = place.home.verified(entry).unwrap_err().to_string();
    assert!(error.contains("conf/extra.conf does not belong there"), "{error}");

    let manifest = place.home.manifest_path(entry);
    let text = fs::read_to_string(&manifest).unwrap().replace("size_bytes = 3000000", "size_bytes = 3000001");
    fs::write(&manifest, text).unwrap();
    assert!(place.home.prepared(entry).unwrap_err().to_string().contains("file table gives"));
}

#[cfg(feature = "url-sources")]
#[test]
fn another_source_in_the_catalogue_makes_a_model_outdated() {
    let place = place();
    let (catalogue, server) = place.served(Behaviour::default());
    fetch(&place.home, &catalogue, catalogue.get("tiny").unwrap(), &mut Quiet).unwrap();
    let catalogue = place.catalogue(&entry("tiny", &server.url("newer.zip"))).unwrap();
    let error = place.home.prepared(catalogue.get("tiny").unwrap()).unwrap_err();
    assert!(matches!(error, PrepareError::Outdated { .. }), "{error}");
    assert!(
        !fetch(&place.home, &catalogue, catalogue.get("tiny").unwrap(), &mut Quiet).unwrap()[0].was_there
    );
}

#[cfg(feature = "url-sources")]
#[test]
fn an_archive_that_is_none_leaves_nothing() {
    let place = place();
    let server = Server::start(b"<html>sign in first</html>".to_vec(), Behaviour::default());
    let catalogue = place.catalogue(&entry("tiny", &server.url("m.zip"))).unwrap();
    let error = fetch(&place.home, &catalogue, catalogue.get("tiny").unwrap(), &mut Quiet).unwrap_err();
    assert!(matches!(error, FetchError::Archive { .. }), "{error}");
    assert!(!place.home.model_dir("tiny").exists());
}

#[cfg(feature = "url-sources")]
#[test]
fn two_fetches_at_once_do_it_once() {
    let place = place();
    let (catalogue, server) = place.served(Behaviour::default());
    let entry = catalogue.get("tiny").unwrap();
    let done: Vec<bool> = std::thread::scope(|scope| {
        let run = || fetch(&place.home, &catalogue, entry, &mut Quiet).unwrap()[0].was_there;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|was_there| !**was_there).count(), 1, "{done:?}");
    assert_eq!(server.ranges().len(), 1);
}

#[test]
fn a_package_that_needs_more_room_than_there_is_says_so_at_once() {
    let place = place();
    let text = "[[tool]]\nname = \"huge\"\nlicence = \"MIT\"\nsize_bytes = 9_000_000_000_000_000\n\
                [[tool.source]]\npip = \"huge==1\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n\
                file = [{ from = \"x\", to = \"x\" }]\n";
    let catalogue = place.catalogue(text).unwrap();
    let error =
        fetch(&place.home, &catalogue, catalogue.get("huge").unwrap(), &mut Quiet).unwrap_err().to_string();
    assert!(error.contains("is full (about 18000000000 MB needed") && error.contains("MB free"), "{error}");
}

/// A disk of 2 MB, which only root may make.
#[cfg(feature = "url-sources")]
#[test]
fn a_disk_that_runs_full_leaves_no_half_model() {
    let place = place();
    let mounted = |args: &[&std::ffi::OsStr], program: &str| {
        std::process::Command::new(program).args(args).status().is_ok_and(|status| status.success())
    };
    fs::create_dir_all(place.home.root()).unwrap();
    let root = place.home.root().as_os_str().to_owned();
    let args = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"].map(std::ffi::OsStr::new);
    if !mounted(&[&args[..], &[&root]].concat(), "mount") {
        not_run("a disk that runs full", "making a small disk takes root");
        return;
    }
    let (catalogue, _server) = place.served(Behaviour::default());
    let error = fetch(&place.home, &catalogue, catalogue.get("tiny").unwrap(), &mut Quiet).unwrap_err();
    let left = fs::read_dir(place.home.models_dir()).map_or(0, Iterator::count);
    assert!(mounted(&[&root], "umount"));
    assert!(matches!(error, FetchError::DiskFull { .. }), "{error}");
    assert_eq!(left, 0);
}

#[test]
fn shared_folders_keep_what_others_put_there() {
    let place = place();
    let catalogue = Catalogue::load(&place.home).unwrap();
    let entry = catalogue.get("samples").unwrap();
    let own = place.home.audio_dir().join("mine.wav");
    fs::create_dir_all(place.home.audio_dir()).unwrap();
    fs::write(&own, b"x").unwrap();
    let put = |name: &str| {
        let work = place.dir.path().join("work");
        fs::create_dir_all(&work).unwrap();
        fs::write(work.join(name), b"y").unwrap();
        let files = manifest::record_files(&work, &mut Quiet).unwrap();
        let manifest = Manifest::new(entry, entry.recipe(current_arch()), false, files);
        let scratch = fetch::fresh_scratch(&place.home).unwrap();
        fetch::place(&place.home, entry, &work, &manifest, scratch.path()).unwrap();
    };
    put("a.wav");
    assert!(place.home.has(entry));
    remove(&place.home, entry, &mut Quiet).unwrap();
    assert!(!place.home.has(entry) && own.exists() && !place.home.audio_dir().join("a.wav").exists());
}

/// The models that setup fetched are what their manifests say.
#[test]
fn fetched_models_are_intact() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.starling");
    let home = Home::at(&root).unwrap();
    let catalogue = Catalogue::load(&home).unwrap();
    for name in ["vosk-ko-small", "moonshine-tiny-en"] {
        let entry = catalogue.get(name).unwrap();
        let model = home.verified(entry).unwrap_or_else(|error| panic!("{error}; run: cargo xtask setup"));
        assert_eq!(model.sample_rate_hz, 16_000);
    }
}

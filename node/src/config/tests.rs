use std::path::Path;

use super::error::Origin;
use super::*;
use crate::tenants::KeyHash;

fn from_file(text: &str) -> Result<Loaded, ConfigError> {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("cluster.toml");
    std::fs::write(&path, text).expect("written");
    load(Some(&path), [], &[], false)
}

/// The message with the folder, which differs from run to run, left out.
fn refusal(text: &str) -> String {
    let message = from_file(text).expect_err("must be refused").to_string();
    let end = message.find("cluster.toml").unwrap_or(0);
    let start = message[..end].rfind(['(', ' ']).map_or(end, |at| at + 1);
    format!("{}{}", &message[..start], &message[end..])
}

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn nothing_at_all_is_the_defaults() {
    let loaded = load(None, [], &[], false).expect("defaults are fine");
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(from_file("").expect("an empty file too").settings, Settings::default());
}

fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster.toml");
    std::fs::read_to_string(path).expect("the sample stands at the root")
}

#[test]
fn the_sample_file_has_every_key_at_its_default() {
    let sample = sample();
    let loaded = from_file(&sample).expect("the sample is fine");
    assert_eq!(loaded.settings, Settings::default());

    // The lines of [[model]] are commented out: a model's name has no default.
    let (_, model) = sample.split_once("# [[model]]").expect("has a model");
    let model: String = model.lines().map(|line| line.trim_start_matches("# ").to_owned() + "\n").collect();
    let model = model.lines().filter(|line| line.contains(" = ") || line.starts_with("[model."));
    let model = model.collect::<Vec<_>>().join("\n");
    let loaded = from_file(&format!("[[model]]\n{model}")).expect("the sample's model is fine");
    assert_eq!(loaded.settings.models, [ModelSettings::named("moonshine-tiny-en")]);

    let (_, tenant) = sample.split_once("# [[tenant]]").expect("has a tenant");
    let tenant = tenant.lines().take_while(|line| line.starts_with('#') || line.is_empty());
    let tenant: Vec<&str> = tenant
        .map(|line| line.trim_start_matches("# "))
        .take_while(|line| !line.starts_with("What"))
        .collect();
    let tenant = tenant.into_iter().filter(|line| line.contains(" = ")).collect::<Vec<_>>().join("\n");
    let loaded = from_file(&format!("[[tenant]]\n{tenant}")).expect("the sample's tenant is fine");
    assert_eq!(loaded.settings.tenants, [TenantSettings::named("acme")]);

    let uncommented = ["[[model]]", "[model.scaling]", "[[tenant]]"]
        .iter()
        .fold(sample, |text, header| text.replace(&format!("# {header}"), header));
    for key in keys::KEYS {
        let (table, name) = key.path.rsplit_once('.').expect("every key is in a table");
        let is_list = matches!(table, "model" | "tenant");
        let header = if is_list { format!("\n[[{table}]]") } else { format!("\n[{table}]") };
        let (_, body) = uncommented.split_once(&header).unwrap_or_else(|| panic!("no {header}"));
        let body = body.split("\n[").next().unwrap_or_default();
        let there = body.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} = ")));
        assert!(there, "the sample lacks {}", key.path);
    }
}

#[test]
fn every_key_of_the_table_exists_and_every_setting_is_in_the_table() {
    let mut settings = Settings::default();
    settings.models.push(ModelSettings::named("m"));
    settings.tenants.push(TenantSettings::named("t"));
    let value = figment::value::Value::serialize(&settings).expect("serializes");
    let mut found = Vec::new();
    leaves(&value, "", &mut found);
    let mut expected: Vec<String> = keys::KEYS.iter().map(|key| key.path.to_owned()).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

fn leaves(value: &figment::value::Value, path: &str, found: &mut Vec<String>) {
    use figment::value::Value;
    match value {
        Value::Dict(_, dict) => {
            for (name, inner) in dict {
                let inner_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &inner_path, found);
            }
        }
        Value::Array(_, values) if matches!(path, "model" | "tenant") => {
            values.iter().for_each(|inner| leaves(inner, path, found));
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("cluster.toml");
    std::fs::write(
        &path,
        "[listen]\nhttp = \"127.0.0.1:1\"\nvosk = \"127.0.0.1:2\"\n[sessions]\nlinger = \"7s\"\nqueue_length = 3\n",
    )
    .expect("written");
    let environment = env(&[
        ("STARLING_LISTEN__HTTP", "127.0.0.1:11"),
        ("STARLING_LISTEN__VOSK", "[::1]:12"),
        ("STARLING_SESSIONS__CUTS__MAX", "12s"),
        ("STARLING_SESSIONS__QUEUE_LENGTH", "4"),
        ("STARLING_PORT", "tcp://10.0.0.1:80"),
        ("STARLING_HOME", "/somewhere"),
    ]);
    let flags = [Flag { key: "listen.http", flag: "--http", value: "127.0.0.1:111".into() }];
    let settings = load(Some(&path), environment, &flags, false).expect("fine").settings;
    assert_eq!(settings.listen.http, Some("127.0.0.1:111".parse().expect("address")));
    assert_eq!(settings.listen.vosk, Some("[::1]:12".parse().expect("address")));
    assert_eq!(settings.sessions.linger, Duration::from_secs(7));
    assert_eq!(settings.sessions.queue_length, 4);
    assert_eq!(settings.sessions.cuts.max, Duration::from_secs(12));
}

#[test]
fn refusals_name_key_value_line_and_what_is_allowed() {
    let table = [
        "[listen]\n\nhttp = \"localhost:8080\"\n",
        "[listen]\nhttp = 8080\n",
        "[sessions]\nlinger = 60\n",
        "[sessions]\njournal = \"4\"\n",
        "[sessions]\njournal = \"1KiB\"\n",
        "[sessions.cuts]\nmax = \"90s\"\n",
        "[sessions]\nstandby = \"on\"\n",
        "[log]\nformat = \"xml\"\n",
        "[log]\nlevel = \"inof\"\n",
        "[gateway]\npeer_timeout = \"5s\"\n",
        "listen = 5\n",
        "[listen]\nhttp = \"off\"\nvosk = \"off\"\n",
        "[[model]]\nname = \"a\"\n\n[[model]]\nname = \"b\"\nslots = -1\n",
        "[[model]]\nname = \"a\"\n\n[[model]]\nname = \"a\"\n",
        "[[model]]\nhosts = 1\n",
        "model = [{ name = \"a\" },\n  { name = \"b\", prewarm = 9 }]\n",
        "[listen]\nhtpp = \"127.0.0.1:1\"\n",
        "[sesions]\nlinger = \"1s\"\n",
        "[[model]]\nname = \"a\"\nslot = 1\n",
        "[listen]\nxyzzy = 1\n",
        "[listen]\nvosk = \"0.0.0.0:2700\"\n",
        "[listen\n",
        "[cluster]\nnode_id = \"Node 1\"\n",
        "[cluster]\nzone = \"a/b\"\n",
        "[cluster]\nroles = [\"gateway\", \"decodr\"]\n",
        "[cluster]\nroles = []\n",
        "[cluster]\nlisten = \"7400\"\n",
        "[cluster]\nlisten = \"0.0.0.0:7400\"\n",
        "[cluster]\n\nseeds = [\"node-1\"]\n",
        "[cluster]\nseeds = [7]\n",
        "[cluster]\nprobe = \"700ms\"\n",
        "[cluster]\nsecret_file = \"/nonexistent/starling-secret\"\n",
        "[cluster]\nlisten = \"10.0.0.1:7400\"\n",
        "[cluster]\nseed = \"a:1\"\n",
        "[listen]\naudiosocket = \"0.0.0.0:9092\"\n",
        "[listen]\nwyoming = \"127.0.0.1:10300\"\n[wyoming]\ntenant = \"acme\"\n",
        "[listen]\nwyoming_tls = \"127.0.0.1:10301\"\n",
        "[scaling]\non_demand = 1\n",
        "[kubernetes]\nenabled = true\n",
        "[cluster]\nlisten = \"127.0.0.1:7400\"\n[kubernetes]\nenabled = true\nstateful_set = \"-a\"\n",
        "[kubernetes]\nmin_pods = 3\nmax_pods = 2\n",
        "[kubernetes]\n\ncheck_interval = \"1ms\"\n",
        "[[model]]\nname = \"a\"\n[model.scaling]\nenabled = true\n[cluster]\nlisten = \"127.0.0.1:7400\"\n[kubernetes]\nenabled = true\nstateful_set = \"a\"\n",
        "[[model]]\nname = \"a\"\nhosts = 0\n",
        "[[model]]\nname = \"a\"\n[model.scaling]\nenabled = true\nmax = 7\n",
        "[[model]]\nname = \"a\"\n[model.scaling]\nmin = 9\nmax = 8\n",
        "[[model]]\nname = \"a\"\n[model.scaling]\n\ncheck_interval = \"1ms\"\n",
        "[[model]]\nname = \"a\"\n[model.scaling]\nidle_tll = \"1s\"\n",
    ];
    let refusals: Vec<String> = table.iter().map(|text| refusal(text)).collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn refusals_name_the_variable_or_the_flag() {
    let environment = env(&[("STARLING_SESSIONS__LINGER", "soon")]);
    let error = load(None, environment, &[], false).expect_err("refused").to_string();
    assert!(
        error.contains("sessions.linger is \"soon\" (environment variable STARLING_SESSIONS__LINGER)"),
        "{error}"
    );

    let environment = env(&[("STARLING_LISTEN__HTPP", "x")]);
    let error = load(None, environment, &[], false).expect_err("refused").to_string();
    assert!(error.contains("STARLING_LISTEN__HTPP) is no setting; did you mean listen.http?"), "{error}");

    let flag = Flag { key: "shutdown.drain_deadline", flag: "--drain-deadline", value: "later".into() };
    let error = load(None, [], &[flag], false).expect_err("refused").to_string();
    assert!(error.contains("\"later\" (flag --drain-deadline)"), "{error}");
}

#[test]
fn a_variable_of_a_text_is_one_whatever_it_looks_like() {
    let environment = env(&[
        ("STARLING_CLUSTER__ZONE", "0"),
        ("STARLING_CLUSTER__NODE_ID", "007"),
        ("STARLING_JWT__ISSUER", "true"),
        ("STARLING_JWT__AUDIENCE", "[a, b]"),
        ("STARLING_AUDIOSOCKET__MODEL", "1.50"),
        ("STARLING_AUDIOSOCKET__LANGUAGE", "\"en\""),
        ("STARLING_DECODER__PROGRAM", "{x}"),
        ("STARLING_GATEWAY__REFERENCE_DIR", " 12 "),
        ("STARLING_SESSIONS__QUEUE_LENGTH", "4"),
        ("STARLING_CHAOS__ENABLED", "true"),
    ]);
    let settings = load(None, environment, &[], false).expect("fine").settings;
    assert_eq!(settings.cluster.zone, "0");
    assert_eq!(settings.cluster.node_id, "007");
    assert_eq!((settings.jwt.issuer.as_str(), settings.jwt.audience.as_str()), ("true", "[a, b]"));
    assert_eq!(
        (settings.audiosocket.model.as_str(), settings.audiosocket.language.as_str()),
        ("1.50", "en"),
        "quotes may be there"
    );
    assert_eq!(settings.decoder.program, Path::new("{x}"));
    assert_eq!(settings.gateway.reference_dir, Path::new("12"));
    assert_eq!((settings.sessions.queue_length, settings.chaos.enabled), (4, true), "others are no texts");

    // Every key that is a text: what is wrong with it is not that it looks like a number.
    let defaults = figment::value::Value::serialize(Settings::default()).expect("serializes");
    let mut texts = 0;
    for key in keys::KEYS {
        let is_text = defaults.find_ref(key.path).is_some_and(|value| value.as_str().is_some());
        let variable = [(load::variable_of(key.path), "0".to_owned())];
        if let (true, Err(ConfigError::BadValue { key, value, .. })) =
            (is_text, load(None, variable, &[], false))
        {
            assert_ne!(value, "0", "{key}");
        }
        texts += usize::from(is_text);
    }
    assert!(texts > 40, "{texts}");
}

#[test]
fn beyond_loopback_is_allowed_by_hand_only() {
    let environment = || env(&[("STARLING_LISTEN__HTTP", "0.0.0.0:80")]);
    assert!(matches!(load(None, environment(), &[], false), Err(ConfigError::Open { .. })));
    let loaded = load(None, environment(), &[], true).expect("allowed");
    assert_eq!(loaded.open, ["listen.http = 0.0.0.0:80"]);
    let mapped = env(&[("STARLING_LISTEN__HTTP", "[::ffff:127.0.0.1]:80")]);
    assert!(load(None, mapped, &[], false).is_ok(), "loopback in its other form");
}

#[test]
fn lists_may_be_written_with_commas() {
    let environment = env(&[
        ("STARLING_CLUSTER__SEEDS", "10.0.0.1:7400, node-2.lan:7400,[fd00::1]:7400"),
        ("STARLING_CLUSTER__ROLES", "[gateway]"),
    ]);
    let cluster = load(None, environment, &[], false).expect("fine").settings.cluster;
    assert_eq!(cluster.seeds, ["10.0.0.1:7400", "node-2.lan:7400", "[fd00::1]:7400"]);
    assert_eq!(cluster.roles, [Role::Gateway]);
}

#[test]
fn beyond_loopback_a_cluster_takes_a_secret_of_some_length_that_is_never_printed() {
    let listen = ("STARLING_CLUSTER__LISTEN", "10.0.0.1:7400");
    let with = |secret: &str| env(&[listen, ("STARLING_CLUSTER_SECRET", secret)]);
    let error = load(None, env(&[listen]), &[], true).expect_err("refused").to_string();
    assert!(error.contains("cluster.secret_file, or set the variable STARLING_CLUSTER_SECRET"), "{error}");
    let error = load(None, with("too short"), &[], false).expect_err("refused").to_string();
    assert!(error.contains("9 bytes long") && !error.contains("too short"), "{error}");
    let loaded = load(None, with("0123456789abcdef\n"), &[], false).expect("fine");
    assert_eq!(loaded.secret.as_ref().map(Secret::expose), Some(&b"0123456789abcdef"[..]));
    assert!(!format!("{loaded:?}").contains("0123456789"));

    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("secret");
    let file = env(&[listen, ("STARLING_CLUSTER__SECRET_FILE", path.to_str().expect("text"))]);
    std::fs::write(&path, "short").expect("written");
    let error = load(None, file.clone(), &[], false).expect_err("refused").to_string();
    assert!(
        error.contains("holds 5 bytes") && error.contains("variable STARLING_CLUSTER__SECRET_FILE"),
        "{error}"
    );
    std::fs::write(&path, "0123456789abcdef").expect("written");
    assert_eq!(load(None, file, &[], false).expect("fine").secret, loaded.secret);
    assert!(load(None, env(&[("STARLING_CLUSTER__LISTEN", "127.0.0.1:0")]), &[], false).is_ok());
}

#[test]
fn what_is_printed_can_be_read_back() {
    let mut settings = Settings::default();
    settings.models.push(ModelSettings::named("vosk-ko-small"));
    settings.gateway.max_recording = 65_537;
    let printed = toml_edit::ser::to_string(&settings).expect("prints");
    assert_eq!(from_file(&printed).expect("reads").settings, settings, "{printed}");
}

#[test]
fn tenants_keys_come_from_the_file_from_its_file_and_from_the_environment() {
    let directory = tempfile::tempdir().expect("a folder");
    let (path, keys) = (directory.path().join("cluster.toml"), directory.path().join("keys"));
    let hash = |key: &str| KeyHash::of(key).to_string();
    std::fs::write(&keys, format!("# Acme's\n{}\n", hash("2"))).expect("written");
    let text = format!(
        "[listen]\nhttp = \"0.0.0.0:8080\"\n[[tenant]]\nname = \"acme\"\nkeys = [{:?}]\nkeys_file = {keys:?}\nsessions = 3\n",
        hash("1")
    );
    std::fs::write(&path, text).expect("written");
    let environment = env(&[("STARLING_KEYS", &format!("acme={}, other={}", hash("3"), hash("4")))]);
    let loaded = load(Some(&path), environment, &[], false).expect("with keys a node may listen anywhere");
    assert_eq!(loaded.open, [""; 0]);
    let [acme, other] = &loaded.tenants[..] else { panic!("{:?}", loaded.tenants) };
    assert_eq!((acme.keys.len(), acme.limits.sessions, acme.operator), (3, 3, false));
    assert_eq!((other.name.as_str(), &other.keys[..]), ("other", &[KeyHash::of("4")][..]));

    std::fs::write(&keys, "starling_pasted_by_mistake\n").expect("written");
    let message = load(Some(&path), [], &[], false).expect_err("no hash").to_string();
    assert!(
        message.contains("line 1") && message.contains("tenant.keys_file") && !message.contains("pasted"),
        "{message}"
    );
    let wrong =
        load(None, env(&[("STARLING_KEYS", "acme=key")]), &[], false).expect_err("no hash").to_string();
    assert!(wrong.contains("STARLING_KEYS") && !wrong.contains("acme=key"), "{wrong}");
}

#[test]
fn a_listener_without_keys_takes_the_name_of_a_tenant_where_there_are_any() {
    let of = |key: &str, table: &str| {
        let listen = format!("[listen]\n{key} = \"0.0.0.0:9000\"\n{table}");
        from_file(&format!(
            "{listen}[tls]\ncert_file = \"a\"\nkey_file = \"b\"\n[[tenant]]\nname = \"acme\"\n"
        ))
    };
    for (table, keys) in
        [("audiosocket", ["audiosocket", "audiosocket_tls"]), ("wyoming", ["wyoming", "wyoming_tls"])]
    {
        for key in keys {
            for named in [String::new(), format!("[{table}]\ntenant = \"acm\"\n")] {
                let message = of(key, &named).expect_err("must be refused").to_string();
                assert!(message.starts_with(&format!("{table}.tenant is \"")), "{message}");
                assert!(message.contains("the name of a tenant that there is"), "{message}");
            }
            let loaded = of(key, &format!("[{table}]\ntenant = \"acme\"\n")).expect("is fine");
            assert_eq!(loaded.open, [format!("listen.{key} = 0.0.0.0:9000")], "it is warned of");
        }
    }
    let keys = env(&[
        ("STARLING_KEYS", &format!("acme={}", KeyHash::of("1"))),
        ("STARLING_LISTEN__WYOMING", "127.0.0.1:0"),
        ("STARLING_WYOMING__TENANT", "acme"),
    ]);
    assert_eq!(load(None, keys, &[], false).expect("a tenant of the environment is one").open, [""; 0]);
}

#[test]
fn a_tenant_that_cannot_be_is_refused_with_its_line() {
    let of = |lines: &str| refusal(&format!("[[tenant]]\nname = \"a\"\n[[tenant]]\n{lines}\n"));
    assert!(of("name = \"a\"").contains("cluster.toml line 4"), "{}", of("name = \"a\""));
    for (lines, key) in [
        ("name = \"\"", "tenant.1.name"),
        ("name = \"b c\"", "tenant.1.name"),
        ("name = \"b\"\nkeys = [\"secret\"]", "tenant.1.keys"),
        ("name = \"b\"\nsessions = 1000001", "tenant.1.sessions"),
        ("name = \"b\"\nsesions = 1", "tenant.1.sesions"),
    ] {
        assert!(of(lines).contains(key), "{}", of(lines));
    }
    let pasted = of("name = \"b\"\nkeys = [\"starling_secret\"]");
    assert!(!pasted.contains("starling_secret"), "{pasted}");
    let pasted = of("name = \"b\"\nkeys = \"starling_secret\"");
    assert!(!pasted.contains("starling_secret"), "{pasted}");
    let hash = KeyHash::of("1").to_string();
    let twice = refusal(&format!(
        "[[tenant]]\nname = \"a\"\nkeys = [{hash:?}]\n[[tenant]]\nname = \"b\"\nkeys = [{hash:?}]\n"
    ));
    assert!(twice.contains("the same for a and b"), "{twice}");
}

#[test]
fn what_the_program_was_built_without_is_refused() {
    let mut settings = Settings::default();
    assert_eq!(check::first_not_built(&settings, false), None);
    settings.kubernetes.enabled = true;
    assert_eq!(check::first_not_built(&settings, false), Some("kubernetes.enabled"));
    assert_eq!(check::first_not_built(&settings, true), None);
    let origin = Origin::File { path: "cluster.toml".into(), line: Some(3) };
    let text = ConfigError::NotBuilt { key: "kubernetes.enabled".to_owned(), origin }.to_string();
    assert!(text.starts_with("kubernetes.enabled is true (cluster.toml line 3)"), "{text}");
    assert!(text.contains("--features kubernetes"), "{text}");
    // The whole way, of whichever program this is.
    let text = "[cluster]\nlisten = \"127.0.0.1:7400\"\n[kubernetes]\nenabled = true\nstateful_set = \"a\"\n";
    assert_eq!(from_file(text).is_ok(), crate::kubernetes::IS_BUILT);
}

#[test]
fn the_lease_is_named_after_the_set() {
    let mut settings =
        KubernetesSettings { stateful_set: "starling".to_owned(), ..KubernetesSettings::default() };
    assert_eq!(settings.lease_name(), "starling-scaler");
    settings.lease = "other".to_owned();
    assert_eq!(settings.lease_name(), "other");
    let names = [
        ("a", true),
        ("a-1.b", true),
        ("", false),
        ("-a", false),
        ("a-", false),
        ("A", false),
        ("a_b", false),
    ];
    for (name, fine) in names {
        assert_eq!(is_object_name(name, 57), fine, "{name}");
    }
    assert!(!is_object_name(&"a".repeat(58), 57));
}

use super::*;

fn tenant(name: &str, keys: &[&str], sessions: u32) -> TenantFacts {
    let keys = keys.iter().map(|key| KeyHash::of(key)).collect();
    let limits = TenantLimits { sessions, ..TenantLimits::default() };
    TenantFacts { name: name.to_owned(), keys, models: Vec::new(), operator: false, limits }
}

fn found(tenants: &Tenants, key: &str) -> Option<Arc<Tenant>> {
    match tenants.identify(Some(key)) {
        Identified::Tenant(tenant) => Some(tenant),
        _ => None,
    }
}

#[test]
fn each_key_is_its_tenants() {
    let tenants = Tenants::new(vec![tenant("a", &["1", "2"], 0), tenant("b", &["3"], 0)]);
    let name = |key| found(&tenants, key).map(|tenant| tenant.name().to_owned());
    assert_eq!(["1", "2", "3", "4", ""].map(name).map(Option::unwrap_or_default), ["a", "a", "b", "", ""]);
    assert!(matches!(tenants.identify(None), Identified::NoKey));
    assert!(matches!(tenants.identify(Some("4")), Identified::UnknownKey));
    assert!(tenants.asks_for_keys());
}

#[test]
fn without_tenants_everybody_is_nobody_and_may_do_everything() {
    let tenants = Tenants::new(Vec::new());
    assert!(!tenants.asks_for_keys());
    for key in [None, Some("any")] {
        let Identified::Tenant(tenant) = tenants.identify(key) else { panic!("{key:?}") };
        assert_eq!((tenant.name(), tenant.is_operator(), tenant.may_use("m")), ("", true, true));
    }
}

#[test]
fn an_operator_has_a_key_or_is_on_this_machine_where_there_are_none() {
    let [here, mapped, beside, away] = ["127.0.0.2", "::ffff:127.0.0.1", "192.168.0.7", "2001:db8::1"]
        .map(|peer| peer.parse().expect("one"));
    let keyless = Tenants::new(Vec::new());
    let Identified::Tenant(anybody) = keyless.identify(None) else { panic!("everybody is served") };
    let may = |peer| keyless.may_operate(&anybody, peer);
    assert_eq!([here, mapped, beside, away].map(may), [true, true, false, false]);
    let operator = TenantFacts { operator: true, ..tenant("ops", &["1"], 0) };
    let keyed = Tenants::new(vec![operator, tenant("a", &["2"], 0)]);
    for (key, may) in [("1", true), ("2", false)] {
        let tenant = found(&keyed, key).expect("known");
        assert_eq!([here, away].map(|peer| keyed.may_operate(&tenant, peer)), [may, may], "{key}");
    }
}

#[test]
fn what_is_open_counts_on_under_new_limits() {
    let tenants = Tenants::new(vec![tenant("a", &["1"], 2)]);
    let before = found(&tenants, "1").expect("known");
    let session = SessionId::random();
    assert_eq!(before.enter(session, false), Ok(()));
    assert_eq!(before.enter(session, false), Ok(()), "a second connection of it is no second session");
    before.leave(session);
    tenants.replace(vec![tenant("a", &["1"], 1), tenant("b", &["2"], 1)], None);
    let after = found(&tenants, "1").expect("known");
    let refused = after.check().expect_err("one is open");
    assert_eq!((refused.code, refused.retry_after_ms), (ErrorCode::OverQuota, Some(1_001)));
    assert!(found(&tenants, "2").expect("known").check().is_ok());
    assert!(after.enter(SessionId::random(), true).is_ok(), "who goes on is never refused");
    before.leave(session);
    assert!(after.check().is_err());
    tenants.replace(Vec::new(), None);
    tenants.replace(vec![tenant("a", &["1"], 1)], None);
    assert!(found(&tenants, "1").expect("known").check().is_err(), "it has taken what it took");
}

#[test]
fn keys_are_in_no_debug_output() {
    let tenants = Tenants::new(vec![tenant("a", &["1"], 0)]);
    let hash = KeyHash::of("1").to_string();
    let digits = hash.trim_start_matches("sha256:").to_owned();
    assert!(!format!("{tenants:?}").contains(&digits[..16]));
}

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEEP: Duration = Duration::from_secs(60);

/// A model by name, files and settings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model(&'static str, &'static str, u16);

impl Offer for Model {
    fn name(&self) -> &str {
        self.0
    }

    fn digest(&self) -> &str {
        self.1
    }
}

struct Scene {
    lineup: LineupMachine<Model>,
    now: Timestamp,
    out: Vec<LineupAction>,
}

fn scene(offers: &[Model]) -> Scene {
    let mut out = Vec::new();
    let lineup = LineupMachine::new(LineupConfig { keep: KEEP }, offers.to_vec(), &mut out);
    Scene { lineup, now: Timestamp::default(), out }
}

impl Scene {
    fn tell(&mut self, event: LineupEvent<Model>) -> Vec<LineupAction> {
        self.out.clear();
        self.lineup.handle(self.now, event, &mut self.out);
        assert_eq!(self.lineup.check(), Ok(()));
        self.out.clone()
    }

    fn named(&mut self, offers: &[Model]) -> Vec<LineupAction> {
        self.tell(LineupEvent::Named { offers: offers.to_vec() })
    }

    fn ready(&mut self, pool: u64) -> Vec<LineupAction> {
        self.tell(LineupEvent::Ready { pool: PoolId(pool) })
    }

    fn claimed(&mut self, pools: &[u64]) {
        let pools = pools.iter().copied().map(PoolId).collect();
        assert_eq!(self.tell(LineupEvent::Claimed { pools }), []);
    }

    fn after(&mut self, time: Duration) -> Vec<LineupAction> {
        self.now = self.now.plus(time);
        self.tell(LineupEvent::TimedOut)
    }

    /// Every pool and what it is there for, as they are listed.
    fn stages(&self) -> Vec<(u64, Stage)> {
        let pools = self.lineup.pools();
        pools.into_iter().map(|pool| (pool.0, self.lineup.stage(pool).expect("is there"))).collect()
    }

    fn new_session(&self, name: &str) -> Option<u64> {
        self.lineup.find(Some(name)).map(|pool| pool.0)
    }
}

fn start(pool: u64) -> LineupAction {
    LineupAction::Start { pool: PoolId(pool) }
}

fn end(pool: u64) -> LineupAction {
    LineupAction::End { pool: PoolId(pool) }
}

fn changed(pool: u64, change: Change) -> LineupAction {
    LineupAction::Changed { pool: PoolId(pool), change }
}

#[test]
fn what_a_node_begins_with_is_served_before_it_is_loaded() {
    let scene = scene(&[Model("a", "1", 4), Model("b", "1", 4), Model("a", "2", 4)]);
    assert_eq!(scene.out, [start(0), start(1)]);
    assert_eq!(scene.stages(), [(0, Stage::Current), (1, Stage::Current)]);
    assert_eq!(scene.lineup.find(None), Some(PoolId(0)), "the first is the default");
    assert_eq!(scene.new_session("c"), None);
}

#[test]
fn the_difference_is_applied_and_nothing_else() {
    use Change::{Added, Replacing, Retired, Unchanged};
    let (a, b) = (Model("a", "1", 4), Model("b", "1", 4));
    let cases: &[(&str, &[Model], &[LineupAction])] = &[
        ("nothing", &[a.clone(), b.clone()], &[changed(0, Unchanged), changed(1, Unchanged)]),
        ("another default", &[b.clone(), a.clone()], &[changed(1, Unchanged), changed(0, Unchanged)]),
        (
            "one more",
            &[a.clone(), b.clone(), Model("c", "1", 4)],
            &[changed(0, Unchanged), changed(1, Unchanged), start(2), changed(2, Added)],
        ),
        ("one less", std::slice::from_ref(&b), &[changed(0, Retired), changed(1, Unchanged)]),
        (
            "other files",
            &[a.clone(), Model("b", "2", 4)],
            &[changed(0, Unchanged), start(2), changed(2, Replacing)],
        ),
        (
            "other slots",
            &[Model("a", "1", 8), b.clone()],
            &[start(2), changed(2, Replacing), changed(1, Unchanged)],
        ),
        (
            "all at once",
            &[Model("c", "1", 4), Model("b", "2", 4)],
            &[changed(0, Retired), start(2), changed(2, Added), start(3), changed(3, Replacing)],
        ),
    ];
    for (case, offers, wanted) in cases {
        let mut scene = scene(&[a.clone(), b.clone()]);
        assert_eq!(scene.named(offers), *wanted, "{case}");
        let order: Vec<&str> = offers.iter().map(Offer::name).collect();
        assert_eq!(scene.lineup.names().collect::<Vec<_>>(), order, "{case}");
        let again = scene.named(offers);
        let quiet =
            again.iter().all(|action| matches!(action, LineupAction::Changed { change: Unchanged, .. }));
        assert!(quiet, "{case}: said twice it is {again:?}");
    }
}

#[test]
fn the_old_pool_serves_until_the_new_one_can_and_ends_when_nobody_claims_it() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.ready(0);
    scene.claimed(&[0]);
    scene.tell(LineupEvent::Added { offer: Model("a", "2", 4) });
    assert_eq!(scene.stages(), [(0, Stage::Current), (1, Stage::Loading)]);
    assert_eq!(scene.new_session("a"), Some(0), "the new one is not ready");
    assert_eq!(scene.ready(1), []);
    assert_eq!(scene.new_session("a"), Some(1));
    assert_eq!(scene.lineup.find_exact("a", "1"), Some(PoolId(0)), "its sessions still find it");
    assert_eq!(scene.lineup.find_exact("a", "2"), Some(PoolId(1)));
    assert_eq!(scene.stages(), [(1, Stage::Current), (0, Stage::Leaving)]);
    assert_eq!(scene.lineup.next_timeout(), None, "while a session goes on it is kept");
    assert_eq!(scene.after(KEEP * 100), []);

    scene.claimed(&[]);
    assert_eq!(scene.lineup.next_timeout(), Some(scene.now.plus(KEEP)));
    assert_eq!(scene.after(KEEP / 2), []);
    scene.claimed(&[0]);
    scene.claimed(&[]);
    assert_eq!(scene.after(KEEP - Duration::from_millis(1)), [], "somebody came back to it");
    assert_eq!(scene.after(Duration::from_millis(1)), [end(0)]);
    assert_eq!(scene.lineup.find_exact("a", "1"), None);
    assert!(!scene.lineup.is_needed(PoolId(0)), "its end is no failure");
    scene.tell(LineupEvent::Ended { pool: PoolId(0) });
    assert_eq!(scene.stages(), [(1, Stage::Current)]);
}

#[test]
fn a_replacement_that_never_loads_costs_nothing_and_can_be_taken_back() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.ready(0);
    scene.named(&[Model("a", "broken", 4)]);
    assert_eq!(scene.after(KEEP * 100), []);
    assert_eq!(scene.new_session("a"), Some(0));
    assert_eq!(scene.named(&[Model("a", "1", 4)]), [end(1), changed(0, Change::Restored)]);
    assert_eq!(scene.stages(), [(0, Stage::Current), (1, Stage::Ending)]);
}

#[test]
fn a_pool_that_was_left_serves_again_if_it_ever_could() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.ready(0);
    scene.named(&[Model("a", "2", 4)]);
    scene.ready(1);
    assert_eq!(scene.named(&[Model("a", "1", 4)]), [changed(0, Change::Restored)]);
    assert_eq!(scene.stages(), [(0, Stage::Current), (1, Stage::Leaving)]);

    let mut scene = self::scene(&[Model("a", "broken", 4)]);
    scene.named(&[Model("a", "2", 4)]);
    scene.ready(1);
    scene.named(&[Model("a", "broken", 4)]);
    assert_eq!(scene.stages(), [(1, Stage::Current), (0, Stage::Loading)], "it has never been ready");
    assert_eq!(scene.new_session("a"), Some(1));
}

#[test]
fn a_model_that_is_new_can_be_waited_for() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.tell(LineupEvent::Added { offer: Model("b", "1", 4) });
    assert_eq!(scene.new_session("b"), Some(1));
    scene.claimed(&[1]);
    scene.named(&[Model("a", "1", 4)]);
    assert_eq!(scene.new_session("b"), None);
    assert_eq!(scene.stages(), [(0, Stage::Current), (1, Stage::Leaving)], "somebody waits for it");
    assert_eq!(scene.tell(LineupEvent::Ready { pool: PoolId(1) }), []);
    assert_eq!(scene.new_session("b"), None, "it is not served");
}

#[test]
fn equal_files_are_found_where_new_sessions_would_find_them() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.ready(0);
    scene.claimed(&[0]);
    scene.named(&[Model("a", "1", 8)]);
    assert_eq!(scene.lineup.find_exact("a", "1"), Some(PoolId(0)));
    scene.ready(1);
    assert_eq!(scene.lineup.find_exact("a", "1"), Some(PoolId(1)));
}

#[test]
fn a_model_has_so_many_pools_and_no_more() {
    let mut scene = scene(&[Model("a", "1", 0)]);
    scene.ready(0);
    scene.claimed(&[0]);
    for (pool, settings) in [(1, 1), (2, 2), (3, 3)] {
        scene.named(&[Model("a", "1", settings)]);
        scene.ready(pool);
        scene.claimed(&(0..=pool).collect::<Vec<_>>());
    }
    assert_eq!(scene.named(&[Model("a", "1", 9)]), [changed(3, Change::Refused)]);
    assert_eq!(scene.new_session("a"), Some(3), "it is served as before");
    scene.claimed(&[0, 2, 3]);
    assert_eq!(scene.after(KEEP), [end(1)]);
    scene.tell(LineupEvent::Ended { pool: PoolId(1) });
    assert_eq!(scene.named(&[Model("a", "1", 9)]), [start(4), changed(4, Change::Replacing)]);
}

#[test]
fn a_pool_that_fails_is_needed_or_is_not() {
    let mut scene = scene(&[Model("a", "1", 4)]);
    scene.named(&[Model("a", "1", 4), Model("b", "1", 4)]);
    assert!(scene.lineup.is_needed(PoolId(0)));
    assert!(!scene.lineup.is_needed(PoolId(1)), "nobody has it yet");
    scene.tell(LineupEvent::Ended { pool: PoolId(1) });
    assert_eq!(scene.lineup.names().collect::<Vec<_>>(), ["a"]);
}

fn any_model() -> impl Strategy<Value = Model> {
    let (names, digests) = (["a", "b", "c"], ["1", "2"]);
    (0..3usize, 0..2usize, 0..2u16).prop_map(move |(name, digest, n)| Model(names[name], digests[digest], n))
}

fn any_event() -> impl Strategy<Value = LineupEvent<Model>> {
    let pool = || (0..24u64).prop_map(PoolId);
    prop_oneof![
        2 => proptest::collection::vec(any_model(), 1..4).prop_map(|mut offers| {
            let mut seen = Vec::new();
            offers.retain(|offer| !seen.contains(&offer.0) && { seen.push(offer.0); true });
            LineupEvent::Named { offers }
        }),
        2 => any_model().prop_map(|offer| LineupEvent::Added { offer }),
        4 => pool().prop_map(|pool| LineupEvent::Ready { pool }),
        4 => proptest::collection::vec(pool(), 0..6).prop_map(|pools| LineupEvent::Claimed { pools }),
        2 => pool().prop_map(|pool| LineupEvent::Ended { pool }),
        2 => Just(LineupEvent::TimedOut),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_holds(events in proptest::collection::vec((any_event(), 0..40u64), 1..120)) {
        let mut scene = scene(&[Model("a", "1", 0)]);
        let mut ended = Vec::new();
        for (mut event, seconds) in events {
            scene.now = scene.now.plus(Duration::from_secs(seconds));
            match &mut event {
                // Nobody is given a pool that ends, and one that is needed does not end by itself.
                LineupEvent::Claimed { pools } => {
                    pools.retain(|pool| scene.lineup.stage(*pool) != Some(Stage::Ending));
                }
                LineupEvent::Ended { pool } if scene.lineup.is_needed(*pool) => continue,
                _ => {}
            }
            let served: Vec<String> = scene.lineup.names().map(str::to_owned).collect();
            let named = matches!(event, LineupEvent::Named { .. } | LineupEvent::Ended { .. });
            for action in scene.tell(event) {
                if let LineupAction::End { pool } = action {
                    prop_assert!(!ended.contains(&pool), "{:?} is ended once", pool);
                    ended.push(pool);
                }
            }
            if !named {
                prop_assert!(served.iter().all(|name| scene.lineup.find(Some(name)).is_some()), "nothing goes unasked");
            }
        }
        // Once nobody has a claim, all that is left is what is served.
        scene.tell(LineupEvent::Claimed { pools: Vec::new() });
        scene.after(KEEP);
        prop_assert!(scene.stages().iter().all(|(_, stage)| *stage != Stage::Leaving), "{:?}", scene.stages());
    }
}

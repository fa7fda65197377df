//! The order in which pods come and go: by tables, and in a StatefulSet where anything may happen.

use proptest::prelude::*;

use super::PodState::{Drained, Draining, Leaving, Loading, Serving, Unknown, Unstarted};
use super::*;

const CONFIG: ActuatorConfig = ActuatorConfig { min_pods: 2, max_pods: 8, settle: Duration::from_secs(100) };

fn at(seconds: u64) -> Timestamp {
    Timestamp(Duration::from_secs(seconds))
}

fn leader() -> ActuatorMachine {
    let mut machine = ActuatorMachine::new(at(0), CONFIG);
    machine.handle(at(0), ActuatorEvent::Elected, &mut Vec::new());
    machine
}

fn observe(machine: &mut ActuatorMachine, second: u64, seen: Observation) -> Vec<ActuatorAction> {
    let mut out = Vec::new();
    machine.handle(at(second), ActuatorEvent::Observed(seen), &mut out);
    out
}

fn seen(needed: Option<u32>, pods: &[PodState]) -> Observation {
    let replicas = u32::try_from(pods.len()).expect("few");
    Observation { needed, replicas, created: replicas, pods: pods.to_vec() }
}

#[test]
fn the_model_that_needs_most_pods_decides_and_one_that_nobody_knows_leaves_all_open() {
    let need = |desired, per_pod| ModelNeed { desired, per_pod };
    assert_eq!(pods_needed(&[need(9, 8), need(5, 1), need(0, 4)]), Some(5));
    assert_eq!(pods_needed(&[need(0, 8)]), Some(0));
    assert_eq!(pods_needed(&[need(9, 8), need(3, 0)]), None);
    assert_eq!(pods_needed(&[]), None);
}

#[test]
fn each_case_has_its_one_answer() {
    use ActuatorAction::{Drain, Grow, Recall, Shrink};
    let four = [Serving; 4];
    let with_top = |top| [Serving, Serving, Serving, top];
    let table: Vec<(Observation, Vec<ActuatorAction>, Standing)> = vec![
        (seen(Some(4), &four), vec![], Standing::Enough),
        (seen(Some(7), &four), vec![Grow { from: 4, to: 7 }], Standing::Grows),
        // The bounds win, and without figures only the least.
        (seen(Some(99), &four), vec![Grow { from: 4, to: 8 }], Standing::Grows),
        (seen(None, &[Unknown]), vec![Grow { from: 1, to: 2 }], Standing::Grows),
        (seen(None, &four), vec![], Standing::Enough),
        (seen(None, &[Serving; 9]), vec![], Standing::Enough),
        (seen(Some(99), &[Serving; 9]), vec![Drain { ordinal: 8 }], Standing::Drains { ordinal: 8 }),
        (seen(Some(0), &[Serving; 2]), vec![], Standing::Enough),
        (seen(Some(9), &[]), vec![], Standing::Off),
        // One that is too many.
        (seen(Some(3), &four), vec![Drain { ordinal: 3 }], Standing::Drains { ordinal: 3 }),
        (seen(Some(3), &with_top(Loading)), vec![Drain { ordinal: 3 }], Standing::Drains { ordinal: 3 }),
        (seen(Some(3), &with_top(Draining)), vec![], Standing::Drains { ordinal: 3 }),
        (seen(Some(3), &with_top(Leaving)), vec![], Standing::Drains { ordinal: 3 }),
        (seen(Some(3), &with_top(Drained)), vec![Shrink { from: 4 }], Standing::Shrinks),
        (seen(Some(3), &with_top(Unstarted)), vec![Shrink { from: 4 }], Standing::Shrinks),
        (seen(Some(3), &with_top(Unknown)), vec![], Standing::OutOfReach { ordinal: 3 }),
        // Not while another does not serve: what is needed is not known then, and who goes needs somewhere to go.
        (seen(Some(3), &[Serving, Unknown, Serving, Serving]), vec![], Standing::Waits { ordinal: 1 }),
        (seen(Some(3), &[Serving, Serving, Loading, Serving]), vec![], Standing::Waits { ordinal: 2 }),
        // Demand is back while one drains: another stands in for it at once, and it comes back when it is empty.
        (seen(Some(4), &with_top(Draining)), vec![Grow { from: 4, to: 5 }], Standing::Grows),
        (seen(Some(4), &with_top(Drained)), vec![Recall { ordinal: 3 }], Standing::Enough),
        (
            seen(Some(5), &with_top(Drained)),
            vec![Recall { ordinal: 3 }, Grow { from: 4, to: 5 }],
            Standing::Grows,
        ),
        (
            seen(Some(3), &[Serving, Serving, Serving, Drained, Serving]),
            vec![Recall { ordinal: 3 }],
            Standing::Waits { ordinal: 3 },
        ),
        (seen(Some(8), &[Draining; 8]), vec![], Standing::Enough),
    ];
    for (observation, actions, standing) in table {
        let mut machine = leader();
        let text = format!("{observation:?}");
        assert_eq!(observe(&mut machine, 200, observation), actions, "{text}");
        assert_eq!(machine.standing(), standing, "{text}");
    }
}

#[test]
fn a_pod_that_still_goes_is_waited_for() {
    let mut machine = leader();
    let going = Observation { created: 5, ..seen(Some(2), &[Serving; 4]) };
    assert_eq!(observe(&mut machine, 200, going), []);
    assert_eq!(machine.standing(), Standing::PodsChange);
}

#[test]
fn whoever_does_not_lead_does_nothing_and_a_new_node_takes_nobody_away() {
    let mut machine = ActuatorMachine::new(at(0), CONFIG);
    assert_eq!(observe(&mut machine, 200, seen(Some(7), &[Serving; 4])), []);
    assert_eq!((machine.standing(), machine.wanted()), (Standing::Follows, None));
    let mut machine = leader();
    assert_eq!(observe(&mut machine, 99, seen(Some(3), &[Serving; 4])), []);
    assert_eq!(machine.standing(), Standing::Settles);
    assert_eq!(
        observe(&mut machine, 99, seen(Some(5), &[Serving; 4])),
        [ActuatorAction::Grow { from: 4, to: 5 }]
    );
    assert_eq!(machine.wanted(), Some(5));
    machine.handle(at(200), ActuatorEvent::Deposed, &mut Vec::new());
    assert_eq!(observe(&mut machine, 200, seen(Some(7), &[Serving; 4])), []);
}

/// A StatefulSet and its nodes.
#[derive(Debug, Clone)]
struct World {
    pods: Vec<PodState>,
    /// Taken away, and not gone yet.
    going: u32,
}

/// What may happen in it by itself.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// The pod gets on by one step: it starts, loads, serves, empties.
    Advances(usize),
    /// It is lost, or out of reach.
    Lost(usize),
    /// It is rolled.
    Rolled(usize),
    /// Pods that were taken away are gone.
    Gone,
    /// Nothing, and the machine looks again.
    Looked,
}

impl World {
    fn observe(&self, needed: Option<u32>) -> Observation {
        let seen = seen(needed, &self.pods);
        Observation { created: seen.replicas + self.going, ..seen }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Gone => self.going = 0,
            Happening::Looked => {}
            Happening::Advances(pod) | Happening::Lost(pod) | Happening::Rolled(pod) => {
                let count = self.pods.len();
                let pod = &mut self.pods[pod % count];
                *pod = match (happening, *pod) {
                    (Happening::Advances(_), Unknown | Unstarted | Leaving) => Loading,
                    (Happening::Advances(_), Loading) => Serving,
                    (Happening::Advances(_), Draining) => Drained,
                    (Happening::Lost(_), Serving | Loading | Draining | Drained) => Unknown,
                    (Happening::Rolled(_), Serving | Loading) => Leaving,
                    (_, same) => same,
                };
            }
        }
    }

    /// Does what was decided; says what must not be.
    fn perform(&mut self, action: ActuatorAction) -> Result<(), TestCaseError> {
        let count = u32::try_from(self.pods.len()).expect("few");
        match action {
            ActuatorAction::Grow { from, to } => {
                prop_assert!(from == count && to > from && to <= CONFIG.max_pods.max(from));
                self.pods.resize(to as usize, Unstarted);
            }
            ActuatorAction::Drain { ordinal } => {
                prop_assert_eq!(ordinal, count - 1, "only the highest can be taken away");
                prop_assert!(self.pods.iter().all(|pod| matches!(pod, Serving | Loading)), "{:?}", self);
                self.pods[ordinal as usize] = Draining;
            }
            ActuatorAction::Shrink { from } => {
                prop_assert!(from == count && count > CONFIG.min_pods);
                let top = self.pods.pop();
                prop_assert!(matches!(top, Some(Drained | Unstarted)), "{top:?} was taken away");
                self.going += 1;
            }
            ActuatorAction::Recall { ordinal } => {
                prop_assert_eq!(self.pods[ordinal as usize], Drained);
                self.pods[ordinal as usize] = Unknown;
            }
        }
        Ok(())
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0usize..12).prop_map(Happening::Advances),
        1 => (0usize..12).prop_map(Happening::Lost),
        1 => (0usize..12).prop_map(Happening::Rolled),
        1 => Just(Happening::Gone),
        2 => Just(Happening::Looked),
    ]
}

proptest! {
    /// Whatever happens: nothing is taken away that has not drained, never two at once, nothing beyond the bounds, and what was decided
    /// twice is what was decided once. Left alone with enough pods it comes to what is needed, all of them serving.
    #[test]
    fn pods_come_at_once_and_go_drained_one_by_one(
        begins in 1usize..12,
        steps in proptest::collection::vec((happening(), proptest::option::weighted(0.9, 0u32..12)), 1..120),
        needed in 0u32..12,
    ) {
        let mut world = World { pods: vec![Serving; begins], going: 0 };
        let (mut machine, mut second) = (leader(), 100);
        for (happening, needed) in steps {
            second += 5;
            world.happen(happening);
            let before = world.clone();
            let out = observe(&mut machine, second, world.observe(needed));
            let mut again = machine.clone();
            prop_assert_eq!(&observe(&mut again, second, before.observe(needed)), &out);
            prop_assert_eq!(&again, &machine);
            let fewer = |action: &&ActuatorAction| matches!(action, ActuatorAction::Shrink { .. } | ActuatorAction::Drain { .. });
            prop_assert!(out.iter().filter(fewer).count() <= 1);
            if needed.is_none() {
                let drains = out.iter().any(|action| matches!(action, ActuatorAction::Drain { .. }));
                prop_assert!(!drains, "without figures: {out:?}");
            }
            for action in out {
                world.perform(action)?;
            }
        }
        // From here on nothing fails and the demand stays.
        let wanted = needed.clamp(CONFIG.min_pods, CONFIG.max_pods);
        for _ in 0..200 {
            second += 5;
            for pod in 0..world.pods.len() {
                world.happen(Happening::Advances(pod));
            }
            world.happen(Happening::Gone);
            for action in observe(&mut machine, second, world.observe(Some(needed))) {
                world.perform(action)?;
            }
        }
        prop_assert_eq!(&world.pods, &vec![Serving; wanted as usize]);
        prop_assert_eq!(observe(&mut machine, second, world.observe(Some(needed))), vec![]);
        prop_assert_eq!(machine.standing(), Standing::Enough);
    }
}

//! The policy's decisions.

use super::forecast::{BUCKET, Forecast};
use super::messages::{Demand, Scale, ScalingConfig, ScalingEvent, ScalingReason};
use super::recent::Recent;
use crate::Timestamp;

/// One model's number of decoders.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalingMachine {
    config: ScalingConfig,
    demand: Demand,
    asked: Recent,
    forecast: Option<Forecast>,
    expected: u32,
    current: Scale,
    next_check: Timestamp,
    /// Whether fewer would do, and only a check has to come.
    surplus: bool,
}

impl ScalingMachine {
    /// A model that nobody has asked for yet.
    #[must_use]
    pub fn new(now: Timestamp, config: ScalingConfig) -> Self {
        let mut machine = Self {
            config,
            demand: Demand::default(),
            asked: Recent::default(),
            forecast: config.predictive.then(|| Forecast::new(now)),
            expected: 0,
            current: Scale { desired: 0, reason: ScalingReason::Minimum },
            next_check: now.plus(config.check_interval),
            surplus: false,
        };
        machine.asked.ask(now, machine.wanted());
        machine.current = machine.judge(now);
        machine
    }

    /// Takes an event; says how many there should be when that has changed.
    pub fn handle(&mut self, now: Timestamp, event: ScalingEvent, out: &mut Vec<Scale>) {
        match event {
            ScalingEvent::Demanded(demand) => self.demand = demand,
            ScalingEvent::Arrived => {
                if let Some(forecast) = &mut self.forecast {
                    forecast.arrived(now);
                }
            }
            ScalingEvent::Ended { lasted } => {
                if let Some(forecast) = &mut self.forecast {
                    forecast.ended(now, lasted);
                }
            }
            ScalingEvent::TimedOut => {}
        }
        if let Some(forecast) = &mut self.forecast {
            forecast.pass(now);
            self.expected = forecast.decoders();
        }
        self.asked.ask(now, self.wanted());
        let due = now >= self.next_check;
        if due {
            self.next_check = now.plus(self.config.check_interval);
        }
        let judged = self.judge(now);
        if judged.desired > self.current.desired || (due && judged.desired < self.current.desired) {
            self.current = judged;
            out.push(judged);
        } else if judged.desired == self.current.desired {
            self.current.reason = judged.reason;
        }
        self.surplus = judged.desired < self.current.desired;
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let fewer = self.asked.next_change(self.config.cooldown).map(|at| at.max(self.next_check));
        let surplus = self.surplus.then_some(self.next_check);
        let bucket = self.forecast.as_ref().map(|forecast| forecast.bucket_ends());
        fewer.into_iter().chain(surplus).chain(bucket).min()
    }

    /// How many there should be now.
    #[must_use]
    pub const fn current(&self) -> Scale {
        self.current
    }

    /// What was last asked for.
    #[must_use]
    pub const fn demand(&self) -> Demand {
        self.demand
    }

    /// Decoders that callers are expected to need within the next quarters of an hour, if anything can be said of it.
    #[must_use]
    pub fn expected(&self) -> Option<u32> {
        self.forecast.as_ref().filter(|forecast| forecast.is_ready()).map(|_| self.expected)
    }

    /// Checks what must hold after every event. For tests and debug builds.
    ///
    /// # Errors
    /// A sentence that names what is broken.
    pub fn check(&self) -> Result<(), String> {
        let (config, current) = (&self.config, self.current);
        if current.desired > config.max || current.desired < config.min.min(config.max) {
            return Err(format!("{current:?} is not between {} and {}", config.min, config.max));
        }
        let needed = self.needed().clamp(config.min.min(config.max), config.max);
        if current.desired < needed {
            return Err(format!("I9: {current:?}, and {:?} needs {needed}", self.demand));
        }
        Ok(())
    }

    fn needed(&self) -> u32 {
        let Demand { busy, waiting, reserve } = self.demand;
        [waiting, self.config.idle_target, reserve].into_iter().fold(busy, u32::saturating_add)
    }

    /// What those who are expected need is not added to what those who are there need: they are the same callers, a little later.
    fn wanted(&self) -> u32 {
        let expected = match self.expected {
            0 => 0,
            expected => expected.saturating_add(self.demand.reserve),
        };
        self.needed().max(expected)
    }

    fn judge(&mut self, now: Timestamp) -> Scale {
        let asked = self.asked.most(now, self.config.cooldown);
        let (min, max) = (self.config.min.min(self.config.max), self.config.max);
        let reason = if asked > max {
            ScalingReason::Maximum
        } else if asked <= min {
            ScalingReason::Minimum
        } else if asked > self.asked.now() {
            ScalingReason::Cooldown
        } else if asked > self.needed() {
            ScalingReason::Forecast
        } else {
            ScalingReason::Demand
        };
        Scale { desired: asked.clamp(min, max), reason }
    }
}

/// The buckets of the forecast are far longer than a decoder takes to start; a check in each is enough.
const _: () = assert!(BUCKET.as_secs() >= 60);

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

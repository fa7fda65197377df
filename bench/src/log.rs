//! What nodes say of themselves: lines of JSON with a time.

use std::time::Duration;

use serde_json::Value;

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Time of day by UTC.
    pub(crate) at: Duration,
    fields: Value,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let fields: Value = serde_json::from_str(line).ok()?;
        let at = time_of_day(fields.get("timestamp")?.as_str()?)?;
        Some(Self { at, fields })
    }

    pub(crate) fn says(&self, message: &str) -> bool {
        self.text("message") == message
    }

    /// A field; empty when it is not there.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is about this session.
    pub(crate) fn is_of(&self, session: &str) -> bool {
        self.fields.pointer("/span/id").and_then(Value::as_str) == Some(session)
    }

    /// A field that is `true`.
    pub(crate) fn is(&self, field: &str) -> bool {
        self.fields.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A duration as `{:?}` writes it.
    pub(crate) fn duration(&self, field: &str) -> Option<Duration> {
        let text = self.text(field);
        let unit = text.find(|letter: char| letter.is_alphabetic())?;
        let seconds = match &text[unit..] {
            "s" => 1.0,
            "ms" => 1e-3,
            "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        Some(Duration::from_secs_f64(text[..unit].parse::<f64>().ok()? * seconds))
    }
}

pub(crate) fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(Line::parse).collect()
}

/// `2026-11-24T03:27:31.123456Z` without its day.
fn time_of_day(stamp: &str) -> Option<Duration> {
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = hours.parse::<u64>().ok()? * 3_600 + minutes.parse::<u64>().ok()? * 60;
    Some(Duration::from_secs(whole) + Duration::from_secs_f64(seconds.parse().ok()?))
}

/// From one time of day to a later one, in milliseconds; a midnight may lie between. Negative when it is earlier.
pub(crate) fn milliseconds(from: Duration, to: Duration) -> f64 {
    const DAY: f64 = 86_400.0;
    let seconds = to.as_secs_f64() - from.as_secs_f64();
    (seconds - (seconds / DAY).round() * DAY) * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = r#"{"timestamp":"2026-11-24T03:27:31.125000Z","level":"INFO","message":"caught up","took":"85.5ms","audio":"1.5s","durable":true,"span":{"id":"6f2c1f5e","name":"session"}}"#;
        let lines = parse(&format!("no JSON\n{line}\n{{}}\n"));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line.at, Duration::from_millis(12_451_125));
        assert!(line.says("caught up") && !line.says("caught"));
        assert!(line.is_of("6f2c1f5e") && !line.is_of("6f2c"));
        assert!(line.is("durable") && !line.is("took") && !line.is("missing"));
        assert_eq!(line.duration("took"), Some(Duration::from_micros(85_500)));
        assert_eq!(line.duration("audio"), Some(Duration::from_millis(1_500)));
        assert_eq!(line.duration("level"), None);
    }

    #[test]
    fn a_day_may_end_between_two_times() {
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(milliseconds(at(10), at(11)), 1_000.0);
        assert_eq!(milliseconds(at(86_399), at(1)), 2_000.0);
        assert_eq!(milliseconds(at(11), at(10)), -1_000.0);
    }
}

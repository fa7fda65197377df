//! Segments as subtitles: `SubRip` and `WebVTT`.

use std::fmt::Write as _;

use starling_client::Final;

use crate::terminal::one_line;

/// `SubRip`: numbered, with a comma before the milliseconds.
pub(crate) fn srt(segments: &[Final]) -> String {
    let mut out = String::new();
    for (index, last) in spoken(segments).enumerate() {
        let (start, end) = (time(last.start, ','), time(last.end, ','));
        let _ = writeln!(out, "{}\n{start} --> {end}\n{}\n", index + 1, one_line(&last.text));
    }
    out
}

/// `WebVTT`: a head, and a full stop before the milliseconds. `&` and `<` would begin markup, an arrow another cue (W3C WebVTT, 6.1).
pub(crate) fn vtt(segments: &[Final]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for last in spoken(segments) {
        let (start, end) = (time(last.start, '.'), time(last.end, '.'));
        let text = one_line(&last.text).replace('&', "&amp;").replace('<', "&lt;").replace("-->", "--&gt;");
        let _ = writeln!(out, "{start} --> {end}\n{text}\n");
    }
    out
}

fn spoken(segments: &[Final]) -> impl Iterator<Item = &Final> {
    segments.iter().filter(|last| !last.text.is_empty())
}

fn time(seconds: f64, mark: char) -> String {
    let milliseconds = (seconds.max(0.0) * 1_000.0).round() as u64;
    let (hours, minutes) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60);
    let (seconds, milliseconds) = (milliseconds / 1_000 % 60, milliseconds % 1_000);
    format!("{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}")
}

#[cfg(test)]
mod tests {
    use starling_client::{CutCause, Segment, SourceOffset};

    use super::*;

    fn segment(start: f64, end: f64, text: &str) -> Final {
        Final {
            segment: Segment(0),
            from: SourceOffset(0),
            to: SourceOffset(0),
            start,
            end,
            cause: CutCause::Endpoint,
            text: text.to_owned(),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn silence_has_no_subtitle_and_times_are_written_as_each_format_wants() {
        let segments =
            [segment(0.0, 1.2345, "R&D <one>"), segment(1.2345, 5.0, ""), segment(3_661.5, 3_662.0, "two")];
        assert_eq!(
            srt(&segments),
            "1\n00:00:00,000 --> 00:00:01,235\nR&D <one>\n\n2\n01:01:01,500 --> 01:01:02,000\ntwo\n\n"
        );
        assert_eq!(
            vtt(&segments),
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.235\nR&amp;D &lt;one>\n\n01:01:01.500 --> 01:01:02.000\ntwo\n\n"
        );
    }

    #[test]
    fn a_text_can_not_begin_another_subtitle() {
        let segments = [segment(0.0, 1.0, "a\n\n2 --> b\r")];
        assert_eq!(srt(&segments), "1\n00:00:00,000 --> 00:00:01,000\na  2 --> b\u{fffd}\n\n");
        assert_eq!(vtt(&segments), "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\na  2 --&gt; b\u{fffd}\n\n");
    }
}

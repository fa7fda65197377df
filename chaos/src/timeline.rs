//! The picture of a run: callers as lanes, faults as lines across them, times without text as bars.
//!
//! Owns: the drawing. Must never: leave out a caller that lost something.

use std::fmt::Write as _;

use crate::faults::Mark;
use crate::report::Caller;

/// Lanes that can be told apart on a screen. Of more callers those with the longest gaps are drawn.
const MOST_LANES: usize = 100;

/// Texts come several times a second while somebody speaks, and pauses are shorter.
const GAP_S: f64 = 1.0;

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 30.0;
const LANE: f64 = 9.0;
const LABEL: f64 = 13.0;

const STYLE: &str = "text{font:12px ui-sans-serif,system-ui,\"Segoe UI\",\"DejaVu Sans\",sans-serif;fill:#1f2328}\
.card{fill:#fff}.title{font-weight:600;font-size:15px}.note{fill:#59636e}.lane{fill:#aceebb}.bad{fill:#ffaba8}\
.gap{fill:#d4a72c}.back{fill:#0969da}.fault{stroke:#cf222e;stroke-width:1.5}.red{fill:#cf222e}.lasts{fill:#cf222e;opacity:.1}.tick{stroke:#d0d7de}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.card{fill:#0d1117}.note{fill:#9198a1}.lane{fill:#1b4721}\
.bad{fill:#67060c}.tick{stroke:#3d444d}}";

pub(crate) fn draw(name: &str, about: &str, callers: &[Caller], faults: &[Mark], took_s: f64) -> String {
    let mut drawn: Vec<(usize, &Caller)> = callers.iter().enumerate().collect();
    if drawn.len() > MOST_LANES {
        let weight = |caller: &Caller| {
            caller.longest_gap().0 + if caller.judged.faults.is_empty() { 0.0 } else { 1e9 }
        };
        drawn.sort_by(|(_, one), (_, other)| weight(other).total_cmp(&weight(one)));
        drawn.truncate(MOST_LANES);
        drawn.sort_by_key(|(number, _)| *number);
    }
    let top = 64.0 + LABEL * faults.len() as f64;
    let bottom = top + LANE * drawn.len() as f64;
    let scale = (WIDTH - LEFT - RIGHT) / took_s.max(1.0);
    let x = |seconds: f64| LEFT + seconds * scale;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"card\" width=\"100%\" height=\"100%\"/>\n<text class=\"title\" x=\"12\" y=\"24\">{}</text>\n\
         <text class=\"note\" x=\"12\" y=\"44\">{}</text>\n",
        bottom + 44.0,
        escaped(about),
        escaped(name),
        escaped(about),
    );
    // Writing into a String does not fail.
    let step =
        [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|step| took_s / step <= 12.0).unwrap_or(300.0);
    let mut at = 0.0;
    while at <= took_s {
        let place = x(at);
        let _ = writeln!(
            svg,
            "<path class=\"tick\" d=\"M{place:.1} {top:.1}V{bottom:.1}\"/><text class=\"note\" x=\"{place:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at} s</text>",
            bottom + 16.0
        );
        at += step;
    }
    for (row, (number, caller)) in drawn.iter().enumerate() {
        lane(&mut svg, top + LANE * row as f64, *number, caller, &x);
    }
    for (index, fault) in faults.iter().enumerate() {
        if let Some(until) = fault.until_s {
            let _ = writeln!(
                svg,
                "<rect class=\"lasts\" x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                x(fault.at_s),
                x(until) - x(fault.at_s),
                bottom - top
            );
        }
        let (place, label) = (x(fault.at_s), 64.0 + LABEL * index as f64);
        let anchor = if fault.at_s > took_s * 0.7 { "end" } else { "start" };
        let beside = if anchor == "end" { place - 4.0 } else { place + 4.0 };
        let _ = writeln!(
            svg,
            "<path class=\"fault\" d=\"M{place:.1} {:.1}V{bottom:.1}\"/><text class=\"red\" x=\"{beside:.1}\" y=\"{label:.1}\" text-anchor=\"{anchor}\">{}</text>",
            label - 9.0,
            escaped(&fault.what)
        );
    }
    let hidden = callers.len() - drawn.len();
    let more = if hidden > 0 {
        format!("; {hidden} callers with shorter gaps are not drawn")
    } else {
        String::new()
    };
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"12\" y=\"{:.1}\">A lane is a caller, from opening to the end. Shaded: a fault lasts. Yellow: no new text for over {GAP_S} s. Blue: a connection was replaced. Red: something was lost{more}.</text>\n</svg>",
        bottom + 36.0
    );
    svg
}

fn lane(svg: &mut String, y: f64, number: usize, caller: &Caller, x: &impl Fn(f64) -> f64) {
    let height = LANE - 2.0;
    let mut bar = |class: &str, from: f64, to: f64| {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\"/>",
            x(from),
            (x(to) - x(from)).max(1.5)
        );
    };
    let told = &caller.told;
    let class = if caller.judged.faults.is_empty() { "lane" } else { "bad" };
    bar(class, told.opened_s.unwrap_or(told.ended_s), told.ended_s);
    for pair in told.texts_s.windows(2).filter(|pair| pair[1] - pair[0] > GAP_S) {
        bar("gap", pair[0], pair[1]);
    }
    for back in &told.reconnects {
        bar("back", back.at_s, back.at_s);
    }
    if number.is_multiple_of(5) {
        let _ = writeln!(
            svg,
            "<text class=\"note\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" style=\"font-size:9px\">{number}</text>",
            LEFT - 6.0,
            y + height
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::{Reconnect, Told};
    use crate::verdict::Judged;

    fn caller(texts_s: &[f64], faults: &[&str]) -> Caller {
        let told = Told {
            opened_s: Some(0.0),
            texts_s: texts_s.to_vec(),
            reconnects: vec![Reconnect { at_s: 2.0, took_s: 0.1, anew: false, was_durable: true }],
            ended_s: 5.0,
            ..Told::default()
        };
        let faults = faults.iter().map(|text| (*text).to_owned()).collect();
        Caller { told, judged: Judged { faults, ..Judged::default() } }
    }

    #[test]
    fn gaps_faults_and_losses_are_in_the_picture() {
        let mark = Mark { at_s: 1.5, until_s: Some(2.5), what: "SIGKILL a<b".to_owned() };
        let callers = [caller(&[0.5, 1.0, 3.5], &[]), caller(&[0.5, 1.0], &["lost"])];
        let svg = draw("name", "about & so on", &callers, &[mark], 5.0);
        for (part, count) in [
            ("class=\"lane\"", 1),
            ("class=\"bad\"", 1),
            ("class=\"gap\"", 1),
            ("class=\"back\"", 2),
            ("class=\"lasts\"", 1),
            ("SIGKILL a&lt;b", 1),
            ("about &amp; so on", 2),
        ] {
            assert_eq!(svg.matches(part).count(), count, "{part} in {svg}");
        }
    }

    #[test]
    fn of_very_many_callers_those_that_lost_something_are_drawn() {
        let mut callers: Vec<Caller> = (0..500).map(|_| caller(&[0.0, 4.0], &[])).collect();
        callers.push(caller(&[0.0], &["lost"]));
        let svg = draw("name", "about", &callers, &[], 5.0);
        assert_eq!((svg.matches("class=\"lane\"").count(), svg.matches("class=\"bad\"").count()), (99, 1));
        assert!(svg.contains("401 callers"), "{svg}");
    }
}

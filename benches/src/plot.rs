//! Lines of a comparison as a picture (SVG): one row each.

use std::fmt::Write;

use crate::report::{Bar, Line, Verdict};

/// A row for each line that has a bar: the ratio as a dot, the quartiles as a line through it, the
/// bar as a mark across. What is beyond the right edge stands there as a triangle. Colours change
/// with the reader's preference for light or dark; without one they can be read on both.
#[must_use]
pub fn svg(title: &str, lines: &[Line]) -> String {
    let rows: Vec<_> = lines.iter().filter(|line| line.bar != Bar::None).collect();
    let bottom = TOP + ROW * rows.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" font-family=\"{FONT}\" \
         font-size=\"12\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <text class=\"title\" x=\"8\" y=\"20\" font-size=\"14\">{title}</text>\n",
        height = bottom + 28,
        title = escaped(title),
    );
    for tick in 0..=4 {
        let ratio = f64::from(tick) * 0.5;
        let x = place(ratio);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"quiet\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{ratio:.1}</text>",
            bottom + 16
        );
    }
    for (number, line) in rows.iter().enumerate() {
        row(&mut svg, TOP + ROW * number + ROW / 2, line);
    }
    svg.push_str("</svg>\n");
    svg
}

fn row(svg: &mut String, y: usize, line: &Line) {
    let class = if line.verdict() == Verdict::Fail { "fail" } else { "pass" };
    let (base, ratio) = (y + 4, &line.ratio);
    let what = escaped(&format!("{}  {}", line.goal, line.what));
    let _ = writeln!(svg, "<text class=\"text\" x=\"8\" y=\"{base}\">{what}</text>");
    if line.rounds > 1 {
        let (low, high) = (place(ratio.low), place(ratio.high));
        let _ = writeln!(
            svg,
            "<line class=\"{class} spread\" x1=\"{low:.1}\" y1=\"{y}\" x2=\"{high:.1}\" \
             y2=\"{y}\"/>"
        );
    }
    let x = place(ratio.median);
    let _ = if ratio.median <= RATIO_MAX {
        writeln!(svg, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y}\" r=\"4\"/>")
    } else {
        let [left, up, down] = [x - 7.0, y as f64 - 4.0, y as f64 + 4.0];
        let points = format!("{left:.1},{up:.1} {x:.1},{y} {left:.1},{down:.1}");
        writeln!(svg, "<polygon class=\"{class}\" points=\"{points}\"/>")
    };
    if let Some(bar) = line.bar_ratio().filter(|bar| *bar <= RATIO_MAX) {
        let (x, up, down) = (place(bar), y - 7, y + 7);
        let _ = writeln!(
            svg,
            "<line class=\"bar\" x1=\"{x:.1}\" y1=\"{up}\" x2=\"{x:.1}\" y2=\"{down}\"/>"
        );
    }
    let said = match line.verdict() {
        Verdict::Fail => "fail",
        Verdict::Pass | Verdict::Open => "pass",
    };
    let said = format!("{:.2} of {}, {said}", ratio.median, line.rival);
    let x = RIGHT + 12;
    let said = escaped(&said);
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x}\" y=\"{base}\">{said}</text>");
}

/// Where a ratio is from left to right.
fn place(ratio: f64) -> f64 {
    let part = if ratio.is_nan() { 0.0 } else { (ratio / RATIO_MAX).clamp(0.0, 1.0) };
    LEFT as f64 + (RIGHT - LEFT) as f64 * part
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "\
.title,.text{fill:#6e7781}.quiet{fill:#818b98}.grid{stroke:#818b98;stroke-opacity:.35}\
.bar{stroke:#818b98;stroke-width:2.5}.pass{fill:#2f8f5b}.fail{fill:#d1494e}\
.spread{stroke-width:2}.pass.spread{stroke:#2f8f5b}.fail.spread{stroke:#d1494e}\
@media(prefers-color-scheme:light){.title,.text{fill:#1f2328}.bar{stroke:#1f2328}\
.quiet{fill:#59636e}.pass{fill:#1a7f37}.pass.spread{stroke:#1a7f37}}\
@media(prefers-color-scheme:dark){.title,.text{fill:#e6edf3}.bar{stroke:#e6edf3}\
.quiet{fill:#9198a1}.pass{fill:#3fb950}.pass.spread{stroke:#3fb950}\
.fail{fill:#f85149}.fail.spread{stroke:#f85149}}";
const FONT: &str = "system-ui, sans-serif";
const WIDTH: usize = 980;
const TOP: usize = 36;
const ROW: usize = 22;
const LEFT: usize = 430;
const RIGHT: usize = 770;
const RATIO_MAX: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Goal;

    fn line(goal: u8, ours: f64, bar: Bar) -> Line {
        Line::measured(goal, "a < b & \"c\"", "nginx", [&[ours; 3], &[1.0; 3]], bar)
    }

    /// The names of the elements in their order; panics where one is not closed.
    fn elements(svg: &str) -> Vec<&str> {
        let (mut open, mut names, mut rest) = (Vec::new(), Vec::new(), svg);
        while let Some((text, more)) = rest.split_once('<') {
            let is_text =
                |part: &str| !part.contains('>') && !part.contains('"') || part.is_empty();
            assert!(is_text(text), "{text}");
            let (tag, more) = more.split_once('>').expect("an end of a tag");
            rest = more;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{tag}");
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.split([' ', '/']).next().expect("a name");
            names.push(name);
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?} is open");
        names
    }

    #[test]
    fn it_is_well_formed_with_a_row_for_each_bar() {
        let goal = Bar::Ratio(Goal { pass: 0.5, stretch: 0.4 });
        let lines = [line(1, 0.3, goal), line(3, 1.2, Bar::None), line(12, 3.0, goal)];
        let svg = svg("Otter & others", &lines);
        let names = elements(&svg);
        let count = |name| names.iter().filter(|found| **found == name).count();
        // What is far beyond the edge is no dot.
        assert_eq!((count("circle"), count("polygon")), (1, 1));
        assert_eq!(svg.matches("class=\"bar\"").count(), 2);
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;</text>"), "{svg}");
        assert!(svg.contains("3.00 of nginx, fail"), "{svg}");
    }

    #[test]
    fn nothing_is_drawn_beyond_the_edges() {
        let places = [-1.0, 0.0, 1.0, 2.0, 9.0, f64::INFINITY, f64::NAN].map(place);
        assert_eq!(places, [430.0, 430.0, 600.0, 770.0, 770.0, 770.0, 430.0]);
    }
}

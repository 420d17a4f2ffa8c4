//! One line per figure: what, the target, what was measured, and whether that is met.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::fmt::{self, Display, Write};

/// The figures of a run.
#[derive(Default)]
pub(super) struct Table(Vec<Line>);

struct Line {
    what: String,
    target: String,
    measured: String,
    /// None where nothing is promised.
    met: Option<bool>,
}

impl Table {
    /// Something of which there shall be at least so much.
    pub(super) fn at_least(&mut self, what: &str, target: f64, measured: f64, unit: &str) {
        self.line(what, "≥", target, measured, unit, measured >= target);
    }

    /// Something of which there shall be at most so much.
    pub(super) fn at_most(&mut self, what: &str, target: f64, measured: f64, unit: &str) {
        self.line(what, "≤", target, measured, unit, measured <= target);
    }

    /// Something of which nothing is promised.
    pub(super) fn told(&mut self, what: &str, measured: f64) {
        let line = Line {
            what: what.to_owned(),
            target: String::new(),
            measured: number(measured),
            met: None,
        };
        println!("{}: {}", line.what, line.measured);
        self.0.push(line);
    }

    /// Tells it at once: a run takes minutes.
    fn line(&mut self, what: &str, sign: &str, target: f64, measured: f64, unit: &str, met: bool) {
        let line = Line {
            what: what.to_owned(),
            target: format!("{sign} {} {unit}", number(target)),
            measured: format!("{} {unit}", number(measured)),
            met: Some(met),
        };
        println!("{}: {} ({})", line.what, line.measured, line.target);
        self.0.push(line);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |of: fn(&Line) -> &str, least: usize| {
            let widths = self.0.iter().map(|line| of(line).chars().count());
            widths.chain([least]).max().unwrap_or(least)
        };
        let (what, target) = (widest(|line| &line.what, 4), widest(|line| &line.target, 6));
        let measured = widest(|line| &line.measured, 8);
        writeln!(f, "{:<what$}  {:<target$}  {:<measured$}", "what", "target", "measured")?;
        for line in &self.0 {
            let met = match line.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            writeln!(
                f,
                "{:<what$}  {:<target$}  {:<measured$}  {met}",
                line.what, line.target, line.measured
            )?;
        }
        Ok(())
    }
}

/// A number as people write it: thousands apart, two digits behind the point below 100.
fn number(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            let _ = text.write_char(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_told_as_missed() {
        let mut table = Table::default();
        table.at_least("verified", 200_000.0, 199_999.0, "/s");
        table.at_most("slower", 2.0, 1.25, "times");
        table.told("cycles", 7.0);
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].contains("≥ 200,000 /s") && lines[1].contains("199,999 /s") && lines[1].ends_with("MISSED"));
        assert!(lines[2].contains("1.25 times") && lines[2].ends_with("met") && !lines[2].contains("MISSED"));
    }
}

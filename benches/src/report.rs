//! What the rounds gave, as one table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::scenario::{Sample, Scenario, Target};

/// The samples of one round by scenario.
pub type Round = BTreeMap<Scenario, Sample>;

/// The middle of some values, the upper one of an even number; NaN of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A figure over the rounds: median, least, most.
fn spread(rounds: &[Round], figure: impl Fn(&Round) -> Option<f64>) -> Option<[f64; 3]> {
    let values: Vec<f64> = rounds.iter().filter_map(figure).collect();
    let least = values.iter().copied().reduce(f64::min)?;
    let most = values.iter().copied().reduce(f64::max)?;
    Some([median(values), least, most])
}

fn of(scenario: Scenario, figure: impl Fn(&Sample) -> f64) -> impl Fn(&Round) -> Option<f64> {
    move |round| round.get(&scenario).map(&figure)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// CPU seconds for a million rows.
fn cpu(sample: &Sample) -> f64 {
    sample.usage.cpu.as_secs_f64() * 1e6 / sample.count.max(1) as f64
}

/// The table: a line for each scenario, then a line for each target.
#[must_use]
pub fn table(rounds: &[Round]) -> String {
    let mut out = format!(
        "{:<17} {:>10} {:>21}  {:>8} {:>8} {:>8}  {:>9} {:>7} {:>8}  {:>9}\n",
        "scenario", "median/s", "min..max", "p50 ms", "p99 ms", "max ms", "CPU s/M", "gen s/M", "peak MB", "bytes/row"
    );
    for scenario in Scenario::ALL {
        let Some([rate, least, most]) = spread(rounds, of(*scenario, Sample::rate)) else { continue };
        let middle = |figure: fn(&Sample) -> f64| spread(rounds, of(*scenario, figure)).map_or(f64::NAN, |[m, ..]| m);
        let latency = |share: f64| {
            spread(rounds, of(*scenario, move |sample| millis(sample.latencies.quantile(share))))
                .map_or(f64::NAN, |[m, ..]| m)
        };
        let has_latencies = rounds.iter().any(|round| round.get(scenario).is_some_and(|s| s.latencies.count() > 0));
        let [p50, p99, max] = if has_latencies {
            [latency(0.5), latency(0.99), middle(|sample| millis(sample.latencies.max()))].map(|ms| format!("{ms:.2}"))
        } else {
            [const { String::new() }; 3]
        };
        let per_row = |sample: &Sample| sample.usage.written as f64 / sample.count.max(1) as f64;
        writeln!(
            out,
            "{:<17} {rate:>10.0} {:>21}  {p50:>8} {p99:>8} {max:>8}  {:>9.2} {:>7.2} {:>8.1}  {:>9.0}",
            scenario.name(),
            format!("{least:.0}..{most:.0}"),
            middle(cpu),
            middle(|sample| sample.generator.as_secs_f64() * 1e6 / sample.count.max(1) as f64),
            middle(|sample| sample.usage.peak_memory as f64 / f64::from(1 << 20)),
            middle(per_row),
        )
        .ok();
    }
    let verdicts = verdicts(rounds);
    if !verdicts.is_empty() {
        writeln!(out, "\n{:<17} {:<44} {:>9} {:>17}  {:>7}", "target", "", "median", "min..max", "asked").ok();
    }
    for verdict in verdicts {
        let [median, least, most] = verdict.figures;
        writeln!(
            out,
            "{:<17} {:<44} {median:>9.2} {:>17}  {:>7}  {}",
            verdict.scenario.name(),
            verdict.what,
            format!("{least:.2}..{most:.2}"),
            verdict.asked,
            if verdict.met { "met" } else { "MISSED" }
        )
        .ok();
    }
    out
}

/// How a target came out.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whose target.
    pub scenario: Scenario,
    /// What is measured, in words.
    pub what: String,
    /// Median, least and most of the rounds.
    pub figures: [f64; 3],
    /// What was asked for.
    pub asked: String,
    /// Whether the median is as asked.
    pub met: bool,
}

/// All targets of the scenarios that ran with what they are compared with.
#[must_use]
pub fn verdicts(rounds: &[Round]) -> Vec<Verdict> {
    let targets =
        Scenario::ALL.iter().flat_map(|scenario| scenario.targets().into_iter().map(move |target| (*scenario, target)));
    targets.filter_map(|(scenario, target)| verdict(rounds, scenario, target)).collect()
}

fn verdict(rounds: &[Round], scenario: Scenario, target: Target) -> Option<Verdict> {
    let ratio = |other: Scenario| move |round: &Round| Some(round.get(&scenario)?.rate() / round.get(&other)?.rate());
    let (what, figures, asked, met) = match target {
        Target::Rate { of, least } => {
            let figures = spread(rounds, ratio(of))?;
            (format!("rate / {}", of.name()), figures, format!(">= {least}"), figures[0] >= least)
        }
        Target::Requests(least) => {
            let figures = spread(rounds, |round| {
                let syncs = 64.0 * round.get(&Scenario::Fdatasync)?.rate();
                Some(round.get(&scenario)?.rate() / round.get(&Scenario::RestEmpty)?.rate().min(syncs))
            })?;
            ("rate / min(64 fdatasync, rest-empty)".to_owned(), figures, format!(">= {least}"), figures[0] >= least)
        }
        Target::Near(of) => {
            let figures = spread(rounds, ratio(of))?;
            (format!("rate / {}", of.name()), figures, "0.8..1.25".to_owned(), (0.8..=1.25).contains(&figures[0]))
        }
        Target::Latency => {
            let figures = spread(rounds, of(scenario, |sample| millis(sample.latencies.quantile(0.99))))?;
            let limit =
                median(rounds.iter().filter_map(|round| Some(2e4 / round.get(&Scenario::Fdatasync)?.rate())).collect());
            let limit = limit.max(20.0);
            ("p99 of the acknowledgements, ms".to_owned(), figures, format!("< {limit:.1}"), figures[0] < limit)
        }
        Target::Memory(limit) => {
            let figures = spread(rounds, of(scenario, |sample| sample.usage.peak_memory as f64 / f64::from(1 << 20)))?;
            ("peak memory, MB".to_owned(), figures, format!("< {limit}"), figures[0] < limit)
        }
    };
    Some(Verdict { scenario, what, figures, asked, met })
}

/// Everything as JSON, each round's figures by scenario.
#[must_use]
pub fn json(rounds: &[Round]) -> Value {
    let sample = |sample: &Sample| {
        json!({
            "count": sample.count,
            "seconds": sample.elapsed.as_secs_f64(),
            "rate": sample.rate(),
            "p50_ms": millis(sample.latencies.quantile(0.5)),
            "p99_ms": millis(sample.latencies.quantile(0.99)),
            "max_ms": millis(sample.latencies.max()),
            "cpu_seconds": sample.usage.cpu.as_secs_f64(),
            "generator_cpu_seconds": sample.generator.as_secs_f64(),
            "peak_memory_bytes": sample.usage.peak_memory,
            "written_bytes": sample.usage.written,
        })
    };
    let round = |round: &Round| -> Value {
        round.iter().map(|(scenario, figures)| (scenario.name().to_owned(), sample(figures))).collect()
    };
    let verdict = |verdict: Verdict| {
        json!({
            "scenario": verdict.scenario.name(),
            "what": verdict.what,
            "median": verdict.figures[0],
            "min": verdict.figures[1],
            "max": verdict.figures[2],
            "asked": verdict.asked,
            "met": verdict.met,
        })
    };
    json!({
        "rounds": rounds.iter().map(round).collect::<Vec<_>>(),
        "targets": verdicts(rounds).into_iter().map(verdict).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;
    use crate::process::Usage;

    fn sample(count: u64) -> Sample {
        let usage = Usage { cpu: Duration::from_secs(1), written: count * 200, peak_memory: 30 << 20 };
        let elapsed = Duration::from_secs(1);
        Sample { count, elapsed, latencies: Histogram::default(), usage, generator: Duration::ZERO }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rounds: Vec<Round> = [(100, 60), (1000, 400), (10, 5)]
            .into_iter()
            .map(|(l, mqtt)| Round::from([(Scenario::Loop, sample(l)), (Scenario::Mqtt8x1000, sample(mqtt))]))
            .collect();
        let verdicts = verdicts(&rounds);
        assert_eq!(verdicts.len(), 2, "mosquitto did not run: {verdicts:?}");
        assert_eq!((verdicts[0].figures, verdicts[0].met), ([0.5, 0.4, 0.6], true));
        assert_eq!((verdicts[1].figures, verdicts[1].met), ([30.0; 3], true));
        let text = table(&rounds);
        assert!(text.contains("mqtt-8x1000               60                5..400"), "{text}");
        assert_eq!(json(&rounds)["rounds"][1]["L"]["count"], 1000);
    }
}

//! How costs grow with the number of things: exponents of time over number, on the host and in the sandbox.
//!
//! `benches/scale.c` doubles the number of threads, descriptors, mounts, ... and says what making, using and ending them took.
//! A line through the last three points, on logarithmic scales, has the exponent for its slope: 1 is linear.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::test::{Ending, Files, Job, Network, Place, Runner, Writable, tail};

const TIMEOUT: Duration = Duration::from_secs(900);
/// n log n has 1.1 at these sizes, and caches that no longer hold all make it somewhat more.
const SUSPECT: f64 = 1.35;
/// Below this a step says more of the noise than of its growth.
const LEAST_NS: f64 = 1e6;

/// The points of one row in one place: a number of things and the time for all of them, ascending.
type Points = Vec<(f64, f64)>;

/// Measures in each place, and prints a table with what each thing costs at the largest number, and the exponents.
pub fn run(runner: &mut Runner, places: &[Place], kinds: &[String]) -> Result<()> {
    let root = super::guest_root("scale")?;
    let mut rows: BTreeMap<String, BTreeMap<&'static str, Points>> = BTreeMap::new();
    let mut order = Vec::new();
    for &place in places {
        let mut arguments = vec!["/bin/scale".to_string()];
        arguments.extend_from_slice(kinds);
        let files = Files { writable: Writable::Homes, ..Files::default() };
        let job = Job { name: "scale", root: &root, arguments, network: Network::default(), files, timeout: TIMEOUT };
        let outcome = runner.run(place, &job)?;
        if outcome.ending != Ending::Exited(0) || !outcome.stderr.is_empty() {
            eprintln!("{}: {}{}", place.name(), outcome.ending, tail(&outcome.stderr, 20));
        }
        for line in String::from_utf8_lossy(&outcome.stdout).lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, n, ns] = words[..] else { continue };
            let (Ok(n), Ok(ns)) = (n.parse(), ns.parse()) else { continue };
            if !rows.contains_key(name) {
                order.push(name.to_string());
            }
            rows.entry(name.to_string()).or_default().entry(place.name()).or_default().push((n, ns));
        }
    }
    print!("{:24}{:>8}", "", "n");
    for place in places {
        print!("{:>24}", place.name());
    }
    println!();
    for name in order {
        let row = &rows[&name];
        let most = row.values().filter_map(|points| points.last()).map(|(n, _)| *n).fold(0.0, f64::max);
        print!("{name:24}{most:>8}");
        for place in places {
            print!("{:>24}", row.get(place.name()).map_or("-".to_string(), cell));
        }
        println!();
    }
    Ok(())
}

/// The time for each thing at the largest number, and the exponent, marked if it is a large one.
fn cell(points: &Points) -> String {
    let Some(&(n, ns)) = points.last() else { return "-".to_string() };
    let each = ns / n / 1000.0;
    match exponent(points) {
        Some(e) => format!("{each:.2} us n^{e:.2}{}", if e > SUSPECT { "!" } else { " " }),
        None => format!("{each:.2} us        "),
    }
}

/// The slope of the least squares' line through the last three points, if they are long enough to mean something.
fn exponent(points: &Points) -> Option<f64> {
    let last = &points[points.len().saturating_sub(3)..];
    if last.len() < 2 || last.last()?.1 < LEAST_NS {
        return None;
    }
    let logs: Vec<(f64, f64)> = last.iter().map(|(n, ns)| (n.ln(), ns.max(1.0).ln())).collect();
    let count = logs.iter().map(|_| 1.0).sum::<f64>();
    let (x, y) = (logs.iter().map(|p| p.0).sum::<f64>() / count, logs.iter().map(|p| p.1).sum::<f64>() / count);
    let above: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let below: f64 = logs.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    Some(above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(power: f64) -> Points {
        [1000.0f64, 2000.0, 4000.0, 8000.0].map(|n| (n, 1000.0 * n.powf(power))).to_vec()
    }

    #[test]
    fn the_exponent_is_that_of_the_points() {
        for power in [1.0, 2.0] {
            let found = exponent(&of(power)).unwrap();
            assert!((found - power).abs() < 1e-6, "{found}");
        }
        assert_eq!(exponent(&vec![(10.0, 100.0), (20.0, 200.0)]), None);
    }

    #[test]
    fn growth_is_marked() {
        assert!(cell(&of(2.0)).ends_with('!'));
        assert!(!cell(&of(1.0)).ends_with('!'));
    }
}

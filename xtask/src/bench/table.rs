//! Collects measurements and prints medians and their ratios to native.

use crate::test::Place;

/// Measurements by name, in the order of their first appearance.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, Vec<(Place, f64)>)>,
}

impl Table {
    /// One more measurement of a name in a place.
    pub fn add(&mut self, name: &str, place: Place, value: f64) {
        match self.rows.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push((place, value)),
            None => self.rows.push((name.to_string(), vec![(place, value)])),
        }
    }

    /// A line for each name, a column for each place: the median, and how many times native it is.
    pub fn print(&self, places: &[Place]) {
        print!("{:20}", "");
        for place in places {
            print!("{:>24}", place.name());
        }
        println!();
        for (name, values) in &self.rows {
            print!("{name:20}");
            let native = median(values, Place::Host);
            for &place in places {
                print!("{:>24}", cell(median(values, place), native));
            }
            println!();
        }
    }
}

fn cell(value: Option<f64>, native: Option<f64>) -> String {
    match (value, native) {
        (None, _) => "-".to_string(),
        (Some(v), Some(n)) if n > 0.0 => format!("{} {:>7.2}x", quantity(v), v / n),
        (Some(v), _) => format!("{} {:>8}", quantity(v), ""),
    }
}

fn quantity(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e3 => format!("{:.2}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

fn median(values: &[(Place, f64)], place: Place) -> Option<f64> {
    let mut own: Vec<f64> = values.iter().filter(|(p, _)| *p == place).map(|(_, v)| *v).collect();
    own.sort_by(f64::total_cmp);
    own.get(own.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_by_place() {
        let values = [(Place::Host, 3.0), (Place::Host, 1.0), (Place::Runsc, 9.0), (Place::Host, 2.0)];
        assert_eq!(median(&values, Place::Host), Some(2.0));
        assert_eq!(median(&values, Place::Runsc), Some(9.0));
        assert_eq!(median(&[], Place::Host), None);
    }

    #[test]
    fn cells_show_the_ratio() {
        assert_eq!(cell(Some(3000.0), Some(1500.0)), "3.00k    2.00x");
        assert_eq!(cell(None, Some(1.0)), "-");
    }
}

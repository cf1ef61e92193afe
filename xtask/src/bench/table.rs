//! Collects measurements and prints medians and their ratios to those of the first column.

/// A column's name and a value.
type Measurement = (&'static str, f64);

/// Measurements by name and column (what was measured, and of whom), in the order of their first appearance.
#[derive(Default)]
pub struct Table {
    rows: Vec<(String, Vec<Measurement>)>,
}

impl Table {
    /// One more measurement of a name in a column.
    pub fn add(&mut self, name: &str, column: &'static str, value: f64) {
        match self.rows.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) => values.push((column, value)),
            None => self.rows.push((name.to_string(), vec![(column, value)])),
        }
    }

    /// A line for each name: the median in each column, and how many times that of the first it is.
    pub fn print(&self, columns: &[&'static str]) {
        if self.rows.is_empty() {
            return;
        }
        print!("{:20}", "");
        for column in columns {
            print!("{column:>24}");
        }
        println!();
        for (name, values) in &self.rows {
            print!("{name:20}");
            let first = columns.first().and_then(|column| median(values, column));
            for column in columns {
                print!("{:>24}", cell(median(values, column), first));
            }
            println!();
        }
    }
}

fn cell(value: Option<f64>, first: Option<f64>) -> String {
    match (value, first) {
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

fn median(values: &[Measurement], column: &str) -> Option<f64> {
    let mut own: Vec<f64> = values.iter().filter(|(c, _)| *c == column).map(|(_, v)| *v).collect();
    own.sort_by(f64::total_cmp);
    own.get(own.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_by_column() {
        let values = [("host", 3.0), ("host", 1.0), ("runsc", 9.0), ("host", 2.0)];
        assert_eq!(median(&values, "host"), Some(2.0));
        assert_eq!(median(&values, "runsc"), Some(9.0));
        assert_eq!(median(&[], "host"), None);
    }

    #[test]
    fn cells_show_the_ratio() {
        assert_eq!(cell(Some(3000.0), Some(1500.0)), "3.00k    2.00x");
        assert_eq!(cell(None, Some(1.0)), "-");
    }
}

//! Collects measurements and prints medians and their ratios to those of the first column.

use anyhow::{Context, Result};

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

    /// A line for each name: the median in each column, how many times that of the first it is, and the spread.
    pub fn print(&self, columns: &[&'static str]) {
        if self.rows.is_empty() {
            return;
        }
        print!("{:20}", "");
        for column in columns {
            print!("{column:>26}");
        }
        println!();
        for (name, cells) in self.cells(columns) {
            print!("{name:20}");
            for cell in cells {
                print!("{cell:>26}");
            }
            println!();
        }
    }

    /// The same as a table of Markdown.
    pub fn markdown(&self, columns: &[&'static str]) -> String {
        let mut text = format!("| | {} |\n|---{}|\n", columns.join(" | "), "|---".repeat(columns.len()));
        for (name, cells) in self.cells(columns) {
            let cells: Vec<String> = cells.iter().map(|c| c.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            text.push_str(&format!("| {name} | {} |\n", cells.join(" | ")));
        }
        text
    }

    fn cells<'a>(&'a self, columns: &'a [&'static str]) -> impl Iterator<Item = (&'a str, Vec<String>)> {
        self.rows.iter().map(move |(name, values)| {
            let of = |column: &&'static str| Quartiles::of(values, column);
            let first = columns.first().and_then(of);
            (name.as_str(), columns.iter().map(|column| cell(of(column), first)).collect())
        })
    }
}

const BEGIN: &str = "<!-- cargo x bench --write: from here -->\n";
const END: &str = "<!-- to here -->";

/// Replaces what stands between the marks of a record.
pub fn replace(record: &str, table: &str) -> Result<String> {
    let (before, rest) = record.split_once(BEGIN).context("no place for a table in it")?;
    let (_, after) = rest.split_once(END).context("no end of the table in it")?;
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

fn cell(value: Option<Quartiles>, first: Option<Quartiles>) -> String {
    match (value, first) {
        (None, _) => "-".to_string(),
        (Some(v), Some(n)) if n.median > 0.0 => {
            format!("{} {:>7.2}x {:>4}", quantity(v.median), v.median / n.median, v.spread())
        }
        (Some(v), _) => format!("{} {:>8} {:>4}", quantity(v.median), "", v.spread()),
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

/// The middle of the measurements, and between what the middle half of them lies.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Quartiles {
    low: f64,
    median: f64,
    high: f64,
}

impl Quartiles {
    fn of(values: &[Measurement], column: &str) -> Option<Quartiles> {
        let mut own: Vec<f64> = values.iter().filter(|(c, _)| *c == column).map(|(_, v)| *v).collect();
        own.sort_by(f64::total_cmp);
        let at = |n: usize| own.get(own.len() * n / 4).copied();
        Some(Quartiles { low: at(1)?, median: at(2)?, high: at(3)? })
    }

    /// Half of the distance between the quartiles, of the median.
    fn spread(&self) -> String {
        if self.median > 0.0 {
            format!("±{:.0}%", (self.high - self.low) / 2.0 / self.median * 100.0)
        } else {
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_by_column() {
        let values = [("host", 3.0), ("host", 1.0), ("runsc", 9.0), ("host", 2.0)];
        assert_eq!(Quartiles::of(&values, "host"), Some(Quartiles { low: 1.0, median: 2.0, high: 3.0 }));
        assert_eq!(Quartiles::of(&values, "runsc"), Some(Quartiles { low: 9.0, median: 9.0, high: 9.0 }));
        assert_eq!(Quartiles::of(&[], "host"), None);
    }

    #[test]
    fn cells_show_the_ratio_and_the_spread() {
        let of = |low, median, high| Some(Quartiles { low, median, high });
        assert_eq!(cell(of(2700.0, 3000.0, 3300.0), of(1500.0, 1500.0, 1500.0)), "3.00k    2.00x ±10%");
        assert_eq!(cell(None, of(1.0, 1.0, 1.0)), "-");
    }

    #[test]
    fn a_record_keeps_what_is_around_the_table() {
        let record = format!("above\n{BEGIN}old\n{END}\nbelow\n");
        assert_eq!(replace(&record, "new\n").unwrap(), format!("above\n{BEGIN}new\n{END}\nbelow\n"));
        assert!(replace("nothing", "new").is_err());
    }
}

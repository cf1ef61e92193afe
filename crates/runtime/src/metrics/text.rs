//! [`write()`]: families as text, in Prometheus' format (version 0.0.4) and in OpenMetrics (1.0.0).
//!
//! Values of labels may be anything that a guest, or the caller of a client, chose: they are escaped as both formats say, so that no
//! value can end its line or begin another sample.

use std::fmt::Write as _;

use super::families::{Family, Kind, Prefix, Sample};

/// A format of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format.
    Prometheus,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// The format that a header `Accept` asks for; a client that says nothing has the older one.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Families as text.
#[must_use]
pub fn write(families: &[Family], prefix: &Prefix, format: Format) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let name = if family.is_of_process { family.name.to_owned() } else { format!("{prefix}{}", family.name) };
        // In OpenMetrics a counter's samples, and no family, end so.
        let (of_family, of_sample) = match (format, family.kind) {
            (Format::OpenMetrics, Kind::Counter | Kind::PlainCounter) => (name.clone(), format!("{name}_total")),
            (Format::Prometheus, Kind::Counter) => (format!("{name}_total"), format!("{name}_total")),
            _ => (name.clone(), name),
        };
        let kind = match family.kind {
            Kind::Counter | Kind::PlainCounter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {of_family} {}", escape_help(family.help, format));
        let _ = writeln!(text, "# TYPE {of_family} {kind}");
        family.samples.iter().for_each(|sample| line(&mut text, &of_sample, sample));
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn line(text: &mut String, name: &str, sample: &Sample) {
    text.push_str(name);
    for (index, (label, value)) in sample.labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(value));
    }
    if !sample.labels.is_empty() {
        text.push('}');
    }
    let _ = writeln!(text, " {}", sample.value);
}

/// A label's value as both formats have it.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            // Nothing that a terminal or a parser of lines might take for more than a character.
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn escape_help(help: &str, format: Format) -> String {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    if format == Format::OpenMetrics { help.replace('"', "\\\"") } else { help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(kind: Kind, labels: Vec<(&'static str, String)>) -> Family {
        let samples = vec![Sample { labels, value: 2.5 }];
        Family { name: "things", help: "What \"there\" is\\.", kind, is_of_process: false, samples }
    }

    #[test]
    fn both_formats() {
        let prefix: Prefix = "moat_".parse().unwrap();
        let of = |kind, format| write(&[family(kind, vec![("a", "b".into())])], &prefix, format);
        assert_eq!(
            of(Kind::Counter, Format::Prometheus),
            "# HELP moat_things_total What \"there\" is\\\\.\n# TYPE moat_things_total counter\nmoat_things_total{a=\"b\"} 2.5\n"
        );
        assert_eq!(
            of(Kind::PlainCounter, Format::OpenMetrics),
            "# HELP moat_things What \\\"there\\\" is\\\\.\n# TYPE moat_things counter\nmoat_things_total{a=\"b\"} 2.5\n# EOF\n"
        );
        assert!(of(Kind::Gauge, Format::Prometheus).ends_with("gauge\nmoat_things{a=\"b\"} 2.5\n"));
    }

    #[test]
    fn hostile_values_stay_in_their_line() {
        let evil = "x\"} 1\nmoat_evil{a=\"\\\n\r\u{1b}[2J\u{2028}\0";
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = write(&[family(Kind::Gauge, vec![("a", evil.into())])], &"".parse().unwrap(), format);
            let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(
                samples,
                ["things{a=\"x\\\"} 1\\nmoat_evil{a=\\\"\\\\\\n\u{fffd}\u{fffd}[2J\u{2028}\u{fffd}\"} 2.5"]
            );
        }
    }

    #[test]
    fn a_real_parser_reads_it_back() {
        let evil = "a\\b\"c,d={}e} 1\nf";
        let families = [family(Kind::Counter, vec![("x", evil.into()), ("y", "z".into())])];
        let prefix: Prefix = "p_".parse().unwrap();
        let text = write(&families, &prefix, Format::Prometheus);
        let parsed = openmetrics_parser::prometheus::parse_prometheus(&text).unwrap();
        let samples: Vec<_> = parsed.families["p_things_total"].iter_samples().collect();
        let labels = samples[0].get_labelset().unwrap();
        assert_eq!((samples.len(), labels.get_label_value("y")), (1, Some("z")));
        assert_eq!(labels.get_label_value("x"), Some(evil));
        let text = write(&families, &prefix, Format::OpenMetrics);
        let parsed = openmetrics_parser::openmetrics::parse_openmetrics(&text).unwrap();
        assert_eq!(parsed.families["p_things"].iter_samples().count(), 1);
    }

    #[test]
    fn formats_are_chosen_by_accept() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!([Format::accepted(""), Format::accepted("*/*")], [Format::Prometheus; 2]);
    }
}

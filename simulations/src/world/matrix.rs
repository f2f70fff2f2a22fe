//! A file of latencies between locations.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::spans::millis;
use crate::delimited;

/// Latencies between named locations.
#[derive(Clone, Debug)]
pub(super) struct LatencyMatrix {
    names: BTreeMap<String, usize>,
    /// Row by row.
    latencies: Vec<Duration>,
}

impl LatencyMatrix {
    /// Reads a CSV file whose first row and first column have the names of the locations.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the latencies in {}", path.display()))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, file: &str) -> anyhow::Result<Self> {
        let text = delimited::without_mark(text);
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let Some((_, head)) = lines.next() else { bail!("{file}, line 1: the file is empty") };
        let separator = match delimited::separators(head, 2).as_slice() {
            [] => ',',
            [one] => *one,
            _ => bail!(
                "{file}, line 1: several characters may separate the cells here: use commas alone, and a point in decimals"
            ),
        };
        let cells = |line, at: &str| {
            delimited::cells(line, separator).map_err(|why| anyhow::anyhow!("{at}: {why}"))
        };
        let head = cells(head, &format!("{file}, line 1"))?;
        let columns: Vec<&str> = head.iter().skip(1).map(AsRef::as_ref).collect();
        let mut names = BTreeMap::new();
        for (index, name) in columns.iter().enumerate() {
            if name.is_empty() || names.insert((*name).to_owned(), index).is_some() {
                bail!("{file}, line 1: column {} needs a name of its own", index + 2);
            }
        }
        if columns.is_empty() {
            bail!("{file}, line 1: the first row must name the places, from the second column on");
        }
        let mut latencies = Vec::with_capacity(columns.len() * columns.len());
        let mut rows = 0;
        for (number, line) in lines {
            let at = format!("{file}, line {}", number + 1);
            let row = cells(line, &at)?;
            let mut cells = row.iter().map(AsRef::as_ref);
            let name = cells.next().unwrap_or_default();
            if columns.get(rows) != Some(&name) {
                let wanted = columns.get(rows).copied().unwrap_or("the end of the file");
                bail!("{at}: row of \"{name}\" where {wanted} is expected, as in the first row");
            }
            let before = latencies.len();
            for cell in cells {
                let ms = cell.parse::<f64>().ok().filter(|ms| (0.0..=60_000.0).contains(ms));
                let Some(ms) = ms else {
                    bail!(
                        "{at}: \"{cell}\" must be a latency of 0 to 60000 milliseconds, with a point in decimals"
                    );
                };
                latencies.push(millis(ms));
            }
            if latencies.len() - before != columns.len() {
                let found = latencies.len() - before;
                bail!("{at}: {found} latencies where {} are expected", columns.len());
            }
            rows += 1;
        }
        if rows != columns.len() {
            bail!("{file}: {rows} rows where {} are expected", columns.len());
        }
        Ok(Self { names, latencies })
    }

    /// Number of locations.
    pub(super) fn locations(&self) -> usize {
        self.names.len()
    }

    /// The location of this name.
    pub(super) fn location(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// What a packet takes from one location to another.
    pub(super) fn latency(&self, from: usize, to: usize) -> Duration {
        self.latencies.get(from * self.locations() + to).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_gives_latencies_by_name() {
        let matrix = LatencyMatrix::parse(",a,b\na,1,20\nb,30,2.5\n", "m.csv").unwrap();
        let (a, b) = (matrix.location("a").unwrap(), matrix.location("b").unwrap());
        assert_eq!(matrix.latency(a, b), Duration::from_millis(20));
        assert_eq!(matrix.latency(b, a), Duration::from_millis(30));
        assert_eq!(matrix.latency(b, b), Duration::from_micros(2_500));
        assert_eq!(matrix.location("c"), None);
    }

    #[test]
    fn a_matrix_may_come_from_a_spreadsheet() {
        let plain = LatencyMatrix::parse(",a,b\na,1,20\nb,30,2.5\n", "m.csv").unwrap();
        for text in [
            "\u{feff};a;b\r\na;1;20\r\nb;30;2.5\r\n",
            "\"\",\"a\",\"b\"\n\"a\",1,20\n\"b\",\"30\",2.5\n",
            "\ta\tb\na\t1\t20\nb\t30\t2.5\n",
        ] {
            let matrix = LatencyMatrix::parse(text, "m.csv").unwrap();
            assert_eq!(matrix.latencies, plain.latencies, "{text:?}");
            assert_eq!(matrix.names, plain.names, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_matrix_is_told_with_its_line() {
        for (text, expected) in [
            ("", "m.csv, line 1: the file is empty"),
            (",a,a\n", "m.csv, line 1: column 3 needs a name of its own"),
            (",a,b\na,1\n", "m.csv, line 2: 1 latencies where 2 are expected"),
            (",a\na,x\n", "m.csv, line 2: \"x\" must be a latency"),
            (",a\na,-1\n", "m.csv, line 2: \"-1\" must be"),
            (",a,b\na,1,2\nc,1,2\n", "m.csv, line 3: row of \"c\" where b is expected"),
            (",a,b\na,1,2\n", "m.csv: 1 rows where 2 are expected"),
        ] {
            let error = LatencyMatrix::parse(text, "m.csv").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

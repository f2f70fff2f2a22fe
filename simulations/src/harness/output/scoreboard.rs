//! The scoreboard as a table and as a figure.

use std::path::Path;

use super::{Values, Writer, write_atomic};
use crate::harness::figures::{Bar, Figure};
use crate::score::scoreboard::Line;

/// Writes the lines: system, workload, attack, score, value, low, high, prior, p, and beats_prior (1 or 0).
///
/// # Errors
/// The file cannot be written.
pub fn write_scoreboard(path: &Path, lines: &[Line]) -> anyhow::Result<()> {
    let text = |value: fn(&Line) -> &str| {
        Values::Text(lines.iter().map(|line| value(line).into()).collect())
    };
    let float = |value: fn(&Line) -> f64| Values::Float(lines.iter().map(value).collect());
    let beats = lines.iter().map(|line| i64::from(line.beats_prior)).collect();
    let columns = vec![
        ("system".into(), text(|line| &line.system)),
        ("workload".into(), text(|line| &line.workload)),
        ("attack".into(), text(|line| &line.attack)),
        ("score".into(), text(|line| &line.score)),
        ("value".into(), float(|line| line.value.value)),
        ("low".into(), float(|line| line.value.low)),
        ("high".into(), float(|line| line.value.high)),
        ("prior".into(), float(|line| line.prior)),
        ("p".into(), float(|line| line.p)),
        ("beats_prior".into(), Values::Integer(beats)),
    ];
    write_atomic(path, |file| {
        Writer::new(file, columns)?.finish()?;
        Ok(())
    })
}

/// One score of one workload as a figure, systems in the order of the lines; none where no line has this score, as a number
/// that can be drawn.
pub fn scoreboard_figure(lines: &[Line], workload: &str, score: &str) -> Option<Figure> {
    let fits = |line: &&Line| line.workload == workload && line.score == score;
    let shown: Vec<&Line> =
        lines.iter().filter(fits).filter(|line| line.value.value.is_finite()).collect();
    if shown.is_empty() {
        return None;
    }
    let mut attacks: Vec<String> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for line in &shown {
        if !attacks.contains(&line.attack) {
            attacks.push(line.attack.clone());
        }
        if !names.contains(&line.system.as_str()) {
            names.push(&line.system);
        }
    }
    let bar = |system: &str, attack: &str| {
        let line = shown.iter().find(|line| line.system == system && line.attack == attack)?;
        Some(Bar { score: line.value, prior: line.prior })
    };
    let bars = |system: &&str| {
        let bars = attacks.iter().map(|attack| bar(system, attack)).collect();
        ((*system).to_owned(), bars)
    };
    let systems = names.iter().map(bars).collect();
    let score = score.replace('_', " ");
    Some(Figure::Scoreboard {
        title: format!("What attacks make of {workload} on each system"),
        y: format!("{score}, 1 is everything"),
        attacks,
        systems,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::experiment::Estimate;
    use crate::harness::output::read_columns;

    #[test]
    fn every_line_is_in_the_table_and_each_bar_is_at_its_system() {
        let line = |system: &str, attack: &str, value| Line {
            system: system.into(),
            workload: "text".into(),
            attack: attack.into(),
            score: "top_1".into(),
            value: Estimate::exact(value),
            prior: 0.01,
            p: 0.5,
            beats_prior: value > 0.5,
        };
        let lines = [line("telecom", "direct", 1.0), line("shoal", "matching", 0.02)];
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("scoreboard.parquet");
        write_scoreboard(&file, &lines).unwrap();
        read_columns(&file, |columns, _| {
            assert_eq!(columns["beats_prior"], Values::Integer(vec![1, 0]));
            assert_eq!(columns["value"], Values::Float(vec![1.0, 0.02]));
            Ok(())
        })
        .unwrap();
        assert!(scoreboard_figure(&lines, "text", "r_precision").is_none());
        let Some(Figure::Scoreboard { systems, attacks, .. }) =
            scoreboard_figure(&lines, "text", "top_1")
        else {
            panic!("another figure")
        };
        assert_eq!(attacks, ["direct", "matching"]);
        let present: Vec<_> =
            systems.iter().map(|(_, bars)| [bars[0].is_some(), bars[1].is_some()]).collect();
        assert_eq!(present, [[true, false], [false, true]]);
    }
}

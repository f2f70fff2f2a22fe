//! The scoreboard as text.

use std::fmt::Write;

use super::{Line, Requirement};

/// A table of all lines, grouped as they come, and what must hold.
pub fn table(lines: &[Line], checks: &[Requirement]) -> String {
    let head = ["system", "workload", "attack", "score", "value", "95 %", "prior", "p", ""];
    let cells = lines.iter().map(|line| {
        [
            line.system.clone(),
            line.workload.clone(),
            line.attack.clone(),
            line.score.clone(),
            format!("{:.3}", line.value.value),
            format!("{:.3} to {:.3}", line.value.low, line.value.high),
            format!("{:.4}", line.prior),
            format!("{:.4}", line.p),
            if line.beats_prior { "beats the prior".into() } else { String::new() },
        ]
    });
    let rows: Vec<[String; 9]> = std::iter::once(head.map(String::from)).chain(cells).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut out = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(out, "{cell:<width$}  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    if !checks.is_empty() {
        text.push('\n');
    }
    for check in checks {
        let mark = if check.holds { "holds" } else { "FAILS" };
        let Requirement { what, obtained, needed, .. } = check;
        let _ = writeln!(text, "{mark}  {what}: {obtained:.3} (needed: {needed})");
    }
    text
}

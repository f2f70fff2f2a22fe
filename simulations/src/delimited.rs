//! Lines of cells, as tables come from spreadsheets and other programs.

use std::borrow::Cow;

/// What may stand between cells.
pub(crate) const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// The text without the mark of UTF-8 that some programs put before it.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The separators that divide a line into so many cells or more.
pub(crate) fn separators(line: &str, least: usize) -> Vec<char> {
    let fits = |separator: &char| cells(line, *separator).is_ok_and(|cells| cells.len() >= least);
    SEPARATORS.into_iter().filter(fits).collect()
}

/// The line of the first carriage return that no line feed follows.
pub(crate) fn lone_return(text: &str) -> Option<usize> {
    let lone = |(offset, _): &(usize, &str)| {
        text.get(offset + 1..).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('\n'))
    };
    let (offset, _) = text.match_indices('\r').find(lone)?;
    Some(text.get(..offset)?.matches('\n').count() + 1)
}

/// The cells of a line; those in quotes without them (RFC 4180).
pub(crate) fn cells(line: &str, separator: char) -> Result<Vec<Cow<'_, str>>, String> {
    if !line.contains('"') {
        return Ok(line.split(separator).map(|cell| cell.trim().into()).collect());
    }
    let mut all = Vec::new();
    let mut rest = line;
    loop {
        let begin = rest.trim_start_matches(|c: char| c.is_whitespace() && c != separator);
        let Some(quoted) = begin.strip_prefix('"') else {
            let (cell, after) =
                rest.split_once(separator).map_or((rest, None), |(c, a)| (c, Some(a)));
            all.push(cell.trim().into());
            match after {
                Some(after) => rest = after,
                None => return Ok(all),
            }
            continue;
        };
        let mut cell = String::new();
        let mut left = quoted;
        loop {
            let Some((text, after)) = left.split_once('"') else {
                return Err("a quoted cell must end in the same line".into());
            };
            cell.push_str(text);
            left = after;
            // Two quotes are one.
            match left.strip_prefix('"') {
                Some(after) => {
                    cell.push('"');
                    left = after;
                }
                None => break,
            }
        }
        all.push(Cow::Owned(cell.trim().to_owned()));
        let after = left.trim_start_matches(|c: char| c.is_whitespace() && c != separator);
        match after.strip_prefix(separator) {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(all),
            None => {
                return Err(format!(
                    "after a quoted cell there must be \"{separator}\", not {after:?}"
                ));
            }
        }
    }
}

//! Names that people read on screens and in logs.

/// True if a name shows as what it is: no control characters, which could write lines of their own or speak to a
/// terminal, and none that turn the direction of text around or are not seen.
pub fn is_plain(name: &str) -> bool {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !name.chars().any(|c| c.is_control() || hidden(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_line_or_hide_is_not_plain() {
        for plain in ["Operator 1", "Zwiebelfreunde e.V.", "мир", "明", "café"] {
            assert!(is_plain(plain), "{plain}");
        }
        for hidden in ["x\nready: yes", "x\u{1b}[32m", "\u{202e}x", "a\u{200b}b", "\u{85}", "\t"] {
            assert!(!is_plain(hidden), "{hidden:?}");
        }
    }
}

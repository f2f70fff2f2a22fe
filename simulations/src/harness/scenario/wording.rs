//! What a parser says of a value, for people who do not know its types.

/// Types of the parser, and what they allow.
const TYPES: [(&str, &str); 14] = [
    ("u8", "a whole number, 0 to 255"),
    ("u16", "a whole number, 0 to 65535"),
    ("u32", "a whole number, 0 to 4294967295"),
    ("u64", "a whole number, 0 to 9223372036854775807"),
    ("usize", "a whole number, 0 to 9223372036854775807"),
    ("i64", "a whole number, -9223372036854775808 to 9223372036854775807"),
    // What no number of TOML can be.
    ("any valid TOML value", "a whole number, -9223372036854775808 to 9223372036854775807"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "text in quotes"),
    ("path string", "a path in quotes"),
    ("a sequence", "a list in brackets"),
    ("a map", "a table"),
    ("string or table", "text in quotes"),
];

/// The message on one line, with what is allowed in words.
pub(super) fn plain(message: &str) -> String {
    let message = message.trim().replace('\n', "; ");
    let found =
        ["invalid type: ", "invalid value: "].iter().find_map(|head| message.strip_prefix(head));
    let Some((found, expected)) = found.and_then(|rest| rest.split_once(", expected ")) else {
        return message.replace(" as i128", "").replace(" as u128", "");
    };
    // An integer of more than 64 bits is named with its type, and in backquotes.
    let found = found.split(" as ").next().unwrap_or(found).replace('`', "");
    let words = TYPES.iter().find(|(name, _)| *name == expected).map(|(_, words)| *words);
    // A table of settings is named by its type here.
    let words = words.unwrap_or(expected.strip_prefix("struct ").map_or(expected, |_| "a table"));
    format!("must be {words}, not {found}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_words() {
        let said = plain("invalid type: string \"ten\", expected u32");
        assert_eq!(said, "must be a whole number, 0 to 4294967295, not string \"ten\"");
        let said = plain("invalid value: integer `-1`, expected u32");
        assert_eq!(said, "must be a whole number, 0 to 4294967295, not integer -1");
        let said = plain("invalid type: integer `99999999999999999999` as i128, expected f64");
        assert_eq!(said, "must be a number, not integer 99999999999999999999");
        let said = plain("invalid type: integer `1`, expected struct NetworkSettings");
        assert_eq!(said, "must be a table, not integer 1");
        assert_eq!(plain("unknown field `x`,\nexpected `y`"), "unknown field `x`,; expected `y`");
    }
}

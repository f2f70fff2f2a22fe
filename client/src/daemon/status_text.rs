//! What a client says of itself, for people.

use std::fmt::Write as _;

use serde_json::Value;

/// The status as text: the first sentence, what to do something about, and then everything by name.
pub fn text(status: &Value) -> String {
    let mut text = String::new();
    if let Some(summary) = status["summary"].as_str() {
        let _ = writeln!(text, "{summary}");
    }
    fields(&mut text, status, 0);
    text
}

/// JSON as indented lines.
fn fields(text: &mut String, value: &Value, indent: usize) {
    for (key, value) in value.as_object().into_iter().flatten() {
        if indent == 0 && key == "summary" {
            continue;
        }
        let key = key.replace('_', " ");
        let _ = match value {
            Value::Null => Ok(()),
            Value::Array(items) if items.is_empty() => Ok(()),
            Value::Object(_) => {
                let named = writeln!(text, "{:indent$}{key}:", "");
                fields(text, value, indent + 2);
                named
            }
            Value::Array(items) => {
                let named = writeln!(text, "{:indent$}{key}:", "");
                for item in items.iter().filter_map(Value::as_str) {
                    let _ = writeln!(text, "{:indent$}  {item}", "");
                }
                named
            }
            Value::String(said) => writeln!(text, "{:indent$}{key}: {said}", ""),
            Value::Bool(is) => {
                writeln!(text, "{:indent$}{key}: {}", "", if *is { "yes" } else { "no" })
            }
            Value::Number(n) if n.is_f64() => {
                // Rounded down: what is below a floor shows as below.
                let hundredths = (n.as_f64().unwrap_or_default() * 100.0).floor() / 100.0;
                writeln!(text, "{:indent$}{key}: {hundredths:.2}", "")
            }
            other => writeln!(text, "{:indent$}{key}: {other}", ""),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_person_reads_a_sentence_first_and_no_number_is_rounded_up() {
        let status = json!({
            "ready": false, "summary": "Not protected: too few people.", "anonymity_bits": 2.9999, "none": null,
            "warnings": ["one"], "slots": { "data": 7 },
        });
        let text = text(&status);
        assert!(text.starts_with("Not protected: too few people.\n"), "{text}");
        for line in ["anonymity bits: 2.99", "ready: no", "  one", "  data: 7"] {
            assert!(text.lines().any(|of| of == line), "{line}: {text}");
        }
        assert!(!text.contains("none"), "{text}");
    }
}

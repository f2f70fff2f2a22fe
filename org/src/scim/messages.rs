//! What goes back and forth in JSON: users, lists, patches, errors.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::accounts::Known;
use super::error::ScimError;

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
const CONFIG: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";

/// What this endpoint can do.
pub(super) fn provider_config() -> Value {
    let no = json!({ "supported": false });
    json!({
        "schemas": [CONFIG],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": super::PAGE },
        "changePassword": no, "sort": no, "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken", "name": "Bearer token", "description": "The token in the file keys/scim.token", "primary": true,
        }],
    })
}

/// A user, as providers read one.
pub(super) fn user(known: &Known) -> Value {
    json!({
        "schemas": [USER],
        "id": known.id(),
        "userName": known.account,
        "displayName": known.name,
        "name": { "formatted": known.name },
        "active": known.active,
        "meta": { "resourceType": "User" },
    })
}

/// A page of users.
pub(super) fn list(total: usize, start: usize, page: Vec<Value>) -> Value {
    json!({
        "schemas": [LIST],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": page.len(),
        "Resources": page,
    })
}

/// The account that a filter looks for; `None` if it looks for what nobody has here. There is `attribute eq "value"`, which is all that
/// providers ask with.
///
/// # Errors
/// It is another filter.
pub(super) fn filtered(filter: &str) -> Result<Option<String>, ScimError> {
    let wrong = || ScimError::of("invalidFilter", "there is: userName eq \"…\"");
    let filter = filter.trim();
    let (attribute, rest) = filter.split_once(char::is_whitespace).ok_or_else(wrong)?;
    let (operator, value) = rest.trim_start().split_once(char::is_whitespace).ok_or_else(wrong)?;
    // The values of SCIM are those of JSON.
    let value: String = serde_json::from_str(value.trim()).map_err(|_| wrong())?;
    let attribute = attribute.strip_prefix(USER).map_or(attribute, |a| a.trim_start_matches(':'));
    match (attribute.to_ascii_lowercase().as_str(), operator.to_ascii_lowercase().as_str()) {
        ("username", "eq") => Ok(Some(value)),
        ("externalid" | "id", "eq") => Ok(None),
        _ => Err(wrong()),
    }
}

#[derive(Deserialize)]
struct Patch {
    #[serde(alias = "operations")]
    #[serde(rename = "Operations")]
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    op: String,
    path: Option<String>,
    value: Option<Value>,
}

/// A truth, in JSON or as Entra writes it by default: `"False"`.
fn truth(value: &Value) -> Result<bool, ScimError> {
    match value {
        Value::Bool(is) => Ok(*is),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        // A list with one value, as some write it.
        Value::Array(values) => match values.as_slice() {
            [Value::Object(only)] => only.get("value").map_or_else(|| Err(no_truth()), truth),
            [only @ (Value::Bool(_) | Value::String(_))] => truth(only),
            _ => Err(no_truth()),
        },
        _ => Err(no_truth()),
    }
}

fn no_truth() -> ScimError {
    ScimError::of("invalidValue", "active is true or false")
}

/// True if a name of an attribute means `active`, with or without the schema before it.
fn is_active(name: &str) -> bool {
    let name = name.strip_prefix(USER).map_or(name, |rest| rest.trim_start_matches(':'));
    name.eq_ignore_ascii_case("active")
}

fn active_in(attributes: &Map<String, Value>) -> Result<Option<bool>, ScimError> {
    let found = attributes.iter().find(|(name, _)| is_active(name));
    found.map(|(_, value)| truth(value)).transpose()
}

/// What a patch makes of `active`; `None` if it leaves it. Everything else in it is passed over: nothing else is kept of a user.
///
/// # Errors
/// It is no patch.
pub(super) fn active_of_patch(body: &[u8]) -> Result<Option<bool>, ScimError> {
    let syntax = || ScimError::of("invalidSyntax", "the body is no PatchOp");
    let patch: Patch = serde_json::from_slice(body).map_err(|_| syntax())?;
    let mut active = None;
    for Operation { op, path, value } in &patch.operations {
        let op = op.to_ascii_lowercase();
        if !matches!(op.as_str(), "add" | "replace" | "remove") {
            return Err(syntax());
        }
        let said = match (path, value) {
            (Some(path), _) if is_active(path) && op == "remove" => return Err(no_truth()),
            (Some(path), Some(value)) if is_active(path) => Some(truth(value)?),
            (Some(path), None) if is_active(path) => return Err(no_truth()),
            (None, Some(Value::Object(attributes))) => active_in(attributes)?,
            (None, _) => return Err(syntax()),
            (Some(_), _) => None,
        };
        active = said.or(active);
    }
    Ok(active)
}

/// What a whole user makes of `active`; `None` if it does not say.
///
/// # Errors
/// It is no user.
pub(super) fn active_of_user(body: &[u8]) -> Result<Option<bool>, ScimError> {
    let syntax = || ScimError::of("invalidSyntax", "the body is no User");
    let attributes: Map<String, Value> = serde_json::from_slice(body).map_err(|_| syntax())?;
    active_in(&attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_sent_is_read_or_refused_and_nothing_panics() {
        let patch = |operations: &str| {
            active_of_patch(format!("{{\"Operations\":{operations}}}").as_bytes())
        };
        for (operations, active) in [
            (r#"[{"op":"Replace","path":"active","value":"False"}]"#, Some(false)),
            (r#"[{"op":"Replace","path":"active","value":"True"}]"#, Some(true)),
            (r#"[{"op":"replace","value":{"active":false}}]"#, Some(false)),
            (r#"[{"op":"Add","value":{"active":"false"}}]"#, Some(false)),
            (r#"[{"op":"replace","path":"active","value":false}]"#, Some(false)),
            (r#"[{"op":"replace","path":"active","value":[{"value":"False"}]}]"#, Some(false)),
            (
                r#"[{"op":"replace","path":"urn:ietf:params:scim:schemas:core:2.0:User:active","value":false}]"#,
                Some(false),
            ),
            (r#"[{"op":"replace","path":"displayName","value":"x"}]"#, None),
            (
                r#"[{"op":"replace","path":"displayName","value":"x"},{"op":"replace","path":"active","value":false}]"#,
                Some(false),
            ),
            (
                r#"[{"op":"replace","value":{"active":false}},{"op":"replace","path":"title","value":"x"}]"#,
                Some(false),
            ),
            (r#"[{"op":"remove","path":"title"}]"#, None),
            (r#"[]"#, None),
        ] {
            assert_eq!(patch(operations), Ok(active), "{operations}");
        }
        for operations in [
            r#"[{"op":"replace","path":"active"}]"#,
            r#"[{"op":"remove","path":"active"}]"#,
            r#"[{"op":"replace","path":"active","value":0}]"#,
            r#"[{"op":"replace","path":"active","value":"no"}]"#,
            r#"[{"op":"replace","path":"active","value":[]}]"#,
            r#"[{"op":"replace","path":"active","value":[[[false]]]}]"#,
            r#"[{"op":"replace","value":false}]"#,
            r#"[{"op":"replace"}]"#,
            r#"[{"op":"drop","path":"active","value":false}]"#,
            r#"[7]"#,
            r#"{}"#,
        ] {
            assert!(patch(operations).is_err(), "{operations}");
        }
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        for body in [&b""[..], b"{", b"null", b"\xff", deep.as_bytes()] {
            assert!(active_of_patch(body).is_err() && active_of_user(body).is_err());
        }
        assert_eq!(active_of_user(br#"{"userName":"a","active":false}"#), Ok(Some(false)));
        assert_eq!(active_of_user(br#"{"userName":"a"}"#), Ok(None));
    }

    #[test]
    fn a_filter_looks_for_an_account_or_is_refused() {
        for filter in [
            "userName eq \"alice@example.org\"",
            "username EQ  \"alice@example.org\" ",
            "urn:ietf:params:scim:schemas:core:2.0:User:userName eq \"alice@example.org\"",
            "userName eq \"alice\\u0040example.org\"",
        ] {
            assert_eq!(filtered(filter), Ok(Some("alice@example.org".into())), "{filter}");
        }
        assert_eq!(filtered("externalId eq \"7\""), Ok(None));
        for filter in [
            "",
            "userName",
            "userName eq",
            "userName eq alice",
            "userName co \"a\"",
            "userName eq \"a\" or id pr",
            "active eq true",
        ] {
            assert!(filtered(filter).is_err(), "{filter}");
        }
    }
}

//! What a provider says of whoever signed in, and whether the organisation lets him in.

use serde::Deserialize;
use serde_json::{Map, Value};
use shoal_topology::is_plain;

use super::{OidcConfig, ProviderError};

/// By how much the provider's clock may be off, seconds.
const LEEWAY_S: u64 = 120;

/// Whom an ID token is for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn of(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

/// The claims that every ID token has (OpenID Connect Core, section 2).
#[derive(Deserialize)]
struct Standard {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    nonce: Option<String>,
}

/// Who signed in, by the provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Who {
    /// What the provider never gives to anybody else.
    pub(crate) subject: String,
    /// By what the provider's admins know him, as SCIM's `userName` does.
    pub(crate) account: String,
    /// His full name.
    pub(crate) name: String,
    /// Where in the organisation; may be empty.
    pub(crate) unit: String,
}

/// All claims of an ID token, after the checks of OpenID Connect Core, section 3.1.3.7.
///
/// Its signature is not looked at, by item 6 there: the token comes by TLS from the provider itself, and so would the keys to check it
/// with: whoever could forge the one could forge the other.
///
/// # Errors
/// It is none, or for another client, another device, or another time.
pub(super) fn id_token(
    token: &str,
    config: &OidcConfig,
    nonce: &str,
    now_unix_s: u64,
) -> Result<Map<String, Value>, ProviderError> {
    let wrong = |why: &'static str| ProviderError::Token(why);
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else { return Err(wrong("it has not three parts")) };
    let payload = data_encoding::BASE64URL_NOPAD
        .decode(payload.as_bytes())
        .map_err(|_| wrong("it is no base64url"))?;
    let claims: Map<String, Value> =
        serde_json::from_slice(&payload).map_err(|_| wrong("it has no claims"))?;
    let standard: Standard = serde_json::from_value(Value::Object(claims.clone()))
        .map_err(|_| wrong("iss, sub, aud or exp is missing, or of another type"))?;
    if standard.iss != config.issuer {
        return Err(wrong("it is of another issuer"));
    }
    let audience = standard.aud.of();
    let is_ours = audience.contains(&config.client_id);
    let authorized =
        standard.azp.as_ref().map_or(audience.len() == 1, |azp| *azp == config.client_id);
    if !is_ours || !authorized {
        return Err(wrong("it is for another client"));
    }
    if standard.exp + LEEWAY_S as f64 <= now_unix_s as f64 {
        return Err(wrong("it is over: look at the clock of this machine"));
    }
    // A device flow need not carry the nonce, and a token without one is ours all the same: it was given for a device code that
    // nobody but this program has.
    if standard.nonce.is_some_and(|found| found != nonce) {
        return Err(wrong("it is for another device"));
    }
    if standard.sub.is_empty() || standard.sub.len() > 255 || !is_plain(&standard.sub) {
        return Err(wrong("its subject has not 1 to 255 characters, all of which show"));
    }
    Ok(claims)
}

/// Who it is, if the organisation lets accounts like his in.
///
/// # Errors
/// It does not, or a claim is missing.
pub(super) fn who(claims: &Map<String, Value>, config: &OidcConfig) -> Result<Who, ProviderError> {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str).map(str::trim);
    let wanted = |claim: &str| {
        let found = text(claim).filter(|text| !text.is_empty());
        found.map(str::to_owned).ok_or_else(|| ProviderError::NoClaim(claim.into()))
    };
    if !config.allowed_groups.is_empty() {
        let groups = match claims.get(&config.groups) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(group)) => vec![group.as_str()],
            _ => Vec::new(),
        };
        if !groups.iter().any(|group| config.allowed_groups.iter().any(|known| known == group)) {
            return Err(ProviderError::NotAllowed);
        }
    }
    if !config.allowed_domains.is_empty() {
        // Some providers write it as text.
        let verified = matches!(claims.get("email_verified"), Some(Value::Bool(true)))
            || text("email_verified") == Some("true");
        let domain = text("email").and_then(|email| email.rsplit_once('@')).map(|(_, d)| d);
        let is_known = |domain: &str| {
            config.allowed_domains.iter().any(|known| known.eq_ignore_ascii_case(domain))
        };
        if !verified || !domain.is_some_and(is_known) {
            return Err(ProviderError::NotAllowed);
        }
    }
    let account = wanted(&config.account)?;
    if account.len() > 255 || !is_plain(&account) {
        return Err(ProviderError::NoClaim(config.account.clone()));
    }
    Ok(Who {
        subject: wanted("sub")?,
        account,
        name: wanted(&config.name)?,
        unit: config.unit.as_deref().and_then(text).unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn config() -> OidcConfig {
        toml::from_str("issuer = \"https://login.example\"\nclient_id = \"shoal\"").unwrap()
    }

    fn token(claims: &Value) -> String {
        let part = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        format!("{}.{}.x", part(b"{\"alg\":\"RS256\"}"), part(claims.to_string().as_bytes()))
    }

    fn claims() -> Value {
        json!({ "iss": "https://login.example", "sub": "0815", "aud": "shoal", "exp": NOW + 60, "iat": NOW, "nonce": "n",
                "name": "Alice Example", "preferred_username": "alice@example.org" })
    }

    fn with(key: &str, value: Value) -> Result<Map<String, Value>, ProviderError> {
        let mut claims = claims();
        claims[key] = value;
        id_token(&token(&claims), &config(), "n", NOW)
    }

    #[test]
    fn an_id_token_is_for_this_issuer_client_device_and_time_or_none() {
        assert!(id_token(&token(&claims()), &config(), "n", NOW).is_ok());
        assert!(with("aud", json!(["shoal"])).is_ok());
        let mut shared = claims();
        (shared["aud"], shared["azp"]) = (json!(["other", "shoal"]), json!("shoal"));
        assert!(id_token(&token(&shared), &config(), "n", NOW).is_ok());
        for (key, value) in [
            ("iss", json!("https://login.example/")),
            ("aud", json!("other")),
            ("aud", json!(["other", "shoal"])),
            ("azp", json!("other")),
            ("exp", json!(NOW - 200)),
            ("exp", json!("tomorrow")),
            ("nonce", json!("m")),
            ("sub", json!("")),
            ("sub", json!("a\u{202e}b")),
            ("sub", Value::Null),
        ] {
            let said = with(key, value.clone());
            assert!(matches!(said, Err(ProviderError::Token(_))), "{key} {value}");
        }
        let whole = token(&claims());
        for broken in ["", "a.b", "a.b.c", "a.b.c.d", whole.replace('.', "").as_str()] {
            assert!(id_token(broken, &config(), "n", NOW).is_err(), "{broken}");
        }
    }

    #[test]
    fn whom_the_organisation_does_not_want_is_not_let_in_by_a_sign_in() {
        let said = |claims: &Value, config: &OidcConfig| {
            who(claims.as_object().unwrap(), config).map(|who| who.name)
        };
        let alice = Ok("Alice Example".to_owned());
        assert_eq!(said(&claims(), &config()).map_err(|_| ()), alice);
        let groups = OidcConfig { allowed_groups: vec!["staff".into()], ..config() };
        let domains = OidcConfig { allowed_domains: vec!["example.org".into()], ..config() };
        for (claim, value, config, is_in) in [
            ("groups", json!(["guests", "staff"]), &groups, true),
            ("groups", json!("staff"), &groups, true),
            ("groups", json!(["guests"]), &groups, false),
            ("groups", json!(["staff2"]), &groups, false),
            ("email", json!("alice@Example.org"), &domains, true),
            ("email", json!("alice@example.org.evil"), &domains, false),
            ("email", json!("example.org"), &domains, false),
        ] {
            let mut claims = claims();
            (claims[claim], claims["email_verified"]) = (value.clone(), json!(true));
            assert_eq!(said(&claims, config).is_ok(), is_in, "{claim} {value}");
            if claim == "email" {
                claims["email_verified"] = json!(false);
                assert!(said(&claims, config).is_err(), "nobody has verified {value}");
            }
        }
        assert!(matches!(said(&claims(), &groups), Err(ProviderError::NotAllowed)));
        let mut nameless = claims();
        nameless["name"] = json!("  ");
        assert!(matches!(said(&nameless, &config()), Err(ProviderError::NoClaim(_))));
    }
}

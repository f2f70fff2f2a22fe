//! Sign-ins at an organisation's own provider: OpenID Connect by the device authorization grant (RFC 8628).
//!
//! The provider sees that somebody enrols a device, and never whom he writes to.

mod claims;
mod https;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_host::config;
use shoal_host::secret;
use shoal_organisation::wire::{Refusal, SignIn};
use tokio::sync::Mutex;
use zeroize::{Zeroize as _, Zeroizing};

use crate::OrgError;
use crate::files::unix_s;
pub(crate) use claims::Who;
use https::{Answered, Https, HttpsRequest};

/// Most bytes of a client's secret.
const MAX_SECRET: u64 = 4_096;
/// Seconds for which a sign-in is open at most, whatever the provider says.
const LONGEST_S: u64 = 1_800;
/// Seconds between two questions whether somebody signed in, if the provider does not say (RFC 8628, section 3.2).
const INTERVAL_S: u64 = 5;
/// The type of grant of a device.
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The file of `shoal-org serve --oidc`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider, exactly as it writes itself in its tokens: `https://…`.
    pub issuer: String,
    /// Under which name it knows this service.
    pub client_id: String,
    /// The file of the secret by which it knows it, mode 0600; a public client has none.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// The root certificate of the provider in PEM; without it the system's count.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// What is asked for.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim with the full name.
    #[serde(default = "name")]
    pub name: String,
    /// The claim with the unit; without it units are empty.
    #[serde(default)]
    pub unit: Option<String>,
    /// The claim by which the provider's admins know somebody, the same as the `userName` of SCIM.
    #[serde(default = "account")]
    pub account: String,
    /// The claim with the groups.
    #[serde(default = "groups")]
    pub groups: String,
    /// Whoever is in one of them is let in; empty: groups do not count.
    #[serde(default)]
    pub allowed_groups: Vec<String>,
    /// Whoever has a verified mail address in one of them is let in; empty: addresses do not count.
    #[serde(default)]
    pub allowed_domains: Vec<String>,
    /// Whoever signs in for the first time is let in unseen, where the service runs with `--auto`.
    #[serde(default)]
    pub auto: bool,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).into()
}

fn name() -> String {
    "name".into()
}

fn account() -> String {
    "preferred_username".into()
}

fn groups() -> String {
    "groups".into()
}

impl OidcConfig {
    /// Reads a configuration file; paths in it start at its directory.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn read(path: &Path) -> Result<Self, OrgError> {
        let loaded = config::load::<Self>(path, &[])?;
        let mut config = loaded.config;
        for file in [&mut config.client_secret_file, &mut config.ca].into_iter().flatten() {
            *file = config::resolve(&loaded.base, file);
        }
        let wrong = |why: &str| OrgError::Contents { path: path.into(), why: why.into() };
        if !config.issuer.starts_with("https://") {
            return Err(wrong("`issuer` begins with https://"));
        }
        if !config.scopes.iter().any(|scope| scope == "openid") {
            return Err(wrong(
                "`scopes` has openid, or the provider says nothing of who signed in",
            ));
        }
        Ok(config)
    }
}

/// Why a sign-in comes to nothing. What it says has no name and no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// It was not reached, or answers nonsense.
    #[error("the provider cannot be asked: {0}")]
    Unreachable(String),
    /// It shows a certificate that does not count.
    #[error(
        "the provider's certificate does not count: it is over, is for another name, or leads to no root that this system or `ca` \
         of the configuration knows"
    )]
    Certificate,
    /// An address that is none.
    #[error("the provider names an address that is none, or not https")]
    Address,
    /// It does not say what it should.
    #[error("the provider's {0} is not what it should be: {1}")]
    Answer(&'static str, String),
    /// It refused, by an error code of OAuth.
    #[error("the provider refuses: {0}")]
    Refused(String),
    /// The ID token is none that counts.
    #[error("the provider's ID token does not count: {0}")]
    Token(&'static str),
    /// A claim that is needed is missing.
    #[error(
        "the provider does not say `{0}` of who signed in: look at scopes and claims in the configuration"
    )]
    NoClaim(String),
    /// The organisation lets in others.
    #[error("somebody signed in who is in none of the groups or domains that are let in")]
    NotAllowed,
}

impl ProviderError {
    /// True if it is what people do, and no trouble of the operator's.
    pub(crate) fn is_usual(&self) -> bool {
        match self {
            Self::Refused(code) => matches!(code.as_str(), "access_denied" | "expired_token"),
            Self::NotAllowed => true,
            _ => false,
        }
    }

    /// What the device is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::NotAllowed | Self::NoClaim(_) => Refusal::NotAllowed,
            Self::Refused(_) | Self::Token(_) => Refusal::NotSignedIn,
            Self::Unreachable(_) | Self::Certificate | Self::Address | Self::Answer(..) => {
                Refusal::Busy
            }
        }
    }
}

/// The addresses of a provider (OpenID Connect Discovery, and RFC 8628, section 4).
#[derive(Clone)]
struct Endpoints {
    device: Uri,
    token: Uri,
    userinfo: Option<Uri>,
    /// The secret goes into a header, which all providers must know, unless this one says that it does not.
    basic: bool,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
}

/// A sign-in that has begun.
pub(crate) struct DeviceAuthorization {
    /// What its owner has to do.
    pub(crate) sign_in: SignIn,
    /// What this service asks with; whoever has it gets the tokens.
    pub(crate) device_code: Zeroizing<String>,
    /// How long to wait between two questions.
    pub(crate) interval: Duration,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct OauthError {
    error: String,
}

/// What a question whether somebody signed in brings.
pub(crate) enum Polled {
    /// Nobody signed in yet.
    Pending,
    /// Not yet, and this was too often.
    SlowDown,
    /// Somebody signed in whom the organisation lets in.
    Done(Who),
}

/// The provider of an organisation.
pub(crate) struct Provider {
    config: OidcConfig,
    secret: Option<Zeroizing<String>>,
    https: Https,
    found: Mutex<Option<Endpoints>>,
}

impl Provider {
    /// Reads secret and certificates; nothing is asked yet.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn new(config: OidcConfig) -> Result<Self, OrgError> {
        let secret = match &config.client_secret_file {
            Some(path) => {
                let bytes = secret::read_private(path, MAX_SECRET)?;
                let text = std::str::from_utf8(&bytes).map(|text| text.trim_end_matches('\n'));
                let why = "it has no secret: one line of text".to_owned();
                let text = text.ok().filter(|text| !text.is_empty() && !text.contains('\n'));
                Some(Zeroizing::new(
                    text.ok_or(OrgError::Contents { path: path.clone(), why })?.to_owned(),
                ))
            }
            None => None,
        };
        let https = Https::new(config.ca.as_deref())?;
        Ok(Self { config, secret, https, found: Mutex::new(None) })
    }

    /// The configuration that it was made of.
    pub(crate) fn config(&self) -> &OidcConfig {
        &self.config
    }

    /// Finds the provider's addresses, once.
    ///
    /// # Errors
    /// It cannot be asked, is another one, or has no sign-in for devices.
    pub(crate) async fn discover(&self) -> Result<(), ProviderError> {
        self.endpoints().await.map(|_| ())
    }

    async fn endpoints(&self) -> Result<Endpoints, ProviderError> {
        let mut found = self.found.lock().await;
        if let Some(found) = found.as_ref() {
            return Ok(found.clone());
        }
        let issuer = self.config.issuer.trim_end_matches('/');
        let at = address(&format!("{issuer}/.well-known/openid-configuration"))?;
        let answered = self.https.ask(&at, HttpsRequest::Get, None).await?;
        let said: Discovered = read("openid-configuration", &answered)?;
        if said.issuer != self.config.issuer {
            let why =
                format!("its issuer is {:?}, and the configuration's is another", said.issuer);
            return Err(ProviderError::Answer("openid-configuration", why));
        }
        let device = said.device_authorization_endpoint.ok_or_else(|| {
            let why =
                "it has no device_authorization_endpoint: switch the device flow on there".into();
            ProviderError::Answer("openid-configuration", why)
        })?;
        let methods = &said.token_endpoint_auth_methods_supported;
        let knows = |method: &str| methods.iter().any(|known| known == method);
        let endpoints = Endpoints {
            device: address(&device)?,
            token: address(&said.token_endpoint)?,
            userinfo: said.userinfo_endpoint.as_deref().map(address).transpose()?,
            basic: knows("client_secret_basic") || !knows("client_secret_post"),
        };
        *found = Some(endpoints.clone());
        Ok(endpoints)
    }

    /// Posts a form as this client.
    async fn post(
        &self,
        (uri, basic): (&Uri, bool),
        fields: &[(&str, &str)],
    ) -> Result<Answered, ProviderError> {
        let (form, authorization) = self.form(basic, fields);
        let authorization = authorization.as_ref().map(|text| text.as_str());
        self.https.ask(uri, HttpsRequest::Form(form), authorization).await
    }

    /// A form, and the header by which the provider knows this client.
    fn form(
        &self,
        basic: bool,
        fields: &[(&str, &str)],
    ) -> (Zeroizing<String>, Option<Zeroizing<String>>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("client_id", &self.config.client_id).extend_pairs(fields);
        let mut authorization = None;
        match &self.secret {
            Some(secret) if basic => {
                // Each half as in a form (RFC 6749, section 2.3.1).
                let half = |text: &str| -> Zeroizing<String> {
                    Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
                };
                let (id, secret) = (half(&self.config.client_id), half(secret));
                let both = Zeroizing::new(format!("{}:{}", *id, *secret));
                let both = Zeroizing::new(data_encoding::BASE64.encode(both.as_bytes()));
                authorization = Some(Zeroizing::new(format!("Basic {}", *both)));
            }
            Some(secret) => {
                form.append_pair("client_secret", secret);
            }
            None => {}
        }
        (Zeroizing::new(form.finish()), authorization)
    }

    /// Begins a sign-in. The nonce binds what comes of it to one request, where the provider carries it.
    ///
    /// # Errors
    /// The provider cannot be asked or refuses, or what it says cannot be shown to anybody.
    pub(crate) async fn begin(&self, nonce: &str) -> Result<DeviceAuthorization, ProviderError> {
        let endpoints = self.endpoints().await?;
        let scope = self.config.scopes.join(" ");
        let fields = [("scope", scope.as_str()), ("nonce", nonce)];
        let answered = self.post((&endpoints.device, endpoints.basic), &fields).await?;
        let mut said: DeviceAnswer = read("answer to a device", &answered)?;
        let device_code = Zeroizing::new(std::mem::take(&mut said.device_code));
        let expires_s = u32::try_from(said.expires_in.min(LONGEST_S)).unwrap_or_default();
        let sign_in = SignIn { address: said.verification_uri, code: said.user_code, expires_s };
        sign_in
            .check()
            .map_err(|error| ProviderError::Answer("answer to a device", error.to_string()))?;
        let interval = Duration::from_secs(said.interval.unwrap_or(INTERVAL_S).clamp(1, 60));
        Ok(DeviceAuthorization { sign_in, device_code, interval })
    }

    /// Asks whether somebody signed in.
    ///
    /// # Errors
    /// He did not and will not, or nobody whom the organisation lets in did, or the provider cannot be asked.
    pub(crate) async fn poll(
        &self,
        device_code: &str,
        nonce: &str,
    ) -> Result<Polled, ProviderError> {
        let endpoints = self.endpoints().await?;
        let fields = [("grant_type", DEVICE), ("device_code", device_code)];
        let answered = self.post((&endpoints.token, endpoints.basic), &fields).await?;
        let mut tokens: TokenAnswer = match read("answer with tokens", &answered) {
            Err(ProviderError::Refused(code)) if code == "authorization_pending" => {
                return Ok(Polled::Pending);
            }
            Err(ProviderError::Refused(code)) if code == "slow_down" => {
                return Ok(Polled::SlowDown);
            }
            answer => answer?,
        };
        let access = tokens.access_token.take().map(Zeroizing::new);
        let token = Zeroizing::new(tokens.id_token.take().unwrap_or_default());
        let mut claims = claims::id_token(&token, &self.config, nonce, unix_s())?;
        // Most say names and groups there alone (OpenID Connect Core, section 5.4).
        if let (Some(userinfo), Some(access)) = (&endpoints.userinfo, &access) {
            let bearer = Zeroizing::new(format!("Bearer {}", **access));
            let answered = self.https.ask(userinfo, HttpsRequest::Get, Some(&bearer)).await?;
            let more: serde_json::Map<String, Value> = read("answer about a user", &answered)?;
            if more.get("sub") != claims.get("sub") {
                return Err(ProviderError::Token("userinfo is of somebody else"));
            }
            for (claim, value) in more {
                claims.entry(claim).or_insert(value);
            }
        }
        claims::who(&claims, &self.config).map(Polled::Done)
    }
}

impl Drop for TokenAnswer {
    fn drop(&mut self) {
        self.id_token.zeroize();
        self.access_token.zeroize();
    }
}

/// An address that the provider names.
fn address(text: &str) -> Result<Uri, ProviderError> {
    let uri: Uri = text.parse().map_err(|_| ProviderError::Address)?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("https"), Some(authority)) if !authority.as_str().contains('@') => Ok(uri),
        _ => Err(ProviderError::Address),
    }
}

/// The JSON of an answer; the code of an error, if it is one of OAuth's.
fn read<T: DeserializeOwned>(what: &'static str, answered: &Answered) -> Result<T, ProviderError> {
    if answered.status == 200 {
        // What serde says could quote what is there.
        return serde_json::from_slice(&answered.body).map_err(|_| {
            ProviderError::Answer(what, "a member is missing or of another type".into())
        });
    }
    let is_code =
        |code: &str| code.len() <= 64 && code.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    match serde_json::from_slice::<OauthError>(&answered.body) {
        Ok(OauthError { error }) if is_code(&error) => Err(ProviderError::Refused(error)),
        _ => Err(ProviderError::Answer(what, format!("status {}", answered.status))),
    }
}

//! What a provider is told that asks for what is not done.

use axum::response::{IntoResponse, Response};
use serde_json::json;

const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// Why something is not done (RFC 7644, section 3.12). What it says quotes nothing of the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScimError {
    status: u16,
    kind: Option<&'static str>,
    detail: &'static str,
}

impl ScimError {
    pub(super) fn new(status: u16, detail: &'static str) -> Self {
        Self { status, kind: None, detail }
    }

    pub(super) fn of(kind: &'static str, detail: &'static str) -> Self {
        Self { status: 400, kind: Some(kind), detail }
    }

    pub(super) fn nobody() -> Self {
        Self::new(404, "nobody has this id")
    }

    pub(super) fn nowhere() -> Self {
        Self::new(404, "there are /scim/v2/Users and /scim/v2/ServiceProviderConfig")
    }

    pub(super) fn method() -> Self {
        Self::new(405, "this cannot be done here")
    }

    pub(super) fn large() -> Self {
        Self::new(413, "a request has at most 65,536 bytes")
    }

    pub(super) fn ours() -> Self {
        Self::new(500, "the request ended in the middle")
    }

    pub(super) fn gone() -> Self {
        Self::of(
            "mutability",
            "whoever was removed comes back by a new invitation or sign-in alone",
        )
    }

    pub(super) fn too_many() -> Self {
        Self::new(429, "so many people were removed today that an admin has to look first")
    }
}

impl IntoResponse for ScimError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "schemas": [ERROR], "status": self.status.to_string(), "detail": self.detail,
        });
        if let (Some(kind), Some(body)) = (self.kind, body.as_object_mut()) {
            body.insert("scimType".into(), kind.into());
        }
        super::scim(self.status, &body)
    }
}

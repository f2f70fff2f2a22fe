//! A sign-in at the organisation's own provider, as it is kept until its device is let in.

use serde::{Deserialize, Serialize};
use shoal_topology::is_plain;

/// Who signed in, for programs: nobody else has the same two.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The provider, by the address that stands in its tokens.
    pub issuer: String,
    /// Whom it means: it never gives this to anybody else.
    pub subject: String,
}

/// A sign-in that asks for a device: the file beside its request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedIn {
    /// Who it was, for programs.
    pub by: Subject,
    /// By what the provider's admins know him.
    pub account: String,
    /// His full name, by the provider.
    pub name: String,
    /// His unit, by the provider.
    #[serde(default)]
    pub unit: String,
    /// The service may let him in unseen, if nobody is known by this account.
    #[serde(default)]
    pub auto: bool,
    /// The last second (Unix time) at which he is let in.
    pub expires: u64,
}

impl SignedIn {
    /// True if all of it shows: whoever takes requests may write what he likes, and admins read it on a terminal.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { by: Subject { issuer, subject }, account, name, unit, .. } = self;
        [issuer, subject, account, name, unit].into_iter().all(|text| is_plain(text))
    }

    /// True if it came too long ago to let anybody in.
    pub(crate) fn is_over(&self, now_unix_s: u64) -> bool {
        self.expires < now_unix_s
    }
}

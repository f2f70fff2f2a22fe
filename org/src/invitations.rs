//! Invitations that are open, and what goes to whoever is invited.

use serde::{Deserialize, Serialize};
use shoal_organisation::enrolment::Invited;
use shoal_organisation::{Code, Invitation, PersonFlags, Request};
use shoal_topology::Identity;

use crate::signed_in::SignedIn;

/// Who says yes to the request that comes for an invitation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Approval {
    /// An admin, who has heard the digits.
    #[default]
    Admin,
    /// The service, unseen, where it runs with `--auto`.
    Service,
}

/// An invitation that has not ended in a device, with the request that came for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Open {
    /// Whom it is for, and until when.
    pub invitation: Invitation,
    /// Who says yes.
    pub approval: Approval,
    /// By what the organisation's provider knows whom it is for, if an admin said so.
    pub account: Option<String>,
    /// The sign-in that it follows from; nobody was given a code then.
    pub signed_in: Option<SignedIn>,
    /// The request, if one came.
    pub request: Option<Request>,
}

/// The invitation in the file `invitations.json`; requests lie in files of their own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InvitationRecord {
    key: String,
    expires: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    marked: bool,
    #[serde(default)]
    external: bool,
    /// For a further device of this person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    person: Option<u32>,
    /// The service says yes, and no admin.
    #[serde(default)]
    auto: bool,
    /// By what the organisation's provider knows him.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
}

impl InvitationRecord {
    pub(crate) fn of(open: &Open) -> Self {
        let line = Self {
            key: open.invitation.key.to_string(),
            expires: open.invitation.expires,
            name: None,
            unit: String::new(),
            marked: false,
            external: false,
            person: None,
            auto: open.approval == Approval::Service,
            account: open.account.clone(),
        };
        match &open.invitation.invited {
            Invited::Person { name, unit, flags } => Self {
                name: Some(name.clone()),
                unit: unit.clone(),
                marked: flags.has(PersonFlags::MARKED),
                external: flags.has(PersonFlags::EXTERNAL),
                ..line
            },
            Invited::Device { person } => Self { person: Some(*person), ..line },
        }
    }

    pub(crate) fn read(self) -> Result<Open, String> {
        let key: Identity =
            self.key.parse().map_err(|error: shoal_topology::Error| error.to_string())?;
        let invited = match (self.person, self.name) {
            (Some(person), None) => Invited::Device { person },
            (None, Some(name)) => {
                Invited::Person { name, unit: self.unit, flags: flags(self.marked, self.external) }
            }
            _ => return Err("an invitation is for a name or for a person of the directory".into()),
        };
        let invitation = Invitation { key, invited, expires: self.expires };
        let approval = if self.auto { Approval::Service } else { Approval::Admin };
        Ok(Open { invitation, approval, account: self.account, signed_in: None, request: None })
    }
}

pub(crate) fn flags(marked: bool, external: bool) -> PersonFlags {
    let one = |is: bool, flag| if is { flag } else { PersonFlags::default() };
    one(marked, PersonFlags::MARKED).with(one(external, PersonFlags::EXTERNAL))
}

/// What whoever is invited gets, on a way that the organisation trusts: a file for `shoal-client join`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slip {
    /// The organisation's name.
    pub organisation: String,
    /// The organisation's key.
    pub key: String,
    /// The code, as people read it.
    pub code: String,
    /// The last second (Unix time) at which a request is taken.
    pub expires: u64,
    /// The network file, whole, if the organisation gives it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
}

impl Slip {
    /// As a file that says what it is.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(self).unwrap_or_default();
        format!(
            "# An invitation to the organisation {:?}. Whoever has this file can be let in, once: keep it private.\n{text}",
            self.organisation
        )
    }

    /// The code in it.
    ///
    /// # Errors
    /// It is none.
    pub fn code(&self) -> Result<Code, shoal_organisation::CodeError> {
        self.code.parse()
    }
}

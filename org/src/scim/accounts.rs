//! Whom a provider means: people whose account is known, and invitations for an account.

use shoal_organisation::{Entry, Removed};
use shoal_topology::Identity;

use super::ScimConfig;
use super::error::ScimError;
use crate::accounts::same;
use crate::files::unix_s;
use crate::invitations::Open;
use crate::{OrgError, Registry};

/// A day, seconds.
const DAY_S: u64 = 86_400;

/// What stands behind an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Means {
    /// A person of the directory.
    Person(u32),
    /// Somebody who is not in it yet.
    Invited(Identity),
}

/// An account as a provider sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub(super) means: Means,
    pub(super) account: String,
    pub(super) name: String,
    pub(super) active: bool,
}

impl Known {
    /// By what the provider calls it from then on.
    pub(super) fn id(&self) -> String {
        match self.means {
            Means::Person(person) => person.to_string(),
            Means::Invited(key) => format!("invited-{key}"),
        }
    }
}

/// The account that an invitation or a sign-in is for.
fn account_of(open: &Open) -> Option<&str> {
    let by = open.signed_in.as_ref().map(|signed_in| signed_in.account.as_str());
    by.or(open.account.as_deref())
}

/// All accounts that are known: people first.
pub(super) fn all(registry: &Registry) -> Vec<Known> {
    let people = registry.accounts().iter().filter_map(|known| {
        let member = registry.directory().person(known.person)?;
        let (account, name) = (known.account.clone(), member.person.name.clone());
        Some(Known {
            means: Means::Person(known.person),
            account,
            name,
            active: !member.is_removed,
        })
    });
    let invited = registry.invitations().iter().filter_map(|open| {
        let (means, name) =
            (Means::Invited(open.invitation.key), registry.name_of(&open.invitation));
        Some(Known { means, account: account_of(open)?.into(), name, active: true })
    });
    people.chain(invited).collect()
}

/// The one whom a provider looks for by an account; nobody, if it looks for something else. A person who is there goes before one
/// who was removed, and both before an invitation, which ends with the person.
pub(super) fn find(registry: &Registry, account: Option<&str>) -> Vec<Known> {
    let Some(account) = account else { return Vec::new() };
    let mut found = all(registry);
    found.retain(|known| same(&known.account, account));
    let is_person = |known: &Known| matches!(known.means, Means::Person(_));
    let best = |known: &Known| match (is_person(known), known.active) {
        (true, true) => 0,
        (false, _) => 1,
        (true, false) => 2,
    };
    found.sort_by_key(best);
    found.truncate(1);
    found
}

/// The one whom a provider calls by this.
pub(super) fn known(registry: &Registry, id: &str) -> Option<Known> {
    all(registry).into_iter().find(|known| known.id() == id)
}

/// Removes a person, or ends an invitation; with a person, whatever waits for the same account.
///
/// # Errors
/// Too many were removed today, or the entry cannot be made.
pub(super) fn end(
    registry: &mut Registry,
    known: &Known,
    config: &ScimConfig,
) -> Result<(), ScimError> {
    let failed = |error: OrgError| super::failed(error);
    if let Means::Person(person) = known.means {
        if removed_today(registry, config.issuer) >= config.most_a_day {
            tracing::error!(
                "{} people were removed within a day, and no more are: look at the provider, then start `shoal-org scim` with a larger \
                 --most-a-day",
                config.most_a_day
            );
            return Err(ScimError::too_many());
        }
        let entry = Entry::Remove(Removed::Person(person));
        let issuer = registry.issuer(Some(config.issuer)).map_err(failed)?;
        registry.enter(vec![entry], Some(issuer)).map_err(failed)?;
    }
    registry
        .end_for_account(|open| {
            account_of(open).is_some_and(|account| same(account, &known.account))
        })
        .map_err(failed)
}

/// How many people this issuer has removed within a day, by the directory itself.
fn removed_today(registry: &Registry, issuer: u16) -> usize {
    let directory = registry.directory();
    let since = unix_s().saturating_sub(DAY_S);
    directory
        .entries(0..directory.size())
        .filter(|listed| listed.batch.batch.at >= since)
        .filter(|listed| matches!(listed.entry, Entry::Remove(Removed::Person(_))))
        .filter(|listed| listed.batch.signatures.iter().any(|(admin, _)| *admin == issuer))
        .count()
}

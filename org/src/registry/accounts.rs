//! Whose account at the organisation's provider is whose, and sign-ins that wait.

use shoal_organisation::enrolment::Invited;
use shoal_organisation::{Invitation, Member, PersonFlags};

use super::Registry;
use crate::OrgError;
use crate::accounts::{Account, kept_sign_ins, same};
use crate::files::kept_request;
use crate::invitations::{Approval, Open};
use crate::signed_in::SignedIn;

/// Most bytes of an account.
const MAX_ACCOUNT: usize = 255;

impl Registry {
    /// Sign-ins are invitations that nobody has a code for.
    pub(super) fn read_sign_ins(&mut self) {
        for (key, signed_in) in kept_sign_ins(&self.dir) {
            // One without its request cannot be approved, and goes when the next is written.
            let Some(request) = kept_request(&self.dir, &key) else { continue };
            let (invited, approval) = self.invited_by(&signed_in);
            let invitation = Invitation { key, invited, expires: signed_in.expires };
            let (account, signed_in) = (None, Some(signed_in));
            self.open.push(Open {
                invitation,
                approval,
                account,
                signed_in,
                request: Some(request),
            });
        }
    }

    /// Whom a sign-in means, and who says yes: a further device of somebody who is there, or somebody new. An admin looks at whoever
    /// is known in any way, also if he was removed: a sign-in takes nobody's place unseen, and takes no removal back.
    fn invited_by(&self, signed_in: &SignedIn) -> (Invited, Approval) {
        let by_subject = |known: &&Account| known.subject.as_ref() == Some(&signed_in.by);
        let by_account = |known: &&Account| same(&known.account, &signed_in.account);
        let is_present = |known: &&Account| {
            self.directory.person(known.person).is_some_and(|member| !member.is_removed)
        };
        // Accounts can be given to somebody else, and subjects cannot: an account counts where no subject is known.
        let own = self
            .accounts
            .iter()
            .filter(is_present)
            .find(|known| by_subject(known) || (known.subject.is_none() && by_account(known)));
        let is_known = self.accounts.iter().any(|known| by_subject(&known) || by_account(&known));
        let approval = match signed_in.auto && !is_known {
            true => Approval::Service,
            false => Approval::Admin,
        };
        match own {
            Some(known) => (Invited::Device { person: known.person }, approval),
            None => {
                let (name, unit) = (signed_in.name.clone(), signed_in.unit.clone());
                (Invited::Person { name, unit, flags: PersonFlags::default() }, approval)
            }
        }
    }

    /// Keeps by what the provider knows a person who was let in just now.
    pub(super) fn note_account(&mut self, person: u32, open: &Open) {
        let (account, subject) = match (&open.signed_in, &open.account) {
            (Some(signed_in), _) => (signed_in.account.clone(), Some(signed_in.by.clone())),
            (None, Some(account)) => {
                let own =
                    |known: &&Account| known.person == person && same(&known.account, account);
                (
                    account.clone(),
                    self.accounts.iter().find(own).and_then(|own| own.subject.clone()),
                )
            }
            (None, None) => return,
        };
        self.accounts.retain(|known| known.person != person);
        self.accounts.push(Account { person, account, subject });
    }

    /// Accounts that are known.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Says by what the provider knows a person of the directory.
    ///
    /// # Errors
    /// It is no account, somebody else's, or the file cannot be written.
    pub fn set_account(&mut self, person: u32, account: &str) -> Result<(), OrgError> {
        check_account(account)?;
        if let Some(other) = self.person_of_account(account)
            && other.person.id != person
        {
            return Err(OrgError::Refused(format!(
                "the account {account:?} is that of {:?} ({})",
                other.person.name, other.person.id
            )));
        }
        self.accounts.retain(|known| known.person != person);
        self.accounts.push(Account { person, account: account.into(), subject: None });
        self.save()
    }

    /// Ends invitations and sign-ins of some kind, with their requests.
    ///
    /// # Errors
    /// The files cannot be written.
    pub(crate) fn end_for_account(
        &mut self,
        meant: impl Fn(&Open) -> bool,
    ) -> Result<(), OrgError> {
        let keys: Vec<_> =
            self.open.iter().filter(|open| meant(open)).map(|open| open.invitation.key).collect();
        if keys.is_empty() {
            return Ok(());
        }
        keys.iter().for_each(|key| self.end(key));
        self.save()
    }

    /// The person of an account, removed or not; of several the one who is there, or came last.
    pub fn person_of_account(&self, account: &str) -> Option<&Member> {
        let known = self.accounts.iter().filter(|known| same(&known.account, account));
        let people = known.filter_map(|known| self.directory.person(known.person));
        people.max_by_key(|member| (!member.is_removed, member.person.id))
    }
}

/// Whether a text can be an account.
///
/// # Errors
/// It is too long, or not all of it shows.
pub(super) fn check_account(account: &str) -> Result<(), OrgError> {
    let shows = shoal_topology::is_plain(account) && account.trim() == account;
    if shows && (1..=MAX_ACCOUNT).contains(&account.len()) {
        return Ok(());
    }
    Err(OrgError::Refused("an account has 1 to 255 bytes, all of which show".into()))
}

#[cfg(test)]
mod tests {
    use shoal_organisation::{Code, Entry, Removed, Request};
    use shoal_topology::{Identity, SecretIdentity, Seed};

    use super::*;
    use crate::accounts::{keep_sign_in, signed_in_file};
    use crate::files::unix_s;
    use crate::signed_in::Subject;

    /// An organisation with an issuer's key beside the owner's, in a directory that goes with the first value.
    fn founded() -> (tempfile::TempDir, Registry) {
        let scratch = tempfile::tempdir().unwrap();
        let mut registry =
            Registry::init(&scratch.path().join("acme"), "acme", "Olga Owner", None).unwrap();
        let seed = shoal_host::secret::read_or_create(&registry.key_file(2)).unwrap();
        let key = SecretIdentity::from_bytes(&seed).identity();
        let role = Some(shoal_organisation::Role::Issuer);
        let admin = shoal_organisation::Admin { number: 2, name: "Service".into(), key, role };
        registry.enter(vec![Entry::Admin(admin)], Some(1)).unwrap();
        (scratch, registry)
    }

    /// A sign-in by a person of the provider, for the device of this seed.
    fn signs_in(registry: &Registry, device: u8, subject: &str, account: &str) -> Identity {
        let code = Code::draw(&mut Seed::from_u64(device.into()).stream("code"));
        let secret = SecretIdentity::from_bytes(&[device; 32]);
        let named = ("laptop".into(), vec![Identity([9; 32])]);
        let request = Request::new(&code, registry.directory().organisation(), &secret, named);
        let by = Subject { issuer: "https://login.example".into(), subject: subject.into() };
        let (name, unit) = (format!("The {account}"), "Sales".into());
        let expires = unix_s() + 60;
        let signed_in = SignedIn { by, account: account.into(), name, unit, auto: true, expires };
        keep_sign_in(registry.dir(), &request, &signed_in).unwrap();
        request.invitation()
    }

    /// Whom the only open sign-in means, and who says yes.
    fn open(dir: &std::path::Path) -> (Invited, Approval) {
        let registry = Registry::open(dir).unwrap();
        let [open] = registry.invitations() else { panic!("{:?}", registry.invitations()) };
        assert!(open.signed_in.is_some() && open.request.is_some());
        (open.invitation.invited.clone(), open.approval)
    }

    #[test]
    fn a_sign_in_lets_in_unseen_whom_nobody_knows_and_nobody_else() {
        let (_scratch, registry) = founded();
        let dir = registry.dir().to_owned();
        signs_in(&registry, 1, "1", "alice@example.org");
        assert!(matches!(open(&dir), (Invited::Person { .. }, Approval::Service)));
        drop(registry);
        let mut registry = Registry::open(&dir).unwrap();
        let (new, why) = registry.approve_unseen(2).unwrap();
        assert!(new == 2 && why.is_none(), "{why:?}");
        assert!(registry.invitations().is_empty());
        assert_eq!(registry.directory().person(0).unwrap().person.name, "The alice@example.org");
        assert_eq!(registry.person_of_account("Alice@Example.org").unwrap().person.id, 0);
        drop(registry);
        // The same person again is a further device, whatever his account is called now; an admin looks at it.
        let registry = Registry::open(&dir).unwrap();
        signs_in(&registry, 2, "1", "other@example.org");
        drop(registry);
        assert_eq!(open(&dir), (Invited::Device { person: 0 }, Approval::Admin));
        let mut registry = Registry::open(&dir).unwrap();
        assert_eq!(registry.approve_unseen(2).unwrap().0, 0);
        registry.refuse("The alice@example.org").unwrap();
        // Somebody else with an account that was hers is not her.
        signs_in(&registry, 3, "2", "ALICE@example.org");
        drop(registry);
        assert!(matches!(open(&dir), (Invited::Person { .. }, Approval::Admin)));
        // An admin said whose the account is, and nobody signed in by it yet.
        let mut registry = Registry::open(&dir).unwrap();
        registry.refuse("The ALICE@example.org").unwrap();
        registry.set_account(0, "alice@example.org").unwrap();
        signs_in(&registry, 4, "3", "alice@example.org");
        drop(registry);
        assert_eq!(open(&dir), (Invited::Device { person: 0 }, Approval::Admin));
    }

    #[test]
    fn whoever_was_removed_comes_back_by_no_sign_in_unseen() {
        let (_scratch, registry) = founded();
        let dir = registry.dir().to_owned();
        signs_in(&registry, 1, "1", "alice@example.org");
        drop(registry);
        let mut registry = Registry::open(&dir).unwrap();
        registry.approve_unseen(2).unwrap();
        registry.enter(vec![Entry::Remove(Removed::Person(0))], Some(2)).unwrap();
        signs_in(&registry, 2, "1", "alice@example.org");
        drop(registry);
        assert!(matches!(open(&dir), (Invited::Person { .. }, Approval::Admin)));
        assert_eq!(Registry::open(&dir).unwrap().approve_unseen(2).unwrap().0, 0);
    }

    #[test]
    fn of_each_person_one_sign_in_waits_and_junk_for_one_stops_no_admin() {
        let (_scratch, registry) = founded();
        let dir = registry.dir().to_owned();
        let first = signs_in(&registry, 1, "1", "alice@example.org");
        let second = signs_in(&registry, 2, "1", "alice@example.org");
        assert!(!signed_in_file(&dir, &first).exists() && signed_in_file(&dir, &second).exists());
        std::fs::write(signed_in_file(&dir, &first), "{\"by\": 7}").unwrap();
        std::fs::write(signed_in_file(&dir, &Identity([7; 32])), vec![b' '; 5_000]).unwrap();
        // What would write over an admin's terminal.
        let text = std::fs::read_to_string(signed_in_file(&dir, &second)).unwrap();
        let third = signs_in(&registry, 3, "3", "carol@example.org");
        for member in ["https://login.example", "The alice@example.org", "Sales"] {
            let text = text.replace(member, &format!("{member}\\u001b[2J"));
            std::fs::write(signed_in_file(&dir, &third), text).unwrap();
            assert_eq!(crate::accounts::kept_sign_ins(&dir).len(), 1, "{member}");
        }
        drop(registry);
        open(&dir);
        let mut registry = Registry::open(&dir).unwrap();
        registry.enter(vec![Entry::Announce { text: "all is well".into() }], Some(1)).unwrap();
        for wrong in ["", " a", "a\nb", &"x".repeat(256)] {
            assert!(registry.set_account(0, wrong).is_err(), "{wrong:?}");
        }
    }
}

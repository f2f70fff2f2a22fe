//! Invitations, and the requests that come for them.

use shoal_host::secret;
use shoal_organisation::enrolment::{Invited, VALID_S};
use shoal_organisation::{Admin, Code, Invitation, Request, Role};
use shoal_topology::{Identity, SecretIdentity};

use super::accounts::check_account;
use super::{Entered, Registry};
use crate::OrgError;
use crate::files::{keep_request, read, unix_s};
use crate::invitations::{Approval, Open, Slip};

/// Most invitations that are open at a time.
const MAX_OPEN: usize = 10_000;

impl Registry {
    /// Invites somebody: the code is for him alone, and this keeps none of it.
    ///
    /// # Errors
    /// The person is not there, too many are invited, or nobody can be let in unseen.
    pub fn invite(
        &mut self,
        invited: Invited,
        valid_s: Option<u64>,
        (approval, account): (Approval, Option<String>),
    ) -> Result<Slip, OrgError> {
        if approval == Approval::Service {
            self.allows_unseen()?;
        }
        if let Some(account) = &account {
            check_account(account)?;
        }
        let now = unix_s();
        let over: Vec<Identity> = self
            .open
            .iter()
            .filter(|open| open.invitation.expires < now)
            .map(|open| open.invitation.key)
            .collect();
        over.iter().for_each(|key| self.end(key));
        if self.open.len() >= MAX_OPEN {
            return Err(OrgError::Refused(
                "10,000 invitations are open: wait until some are over".into(),
            ));
        }
        let seed = shoal_topology::Seed::new(*secret::fresh()?);
        let code = Code::draw(&mut seed.stream("code of an invitation"));
        let expires = now.saturating_add(valid_s.unwrap_or(VALID_S));
        let invitation = Invitation { key: code.public(), invited, expires };
        // Whether its entries could stand is seen now, not when the new member is there.
        let seed = secret::fresh()?;
        let probe = SecretIdentity::from_bytes(&seed);
        let gateways = vec![probe.identity()];
        let request =
            Request::new(&code, self.directory.organisation(), &probe, ("device".into(), gateways));
        self.directory.draft(now, request.entries(&self.directory, &invitation, now)?)?;
        self.open.push(Open { invitation, approval, account, signed_in: None, request: None });
        self.save()?;
        let network = match self.network() {
            Some(path) => String::from_utf8_lossy(&read(path)?).into_owned(),
            None => String::new(),
        };
        Ok(Slip {
            organisation: self.directory.name().into(),
            key: self.about.key.clone(),
            code: code.to_string(),
            expires,
            network,
        })
    }

    /// Invitations that are open.
    pub fn invitations(&self) -> &[Open] {
        &self.open
    }

    /// Takes a request for an invitation that is open. The same request again is the same; another one for the same invitation
    /// is refused, and the first stays, for an admin to look at.
    ///
    /// # Errors
    /// There is no such invitation, or it was used.
    pub fn receive(&mut self, request: Request) -> Result<&Open, OrgError> {
        let key = request.invitation();
        let Some(open) = self.open.iter_mut().find(|open| open.invitation.key == key) else {
            let refused =
                "no open invitation fits this request: it is over, or was used; invite again";
            return Err(OrgError::Refused(refused.into()));
        };
        request.entries(&self.directory, &open.invitation, unix_s())?;
        if open.request.as_ref().is_some_and(|known| known.device() != request.device()) {
            return Err(OrgError::Refused(
                "another device asked first with this code: refuse that one, if it is a stranger's, and invite again".into(),
            ));
        }
        keep_request(&self.dir, &request)?;
        open.request = Some(request);
        Ok(open)
    }

    /// Lets a request in whose digits an admin heard from the new member.
    ///
    /// # Errors
    /// No request has these digits, or its entries cannot stand.
    pub fn approve(&mut self, digits: &str, admin: Option<u16>) -> Result<Entered, OrgError> {
        let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
        let fits = |open: &&Open| open.request.as_ref().is_some_and(|r| r.digits() == digits);
        let found: Vec<&Open> = self.open.iter().filter(fits).collect();
        let (invitation, request) = match found.as_slice() {
            [Open { invitation, request: Some(request), .. }] => (invitation, request),
            [] => {
                return Err(OrgError::Refused(format!(
                    "no request shows the digits {digits}: `shoal-org requests` lists them. If the new member reads others than \
                     are listed under his name, somebody else has used his code: refuse that request"
                )));
            }
            _ => {
                return Err(OrgError::Refused(format!(
                    "two requests show the digits {digits}: refuse both and invite again"
                )));
            }
        };
        let entries = request.entries(&self.directory, invitation, unix_s())?;
        self.enter(entries, admin)
    }

    /// Whether the policy lets a service say yes in place of an admin.
    ///
    /// # Errors
    /// It has two admins approve.
    pub fn allows_unseen(&self) -> Result<(), OrgError> {
        if self.directory.policy().approvals == 1 {
            return Ok(());
        }
        Err(OrgError::Refused(
            "the policy has two admins approve, so nobody is let in unseen: leave --auto away, or have both sign \
             `shoal-org policy --approvals 1`"
                .into(),
        ))
    }

    /// The number of the issuer as whom a service signs: this one, or the only one whose key lies here.
    ///
    /// # Errors
    /// There is none, or the key is of an admin who may do more than a service should.
    pub fn issuer(&self, admin: Option<u16>) -> Result<u16, OrgError> {
        let refused = |why: String| Err(OrgError::Refused(why));
        let number = |admin: &Admin| admin.number;
        let keys = self.admin_keys()?;
        let here = || self.directory.admins().filter(|admin| keys.contains_key(&admin.number));
        let issuers: Vec<u16> =
            here().filter(|admin| admin.role == Some(Role::Issuer)).map(number).collect();
        match (admin, issuers.as_slice()) {
            (Some(wanted), issuers) if issuers.contains(&wanted) => Ok(wanted),
            (None, [only]) => Ok(*only),
            (None, [_, _, ..]) => {
                refused("keys of several issuers are here: --as says as whom to sign".into())
            }
            _ => {
                let next = self.directory.admins().map(number).max().unwrap_or_default();
                let next = next.saturating_add(1);
                refused(format!(
                    "a service that changes the directory signs with the key of an admin whose role is issuer, who can neither \
                     make admins nor change the policy, and none lies in {}: `shoal-org admin-key {next}` there, then an owner's \
                     `shoal-org admin add Service --role issuer --key …`",
                    self.dir.join("keys").display()
                ))
            }
        }
    }

    /// Lets in, unseen, whoever has asked for an invitation that says so. What cannot stand stays for an admin to look at. How many
    /// entries are new, and why the last request that could not be let in was not.
    ///
    /// # Errors
    /// Two admins have to approve, or there is no key.
    pub fn approve_unseen(&mut self, issuer: u16) -> Result<(u64, Option<OrgError>), OrgError> {
        self.allows_unseen()?;
        let issuer = self.issuer(Some(issuer))?;
        let (before, mut why) = (self.directory.size(), None);
        for open in self.open.clone() {
            let (Approval::Service, Some(request)) = (open.approval, &open.request) else {
                continue;
            };
            let entries = request.entries(&self.directory, &open.invitation, unix_s());
            let done = entries.map_err(OrgError::from).and_then(|e| self.enter(e, Some(issuer)));
            why = done.err().or(why);
        }
        Ok((self.directory.size() - before, why))
    }

    /// Ends an open invitation, by the name that it is for or the digits of its request.
    ///
    /// # Errors
    /// There is none, or several are meant.
    pub fn refuse(&mut self, name_or_digits: &str) -> Result<(), OrgError> {
        let is_meant = |open: &Open| {
            let digits = open.request.as_ref().map(Request::digits);
            digits.as_deref() == Some(name_or_digits)
                || self.is_for(&open.invitation, name_or_digits)
        };
        let meant: Vec<Identity> = self
            .open
            .iter()
            .filter(|open| is_meant(open))
            .map(|open| open.invitation.key)
            .collect();
        match meant.as_slice() {
            [key] => {
                self.end(key);
                self.save()
            }
            [] => Err(OrgError::Refused(format!("no open invitation is for {name_or_digits:?}"))),
            several => Err(OrgError::Refused(format!(
                "{} open invitations are for {name_or_digits:?}: say the digits of one",
                several.len()
            ))),
        }
    }

    fn is_for(&self, invitation: &Invitation, wanted: &str) -> bool {
        self.name_of(invitation).to_lowercase() == wanted.to_lowercase()
    }

    /// Whose name an invitation is for.
    pub fn name_of(&self, invitation: &Invitation) -> String {
        match &invitation.invited {
            Invited::Person { name, .. } => name.clone(),
            Invited::Device { person } => {
                let member = self.directory.person(*person);
                member.map(|member| member.person.name.clone()).unwrap_or_default()
            }
        }
    }
}

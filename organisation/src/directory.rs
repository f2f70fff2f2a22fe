//! The directory: batches in, people and devices out.

mod rules;

use std::collections::BTreeMap;
use std::ops::Range;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;
use shoal_topology::directory::address::ServiceAddress;
use shoal_topology::encoding::{decode, encode};
use shoal_topology::{
    Context, DirectoryHead, HeadUpdate, Identity, MAX_ENTRIES, SecretIdentity, Signature, Signed,
};

use crate::tree::Frontier;
use crate::{
    Admin, Batch, Device, Draft, Entry, Error, FOUNDER, Person, Policy, Role, SignedBatch,
};

/// Most bytes of a whole directory.
const MAX_LEN: usize = 64 << 20;

/// Most bytes of a batch with its signatures.
const MAX_BATCH_LEN: usize = 1 << 20;
/// Latest date of a batch, Unix seconds: in the year 36812.
const MAX_AT: u64 = 1 << 40;

/// A person of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// As the last entry about it says.
    pub person: Person,
    /// The number of the entry that first named it.
    pub since: u64,
    /// True if it belongs to the organisation no more.
    pub is_removed: bool,
    /// Its devices that are not removed.
    pub devices: Vec<u32>,
}

/// A device of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberDevice {
    /// As the last entry about it says.
    pub device: Device,
    /// The number of the entry that first named it.
    pub since: u64,
    /// True if nothing is written to it any more, nor taken from it.
    pub is_removed: bool,
}

impl MemberDevice {
    /// Where it is reached: at the gateway that it prefers.
    pub fn address(&self) -> Option<ServiceAddress> {
        let gateway = self.device.gateways.first()?.0;
        Some(ServiceAddress { identity: self.device.key.0, gateway })
    }
}

/// An entry where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedEntry<'a> {
    /// Its number, counted from 0.
    pub number: u64,
    /// What it says.
    pub entry: &'a Entry,
    /// The batch that it came in.
    pub batch: &'a SignedBatch,
}

/// What the entries so far amount to.
#[derive(Clone, Default, Debug)]
struct DirectoryState {
    name: String,
    admins: BTreeMap<u16, Admin>,
    people: Vec<Member>,
    devices: Vec<MemberDevice>,
    /// Devices by their keys: a key is never listed for a second one.
    keys: BTreeMap<Identity, u32>,
    policy: Policy,
}

/// An organisation's directory, whole. It takes batches in their order and refuses what breaks a rule, so that everybody
/// who holds the same entries sees the same people.
#[derive(Clone)]
pub struct Directory {
    organisation: Identity,
    batches: Vec<SignedBatch>,
    /// Over the entries.
    tree: Frontier,
    /// [`Batch::hash`] of the last batch.
    last: [u8; 32],
    /// Bytes of all batches, with their signatures.
    bytes: usize,
    state: DirectoryState,
}

/// Signatures that are still to be verified: by whom, of what, in the batch at which entry by which admin.
type Unverified = Vec<(Identity, Vec<u8>, Signature, (u64, u16))>;

impl Directory {
    /// The empty directory of an organisation, by its key: what everything else follows from.
    pub fn new(organisation: Identity) -> Self {
        Self {
            organisation,
            batches: Vec::new(),
            tree: Frontier::default(),
            last: [0; 32],
            bytes: 0,
            state: DirectoryState::default(),
        }
    }

    /// Founds an organisation: its name, its admins, numbered from 1, and what else stands in the beginning.
    ///
    /// # Errors
    /// An entry breaks a rule.
    pub fn found(secret: &SecretIdentity, at: u64, entries: Vec<Entry>) -> Result<Self, Error> {
        let mut directory = Self::new(secret.identity());
        let mut draft = directory.draft(at, entries)?;
        draft.sign(FOUNDER, secret);
        directory.extend(vec![draft.signed().clone()])?;
        Ok(directory)
    }

    /// Takes batches that follow what is here, and says which entries are new. If one cannot stand, nothing changes.
    ///
    /// # Errors
    /// The first rule that is broken, or a signature.
    pub fn extend(&mut self, batches: Vec<SignedBatch>) -> Result<Range<u64>, Error> {
        let (size, held) = (self.size(), self.batches.len());
        let mut unverified = Unverified::new();
        let taken = batches
            .into_iter()
            .try_for_each(|signed| self.take(signed, &mut unverified))
            // All together, for that costs half. What is taken so far is taken back if one is wrong.
            .and_then(|()| verify(&unverified));
        match taken {
            Ok(()) => Ok(size..self.size()),
            Err(error) => {
                self.cut(held);
                Err(error)
            }
        }
    }

    /// Goes back to its first batches, which were verified.
    fn cut(&mut self, held: usize) {
        let mut batches = std::mem::take(&mut self.batches);
        batches.truncate(held);
        *self = Self::new(self.organisation);
        for signed in batches {
            // They stood before, so they stand again.
            let _ = self.take(signed, &mut Unverified::new());
        }
    }

    /// Takes one batch, but for its signatures.
    fn take(&mut self, signed: SignedBatch, unverified: &mut Unverified) -> Result<(), Error> {
        let batch = &signed.batch;
        self.check_order(batch)?;
        let signers = self.signers(&signed)?;
        let message = batch.signed(&self.organisation);
        for ((admin, signature), (key, _)) in signed.signatures.iter().zip(&signers) {
            unverified.push((*key, message.clone(), *signature, (batch.number, *admin)));
        }
        let roles: Vec<Role> = signers.iter().map(|(_, role)| *role).collect();
        self.state.apply(&self.organisation, batch, &roles)?;
        batch.entries.iter().for_each(|entry| self.tree.push(&encode(entry)));
        self.last = batch.hash();
        self.bytes += signed.encode().len();
        self.batches.push(signed);
        Ok(())
    }

    fn check_order(&self, batch: &Batch) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Order { found: batch.number, why });
        if batch.number != self.size() {
            return wrong(format!("entry {} is the next", self.size()));
        }
        if batch.before != self.last {
            return wrong("it was made upon other entries than those before it".into());
        }
        if self.batches.last().is_some_and(|last| batch.at < last.batch.at) {
            return wrong("it was made before the last one, by its date".into());
        }
        if batch.at > MAX_AT {
            return wrong("its date is no date".into());
        }
        if self.bytes + encode(batch).len() > MAX_LEN - MAX_BATCH_LEN {
            return wrong("the directory would have more than 63 MiB".into());
        }
        if batch.entries.is_empty() || batch.entries.len() > crate::MAX_BATCH {
            return wrong("a batch has 1 to 1,024 entries".into());
        }
        if self.size() + batch.entries.len() as u64 > MAX_ENTRIES {
            return wrong("a directory has at most 16,777,216 entries".into());
        }
        Ok(())
    }

    /// Keys and roles of those who signed, in their order.
    fn signers(&self, signed: &SignedBatch) -> Result<Vec<(Identity, Role)>, Error> {
        let number = signed.batch.number;
        if signed.signatures.len() > crate::batch::MAX_SIGNATURES {
            return Err(Error::Order {
                found: number,
                why: "it has more than 4 signatures".into(),
            });
        }
        if !signed.signatures.is_sorted_by(|(one, _), (other, _)| one < other) {
            return Err(Error::Order {
                found: number,
                why: "its signatures are not in order".into(),
            });
        }
        let key = |admin: u16| match (admin, self.batches.is_empty()) {
            (FOUNDER, true) => Some((self.organisation, Role::Owner)),
            // The organisation's key signs heads, perhaps on a machine that is online: it must give nobody power.
            (FOUNDER, false) | (_, true) => None,
            _ => self.state.admins.get(&admin).and_then(|admin| Some((admin.key, admin.role?))),
        };
        let of = |(admin, _): &(u16, Signature)| {
            key(*admin).ok_or(Error::Signature { number, admin: *admin })
        };
        signed.signatures.iter().map(of).collect()
    }

    /// A batch of these entries, to be signed. Its rules are checked as if enough admins had.
    ///
    /// # Errors
    /// An entry breaks a rule.
    pub fn draft(&self, at: u64, entries: Vec<Entry>) -> Result<Draft, Error> {
        let at = self.batches.last().map_or(at, |last| at.max(last.batch.at));
        let batch = Batch { number: self.size(), before: self.last, at, entries };
        self.check_order(&batch)?;
        let owners = vec![Role::Owner; crate::batch::MAX_SIGNATURES];
        self.state.clone().apply(&self.organisation, &batch, &owners)?;
        Ok(Draft::new(self.organisation, batch))
    }

    /// How many entries it has.
    pub fn size(&self) -> u64 {
        self.tree.len()
    }

    /// The key of the organisation.
    pub fn organisation(&self) -> Identity {
        self.organisation
    }

    /// The name of the organisation; empty before the first batch.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// What holds for all members.
    pub fn policy(&self) -> Policy {
        self.state.policy
    }

    /// The admins, those without a role too, in the order of their numbers.
    pub fn admins(&self) -> impl Iterator<Item = &Admin> {
        self.state.admins.values()
    }

    /// All persons that were ever listed, in the order of their numbers.
    pub fn people(&self) -> impl Iterator<Item = &Member> {
        self.state.people.iter()
    }

    /// The person of this number.
    pub fn person(&self, id: u32) -> Option<&Member> {
        self.state.people.get(id as usize)
    }

    /// All devices that were ever listed, in the order of their numbers.
    pub fn devices(&self) -> impl Iterator<Item = &MemberDevice> {
        self.state.devices.iter()
    }

    /// The device of this number.
    pub fn device(&self, id: u32) -> Option<&MemberDevice> {
        self.state.devices.get(id as usize)
    }

    /// The device with this key, removed or not.
    pub fn device_of_key(&self, key: &Identity) -> Option<&MemberDevice> {
        self.state.keys.get(key).and_then(|id| self.device(*id))
    }

    /// Persons of this name, or, if there is none, whose name or a word of it begins so: in any case of letters. Those
    /// who are removed are not among them.
    pub fn find(&self, name: &str) -> Vec<&Member> {
        self.find_among(name, |member| !member.is_removed)
    }

    /// The same, of all who were ever listed.
    pub fn find_ever(&self, name: &str) -> Vec<&Member> {
        self.find_among(name, |_| true)
    }

    fn find_among(&self, name: &str, is_among: impl Fn(&Member) -> bool) -> Vec<&Member> {
        let wanted = name.trim().to_lowercase();
        let among = || self.people().filter(|member| is_among(member));
        let lower = |member: &Member| member.person.name.to_lowercase();
        let whole: Vec<&Member> = among().filter(|member| lower(member) == wanted).collect();
        if !whole.is_empty() || wanted.is_empty() {
            return whole;
        }
        let begins = |member: &&Member| {
            let name = lower(member);
            name.starts_with(&wanted) || name.split_whitespace().any(|w| w.starts_with(&wanted))
        };
        among().filter(begins).collect()
    }

    /// Entries of these numbers.
    pub fn entries(&self, numbers: Range<u64>) -> impl Iterator<Item = ListedEntry<'_>> {
        let from = self.batches.partition_point(|signed| {
            signed.batch.number + signed.batch.entries.len() as u64 <= numbers.start
        });
        let of = |batch: &'_ SignedBatch| batch.batch.number;
        self.batches
            .iter()
            .skip(from)
            .flat_map(move |batch| {
                let entries = batch.batch.entries.iter();
                (of(batch)..).zip(entries).map(move |(number, entry)| ListedEntry {
                    number,
                    entry,
                    batch,
                })
            })
            .skip_while(move |listed| listed.number < numbers.start)
            .take_while(move |listed| listed.number < numbers.end)
    }

    /// The batches from entry `number` on, which must be the first of one: what somebody lacks who holds those before it.
    pub fn since(&self, number: u64) -> Option<&[SignedBatch]> {
        let at = self.batches.partition_point(|signed| signed.batch.number < number);
        let begins = self.batches.get(at).map_or(self.size(), |signed| signed.batch.number);
        (begins == number).then(|| self.batches.get(at..).unwrap_or_default())
    }

    /// What only those know who hold the directory, as it was when it had `size` entries: they show it to whoever gives out
    /// what is new. `None` if no batch ended there.
    pub fn reader_token(&self, size: u64) -> Option<[u8; 32]> {
        let ends =
            |signed: &&SignedBatch| signed.batch.number + signed.batch.entries.len() as u64 == size;
        let at =
            self.batches.partition_point(|signed| signed.batch.number < size).checked_sub(1)?;
        let signed = self.batches.get(at).filter(ends)?;
        Some(blake3::derive_key("shoal 2026 reader of a directory", &signed.batch.hash()))
    }

    /// Root of the Merkle tree over all entries (RFC 6962).
    pub fn root(&self) -> [u8; 32] {
        self.tree.root()
    }

    /// The same over the first `size` entries.
    fn root_at(&self, size: u64) -> Option<[u8; 32]> {
        if size >= self.size() {
            return (size == self.size()).then(|| self.root());
        }
        let mut tree = Frontier::default();
        self.entries(0..size).for_each(|listed| tree.push(&encode(listed.entry)));
        Some(tree.root())
    }

    /// Says whether this directory, or a beginning of it, is the one that a document has the head of. `Ok(false)`: the
    /// head is of more entries than are here.
    ///
    /// # Errors
    /// It is another one.
    pub fn agrees(&self, head: &DirectoryHead) -> Result<bool, Error> {
        if head.identity != self.organisation || head.name != self.state.name {
            return Err(Error::OtherHead { size: head.size });
        }
        match self.root_at(head.size) {
            None => Ok(false),
            Some(root) if root == head.root => Ok(true),
            Some(_) => Err(Error::OtherHead { size: head.size }),
        }
    }

    /// The head of the directory as it is, signed with the organisation's key.
    pub fn head(
        &self,
        secret: &SecretIdentity,
        service: Option<ServiceAddress>,
        signed_at: u64,
    ) -> Signed<DirectoryHead> {
        let head = DirectoryHead {
            name: self.state.name.clone(),
            identity: self.organisation,
            size: self.size(),
            root: self.root(),
            service: service.map(|at| (Identity(at.identity), Identity(at.gateway))),
            signed_at,
        };
        Signed::<DirectoryHead>::new(head, secret)
    }

    /// A head for authorities, with the proof that it continues the one in their document, if that has one.
    ///
    /// # Errors
    /// The document's head is of another directory, or of entries that are not here.
    pub fn update(
        &self,
        head: Signed<DirectoryHead>,
        before: Option<&DirectoryHead>,
    ) -> Result<HeadUpdate, Error> {
        let Some(before) = before else { return Ok(HeadUpdate { head, proof: Vec::new() }) };
        if !self.agrees(before)? {
            return Err(Error::OtherHead { size: before.size });
        }
        let more = usize::try_from(self.size() - before.size).unwrap_or(usize::MAX);
        let proof = if more == 0 {
            Vec::new()
        } else {
            let mut tree = MemoryBackedTree::<Sha256, Vec<u8>>::new();
            self.entries(0..self.size()).for_each(|listed| tree.push(encode(listed.entry)));
            let proof = tree.prove_consistency(more);
            proof.as_bytes().as_chunks::<32>().0.to_vec()
        };
        Ok(HeadUpdate { head, proof })
    }

    /// All of it, for a file.
    pub fn encode(&self) -> Vec<u8> {
        encode(&(self.organisation, &self.batches))
    }

    /// Reads what [`Self::encode`] wrote, and verifies everything again.
    ///
    /// # Errors
    /// Bytes of another form, an entry that cannot stand, a wrong signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (organisation, batches) =
            decode::<(Identity, Vec<SignedBatch>)>("directory", bytes, MAX_LEN)?;
        let mut directory = Self::new(organisation);
        directory.extend(batches)?;
        Ok(directory)
    }
}

/// Verifies many signatures at once; if they do not hold together, finds one that is wrong.
fn verify(unverified: &Unverified) -> Result<(), Error> {
    for some in unverified.chunks(1_024) {
        let signed: Vec<(Identity, &[u8], Signature)> = some
            .iter()
            .map(|(key, message, signature, _)| (*key, message.as_slice(), *signature))
            .collect();
        if Identity::all_signed(Context::Directory, &signed) {
            continue;
        }
        for (key, message, signature, (number, admin)) in some {
            if !key.verify(Context::Directory, message, signature) {
                return Err(Error::Signature { number: *number, admin: *admin });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

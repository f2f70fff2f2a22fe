//! A person's organisation, as his client knows it: how it was let in, and the directory of people, which it keeps up to date.
//!
//! A task asks the organisation's service through a tunnel like any other. It goes by the head in the topology document, which all see:
//! it takes the entries that the head covers and no more, and what contradicts the head is kept out and told.

mod fetch;
mod files;
mod people;

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_host::exit::chain;
use shoal_host::secret;
use shoal_organisation::wire::SignIn;
use shoal_organisation::{
    Alarm, Code, Directory, Entry, Member, MemberDevice, PersonFlags, Request, SignedBatch, alarms,
};
use shoal_topology::{DirectoryHead, Document, Identity, SecretIdentity, Signed};
use tokio::sync::Notify;

use super::clock::unix_s;
use super::events::Events;
use super::{Config, Shared, Shoal};
use files::MembershipRecord;
pub(super) use people::{PersonKeys, RosterMark};

/// What stands in place of a code where somebody signs in.
const SIGN_IN: &str = "sign-in";
/// How often it is looked whether the document has another head.
const LOOK: Duration = Duration::from_secs(2);
/// Longest drawn time between a new head and the question for what is new.
const SPREAD: Duration = Duration::from_secs(600);
/// Mean time between two questions whether a request was approved.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// How often it is written down that the directory is still the one of the document, seconds.
const WRITE_DOWN_S: u64 = 3_600;
/// Announcements that are shown, the latest.
const ANNOUNCEMENTS: usize = 10;
/// Most alarms that are kept.
const ALARMS: usize = 100;

/// The handle: what programs ask goes by it.
#[derive(Clone)]
pub(super) struct Membership(Arc<Inner>);

struct Inner {
    config: Config,
    shared: Shared,
    /// Where what happens is told.
    events: Events,
    state: Mutex<Option<MembershipState>>,
    /// Why what is on the disk could not be read.
    damaged: Option<String>,
    /// There is something new to do.
    changed: Notify,
}

/// An organisation that was asked, or is one's own.
struct MembershipState {
    kept: MembershipRecord,
    request: Request,
    /// Empty until the request was approved.
    directory: Directory,
    /// Why the service gave nothing when it was asked last.
    refused: Option<String>,
    /// Where its owner has to sign in.
    sign_in: Option<SignIn>,
    /// The service said no for good: it is asked again after the next start, or when there is another request.
    is_over: bool,
    /// The head (size and root) of which it was seen last that the directory is the one.
    agreed: Option<(u64, [u8; 32])>,
}

impl MembershipState {
    fn device(&self) -> Option<&MemberDevice> {
        self.directory.device_of_key(&self.request.device())
    }

    fn is_member(&self) -> bool {
        self.device().is_some_and(|device| !device.is_removed)
    }

    fn was_removed(&self) -> bool {
        self.device().is_some_and(|device| device.is_removed)
    }
}

impl Membership {
    /// Reads what is on the disk. What cannot be read is told to whoever asks, and nothing is written over it.
    pub(super) fn open(config: &Config, shared: Shared, events: Events) -> Self {
        let read = files::read(&config.data_dir).map_err(|error| chain(&error));
        if let Err(why) = &read {
            tracing::error!("the organisation is unknown: {why}");
        }
        let (state, damaged) = match read {
            Ok(read) => (read, None),
            Err(why) => (None, Some(why)),
        };
        let state = state.map(|(kept, request, directory)| MembershipState {
            kept,
            request,
            directory,
            refused: None,
            sign_in: None,
            is_over: false,
            agreed: None,
        });
        let (config, state) = (config.clone(), Mutex::new(state));
        let changed = Notify::new();
        Self(Arc::new(Inner { config, shared, events, state, damaged, changed }))
    }

    fn state(&self) -> MutexGuard<'_, Option<MembershipState>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document in use, once there is one.
    fn document(&self) -> Option<Arc<Document>> {
        let report = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        report.document.clone()
    }

    /// How well the network protects now, in the words of `shoal-client status`.
    pub(super) fn status(&self) -> Value {
        let report = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |key: &str| report.status.get(key).cloned().unwrap_or(Value::Null);
        json!({
            "connected": of("ready"),
            "why": of("why_not"),
            "summary": of("summary"),
            "warnings": of("warnings"),
        })
    }

    /// Asks to be let in, by the code of an invitation or, with [`SIGN_IN`] in its place, by a sign-in at the organisation's own
    /// provider: what people are told, with the digits.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub(super) fn join(
        &self,
        code: &str,
        organisation: &str,
        device: &str,
    ) -> Result<Value, String> {
        let config = &self.0.config;
        if let Some(why) = &self.0.damaged {
            return Err(why.clone());
        }
        if !config.reachable {
            return Err("others write to the members of an organisation: set reachable = true in the configuration, and start \
                        the client anew".into());
        }
        let by_sign_in = code == SIGN_IN;
        let code = match by_sign_in {
            // Of no use to anybody else: the service lets its key in once its owner has signed in.
            true => Code::draw(&mut fetch::stream()),
            false => code.parse().map_err(|error| format!("code: {error}"))?,
        };
        let document = self
            .document()
            .ok_or("there is no topology document yet: wait until the client is connected")?;
        let head = chosen(&document, organisation)?;
        let mut state = self.state();
        if state.as_ref().is_some_and(MembershipState::is_member) {
            return Err("this client belongs to an organisation already".into());
        }
        if state
            .as_ref()
            .is_some_and(|state| state.was_removed() && state.kept.organisation == head.identity)
        {
            return Err("this device was removed from the organisation, and its key is never listed again: join with a new client \
                        (shoal-client init)".into());
        }
        let seed = secret::identity(&config.data_dir.join("identity.key"))
            .map_err(|error| error.to_string())?;
        let own = SecretIdentity::from_bytes(&seed);
        let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
        let request = Request::new(&code, head.identity, &own, (device.into(), gateways));
        // What could never be taken is said now.
        let request =
            Request::decode(&request.encode()).map_err(|error| format!("device: {error}"))?;
        let kept = MembershipRecord {
            by_sign_in,
            ..MembershipRecord::new(head.identity, head.name.clone())
        };
        let directory = Directory::new(head.identity);
        files::write(&config.data_dir, &kept, &request, &directory)
            .map_err(|error| error.to_string())?;
        let told = json!({ "organisation": kept.name, "key": kept.organisation.to_string(), "digits": request.digits() });
        *state = Some(MembershipState {
            kept,
            request,
            directory,
            refused: None,
            sign_in: None,
            is_over: false,
            agreed: None,
        });
        drop(state);
        self.0.changed.notify_one();
        Ok(told)
    }

    /// How it stands with the organisation. What is `seen` of alarms here is forgotten.
    ///
    /// # Errors
    /// The file of alarms cannot be written.
    pub(super) fn show(&self, seen: bool) -> Result<Value, String> {
        let mut state = self.state();
        let Some(state) = state.as_mut() else {
            return Ok(json!({ "organisation": null, "refused": self.0.damaged }));
        };
        let size = self.document().and_then(|d| Some(d.head(&state.kept.organisation)?.size));
        let announced = state.directory.entries(0..state.directory.size());
        let mut announcements: Vec<&str> = announced
            .filter_map(|listed| match listed.entry {
                Entry::Announce { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let latest = announcements.split_off(announcements.len().saturating_sub(ANNOUNCEMENTS));
        let shown = json!({
            "organisation": state.kept.name,
            "key": state.kept.organisation.to_string(),
            "member": state.is_member(),
            "removed": state.was_removed(),
            "digits": state.device().is_none().then(|| state.request.digits()),
            "refused": state.refused,
            "sign_in": state.sign_in.as_ref().map(|sign_in| {
                json!({ "address": sign_in.address, "code": sign_in.code })
            }),
            "entries": state.directory.size(),
            "head": size,
            "alarms": state.kept.alarms,
            "announcements": latest,
        });
        // Under the same lock: an alarm that comes in between is not forgotten unseen.
        if seen && !state.kept.alarms.is_empty() {
            state.kept.alarms.clear();
            self.save_kept(state)?;
        }
        Ok(shown)
    }

    fn save_kept(&self, state: &MembershipState) -> Result<(), String> {
        files::write_kept(&self.0.config.data_dir, &state.kept).map_err(|error| error.to_string())
    }

    fn save(&self, state: &MembershipState) -> Result<(), String> {
        let written =
            files::write(&self.0.config.data_dir, &state.kept, &state.request, &state.directory);
        written.map_err(|error| error.to_string())
    }

    /// The people whom a name means, or all.
    pub(super) fn contacts(&self, name: Option<&str>) -> Vec<Value> {
        let state = self.state();
        let Some(state) = state.as_ref() else { return Vec::new() };
        let directory = &state.directory;
        let own =
            directory.device_of_key(&state.request.device()).map(|device| device.device.person);
        let people = match name {
            Some(name) => directory.find(name),
            None => directory.people().filter(|member| !member.is_removed).collect(),
        };
        let device = |device: &MemberDevice| {
            json!({
                "name": device.device.name,
                "address": device.address().map(|address| address.to_string()),
                "held_until": state.kept.held_until(device.device.id),
            })
        };
        let contact = |member: &Member| {
            let devices = member.devices.iter().filter_map(|id| directory.device(*id));
            json!({
                "person": member.person.id,
                "name": member.person.name,
                "unit": member.person.unit,
                "external": member.person.flags.has(PersonFlags::EXTERNAL),
                "own": own == Some(member.person.id),
                "devices": devices.map(device).collect::<Vec<_>>(),
            })
        };
        people.into_iter().map(contact).collect()
    }

    fn tell(&self, event: Value) {
        // Whoever does not listen finds the same in what `show` says.
        let _ = self.0.events.send(event);
    }

    /// Takes batches that the service gave, all or what is new, as far as the head goes and no less: who takes a part would be known by
    /// it when he asks for the rest. False if there are too few.
    fn take(
        &self,
        batches: Vec<SignedBatch>,
        head: &DirectoryHead,
        whole: bool,
    ) -> Result<bool, String> {
        let mut state = self.state();
        let Some(state) = state.as_mut() else { return Ok(false) };
        let before = state.directory.clone();
        // Of a whole directory what is here already must be the beginning.
        let held = if whole { before.since(0).unwrap_or_default() } else { &[] };
        if !batches.starts_with(held) {
            return Err("its directory is not the one that is here".into());
        }
        // What no document covers yet may be shown to this client alone.
        let ends = |signed: &SignedBatch| {
            signed.batch.number.saturating_add(signed.batch.entries.len() as u64)
        };
        let covered =
            batches.into_iter().skip(held.len()).take_while(|signed| ends(signed) <= head.size);
        let mut next = before.clone();
        let new = next.extend(covered.collect()).map_err(|error| error.to_string())?;
        if !next.agrees(head).map_err(|error| error.to_string())? {
            return Ok(false);
        }
        state.directory = next;
        (state.agreed, state.kept.agreed_at) = (Some((head.size, head.root)), unix_s());
        self.note(state, &before, new);
        self.save(state)?;
        Ok(true)
    }

    /// What new entries mean to this device.
    fn note(&self, state: &mut MembershipState, before: &Directory, new: Range<u64>) {
        let own = state.request.device();
        let was_there = before.device_of_key(&own).is_some();
        if !was_there && !state.is_member() {
            return;
        }
        // Also what stood there before it was let in: a device that somebody added to its owner meanwhile, a twin.
        let told = if was_there { new.clone() } else { 0..state.directory.size() };
        if was_there {
            state.kept.hold(before, &state.directory);
        } else {
            state.kept.begin(&state.directory);
            self.tell(json!({ "event": "enrolled", "organisation": state.kept.name }));
        }
        for alarm in alarms(&state.directory, told, &own) {
            let text = in_words(&state.directory, &alarm);
            self.alarm(state, text);
        }
        for listed in state.directory.entries(new) {
            if let Entry::Announce { text } = listed.entry {
                self.tell(json!({ "event": "announcement", "text": text }));
            }
        }
        self.tell(json!({ "event": "directory", "entries": state.directory.size() }));
    }

    fn alarm(&self, state: &mut MembershipState, text: String) {
        self.tell(json!({ "event": "alarm", "text": text }));
        if state.kept.alarms.len() < ALARMS && !state.kept.alarms.contains(&text) {
            state.kept.alarms.push(text);
        }
    }

    /// Sees whether a head that is no longer than the directory is still of this one.
    fn compare(&self, head: &DirectoryHead) {
        let mut state = self.state();
        let Some(state) = state.as_mut() else { return };
        let now = unix_s();
        let agreed = (head.size, head.root);
        let result =
            if state.agreed == Some(agreed) { Ok(true) } else { state.directory.agrees(head) };
        match result {
            Ok(true) => {
                state.agreed = Some(agreed);
                // Written down now and then: by it a client that comes back knows how long it was away.
                if state.kept.agreed_at.saturating_add(WRITE_DOWN_S) < now {
                    state.kept.agreed_at = now;
                    let _ = self.save_kept(state);
                }
            }
            Ok(false) => {}
            Err(error) if state.refused.as_deref() == Some(error.to_string().as_str()) => {}
            Err(error) => {
                self.alarm(state, error.to_string());
                state.refused = Some(error.to_string());
                let _ = self.save_kept(state);
            }
        }
    }

    /// Keeps why the service gave nothing, and says it once.
    fn refuse(&self, why: String, is_alarm: bool) {
        let mut state = self.state();
        let Some(state) = state.as_mut().filter(|state| state.refused.as_ref() != Some(&why))
        else {
            return;
        };
        if is_alarm {
            self.alarm(state, why.clone());
            let _ = self.save_kept(state);
        } else {
            self.tell(json!({ "event": "organisation", "text": why }));
        }
        state.refused = Some(why);
    }

    /// The service said no for good.
    fn end(&self) {
        if let Some(state) = self.state().as_mut() {
            (state.is_over, state.sign_in) = (true, None);
        }
    }

    fn gave(&self) {
        if let Some(state) = self.state().as_mut() {
            (state.refused, state.sign_in) = (None, None);
        }
    }

    /// The owner has to sign in; he is told once where, and once more when the page wants another code.
    fn sign_in(&self, sign_in: SignIn) {
        let mut state = self.state();
        let Some(state) = state.as_mut() else { return };
        state.refused = None;
        let (address, code) = (sign_in.address.clone(), sign_in.code.clone());
        let known = state.sign_in.replace(sign_in);
        if known.is_none_or(|known| known.code != code || known.address != address) {
            self.tell(json!({ "event": "sign-in", "address": address, "code": code }));
        }
    }
}

/// Makes a client that does not run a member, of an organisation whose directory has its device: for whoever makes both, such as the
/// launcher of a network for trial.
///
/// # Errors
/// The client has no identity, or its files cannot be written.
pub fn enrol(config: &Config, directory: &Directory) -> Result<(), secret::SecretError> {
    let seed = secret::identity(&config.data_dir.join("identity.key"))?;
    let own = SecretIdentity::from_bytes(&seed);
    let device = directory.device_of_key(&own.identity());
    let name = device.map_or_else(String::new, |device| device.device.name.clone());
    let gateways = config.gateways.iter().map(|gateway| gateway.identity).collect();
    let code = Code::draw(&mut fetch::stream());
    let request = Request::new(&code, directory.organisation(), &own, (name, gateways));
    let mut kept = MembershipRecord::new(directory.organisation(), directory.name().to_owned());
    kept.begin(directory);
    files::write(&config.data_dir, &kept, &request, directory)
}

/// The head of the organisation that is meant: by name or key, or the only one.
fn chosen<'a>(document: &'a Document, organisation: &str) -> Result<&'a DirectoryHead, String> {
    let heads = || document.heads.iter().map(Signed::<DirectoryHead>::body);
    if organisation.is_empty() {
        let mut all = heads();
        return match (all.next(), all.next()) {
            (Some(only), None) => Ok(only),
            (None, _) => {
                Err("the network's document has no organisation: its admins have to publish it"
                    .into())
            }
            _ => {
                Err("the network has several organisations: say which one by its name or key"
                    .into())
            }
        };
    }
    let key: Option<Identity> = organisation.parse().ok();
    let found = heads().find(|head| Some(head.identity) == key || head.name == organisation);
    found.ok_or_else(|| format!("the network's document has no organisation {organisation:?}: its admins have to publish it"))
}

fn in_words(directory: &Directory, alarm: &Alarm) -> String {
    let admins = |by: &[u16]| {
        let name = |number: &u16| {
            let admin = directory.admins().find(|admin| admin.number == *number);
            admin.map_or_else(|| format!("admin {number}"), |admin| admin.name.clone())
        };
        by.iter().map(name).collect::<Vec<_>>().join(" and ")
    };
    match alarm {
        Alarm::Device { device, by, .. } => {
            let device = directory.device(*device).map_or("", |device| device.device.name.as_str());
            format!(
                "a device {device:?} was added to you by {}: if it is not yours, somebody may be about to read what is meant for you; \
                 ask for it to be removed",
                admins(by)
            )
        }
        Alarm::Moved { device, by, .. } => {
            let device = directory.device(*device).map_or("", |device| device.device.name.as_str());
            format!(
                "{} changed at which gateways your device {device:?} is reached: others write to it there now",
                admins(by)
            )
        }
        Alarm::Twin { person, by, .. } => {
            let person = directory.person(*person).map_or("", |member| member.person.name.as_str());
            format!("{} listed another person whose name looks like yours: {person:?}", admins(by))
        }
        Alarm::Renamed { by, .. } => {
            format!("{} changed what the directory says of you", admins(by))
        }
        Alarm::Removed { by, .. } => {
            format!(
                "{} removed this device from the organisation: nobody writes to it any more",
                admins(by)
            )
        }
    }
}

/// Follows the organisation until the client ends.
pub(super) async fn follow(membership: Membership, shoal: Shoal) {
    // The head that was waited for, and how often it was asked for in vain.
    let (mut awaited, mut in_vain) = (None, 0_i32);
    loop {
        let next = {
            let state = membership.state();
            let state = state.as_ref().filter(|state| !state.is_over && !state.was_removed());
            state.map(|state| (state.kept.organisation, state.is_member(), state.directory.size()))
        };
        let document = membership.document();
        let head = next
            .zip(document.as_ref())
            .and_then(|((key, ..), document)| document.head(&key).cloned());
        let (Some((_, is_member, size)), Some(head)) = (next, head) else {
            wait_for(&membership, LOOK).await;
            continue;
        };
        if is_member && head.size <= size {
            membership.compare(&head);
            wait_for(&membership, LOOK).await;
            continue;
        }
        if awaited != Some((is_member, head.size)) {
            (awaited, in_vain) = (Some((is_member, head.size)), 0);
            // All see the new head at once; who asks at once would say that he is there.
            if is_member {
                let epoch = document
                    .map_or(SPREAD, |document| Duration::from_secs(document.epoch_s.into()));
                tokio::time::sleep(fetch::uniform(SPREAD.min(epoch / 2))).await;
                continue;
            }
        }
        fetch::once(&membership, &shoal, &head).await;
        if membership.state().as_ref().is_some_and(|state| state.sign_in.is_some()) {
            // Its owner sits before the page, and the page is there for minutes.
            in_vain = 0;
        }
        // Less and less often: an admin may take days, a service that is down is asked by all.
        let mean = ASK_AGAIN.mul_f64(1.2_f64.powi(in_vain)).min(SPREAD);
        in_vain = in_vain.saturating_add(1);
        wait_for(&membership, shoal_topology::exponential(&mut fetch::stream(), mean)).await;
    }
}

/// Until something has changed, or for so long.
async fn wait_for(membership: &Membership, longest: Duration) {
    let _ = tokio::time::timeout(longest, membership.0.changed.notified()).await;
}

/// The directory of a client's data directory in which all of this lies.
fn place(data_dir: &Path) -> std::path::PathBuf {
    data_dir.join("organisation")
}

#[cfg(test)]
pub(super) mod tests;

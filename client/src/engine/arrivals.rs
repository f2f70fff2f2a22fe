//! What comes from the gateway, and what it counts for.

use shoal_sphinx::{Frame, PacketId, Payload, Peeled};
use shoal_topology::wire::client_gateway::kind;
use shoal_topology::{ClientDescriptor, Signed};

use super::credits::{ContactId, Handle};
use super::ids::Again;
use super::suspicion::Unasked;
use super::types::NotReached;
use super::*;
use crate::keys::{IdPurpose, Tag};
use crate::tunnel::Heard;

/// Replies that no tunnel authenticates, beyond a quarter of those that one does, after which a service is left: as many as go
/// down in so many seconds, and at least so many. An honest service repeats a datagram at most eight times in a row. But a
/// tunnel also takes a reply for a repetition that 128 later ones have overtaken: after a pause of one mix in two, half of
/// what a download brings meanwhile.
const JUNK_S: f64 = 2.0;
const LEAST_JUNK: f64 = 24.0;
const JUNK_FORGIVEN: f64 = 0.25;
/// How long a service is avoided that sent them, the first time, as it can be honest and its replies late; each time it does
/// so again twice as long as before, up to [`LONGEST_AVOIDED`].
const AVOID_LIAR: Duration = Duration::from_secs(60);
const LONGEST_AVOIDED: Duration = Duration::from_secs(3_600);
/// How long it is remembered after that, so that the next time counts as another.
const REMEMBER_LIAR: Duration = Duration::from_secs(3_600);
/// Services that are remembered for it.
const MAX_LIARS: usize = 64;

/// A service that sent what its tunnel does not authenticate.
pub(super) struct Liar {
    /// When it is no longer avoided.
    until: Time,
    /// How long it was avoided, the last time.
    avoided: Duration,
}

impl Client {
    /// A frame came from the gateway: a packet or a dummy.
    pub fn handle_frame(&mut self, now: Time, frame: Frame) -> Arrival {
        match Downward::from_field(frame.field) {
            Some(Downward::Packet) => {}
            Some(Downward::Dummy) => {
                self.dummies(now, 1);
                return Arrival::Nothing;
            }
            _ => return Arrival::Nothing,
        }
        let opened = self.keys.open(&*self.codec, &frame.packet);
        let Some((Peeled::Final { id, payload, .. }, tag)) = opened else {
            return self.unasked(now, Unasked::Strange);
        };
        // One whose payload was changed on its way is lost: by that its mixes and the gateway are known.
        if payload.message() == Ok(&[kind::LOOP][..]) && self.loops.returned(&id, now) {
            self.ids.came(&id);
            return Arrival::Loop;
        }
        // No identifier: no reply and no loop, so a message of somebody who knows the inbox and the key.
        if id == [0; 16] {
            return self.handle_letter(now, &tag, &payload);
        }
        let Some((purpose, of, keys)) = self.outstanding.take(&id) else {
            return self.handle_stray(now, &tag, &id);
        };
        self.loops.packet();
        let message = self.codec.unseal(&keys, payload).ok();
        match purpose {
            Purpose::Tunnel(id) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    // First the epoch, as the stock counts SURBs by whether their epoch is the present one.
                    group.turn(self.router.epoch(now));
                    group.came_back(of);
                }
                self.handle_reply(now, id, message.as_deref())
            }
            Purpose::Query(address) => self.handle_answer(now, address, message.as_deref()),
        }
    }

    /// A session of the caller's has authenticated a message that [`ClientOutput::Message`] brought, from this contact:
    /// whether [`Uplink::credit`] is due for it. One contact's messages take the place of at most a quarter of the
    /// loops, unless a call with it was accepted; what comes more than ten seconds after the message counts for
    /// nothing.
    #[must_use]
    pub fn authenticated(&mut self, now: Time, contact: ContactId, handle: Handle) -> bool {
        let (waited, credit) = self.credits.authenticated(now, (contact, handle), &self.class);
        if waited {
            self.suspicion.take_back();
        }
        credit
    }

    /// The user accepted a call: all that a session authenticates as this contact's gives credit until
    /// [`Client::call_ended`]. False if there are too many calls.
    pub fn call_accepted(&mut self, contact: ContactId) -> bool {
        self.credits.call_accepted(contact)
    }

    /// The call is over, whoever ended it.
    pub fn call_ended(&mut self, contact: &ContactId) {
        self.credits.call_ended(contact);
    }

    /// A packet that nobody asked for: it gives no credit.
    fn unasked(&mut self, now: Time, what: Unasked) -> Arrival {
        self.loops.packet();
        self.counts.unknown += 1;
        self.counts.replayed += u64::from(what == Unasked::Again);
        self.suspicion.add(now, &self.class, what);
        Arrival::NoCredit
    }

    fn handle_letter(&mut self, now: Time, tag: &Tag, payload: &Payload) -> Arrival {
        let (is_media, message) = match payload.message() {
            Ok([kind::MESSAGE, message @ ..]) => (false, message),
            Ok([kind::MEDIA, media @ ..]) if self.in_call(now) => (true, media),
            _ => return self.unasked(now, Unasked::Strange),
        };
        let full = self.keys.fullness() >= 1.0;
        if !self.keys.is_first(tag) {
            // What a full memory refuses may be new.
            return self.unasked(now, if full { Unasked::Strange } else { Unasked::Again });
        }
        self.loops.packet();
        self.counts.packets += 1;
        if is_media {
            // Who speaks is for the sessions to say; that nobody can have said so much is known here.
            if !self.call.as_mut().is_some_and(|call| call.brings(now, &self.class)) {
                self.counts.unknown += 1;
                self.suspicion.add(now, &self.class, Unasked::Strange);
            }
            if !message.is_empty() {
                self.outputs.push_back(ClientOutput::Media(message.to_vec()));
            }
            return Arrival::Media;
        }
        let handle = self.credits.letter(now);
        self.outputs.push_back(ClientOutput::Message(handle, message.to_vec()));
        // Until its session says otherwise.
        self.suspicion.add(now, &self.class, Unasked::Strange);
        Arrival::NoCredit
    }

    /// An identifier that nothing waits for.
    fn handle_stray(&mut self, now: Time, tag: &Tag, id: &PacketId) -> Arrival {
        let again = match self.keys.made(tag, id) {
            Some(IdPurpose::Loop) => self.ids.came(id) == Again::Replayed,
            Some(IdPurpose::Surb) => self.outstanding.was_taken(id),
            None => return self.unasked(now, Unasked::Strange),
        };
        if again {
            return self.unasked(now, Unasked::Again);
        }
        // A loop that was given up, or a reply to a tunnel that is gone.
        self.loops.packet();
        self.counts.unknown += 1;
        self.counts.late += 1;
        Arrival::NoCredit
    }

    /// A reply of a service, or of whoever has its SURB: only its datagram says which.
    pub(super) fn handle_reply(
        &mut self,
        now: Time,
        id: GroupId,
        message: Option<&[u8]>,
    ) -> Arrival {
        let (replies, whole_per_s) = (self.replies(id), self.whole_per_s(id));
        let Some(group) = self.groups.get_mut(&id) else { return Arrival::NoCredit };
        let Some(tunnel) = &mut group.tunnel else {
            self.counts.unknown += 1;
            self.counts.late += 1;
            return Arrival::NoCredit;
        };
        let reply = message.and_then(FromService::decode);
        let heard = reply
            .as_ref()
            .map_or(Heard::Nothing, |reply| tunnel.handle_datagram(now, &reply.datagram));
        let round_trip = tunnel.rtt().unwrap_or(Duration::from_millis(400));
        take_events(id, tunnel, &mut self.outputs);
        if !group.connected && tunnel.is_connected() {
            group.connected = true;
            group.last_used = now;
            self.outputs.push_back(ClientOutput::Connected(id));
        }
        let connected = group.connected;
        let arrival = match (heard, reply) {
            (Heard::Authentic, Some(reply)) => {
                self.shares.of(id).carried(now, id, whole_per_s);
                if replies == Replies::Downlink {
                    self.shares.ration.passed(now, &self.class);
                }
                group.turn(self.router.epoch(now));
                let of = |ahead: u64| {
                    group.epoch.is_some_and(|e| Epoch(e.0 + ahead).low_byte() == reply.epoch)
                };
                let stock = match (of(0), of(1)) {
                    (true, _) => [reply.stock, reply.next],
                    // The service is in the next epoch already, and needs nothing of this one.
                    (_, true) => [u16::MAX, reply.stock],
                    // It was in the one before.
                    _ => [reply.next, 0],
                };
                group.stock.reported(now, stock, round_trip);
                group.asked = None;
                group.junk = (group.junk - JUNK_FORGIVEN).max(0.0);
                self.counts.packets += 1;
                // A service that nobody uses is a contact like others, however many tunnels lead to it.
                // Authentic is not enough: a service that is the gateway's friend could send what nobody reads, and
                // take the loops away.
                let credit = group.stock.is_in_use(now)
                    || group.location.is_some_and(|ServiceLocation { identity, .. }| {
                        self.credits.of_unused_service(now, identity, &self.class)
                    });
                if credit { Arrival::FromOthers } else { Arrival::NoCredit }
            }
            (Heard::Early, Some(_)) => {
                self.counts.packets += 1;
                Arrival::NoCredit
            }
            _ => {
                self.counts.unknown += 1;
                self.counts.junk += 1;
                // What does not unseal any hop can have changed; what unseals its service has made, or given away.
                group.junk += f64::from(u8::from(connected && message.is_some()));
                Arrival::NoCredit
            }
        };
        // The service, not the gateway: whoever has the SURB has it from the service.
        if group.junk >= (JUNK_S * self.class.down_per_s).max(LEAST_JUNK) {
            self.leave_liar(now, id);
        }
        self.end_closed(now);
        arrival
    }

    /// A service sends what its tunnel does not authenticate, or lets others do so: another one is better, if there is one.
    fn leave_liar(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let (Some(location), target) = (group.location, group.target) else { return };
        let before = self.liars.get(&location.identity);
        let avoided = before.map_or(AVOID_LIAR, |liar| (2 * liar.avoided).min(LONGEST_AVOIDED));
        let until = now + avoided;
        if self.liars.len() < MAX_LIARS || before.is_some() {
            self.liars.insert(location.identity, Liar { until, avoided });
        }
        self.avoid_service(now, &target, location.identity, until);
        self.fail(now, id, Failure::Garbage);
    }

    /// Services that are avoided since they sent what their tunnels did not authenticate, or were so within an hour.
    pub fn lying_services(&self) -> usize {
        self.liars.len()
    }

    /// Forgets services that have not lied for long.
    pub(super) fn forgive_liars(&mut self, now: Time) {
        self.liars.retain(|_, liar| liar.until + REMEMBER_LIAR > now);
    }

    /// An answer to a question for a descriptor: its own signature makes it authentic.
    pub(super) fn handle_answer(
        &mut self,
        now: Time,
        address: ServiceAddress,
        message: Option<&[u8]>,
    ) -> Arrival {
        let descriptor = match message.and_then(|message| message.split_first_chunk::<2>()) {
            Some(([kind::ANSWER, 1], bytes)) => Signed::<ClientDescriptor>::decode(bytes).ok(),
            _ => None,
        };
        let unix_s = self.router.unix_s(now);
        let descriptor = descriptor.map(|signed| signed.body().clone()).filter(|descriptor| {
            descriptor.identity.0 == address.identity
                && (descriptor.not_before..=descriptor.not_after).contains(&unix_s)
        });
        // Whatever the answer is, the question is over; a group that still waits asks anew.
        self.queries.remove(&address);
        self.counts.packets += 1;
        match descriptor {
            Some(descriptor) => {
                let refresh = self.refresh_at(now, &descriptor);
                self.learn(&descriptor);
                // All at once, which is seldom: those in use are asked for again.
                if self.descriptors.len() >= 4 * MAX_GROUPS {
                    self.descriptors.clear();
                }
                self.descriptors.insert(address, Cached { descriptor, refresh });
                self.next_tick = now;
                Arrival::FromOthers
            }
            None => {
                if !self.descriptors.contains_key(&address) {
                    self.give_back(&address, NotReached::Unknown);
                }
                // One whose tunnel stands goes on with what it knows.
                let waiting = |group: &Group| {
                    group.target == Target::Service(address) && group.tunnel.is_none()
                };
                let ids: Vec<_> =
                    self.groups.iter().filter(|(_, g)| waiting(g)).map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.fail(now, id, Failure::UnknownService));
                Arrival::NoCredit
            }
        }
    }
}

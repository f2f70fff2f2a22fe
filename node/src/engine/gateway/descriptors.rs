//! The descriptors of a gateway's clients, and whoever asks for them.

use std::sync::Arc;

use shoal_sphinx::{Frame, SURB_LEN, Surb};
use shoal_topology::wire::client_gateway::{ControlMessage as _, Refusal, Renew, kind};
use shoal_topology::{ClientDescriptor, Identity, Signed, Time};

use super::super::{Core, Due, KnownClient, Output};
use super::{Gateway, InboxId};
use crate::counters::DropReason;

/// A descriptor, with the answer to whoever asks for it.
pub(super) struct Known {
    inbox: InboxId,
    descriptor: Signed<ClientDescriptor>,
    answer: Arc<[u8]>,
}

impl Gateway {
    /// Takes up again what is on the disk of a client that was here before the start.
    pub(super) fn found(&mut self, client: KnownClient) {
        let KnownClient { inbox, waiting, descriptor } = client;
        // Also without packets: those that come while its client is away are to wait.
        self.inboxes.found(inbox, waiting);
        if let Some(descriptor) = descriptor
            && self.inboxes.contains(&inbox)
        {
            // It comes from the disk.
            let _ = self.note_descriptor(inbox, descriptor);
        }
    }

    /// True if there was one.
    pub(super) fn forget_descriptor(&mut self, inbox: &InboxId) -> bool {
        let identity = self.identities.remove(inbox);
        identity.is_some_and(|identity| self.descriptors.remove(&identity).is_some())
    }

    /// Answers with this descriptor from now on, after the next start too.
    pub(super) fn keep_descriptor(
        &mut self,
        core: &mut Core,
        inbox: InboxId,
        new: Signed<ClientDescriptor>,
    ) {
        let not_after = new.body().not_after;
        let Some((descriptor, elsewhere)) = self.note_descriptor(inbox, new) else { return };
        if let Some(old) = elsewhere {
            core.outputs.push_back(Output::DiscardDescriptor(old));
        }
        core.outputs.push_back(Output::StoreDescriptor { inbox, descriptor, not_after });
    }

    /// Answers with this descriptor from now on. Its bytes if it is another one than before, and the inbox of the same client
    /// that has none any more.
    fn note_descriptor(
        &mut self,
        inbox: InboxId,
        new: Signed<ClientDescriptor>,
    ) -> Option<(Arc<[u8]>, Option<InboxId>)> {
        let identity = new.body().identity;
        if let Some(Known { descriptor: kept, .. }) = self.descriptors.get(&identity)
            // A link that was slow may bring an older descriptor after a newer one; its key would open nothing any
            // more.
            && (kept.body().not_before > new.body().not_before || *kept == new)
        {
            return None;
        }
        if let Some(old) = self.identities.insert(inbox, identity)
            // An inbox has one descriptor: else a client could fill the gateway's memory with identities of its own.
            && old != identity
        {
            self.descriptors.remove(&old);
        }
        let bytes: Arc<[u8]> = new.encode().into();
        let answer = [&[kind::ANSWER, 1], &*bytes].concat().into();
        let known = Known { inbox, descriptor: new, answer };
        let before = self.descriptors.insert(identity, known);
        let elsewhere = before.map(|known| known.inbox).filter(|old| *old != inbox);
        if let Some(old) = &elsewhere {
            self.identities.remove(old);
        }
        Some((bytes, elsewhere))
    }

    /// A client brings its descriptor of another period.
    pub(super) fn renew(
        &mut self,
        core: &mut Core,
        from: Option<(Identity, InboxId)>,
        frame: &Frame,
    ) -> Result<(), DropReason> {
        let (inbox, id) = from.ok_or(DropReason::RateLimited)?;
        let renew = Renew::unpack(&frame.packet).map_err(|_| DropReason::Malformed)?;
        let descriptor = check_descriptor(&renew.descriptor, &inbox, &core.identity)
            .map_err(|_| DropReason::Malformed)?;
        self.keep_descriptor(core, id, descriptor);
        Ok(())
    }

    /// A packet ended here, and was no loop of our own.
    pub(in super::super) fn message(
        &mut self,
        core: &mut Core,
        now: Time,
        epoch: u8,
        message: &[u8],
    ) {
        match message.split_first() {
            Some((&kind::DROP, _)) => core.counters.cover += 1,
            Some((&kind::QUERY, query)) => {
                if let Err(reason) = self.answer(core, now, epoch, query) {
                    core.counters.drop(reason);
                }
            }
            _ => core.counters.drop(DropReason::Malformed),
        }
    }

    fn answer(
        &mut self,
        core: &mut Core,
        now: Time,
        epoch: u8,
        query: &[u8],
    ) -> Result<(), DropReason> {
        let malformed = DropReason::Malformed;
        let (identity, rest) = query.split_first_chunk::<32>().ok_or(malformed)?;
        let surb = rest.get(..SURB_LEN).ok_or(malformed)?;
        let surb = Surb::from_slice(surb).map_err(|_| malformed)?;
        // Before the SURB is used: an answer costs a sealed packet, a question nothing.
        if !self.queries.pass(now) {
            return Err(DropReason::RateLimited);
        }
        let known = self.descriptors.get(&Identity(*identity));
        // Whether there is one or not, an answer leaves: silence would tell whoever watches the links.
        let answer: &[u8] = known.map_or(&[kind::ANSWER, 0], |known| &known.answer);
        let (packet, first) = core.codec.reply(surb, answer).map_err(|_| malformed)?;
        let topology = core.topology.as_ref().ok_or(DropReason::NoRoute)?;
        let first = Identity(first);
        // The asker chose the first hop. A gateway sends into the first layer alone.
        if !topology.neighbours.as_ref().is_some_and(|neighbours| neighbours.sends_to(&first)) {
            return Err(DropReason::NoRoute);
        }
        core.counters.queries += 1;
        // Not at once: whoever sees the gateway's links shall not pair the question with the answer.
        let law = topology.document.parameters.draw_delay_law(&mut self.answers);
        let delay = law.ok_or(DropReason::NoRoute)?.draw_exponential(&mut self.answers);
        core.delay(now + delay, Due::ToNode(first, Frame { epoch, field: 0, packet }));
        Ok(())
    }
}

pub(super) fn check_descriptor(
    bytes: &[u8],
    inbox: &Identity,
    gateway: &Identity,
) -> Result<Signed<ClientDescriptor>, Refusal> {
    let descriptor = Signed::<ClientDescriptor>::decode(bytes).map_err(|_| Refusal::Descriptor)?;
    let body = descriptor.body();
    if body.inbox == *inbox && body.gateways.contains(gateway) {
        Ok(descriptor)
    } else {
        Err(Refusal::Descriptor)
    }
}

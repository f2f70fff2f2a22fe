//! The service that downloads come from: eight bytes ask for so many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use shoal_client::engine::{Client, Failure, GroupId, Isolation, Target};
use shoal_client::service::{Send, Service};
use shoal_client::tunnel::{Pseudonym, Read, StreamId, TunnelEvent, Write};
use shoal_sphinx::Frame;
use shoal_topology::wire::client_gateway::{Assembly, ControlMessage as _, DocumentPart};
use shoal_topology::{EquivocationProof, Identity, Seed, Time, VerifiedDocument};

use super::measure;
use super::network::{Network, UNIX};

/// What it writes at a time.
const CHUNK: [u8; 4096] = [9; 4096];

/// The service and its application.
pub(super) struct Exit {
    pub(super) service: Service,
    /// Bytes that are still to be written.
    serving: BTreeMap<(Pseudonym, StreamId), u64>,
    /// The first bytes of each stream that is not read to its end.
    asking: BTreeMap<(Pseudonym, StreamId), Vec<u8>>,
    /// Parts of documents, by gateway.
    assemblies: BTreeMap<u32, Assembly>,
    pub(super) scheduled: Time,
}

impl Exit {
    pub(super) fn new(network: &Network, base: Instant, seed: &Seed) -> anyhow::Result<Self> {
        let (long, secret, _) = &network.exit;
        let mut service = Service::new(
            network.codec(),
            (base, Time::ZERO),
            &seed.part("exit").part("engine"),
            (long, secret.clone()),
            &Default::default(),
        )?;
        if let Some(held) = network.held() {
            service.set_document(Time::ZERO, UNIX, held.clone())?;
        }
        let (serving, asking, assemblies) = Default::default();
        Ok(Self { service, serving, asking, assemblies, scheduled: Time::NEVER })
    }

    /// A part of a document came from a gateway; the document, if it was the last.
    pub(super) fn part(&mut self, gateway: u32, frame: &Frame) -> Option<Vec<u8>> {
        let part = DocumentPart::unpack(&frame.packet).ok()?;
        self.assemblies.entry(gateway).or_default().add(part)
    }

    /// A document was verified.
    ///
    /// # Errors
    /// It contradicts another one.
    pub(super) fn follow(
        &mut self,
        now: Time,
        unix_s: u64,
        held: VerifiedDocument,
    ) -> Result<(), EquivocationProof> {
        self.service.set_document(now, unix_s, held).map(|_| ())
    }

    pub(super) fn frame(&mut self, now: Time, gateway: Identity, frame: Frame) {
        self.service.handle_frame(now, gateway, frame);
    }

    /// Packets that it could not open or read.
    pub(super) fn unreadable(&self) -> u64 {
        self.service.counts().unknown
    }

    pub(super) fn next_wake(&mut self) -> Time {
        self.service.next_timeout()
    }

    /// Serves; what is to be sent comes out.
    pub(super) fn work(&mut self, now: Time) -> Vec<Send> {
        if self.service.next_timeout() <= now {
            self.service.handle_timeout(now);
        }
        self.service.work(now);
        while let Some((pseudonym, event)) = self.service.poll_event() {
            match event {
                TunnelEvent::Readable(id) => self.read((pseudonym, id)),
                TunnelEvent::Closed(_) => {
                    self.serving.retain(|(of, _), _| *of != pseudonym);
                    self.asking.retain(|(of, _), _| *of != pseudonym);
                }
                _ => {}
            }
        }
        let tunnels = self.service.tunnels();
        self.serving.retain(|(pseudonym, id), left| {
            while *left > 0 {
                let chunk = CHUNK.get(..CHUNK.len().min(*left as usize)).unwrap_or(&CHUNK);
                match tunnels.write(*pseudonym, *id, chunk) {
                    Write::Written(n) => *left -= n as u64,
                    Write::Blocked => return true,
                    Write::Stopped(_) => *left = 0,
                }
            }
            tunnels.finish(*pseudonym, *id);
            false
        });
        self.service.work(now);
        std::iter::from_fn(|| self.service.poll_output()).collect()
    }

    /// Eight bytes ask; what comes behind them is not read.
    fn read(&mut self, key: (Pseudonym, StreamId)) {
        let mut buf = [0; 4096];
        loop {
            match self.service.tunnels().read(key.0, key.1, &mut buf) {
                Read::Data(n) => {
                    let asked = self.asking.entry(key).or_default();
                    let before = asked.len();
                    asked.extend(buf.iter().take(n).take(8 - before.min(8)));
                    if before < 8
                        && let Some(wanted) = asked.first_chunk::<8>()
                    {
                        self.serving.insert(key, u64::from_be_bytes(*wanted));
                    }
                }
                Read::Blocked => return,
                Read::Finished | Read::Reset(_) => {
                    self.asking.remove(&key);
                    return;
                }
            }
        }
    }
}

/// A person's downloads, one after the other.
#[derive(Default)]
pub(super) struct Downloads {
    /// Number of the activity, bytes, since when.
    waiting: VecDeque<(u32, u64, Time)>,
    group: Option<GroupId>,
    stream: Option<StreamId>,
    got: u64,
    /// Tunnels that ended while they were of use.
    pub(super) broken: u64,
    /// Requests that began again.
    pub(super) failed: u64,
    #[cfg(test)]
    pub(super) hook: Hook,
}

/// What tests want and see of a person's downloads.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Hook {
    /// Whether the person uploads without end.
    pub(super) uploads: bool,
    /// Bytes that came, or went up.
    pub(super) moved: u64,
    /// Tunnels that ended.
    pub(super) ended: u64,
}

impl Downloads {
    pub(super) fn add(&mut self, activity: u32, bytes: u64, now: Time) {
        self.waiting.push_back((activity, bytes, now));
    }

    /// A tunnel ended: what was under way in it begins again. Others end beside it, as those of groups that took its place
    /// and were never used.
    pub(super) fn failed(&mut self, ended: GroupId, why: Failure) {
        if self.group != Some(ended) {
            return;
        }
        self.broken += u64::from(why != Failure::Idle);
        self.failed += u64::from(self.stream.is_some());
        #[cfg(test)]
        {
            self.hook.ended += 1;
        }
        (self.group, self.stream) = (None, None);
    }

    /// Asks, reads, ends.
    pub(super) fn work(&mut self, now: Time, client: &mut Client, tally: &mut measure::Service) {
        #[cfg(test)]
        if self.hook.uploads {
            self.upload(now, client);
        }
        let mut buf = [0; 8192];
        while let Some((activity, bytes, since)) = self.waiting.front().copied() {
            if self.group.is_none() {
                self.group = client.group(now, Isolation::new(None), Target::Exit);
            }
            let Some(group) = self.group else { return };
            if self.stream.is_none() {
                let Some(stream) = client.open(now, group) else { return };
                if let Some(tunnel) = client.tunnel(group) {
                    tunnel.write(stream, &bytes.to_be_bytes());
                    tunnel.finish(stream);
                }
                (self.stream, self.got) = (Some(stream), 0);
            }
            let Some(stream) = self.stream else { return };
            client.touch(now, group);
            let Some(tunnel) = client.tunnel(group) else { return };
            loop {
                match tunnel.read(stream, &mut buf) {
                    Read::Data(n) => {
                        self.got += n as u64;
                        #[cfg(test)]
                        {
                            self.hook.moved += n as u64;
                        }
                    }
                    Read::Blocked => return,
                    Read::Finished | Read::Reset(_) => break,
                }
            }
            client.closed(now, group);
            self.stream = None;
            if self.got == bytes {
                tally.downloaded(activity as usize, bytes, since, now);
                self.waiting.pop_front();
            } else {
                self.failed += 1;
            }
        }
    }

    /// Asks for nothing, and sends as much as the tunnel takes.
    #[cfg(test)]
    fn upload(&mut self, now: Time, client: &mut Client) {
        if self.group.is_none() {
            self.group = client.group(now, Isolation::new(None), Target::Exit);
        }
        let Some(group) = self.group else { return };
        if self.stream.is_none() {
            let Some(stream) = client.open(now, group) else { return };
            if let Some(tunnel) = client.tunnel(group) {
                tunnel.write(stream, &0_u64.to_be_bytes());
            }
            self.stream = Some(stream);
        }
        let Some(stream) = self.stream else { return };
        client.touch(now, group);
        let Some(tunnel) = client.tunnel(group) else { return };
        while let Write::Written(n) = tunnel.write(stream, &[7; 4096]) {
            self.hook.moved += n as u64;
        }
    }
}

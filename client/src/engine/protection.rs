//! Whether user traffic may leave, and how large the crowd is.

use shoal_topology::{Document, Parameters, Time};

use super::{Client, Unprotected};
use crate::gauge::{OwnLoops, Reading, expected_bits, reading};

impl Client {
    /// Says whether user traffic may leave now.
    ///
    /// # Errors
    /// Why not, in words for the user.
    pub fn protection(&self, now: Time) -> Result<(), Unprotected> {
        if let Some(why) = &self.halted {
            return Err(Unprotected::Equivocation(why.clone()));
        }
        // What is wrong with a later document says more than that there is none.
        let or_refused = |why| self.refused.clone().map_or(why, Unprotected::Refused);
        let (Some(document), Some(epoch)) = (self.router.document(now), self.router.epoch(now))
        else {
            return Err(or_refused(Unprotected::NoDocument));
        };
        // Before anything is read out of it: a document that is stale says nothing of who is there now.
        let in_time = document.check_time(self.router.unix_s(now));
        in_time.map_err(|why| or_refused(Unprotected::Document(why)))?;
        let least = self.settings.min_mixes_per_layer;
        for layer in 1..=document.parameters.layers {
            let found = document.in_layer_at(epoch, layer).count();
            if found < least {
                return Err(Unprotected::TooFewMixes { layer, found, least });
            }
        }
        // The link may be to a gateway that the document no longer lists; paths through it would be refused.
        self.own_gateway(now).ok_or(Unprotected::NoGateway)?;
        let (_, floor) = self.floors(document);
        if self.settings.allow_small_crowd || document.is_trial() || floor <= 0.0 {
            return Ok(());
        }
        match self.crowd() {
            Some((bits, Reading::Refuse)) => Err(Unprotected::SmallCrowd { bits, floor }),
            Some((_, Reading::Warn | Reading::Fine)) => Ok(()),
            // Unknown is not enough: a client that sends before it knows may be the only one.
            None => Err(Unprotected::UnknownCrowd),
        }
    }

    /// True if the document has exits, and each is reached by the user's own gateway alone, so that none is used.
    pub fn exits_are_all_behind(&mut self, now: Time) -> bool {
        let own = self.own_gateway(now);
        let Some((own, document)) = own.zip(self.router.document(now).cloned()) else {
            return false;
        };
        if self.settings.allow_shared_gateway || document.exits.is_empty() {
            return false;
        }
        let mut gateways = document.exits.iter().flat_map(|exit| &exit.body().gateways);
        !gateways.any(|gateway| {
            self.router.gateway(now, gateway).is_some()
                && self.router.compatible(now, &own, gateway)
        })
    }

    /// Below how many bits of expected anonymity the client warns, and below how many nothing of the user's leaves.
    pub(super) fn floors(&self, document: &Document) -> (f64, f64) {
        let Parameters { warn_bits, refuse_bits, .. } = document.parameters;
        (warn_bits, self.settings.min_bits.unwrap_or(refuse_bits))
    }

    /// The expected anonymity of the next packet, bits, and whether that is enough by the floors of the document and of the
    /// settings; `None` while no node has said how large its pool is.
    pub fn crowd(&self) -> Option<(f64, Reading)> {
        let (_, document) = self.follows.as_ref()?;
        let (bits, (warn, refuse)) = (self.anonymity_bits()?, self.floors(document));
        Some((bits, reading(bits, warn, refuse)))
    }

    /// Expected anonymity of the next packet, bits ([`expected_bits`]), as of the last tick; `None` while no node has said how
    /// large its pool is.
    pub fn anonymity_bits(&self) -> Option<f64> {
        self.bits
    }

    /// Computes it: some logarithms for each mix, too much for each slot.
    pub(super) fn measure_bits(&self) -> Option<f64> {
        let (epoch, document) = self.follows.as_ref()?;
        // A pool of zero is one that was not reported; the bits of a network of which all is unknown would be a
        // guess.
        if document.nodes.iter().all(|node| node.pool == 0) {
            return None;
        }
        let (sent, back) = self.loops.counts().recent;
        let count = |loops: usize| u32::try_from(loops).unwrap_or(u32::MAX);
        let own = OwnLoops { sent: count(sent), back: count(back) };
        Some(expected_bits(document, *epoch, &self.class, own))
    }
}

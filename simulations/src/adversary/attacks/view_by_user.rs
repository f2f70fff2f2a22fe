//! A view by person: what goes up from each and what comes down to each.

use crate::trace::{Flow, Party, Public, View};

/// Bins of the finest binning that an attack asks for; keeps all pairs of some hundred people within seconds.
pub const MOST_BINS: usize = 20_000;

/// One side of everybody's links.
pub struct Side<'a> {
    /// The flows of each person.
    flows: Vec<Vec<&'a Flow>>,
    begin: u64,
    end: u64,
}

impl<'a> Side<'a> {
    /// What people send.
    pub fn up(view: &'a View) -> Self {
        Self::new(view, |link| link.from)
    }

    /// What people receive.
    pub fn down(view: &'a View) -> Self {
        Self::new(view, |link| link.to)
    }

    fn new(view: &'a View, whose: impl Fn(&crate::trace::Link) -> Party) -> Self {
        let Public { people, begin, end, .. } = view.public;
        let mut flows = vec![Vec::new(); people as usize];
        for (link, flow) in &view.trace.links {
            if let Party::Person(person) = whose(link)
                && let Some(flows) = flows.get_mut(person as usize)
            {
                flows.push(flow);
            }
        }
        Self { flows, begin: begin.as_nanos(), end: end.as_nanos() }
    }

    /// Number of people.
    pub fn people(&self) -> usize {
        self.flows.len()
    }

    /// The least number of nanoseconds, at least `wanted`, that every flow can be counted in and that makes at
    /// most `most` bins.
    pub fn bin(&self, wanted: u64, most: usize) -> u64 {
        let own = self.flows.iter().flatten().filter_map(|flow| match flow {
            Flow::Counts { bin, .. } => Some(*bin),
            Flow::Packets { .. } => None,
        });
        let unit = own.max().unwrap_or(1).max(1);
        let least = (self.end.saturating_sub(self.begin)).div_ceil(most.max(1) as u64);
        wanted.max(least).max(1).div_ceil(unit) * unit
    }

    /// Whole bins of this length in the observation.
    pub fn bins(&self, bin: u64) -> usize {
        (self.end.saturating_sub(self.begin) / bin) as usize
    }

    /// A person's packets in each bin.
    pub fn counts(&self, person: usize, bin: u64) -> Vec<f32> {
        let bins = self.bins(bin);
        let mut all = vec![0.0; bins];
        for flow in self.flows.get(person).into_iter().flatten() {
            for (sum, count) in all.iter_mut().zip(flow.counts(self.begin, bin, bins)) {
                *sum += count as f32;
            }
        }
        all
    }

    /// A person's packets in order of time, nanoseconds; none where only counts were kept.
    pub fn times(&self, person: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for flow in self.flows.get(person).into_iter().flatten() {
            if let Flow::Packets { times, .. } = flow {
                all.extend_from_slice(times);
            }
        }
        all.sort_unstable();
        all
    }
}

/// True if all that is seen of people is use: no cover, and each packet by itself.
pub fn without_cover(view: &View) -> bool {
    let person = |party| matches!(party, Party::Person(_));
    let counted = view.trace.links.iter().any(|(link, flow)| {
        (person(link.from) || person(link.to)) && matches!(flow, Flow::Counts { .. })
    });
    let resting = view.public.resting_up_per_s.max(view.public.resting_down_per_s);
    resting == 0.0 && !counted
}

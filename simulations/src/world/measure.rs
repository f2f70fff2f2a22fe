//! How well the network served its users: what was delivered, and when.

use std::collections::BTreeMap;

use shoal_topology::Time;

use crate::experiment::{Estimate, Measured};
use crate::workload::{Activity, Workload};

/// A datagram of a call each so often, seconds. Media have nine slots in ten of class call, 22.5/s.
pub(super) const CALL_GAP_S: f64 = 0.05;

/// What people got.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Messages that were written.
    pub messages: u64,
    /// From writing to reading, seconds, of those that arrived.
    pub message_delays_s: Vec<f32>,
    /// Arrivals of messages that had arrived already.
    pub messages_again: u64,
    /// When messages arrived first, by activity.
    pub read_at: BTreeMap<usize, Time>,
    /// From reading a message to its writer's knowing of it, seconds, of those whose writers do.
    pub receipt_delays_s: Vec<f32>,
    /// Messages whose writers were told that they have not arrived.
    pub messages_expired: u64,
    /// Messages that nobody had read when their writers were told that they had arrived.
    pub receipts_without_reading: u64,
    /// Letters to addresses that have left.
    pub letters_left: u64,
    /// Times that a letter to an address reached nobody.
    pub letters_returned: u64,
    /// Calls that lasted: in those of 0 s, which nobody took, nothing is said.
    pub calls: u64,
    /// Calls in which at least one datagram arrived.
    pub calls_heard: u64,
    /// Datagrams of calls that were spoken, in both directions.
    pub voice: u64,
    /// Of them, those that found the sender's queue full, or the sender away.
    pub voice_unsent: u64,
    /// From speaking to hearing, seconds, of those that arrived.
    pub voice_delays_s: Vec<f32>,
    /// Downloads that were asked for.
    pub downloads: u64,
    /// From asking to the last byte, seconds, of those that ended.
    pub download_times_s: Vec<f32>,
    /// Bytes of these.
    pub download_bytes: u64,
    /// Arrived already, by activity.
    arrived: Vec<bool>,
}

impl Service {
    pub(super) fn new(workload: &Workload) -> Self {
        let count = |of: fn(&Activity) -> bool| {
            workload.activities.iter().filter(|activity| of(activity)).count() as u64
        };
        Self {
            messages: count(|activity| matches!(activity, Activity::Message { .. })),
            calls: count(
                |activity| matches!(activity, Activity::Call { seconds, .. } if *seconds > 0.0),
            ),
            downloads: count(|activity| matches!(activity, Activity::Download { .. })),
            arrived: vec![false; workload.activities.len()],
            ..Self::default()
        }
    }

    /// Whether this is the first arrival of an activity.
    fn first(&mut self, activity: usize) -> bool {
        self.arrived.get_mut(activity).is_some_and(|arrived| !std::mem::replace(arrived, true))
    }

    /// A message was read.
    pub(super) fn read(&mut self, activity: usize, written: Time, now: Time) {
        if self.first(activity) {
            self.message_delays_s.push(now.since(written).as_secs_f32());
            self.read_at.insert(activity, now);
        } else {
            self.messages_again += 1;
        }
    }

    /// The writer of a message knows that it was read.
    pub(super) fn delivered(&mut self, activity: usize, now: Time) {
        match self.read_at.get(&activity) {
            Some(read) => self.receipt_delays_s.push(now.since(*read).as_secs_f32()),
            None => self.receipts_without_reading += 1,
        }
    }

    /// A datagram of a call was heard.
    pub(super) fn heard(&mut self, activity: usize, spoken: Time, now: Time) {
        self.calls_heard += u64::from(self.first(activity));
        self.voice_delays_s.push(now.since(spoken).as_secs_f32());
    }

    /// A download ended.
    pub(super) fn downloaded(&mut self, activity: usize, bytes: u64, asked: Time, now: Time) {
        if self.first(activity) {
            self.download_bytes += bytes;
            self.download_times_s.push(now.since(asked).as_secs_f32());
        }
    }

    /// Figures with their intervals.
    pub fn measured(&self) -> Vec<Measured> {
        let mut all = Vec::new();
        if self.messages > 0 {
            share(&mut all, "messages_delivered", self.message_delays_s.len(), self.messages);
            quantiles(&mut all, "message_delay", &self.message_delays_s);
            if !self.receipt_delays_s.is_empty() {
                let receipts = self.receipt_delays_s.len();
                share(&mut all, "messages_with_a_receipt", receipts, self.messages);
                quantiles(&mut all, "receipt_delay", &self.receipt_delays_s);
            }
        }
        if self.calls > 0 {
            share(&mut all, "calls_heard", self.calls_heard as usize, self.calls);
            share(&mut all, "voice_delivered", self.voice_delays_s.len(), self.voice);
            share(&mut all, "voice_unsent", self.voice_unsent as usize, self.voice);
            quantiles(&mut all, "voice_delay", &self.voice_delays_s);
        }
        if self.downloads > 0 {
            share(&mut all, "downloads_done", self.download_times_s.len(), self.downloads);
            quantiles(&mut all, "download_time", &self.download_times_s);
        }
        all
    }
}

/// A share with the interval of Wilson (Journal of the American Statistical Association 22, 1927).
fn share(all: &mut Vec<Measured>, name: &str, of: usize, total: u64) {
    let (n, p) = (total.max(1) as f64, of as f64 / total.max(1) as f64);
    let z2 = 1.959_964_f64.powi(2);
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = (z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))).sqrt() / (1.0 + z2 / n);
    let estimate =
        Estimate { value: p, low: (middle - half).max(0.0), high: (middle + half).min(1.0) };
    all.push(Measured { name: name.into(), unit: "1".into(), estimate, expected: None });
}

/// Median, 90, 99 in a hundred, with intervals by order statistics (the ranks' binomial law, as a normal one).
fn quantiles(all: &mut Vec<Measured>, name: &str, values: &[f32]) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    for (label, q) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
        let n = sorted.len() as f64;
        let spread = 1.959_964 * (n * q * (1.0 - q)).sqrt();
        let at = |rank: f64| {
            let index = rank.clamp(0.0, (n - 1.0).max(0.0)) as usize;
            sorted.get(index).copied().map(f64::from)
        };
        let rank = n * q;
        if let (Some(value), Some(low), Some(high)) =
            (at(rank), at((rank - spread).floor()), at((rank + spread).ceil()))
        {
            let estimate = Estimate { value, low, high };
            let name = format!("{name}_{label}");
            all.push(Measured { name, unit: "s".into(), estimate, expected: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_nobody_took_do_not_count_as_not_heard() {
        let call = |seconds: f64| Activity::Call { from: 0, to: 1, at: Time::ZERO, seconds };
        let activities = vec![call(0.0), call(20.0), call(0.0)];
        let workload = Workload { people: 2, end: Time::from_secs(60), activities };
        let mut service = Service::new(&workload);
        service.heard(1, Time::ZERO, Time::from_secs(1));
        let all = service.measured();
        let heard = all.iter().find(|figure| figure.name == "calls_heard").unwrap();
        assert_eq!(heard.estimate.value, 1.0);
    }

    #[test]
    fn shares_and_quantiles_have_intervals_that_hold_them() {
        let mut all = Vec::new();
        share(&mut all, "all", 10, 10);
        share(&mut all, "half", 50, 100);
        let values: Vec<f32> = (0..1_000).map(|n| n as f32).collect();
        quantiles(&mut all, "delay", &values);
        let find = |name: &str| all.iter().find(|m| m.name == name).unwrap().estimate;
        // Wilson, 10 of 10: 0.7225 to 1; 50 of 100: 0.4038 to 0.5962.
        assert!((find("all").low - 0.7225).abs() < 1e-3 && find("all").high > 1.0 - 1e-9);
        assert!((find("half").low - 0.4038).abs() < 1e-3);
        let median = find("delay_p50");
        assert_eq!((median.value, median.low, median.high), (500.0, 469.0, 531.0));
        assert_eq!(find("delay_p99").value, 990.0);
    }
}

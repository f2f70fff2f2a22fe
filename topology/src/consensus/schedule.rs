//! When authorities do what: the epoch is cut into sessions, and a session into rounds.

use crate::Epoch;

/// The longest round, in milliseconds: networks with long epochs need not wait longer for messages.
const LONGEST_ROUND_MS: u64 = 10_000;

/// A session of the authorities, named by the epoch that it lies in and its number there.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct SessionId {
    /// The epoch in which it lies.
    pub epoch: Epoch,
    /// Number in it, from zero.
    pub index: u32,
}

/// The timetable of a network. All times are milliseconds of Unix time.
///
/// A session has f + 4 rounds: f + 1 in which votes are passed on (Dolev and Strong, 1983), one to decide and to store,
/// one for signatures, one to spare. One session of an epoch, the first that begins in its second half, makes the document
/// of the next epoch; all others may amend the present one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    epoch_ms: u64,
    round_ms: u64,
    rounds: u64,
    passes: u64,
}

impl Schedule {
    /// For epochs of this length, and so many authorities that may lie.
    pub fn new(epoch_s: u32, liars: usize) -> Self {
        let epoch_ms = 1_000 * u64::from(epoch_s.max(1));
        let rounds = liars as u64 + 4;
        let round_ms = (epoch_ms / (2 * rounds)).clamp(1, LONGEST_ROUND_MS);
        Self { epoch_ms, round_ms, rounds, passes: liars as u64 + 1 }
    }

    /// Length of a round. Clocks of honest authorities may be apart by a quarter of it, if messages take no more than a
    /// half.
    pub fn round_ms(&self) -> u64 {
        self.round_ms
    }

    /// Most signatures of a vote that is passed on: f + 1.
    pub fn passes(&self) -> usize {
        usize::try_from(self.passes).unwrap_or(usize::MAX)
    }

    /// The length of a session, in milliseconds.
    pub fn session_ms(&self) -> u64 {
        self.round_ms * self.rounds
    }

    /// The number of sessions in an epoch.
    pub fn sessions(&self) -> u64 {
        self.epoch_ms / self.session_ms()
    }

    /// The session that makes the document of the next epoch.
    pub fn main(&self) -> u32 {
        let first = (self.epoch_ms / 2).div_ceil(self.session_ms());
        u32::try_from(first.min(self.sessions() - 1)).unwrap_or(u32::MAX)
    }

    /// When an epoch begins, in milliseconds of Unix time.
    pub fn begins(&self, epoch: Epoch) -> u64 {
        epoch.0.saturating_mul(self.epoch_ms)
    }

    /// The epoch at a time.
    pub fn epoch(&self, at: u64) -> Epoch {
        Epoch(at / self.epoch_ms)
    }

    /// The session at a time; in the rest of an epoch that fills none, its last one.
    pub fn session(&self, at: u64) -> SessionId {
        let index = (at % self.epoch_ms / self.session_ms()).min(self.sessions() - 1);
        SessionId { epoch: self.epoch(at), index: u32::try_from(index).unwrap_or(u32::MAX) }
    }

    /// When a session begins, in milliseconds of Unix time.
    pub fn start(&self, session: SessionId) -> u64 {
        self.begins(session.epoch)
            .saturating_add(u64::from(session.index).saturating_mul(self.session_ms()))
    }

    /// When the first session after this one begins.
    pub fn next_start(&self, session: SessionId) -> u64 {
        if u64::from(session.index) + 1 < self.sessions() {
            self.start(session).saturating_add(self.session_ms())
        } else {
            self.begins(Epoch(session.epoch.0.saturating_add(1)))
        }
    }

    /// Until when a vote with so many signatures counts.
    pub fn closes(&self, session: SessionId, signatures: usize) -> u64 {
        let passes = (signatures as u64).min(self.passes);
        self.start(session).saturating_add(passes * self.round_ms + self.round_ms / 4)
    }

    /// When votes are counted: nothing that counts can come any more.
    pub fn decides(&self, session: SessionId) -> u64 {
        self.closes(session, usize::MAX).saturating_add(self.round_ms / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_ten_seconds_have_two_sessions_and_the_second_makes_the_next_document() {
        let schedule = Schedule::new(10, 1);
        assert_eq!((schedule.round_ms(), schedule.session_ms()), (1_000, 5_000));
        assert_eq!((schedule.sessions(), schedule.main()), (2, 1));
        let session = |at| (schedule.session(at).epoch.0, schedule.session(at).index);
        assert_eq!([70_000, 74_999, 75_000, 79_999].map(session), [(7, 0), (7, 0), (7, 1), (7, 1)]);
        let main = SessionId { epoch: Epoch(7), index: 1 };
        assert_eq!(schedule.start(main), 75_000);
        assert_eq!(schedule.next_start(main), 80_000);
        assert_eq!((schedule.closes(main, 1), schedule.closes(main, 2)), (76_250, 77_250));
        assert_eq!(schedule.closes(main, 3), 77_250, "f + 1 rounds, however many sign");
        assert_eq!(schedule.decides(main), 77_500);
    }

    #[test]
    fn every_length_of_an_epoch_has_a_main_session_in_its_second_half_with_time_to_end() {
        for epoch_s in [2, 3, 7, 10, 59, 60, 600, 1_200, 86_400, 31_536_000] {
            for liars in [0, 1, 2, 10] {
                let schedule = Schedule::new(epoch_s, liars);
                let main = SessionId { epoch: Epoch(3), index: schedule.main() };
                let from_begin = schedule.start(main) - schedule.begins(main.epoch);
                let last = from_begin + schedule.session_ms();
                assert!(2 * last >= 1_000 * u64::from(epoch_s));
                assert!(schedule.start(main) + schedule.session_ms() <= schedule.begins(Epoch(4)));
                assert!(schedule.decides(main) < schedule.next_start(main), "{epoch_s} {liars}");
                let mut at = schedule.begins(Epoch(3));
                while at < schedule.begins(Epoch(4)) && schedule.sessions() < 100 {
                    let session = schedule.session(at);
                    assert!(schedule.start(session) <= at && at < schedule.next_start(session));
                    at += 97;
                }
            }
        }
    }
}

//! Frames of one person that carry a mark, such as the mix that they go to first: when does the mark change?
//!
//! Where paths are kept, all frames of somebody at rest carry one mark, and in a call the frames in payload slots carry
//! another than the loops do. Where each frame's mark is drawn anew, there is nothing to find.

use std::collections::BTreeMap;

use super::calls::Interval;
use super::{Answer, Sign};
use crate::trace::Public;

/// Blocks in which signs are given, seconds: five, or as long as a hundred frames take.
pub fn block_s(public: &Public) -> f64 {
    let rate = public.resting_up_per_s.max(public.call_per_s * 0.01).max(1e-3);
    (100.0 / rate).max(5.0)
}

/// A person's frames in order of time, and what each may carry: several marks where what is seen is not exact.
#[derive(Clone, Debug, Default)]
pub struct Marked {
    /// The person whose frames they are.
    pub person: u32,
    /// The instants of the frames, in nanoseconds.
    pub times: Vec<u64>,
    /// For each instant, where its candidates end in `candidates`.
    ends: Vec<u32>,
    /// Marks with their weights; the weights of a frame sum to one.
    candidates: Vec<(u16, f32)>,
}

/// What is known of first mixes.
pub struct Followed {
    /// Everybody's frames, each with the indices of the mixes that it may have gone to.
    pub people: Vec<Marked>,
    /// The nodes that gateways send to, by index.
    pub mixes: Vec<u32>,
    /// The gateway of each person.
    pub gateways: BTreeMap<u32, u32>,
}

impl Marked {
    /// Of this person, no frame yet.
    pub fn new(person: u32) -> Self {
        Self { person, ..Self::default() }
    }

    /// A frame that carries one of these marks, each with what speaks for it. Time must not go back.
    pub fn push(&mut self, at: u64, marks: impl IntoIterator<Item = (u16, f32)>) {
        let begin = self.candidates.len();
        self.candidates.extend(marks);
        let own = self.candidates.get_mut(begin..).unwrap_or_default();
        let sum: f32 = own.iter().map(|(_, weight)| weight).sum();
        if sum > 0.0 {
            own.iter_mut().for_each(|(_, weight)| *weight /= sum);
            self.times.push(at);
            self.ends.push(self.candidates.len() as u32);
        } else {
            self.candidates.truncate(begin);
        }
    }

    /// The marks of a frame.
    pub fn marks(&self, frame: usize) -> &[(u16, f32)] {
        let end = |index: usize| self.ends.get(index).map_or(0, |end| *end as usize);
        let begin = if frame == 0 { 0 } else { end(frame - 1) };
        self.candidates.get(begin..end(frame)).unwrap_or_default()
    }

    fn weight(&self, frame: usize, mark: u16) -> f32 {
        self.marks(frame).iter().filter(|(own, _)| *own == mark).map(|(_, weight)| weight).sum()
    }
}

/// Frames with one mark, but for a few.
#[derive(Clone, Copy, Debug)]
struct Segment {
    mark: u16,
    /// First frame, and the one behind the last.
    first: usize,
    end: usize,
    /// The mark of most of the others, where they agree.
    other: Option<u16>,
}

/// Share of the frames of a segment that may carry any mark.
const STRAY: f32 = 0.15;
/// What a change must be worth, as a logarithm of odds. Of 10^7 frames with marks drawn anew none is a change.
const CHANGE: f32 = 12.0;

/// Times in which somebody's frames carry another mark than those between them: by the most likely sequence of kept
/// marks (Viterbi), `marks` of them. `gap_s` is the time between two frames of a flow.
pub fn intervals(frames: &Marked, marks: usize, gap_s: f64) -> Vec<Interval> {
    let segments = segments(frames, marks);
    let mut found: Vec<Interval> = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let beside = |other: Option<&Segment>| other.map(|other| other.mark);
        let before = beside(index.checked_sub(1).and_then(|before| segments.get(before)));
        let after = beside(segments.get(index + 1));
        // Another mark than that of the frames that always are there; or one that comes between two times of the same.
        let between = before.is_some() && before == after && before != Some(segment.mark);
        let aside = segment.other.is_some() && [before, after].contains(&segment.other);
        // Where the observation begins or ends within it, the others alone say so.
        let cut = segment.other.is_some() && (before.is_none() || after.is_none());
        // The time between two such: its own others carry nothing else.
        let rest = segment.other.is_none() && segment.end - segment.first > 75;
        if !(between || aside || cut) || rest {
            continue;
        }
        let at = |frame: usize| frames.times.get(frame).map_or(0.0, |at| *at as f64 / 1e9);
        let (start_s, end_s) = (at(segment.first), at(segment.end - 1) + gap_s);
        found.push(Interval { person: frames.person, start_s, end_s });
    }
    found
}

fn segments(frames: &Marked, marks: usize) -> Vec<Segment> {
    let sequence = sequence(frames, marks);
    let mut all = Vec::new();
    let mut first = 0;
    for group in sequence.chunk_by(|a, b| a == b) {
        let end = first + group.len();
        if let Some(mark) = group.first().copied().flatten() {
            let other = other(frames, mark, first, end, marks);
            all.push(Segment { mark, first, end, other });
        }
        first = end;
    }
    all
}

/// The most likely kept mark at each frame; none where marks are drawn anew.
fn sequence(frames: &Marked, marks: usize) -> Vec<Option<u16>> {
    // The state behind the last is "drawn anew", whose likelihood is the unit of all others.
    let states = marks + 1;
    let mut scores = vec![0.0f32; states];
    // For each frame and state, whether the best way to it came from another state, and for each frame from which.
    let mut jumped = vec![0u64; frames.times.len() * states.div_ceil(64)];
    let words = states.div_ceil(64);
    let mut from = Vec::with_capacity(frames.times.len());
    let stray = STRAY.ln();
    for frame in 0..frames.times.len() {
        let best = (0..states).max_by(|a, b| score(&scores, *a).total_cmp(&score(&scores, *b)));
        let best = best.unwrap_or(marks);
        from.push(best as u16);
        let change = score(&scores, best) - CHANGE;
        let bits = jumped.get_mut(frame * words..(frame + 1) * words).unwrap_or_default();
        for (state, score) in scores.iter_mut().enumerate() {
            if *score < change {
                *score = change;
                if let Some(word) = bits.get_mut(state / 64) {
                    *word |= 1 << (state % 64);
                }
            }
            if state < marks {
                *score += stray;
            }
        }
        for (mark, weight) in frames.marks(frame) {
            if let Some(score) = scores.get_mut(usize::from(*mark)) {
                let likely = STRAY + (1.0 - STRAY) * weight * marks as f32;
                *score += likely.ln() - stray;
            }
        }
    }
    let mut state = (0..states)
        .max_by(|a, b| score(&scores, *a).total_cmp(&score(&scores, *b)))
        .unwrap_or(marks);
    let mut sequence = vec![None; frames.times.len()];
    for (frame, slot) in sequence.iter_mut().enumerate().rev() {
        *slot = (state < marks).then_some(state as u16);
        let word = jumped.get(frame * words + state / 64).copied().unwrap_or(0);
        if word >> (state % 64) & 1 == 1 {
            state = from.get(frame).map_or(marks, |from| usize::from(*from));
        }
    }
    sequence
}

fn score(scores: &[f32], state: usize) -> f32 {
    scores.get(state).copied().unwrap_or(f32::MIN)
}

/// What those frames between carry that do not carry `mark`, if most of them agree.
fn other(frames: &Marked, mark: u16, first: usize, end: usize, marks: usize) -> Option<u16> {
    let mut weights = vec![0.0f32; marks];
    let mut strays = 0.0;
    for frame in (first..end).filter(|frame| frames.weight(*frame, mark) < 0.5) {
        strays += 1.0;
        for (other, weight) in frames.marks(frame) {
            if let Some(sum) = weights.get_mut(usize::from(*other)) {
                *sum += weight;
            }
        }
    }
    let best = weights.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let (index, most) = best?;
    // Loops are more than that share of what a client sends.
    let enough = 2.0f32.max(0.025 * (end - first) as f32);
    (strays >= enough && *most >= 0.6 * strays).then_some(index as u16)
}

/// How far the marks of a person's frames in each block of the observation are from those of all that she
/// sends: chi-squared less its degrees of freedom, in standard deviations. Nothing of those of whom no frame was seen.
pub fn signs(people: &[Marked], marks: usize, public: &Public) -> Vec<Sign> {
    let (begin_s, end_s) = (public.begin.as_secs_f64(), public.end.as_secs_f64());
    let length_s = block_s(public);
    let blocks = ((end_s - begin_s) / length_s) as usize;
    let mut all = Vec::with_capacity(people.len() * blocks);
    for frames in people.iter().filter(|frames| !frames.times.is_empty()) {
        let mut counts = vec![0.0f64; blocks * marks];
        let mut sums = vec![0.0f64; marks];
        for (frame, at) in frames.times.iter().enumerate() {
            let block = ((*at as f64 / 1e9 - begin_s) / length_s) as usize;
            for (mark, weight) in frames.marks(frame) {
                let mark = usize::from(*mark);
                let of_both = [counts.get_mut(block * marks + mark), sums.get_mut(mark)];
                for sum in of_both.into_iter().flatten() {
                    *sum += f64::from(*weight);
                }
            }
        }
        let whole: f64 = sums.iter().sum();
        for block in 0..blocks {
            let own = counts.get(block * marks..(block + 1) * marks).unwrap_or_default();
            let here: f64 = own.iter().sum();
            let square = |(count, sum): (&f64, &f64)| {
                // Half a frame more, so that a mark that is hardly ever carried says little.
                let expected = here * (sum + 0.5) / (whole + 0.5 * marks as f64);
                (count - expected).powi(2) / expected.max(0.05)
            };
            let chi2: f64 = own.iter().zip(&sums).map(square).sum();
            let free = marks as f64 - 1.0;
            all.push(Sign {
                person: frames.person,
                begin_s: begin_s + block as f64 * length_s,
                length_s,
                score: (chi2 - free) / (2.0 * free.max(1.0)).sqrt(),
            });
        }
    }
    all
}

/// Intervals of all these people put together: rows, pairs and signs. And the intervals.
pub fn answer(
    people: &[Marked],
    marks: usize,
    gap_s: f64,
    public: &Public,
) -> (Answer, Vec<Interval>) {
    let mut all: Vec<Interval> =
        people.iter().flat_map(|frames| intervals(frames, marks, gap_s)).collect();
    all.sort_by(|a, b| a.start_s.total_cmp(&b.start_s).then(a.person.cmp(&b.person)));
    // Both sides of a call begin at one instant, each in its next slot.
    let found = super::calls::pair_up(&all, 0.1 + gap_s, 0.0);
    (Answer { signs: signs(people, marks, public), ..found }, all)
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use shoal_topology::Seed;

    use super::*;

    /// 25 payload frames and 2 loops a second over ten mixes: to mix 3, but in these calls (seconds) payload to mix 7.
    fn kept(calls: &[(f64, f64)]) -> Marked {
        let mut stream = Seed::from_u64(1).stream("frames");
        let mut frames = Marked::new(4);
        for k in 0..27 * 120 {
            let at_s = f64::from(k) / 27.0;
            let is_loop = stream.random_range(0..27) < 2;
            let calls = calls.iter().any(|(begin, end)| (*begin..*end).contains(&at_s));
            let mark = if calls && !is_loop { 7 } else { 3 };
            frames.push((at_s * 1e9) as u64, [(mark, 1.0)]);
        }
        frames
    }

    #[test]
    fn calls_over_kept_paths_are_read_off_the_first_mixes() {
        let calls = [(20.0, 24.0), (60.0, 100.0)];
        let found = intervals(&kept(&calls), 10, 0.04);
        assert_eq!(found.len(), 2, "{found:?}");
        for (found, (begin, end)) in found.iter().zip(calls) {
            let exact = (found.start_s - begin).abs() < 0.3 && (found.end_s - end).abs() < 0.3;
            assert!(exact, "{found:?} is not {begin} to {end}");
        }
    }

    #[test]
    fn a_path_that_changes_for_all_frames_is_no_call() {
        let mut frames = Marked::new(0);
        for k in 0..2_000u64 {
            frames.push(k * 37_000_000, [(if k < 1_000 { 2 } else { 9 }, 1.0)]);
        }
        assert!(intervals(&frames, 10, 0.04).is_empty());
    }

    #[test]
    fn marks_that_are_drawn_anew_say_nothing() {
        for seed in 0..20 {
            let mut stream = Seed::from_u64(seed).stream("marks");
            let mut frames = Marked::new(0);
            for k in 0..20_000u64 {
                frames.push(k * 37_000_000, [(stream.random_range(0..10), 1.0)]);
            }
            assert!(intervals(&frames, 10, 0.04).is_empty(), "seed {seed}");
        }
    }
}

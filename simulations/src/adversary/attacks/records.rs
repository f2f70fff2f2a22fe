//! Call-record reconstruction: what is known of pairs and times put together.

use std::collections::BTreeMap;

use super::matching::once;
use super::view_by_user::without_cover;
use super::{Answer, Attack, RebuiltRecord, Scored};
use crate::trace::{Flow, Party, View};

/// Reads links from person to person, where there are any: the record of plain telecom.
pub struct Direct;

impl Attack for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn run(&self, view: &View) -> Answer {
        let call_per_s = view.public.call_per_s;
        let pause_s = if call_per_s > 0.0 { 10.0 / call_per_s } else { 0.0 };
        let gap_s = pause_s / 10.0;
        let (mut rows, mut pairs) = (Vec::new(), Vec::new());
        for (link, flow) in &view.trace.links {
            let (Party::Person(caller), Party::Person(callee), Flow::Packets { times, .. }) =
                (link.from, link.to, flow)
            else {
                continue;
            };
            pairs.push(Scored { caller, callee, score: times.len() as f64 });
            let seconds: Vec<f64> = times.iter().map(|at| *at as f64 / 1e9).collect();
            for group in seconds.chunk_by(|a, b| b - a <= pause_s) {
                let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
                let duration_s = if group.len() > 1 { last - first + gap_s } else { 0.0 };
                rows.push(RebuiltRecord {
                    caller,
                    callee,
                    start_s: *first,
                    duration_s,
                    score: 1.0,
                });
            }
        }
        Answer { pairs, rows: once(rows), ..Answer::default() }
    }
}

/// The best combination: links that name both ends; else what corrupt nodes know for certain; else, without
/// cover, deliveries matched one by one; else pairs by simultaneous changes of rate, and the others by their ranks
/// in the other attacks.
pub struct Records;

impl Attack for Records {
    fn name(&self) -> &'static str {
        "records"
    }

    fn run(&self, view: &View) -> Answer {
        let parts = super::single().into_iter();
        combine(view, &parts.map(|attack| (attack.name(), attack.run(view))).collect())
    }
}

/// What [`Records`] makes of the answers of all other attacks, by name.
pub fn combine(view: &View, parts: &BTreeMap<&'static str, Answer>) -> Answer {
    let part = |name: &str| parts.get(name).cloned().unwrap_or_default();
    let direct = part("direct");
    if !direct.is_empty() {
        return direct;
    }
    let corrupt_nodes = part("inside");
    if without_cover(view) {
        let mut answer = part("matching");
        answer.rows.extend(corrupt_nodes.rows);
        return answer;
    }
    let starts = part("flow_starts");
    let certain = corrupt_nodes.rows.clone();
    let mut rows = corrupt_nodes.rows;
    if starts.rows.is_empty() {
        rows.extend(part("matching").rows);
    }
    rows.extend(starts.rows);
    let mut seen = starts.pairs;
    for name in ["first_mixes", "first_hops", "last_mixes", "follow"] {
        let found = part(name);
        seen.extend(found.rows.iter().map(|row| Scored {
            caller: row.caller,
            callee: row.callee,
            score: row.score.min(1.0),
        }));
        rows.extend(found.rows);
    }
    let mut ranks: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    let ranked = ["matching", "disclosure", "least_squares", "flow_shape", "inside"];
    for name in ranked.into_iter().chain(["arrival_counts", "follow"]) {
        if let Some(found) = parts.get(name) {
            add_ranks(&mut ranks, &found.pairs);
        }
    }
    // Ranks count less than one in all; a pair with a call seen comes before all others, but for those that corrupt nodes
    // know for certain.
    for pair in &seen {
        let seen = 10.0 * pair.score;
        *ranks.entry((pair.caller, pair.callee)).or_default() += seen;
        *ranks.entry((pair.callee, pair.caller)).or_default() += seen;
    }
    let above = 1.0 + ranks.values().copied().fold(0.0, f64::max);
    for RebuiltRecord { caller, callee, duration_s, .. } in certain {
        *ranks.entry((caller, callee)).or_default() += above;
        // Both ends of a call send.
        if duration_s > 0.0 {
            *ranks.entry((callee, caller)).or_default() += above;
        }
    }
    let scored = |((caller, callee), score)| Scored { caller, callee, score };
    let pairs = ranks.into_iter().map(scored).collect();
    Answer { pairs, rows: once(rows), ..Answer::default() }
}

/// Adds 1 / (60 + rank) (reciprocal rank fusion, Cormack, Clarke and Büttcher 2009), equal scores sharing the best of their ranks: first places
/// of one attack are not lost among the noise of the others.
fn add_ranks(ranks: &mut BTreeMap<(u32, u32), f64>, pairs: &[Scored]) {
    let mut sorted: Vec<&Scored> = pairs.iter().collect();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut rank = 0.0;
    let mut last = f64::INFINITY;
    for (index, pair) in sorted.iter().enumerate() {
        if pair.score < last {
            (rank, last) = (index as f64, pair.score);
        }
        *ranks.entry((pair.caller, pair.callee)).or_default() += 1.0 / (60.0 + rank);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_topology::Time;

    use super::*;
    use crate::trace::{Link, Public, Trace};

    #[test]
    fn what_corrupt_nodes_know_comes_before_all_guesses() {
        let public = Public {
            people: 3,
            begin: Time::ZERO,
            end: Time::from_secs(10),
            hops: 3,
            hop_mean_s: 0.1,
            uniform_s: 0.0,
            latency_s: 0.04,
            resting_up_per_s: 1.0,
            resting_down_per_s: 1.0,
            call_per_s: 25.0,
        };
        let mut trace = Trace::default();
        let link = Link { from: Party::Person(0), to: Party::Node(0) };
        let mut flow = Flow::new(2_400);
        (0..10).for_each(|n| flow.push(Time::ZERO + Duration::from_secs(n), 2_400));
        trace.links.insert(link, flow);
        let view = View { public, trace, passes: Vec::new() };
        let scored = |caller, callee, score| Scored { caller, callee, score };
        let row = |caller, callee, duration_s| RebuiltRecord {
            caller,
            callee,
            start_s: 1.0,
            duration_s,
            score: 1.0,
        };
        let answer = |pairs, rows| Answer { pairs, rows, ..Answer::default() };
        let guess = answer(vec![scored(0, 1, 900.0), scored(1, 0, 800.0)], vec![]);
        let starts = answer(vec![scored(0, 1, 5.0)], vec![row(0, 1, 3.0)]);
        let corrupt_nodes = answer(vec![], vec![row(2, 0, 0.0), row(1, 2, 9.0)]);
        let parts = [("matching", guess), ("flow_starts", starts), ("inside", corrupt_nodes)];
        let mut found = combine(&view, &parts.into()).pairs;
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut first: Vec<_> = found.iter().take(3).map(|p| (p.caller, p.callee)).collect();
        first.sort_unstable();
        // A message has one direction, a call two.
        assert_eq!(first, [(1, 2), (2, 0), (2, 1)]);
    }
}

//! What was observed, as files that an adversary may read, and what really happened, in a file that only scores read.

mod limits;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use shoal_topology::Time;

use self::limits::{Limits, whole};
use super::{Values, Writer, read_columns, write_atomic};
use crate::trace::{Flow, Link, Party, Pass, Public, Record, Sizes, Trace, Truth, View};

/// Rows that are handed on at once.
const CHUNK: usize = 1 << 16;

/// `public.json`: what everybody knows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFile {
    /// The number of people.
    people: u32,
    /// When the observation begins, in nanoseconds.
    begin_ns: u64,
    /// When it ends, in nanoseconds.
    end_ns: u64,
    /// How many hops delay.
    hops: u32,
    /// The mean delay at such a hop, in seconds.
    hop_mean_s: f64,
    /// The width of the uniform delay that one hop has instead, in seconds; zero where none has.
    #[serde(default)]
    uniform_s: f64,
    /// What links take from end to end, in seconds.
    latency_s: f64,
    /// Packets/s that a resting person sends.
    resting_up_per_s: f64,
    /// Packets/s that a resting person receives.
    resting_down_per_s: f64,
    /// Packets/s of a call, each way.
    call_per_s: f64,
}

/// Writes `public.json`, `trace.parquet` and `passes.parquet`.
///
/// A row of the trace is a packet: time_ns, from, to, size (bytes), packets = 1, bin_ns = 0. Where a link was counted in
/// bins it is a bin: its begin, its length in bin_ns, and the packets in it. A row with no packets says that the link was
/// observed. A row of the passes is a packet at a corrupt node; came and went are hashes of it on the links, epoch is the byte
/// that its frame named as it came.
///
/// # Errors
/// A file cannot be written.
pub fn write_view(dir: &Path, view: &View) -> anyhow::Result<()> {
    let public = PublicFile {
        people: view.public.people,
        begin_ns: view.public.begin.as_nanos(),
        end_ns: view.public.end.as_nanos(),
        hops: view.public.hops,
        hop_mean_s: view.public.hop_mean_s,
        uniform_s: view.public.uniform_s,
        latency_s: view.public.latency_s,
        resting_up_per_s: view.public.resting_up_per_s,
        resting_down_per_s: view.public.resting_down_per_s,
        call_per_s: view.public.call_per_s,
    };
    let public = serde_json::to_string_pretty(&public)?;
    write_atomic(&dir.join("public.json"), |file| Ok(writeln!(file, "{public}")?))?;
    write_atomic(&dir.join("trace.parquet"), |file| {
        let mut writer =
            Writer::new(file, columns(["time_ns"], ["from", "to"], ["size", "packets", "bin_ns"]))?;
        for (link, flow) in &view.trace.links {
            let ends = [name(link.from), name(link.to)];
            let mut push = |rows: [Vec<i64>; 4]| {
                let [times, sizes, packets, bins] = rows;
                let [from, to] = &ends;
                let text = |name: &Arc<str>| Values::Text(vec![Arc::clone(name); times.len()]);
                let (from, to) = (text(from), text(to));
                writer.push(vec![
                    Values::Integer(times),
                    from,
                    to,
                    Values::Integer(sizes),
                    Values::Integer(packets),
                    Values::Integer(bins),
                ])
            };
            rows_of(flow, &mut push)?;
        }
        writer.finish()?;
        Ok(())
    })?;
    write_atomic(&dir.join("passes.parquet"), |file| {
        let mut writer = Writer::new(
            file,
            columns(["node", "arrived_ns", "left_ns"], ["from", "to"], ["came", "went", "epoch"]),
        )?;
        for passes in view.passes.chunks(CHUNK) {
            writer.push(vec![
                Values::Integer(passes.iter().map(|pass| pass.node.into()).collect()),
                Values::Integer(passes.iter().map(|pass| pass.arrived.as_nanos() as i64).collect()),
                Values::Integer(passes.iter().map(|pass| pass.left.as_nanos() as i64).collect()),
                Values::Text(passes.iter().map(|pass| name(pass.from)).collect()),
                Values::Text(passes.iter().map(|pass| name(pass.to)).collect()),
                Values::Integer(passes.iter().map(|pass| pass.came.cast_signed()).collect()),
                Values::Integer(passes.iter().map(|pass| pass.went.cast_signed()).collect()),
                Values::Integer(passes.iter().map(|pass| pass.epoch.into()).collect()),
            ])?;
        }
        writer.finish()?;
        Ok(())
    })
}

/// A flow as columns time_ns, size, packets, bin_ns.
fn rows_of(
    flow: &Flow,
    push: &mut impl FnMut([Vec<i64>; 4]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match flow {
        // A link that was observed and silent says something; without a row it would look as if nobody had looked.
        Flow::Packets { times, sizes } if times.is_empty() => {
            let size = if let Sizes::Same(size) = sizes { *size } else { 0 };
            push([vec![0], vec![size.into()], vec![0], vec![0]])
        }
        Flow::Packets { times, sizes } => {
            for (number, times) in times.chunks(CHUNK).enumerate() {
                let sizes = match sizes {
                    Sizes::Same(size) => vec![i64::from(*size); times.len()],
                    Sizes::Each(each) => {
                        let sizes = each.iter().skip(number * CHUNK).take(times.len());
                        sizes.map(|size| i64::from(*size)).collect()
                    }
                };
                let rows = times.len();
                push([
                    times.iter().map(|at| *at as i64).collect(),
                    sizes,
                    vec![1; rows],
                    vec![0; rows],
                ])?;
            }
            Ok(())
        }
        Flow::Counts { bin, counts } => {
            // Bins without packets need no row, but the last says how long it was observed.
            let last = counts.len().saturating_sub(1);
            let some =
                counts.iter().enumerate().filter(|(index, count)| **count > 0 || *index == last);
            let (times, packets): (Vec<i64>, Vec<i64>) =
                some.map(|(index, count)| ((index as u64 * bin) as i64, i64::from(*count))).unzip();
            let rows = times.len();
            if rows == 0 {
                return push([vec![0], vec![0], vec![0], vec![*bin as i64]]);
            }
            push([times, vec![0; rows], packets, vec![*bin as i64; rows]])
        }
    }
}

/// Reads what [`write_view`] wrote: all that an adversary has.
///
/// # Errors
/// A file is missing, or says what no observation can be.
pub fn read_view(dir: &Path) -> anyhow::Result<View> {
    let file = dir.join("public.json");
    let text = fs::read_to_string(&file).with_context(|| {
        format!(
            "reading {}; a directory with a trace is what `shoal-sim run --out` writes",
            file.display()
        )
    })?;
    let public: PublicFile =
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let public = Public {
        people: public.people,
        begin: Time::from_nanos(public.begin_ns),
        end: Time::from_nanos(public.end_ns),
        hops: public.hops,
        hop_mean_s: public.hop_mean_s,
        uniform_s: public.uniform_s,
        latency_s: public.latency_s,
        resting_up_per_s: public.resting_up_per_s,
        resting_down_per_s: public.resting_down_per_s,
        call_per_s: public.call_per_s,
    };
    let limits = Limits::of(&public).with_context(|| format!("reading {}", file.display()))?;
    let mut trace = Trace::default();
    let mut bins = 0;
    read_columns(&dir.join("trace.parquet"), |mut columns, before| {
        let times = integers(&mut columns, "time_ns")?;
        let (from, to) = (texts(&mut columns, "from")?, texts(&mut columns, "to")?);
        let sizes = integers(&mut columns, "size")?;
        let (packets, lengths) =
            (integers(&mut columns, "packets")?, integers(&mut columns, "bin_ns")?);
        let rows = times
            .into_iter()
            .zip(from.iter().zip(&to))
            .zip(sizes.into_iter().zip(packets.into_iter().zip(lengths)));
        for (index, ((time, (from, to)), (size, (packets, bin)))) in rows.enumerate() {
            let mut one = || -> anyhow::Result<()> {
                let link = Link { from: limits.party(from)?, to: limits.party(to)? };
                let time = limits.time("time_ns", time)?;
                let size = whole("size", size, u32::MAX)?;
                let packets = whole("packets", packets, u16::MAX)?;
                let bin = whole("bin_ns", bin, i64::MAX.cast_unsigned())?;
                add(&mut trace, (link, time, size), packets, bin, &mut bins)
            };
            one().with_context(|| format!("row {}", before + index + 1))?;
        }
        Ok(())
    })?;
    let mut passes = Vec::new();
    read_columns(&dir.join("passes.parquet"), |mut columns, before| {
        let node = integers(&mut columns, "node")?;
        let arrived = integers(&mut columns, "arrived_ns")?;
        let left = integers(&mut columns, "left_ns")?;
        let (from, to) = (texts(&mut columns, "from")?, texts(&mut columns, "to")?);
        let (came, went) = (integers(&mut columns, "came")?, integers(&mut columns, "went")?);
        // Not there in what was observed before epochs were told.
        let epoch = integers(&mut columns, "epoch").unwrap_or_else(|_| vec![0; node.len()]);
        let bytes = came.into_iter().zip(went.into_iter().zip(epoch));
        let times = node.into_iter().zip(arrived.into_iter().zip(left));
        let rows = times.zip(from.iter().zip(&to)).zip(bytes).enumerate();
        for (index, (((node, (arrived, left)), (from, to)), (came, (went, epoch)))) in rows {
            let one = || -> anyhow::Result<Pass> {
                Ok(Pass {
                    node: whole("node", node, limits::MOST_NODES)?,
                    arrived: limits.time("arrived_ns", arrived)?,
                    from: limits.party(from)?,
                    left: limits.time("left_ns", left)?,
                    to: limits.party(to)?,
                    came: came.cast_unsigned(),
                    went: went.cast_unsigned(),
                    epoch: whole("epoch", epoch, u8::MAX)?,
                })
            };
            passes.push(one().with_context(|| format!("row {}", before + index + 1))?);
        }
        Ok(())
    })?;
    Ok(View { public, trace, passes })
}

/// Adds a row of a trace; `bins` counts those of all links.
fn add(
    trace: &mut Trace,
    (link, time, size): (Link, Time, u32),
    packets: u16,
    bin: u64,
    bins: &mut u64,
) -> anyhow::Result<()> {
    let flow = trace.links.entry(link).or_insert_with(|| match bin {
        0 => Flow::new(size),
        _ => Flow::Counts { bin, counts: Vec::new() },
    });
    match flow {
        Flow::Packets { times, .. } if bin == 0 && packets == 1 => {
            // Attacks search by halves and would find wrong packets without a word.
            if times.last().is_some_and(|last| *last > time.as_nanos()) {
                bail!(
                    "time_ns goes back on the link from {} to {}: sort the rows of each link by time_ns",
                    name(link.from),
                    name(link.to)
                );
            }
            flow.push(time, size);
        }
        Flow::Packets { .. } if bin == 0 && packets == 0 => {}
        Flow::Packets { .. } if bin == 0 => {
            bail!(
                "packets must be 1, or 0 for a link without packets, where bin_ns is 0, not {packets}"
            )
        }
        Flow::Counts { bin: own, counts } if *own == bin => {
            let needed = time.as_nanos() / bin + 1;
            // Before they are made: a row far in the future would take all memory.
            *bins += needed.saturating_sub(counts.len() as u64);
            if *bins > limits::MOST_BINS {
                bail!(
                    "bin_ns = {bin} at time_ns = {} takes {needed} bins on this link, and {} on all links are read: count \
                     in longer bins",
                    time.as_nanos(),
                    limits::MOST_BINS
                );
            }
            let index = usize::try_from(needed - 1)?;
            counts.resize(counts.len().max(index + 1), 0);
            if let Some(count) = counts.get_mut(index) {
                *count = packets;
            }
        }
        _ => bail!(
            "the link from {} to {} has rows of packets and of bins, or of bins of several lengths",
            name(link.from),
            name(link.to)
        ),
    }
    Ok(())
}

/// Writes `truth.parquet`: caller, callee, start_ns, duration_s.
///
/// # Errors
/// The file cannot be written.
pub fn write_truth(dir: &Path, truth: &Truth) -> anyhow::Result<()> {
    let integer =
        |value: fn(&Record) -> i64| Values::Integer(truth.records.iter().map(value).collect());
    let columns = vec![
        ("caller".into(), integer(|record| record.caller.into())),
        ("callee".into(), integer(|record| record.callee.into())),
        ("start_ns".into(), integer(|record| record.start.as_nanos() as i64)),
        (
            "duration_s".into(),
            Values::Float(truth.records.iter().map(|record| record.duration_s).collect()),
        ),
    ];
    write_atomic(&dir.join("truth.parquet"), |file| {
        Writer::new(file, columns)?.finish()?;
        Ok(())
    })
}

/// Reads `truth.parquet`, of so many people; nothing where there is none.
///
/// # Errors
/// The file is not what it should be.
pub fn read_truth(dir: &Path, people: u32) -> anyhow::Result<Option<Truth>> {
    let file = dir.join("truth.parquet");
    if !file.exists() {
        return Ok(None);
    }
    let mut truth = Truth::default();
    read_columns(&file, |mut columns, before| {
        let (caller, callee) =
            (integers(&mut columns, "caller")?, integers(&mut columns, "callee")?);
        let start = integers(&mut columns, "start_ns")?;
        let Some(Values::Float(duration)) = columns.remove("duration_s") else {
            bail!("no numbers named duration_s")
        };
        let rows = caller.into_iter().zip(callee).zip(start.into_iter().zip(duration));
        for (index, ((caller, callee), (start, duration_s))) in rows.enumerate() {
            let one = || -> anyhow::Result<Record> {
                let (caller, callee) = (
                    limits::person("caller", caller, people)?,
                    limits::person("callee", callee, people)?,
                );
                if !(0.0..=limits::LONGEST_S).contains(&duration_s) {
                    bail!("duration_s must be 0 to {}, not {duration_s}", limits::LONGEST_S);
                }
                let start = Time::from_nanos(whole("start_ns", start, limits::LATEST_NS)?);
                Ok(Record { caller, callee, start, duration_s })
            };
            truth.records.push(one().with_context(|| format!("row {}", before + index + 1))?);
        }
        Ok(())
    })?;
    Ok(Some(truth))
}

fn columns<const A: usize, const B: usize, const C: usize>(
    first: [&str; A],
    texts: [&str; B],
    last: [&str; C],
) -> Vec<(String, Values)> {
    let integer = |name: &str| (name.to_owned(), Values::Integer(Vec::new()));
    let text = |name: &str| (name.to_owned(), Values::Text(Vec::new()));
    first.map(integer).into_iter().chain(texts.map(text)).chain(last.map(integer)).collect()
}

type Columns = std::collections::BTreeMap<String, Values>;

fn integers(columns: &mut Columns, name: &str) -> anyhow::Result<Vec<i64>> {
    match columns.remove(name) {
        Some(Values::Integer(values)) => Ok(values),
        _ => bail!("no whole numbers named {name}"),
    }
}

fn texts(columns: &mut Columns, name: &str) -> anyhow::Result<Vec<Arc<str>>> {
    match columns.remove(name) {
        Some(Values::Text(values)) => Ok(values),
        _ => bail!("no text named {name}"),
    }
}

fn name(party: Party) -> Arc<str> {
    match party {
        Party::Person(number) => format!("person-{number}"),
        Party::Service(number) => format!("service-{number}"),
        Party::Node(number) => format!("node-{number}"),
    }
    .into()
}

#[cfg(test)]
#[path = "observation/tests.rs"]
mod tests;

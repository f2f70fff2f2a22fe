//! Both ends in virtual time, through a network that behaves like a mixnet.

use std::time::Duration;

use proptest::prelude::*;
use shoal_topology::{Seed, Time};

use super::pair::{Class, FAST, Pair, SECRET, TEXT, WEB, base, noise, pattern, service_key};
use super::*;

const MB: u64 = 1_000_000;

/// Downloads so much and tells the bytes/s, between the first and the last byte asked for.
fn download_rate(seed: u64, class: Class, loss: f64, len: u64) -> f64 {
    let mut pair = Pair::connected(seed, class, loss);
    let start = pair.now;
    let id = pair.download(0, len);
    pair.run_until(Time::from_secs(300), |p| p.clients[0].ended.contains_key(&id));
    assert_eq!(pair.clients[0].ended[&id], Read::Finished);
    let data = &pair.clients[0].inbox[&id];
    assert_eq!(data.len() as u64, len);
    assert!(data.iter().enumerate().all(|(at, byte)| *byte == pattern(at as u64)));
    len as f64 / pair.now.since(start).as_secs_f64()
}

#[test]
fn a_handshake_and_an_echo_work() {
    for seed in 0..10 {
        let mut pair = Pair::new(seed);
        pair.add(WEB, service_key(&SECRET), &TunnelSettings::default());
        pair.run_until(Time::from_secs(2), |p| p.clients[0].tunnel.is_connected());
        assert!(pair.clients[0].tunnel.rtt().is_some());
        let id = pair.request(0, b"e", false);
        assert!(pair.echo(0, id) < Duration::from_secs(1));
        assert!(pair.service.is_connected(pair.clients[0].pseudonym));
        // Packets of the handshake that arrive after their keys are gone.
        assert!(pair.clients[0].tunnel.ignored() + pair.service.ignored() < 5);
    }
}

/// The value below which this share of them lies.
fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort();
    values[((values.len() - 1) as f64 * share) as usize]
}

#[test]
fn echoes_are_quick() {
    for (class, up) in [(WEB, 50), (FAST, 150)] {
        let (mut first, mut idle, mut busy) = (Vec::new(), Vec::new(), Vec::new());
        for seed in 0..150 {
            let mut pair = Pair::new(seed);
            pair.add(class, service_key(&SECRET), &TunnelSettings::default());
            pair.run_until(Time::from_secs(20), |p| p.clients[0].tunnel.is_connected());
            let id = pair.request(0, b"e", false);
            pair.echo(0, id);
            first.push(pair.now.since(Time::ZERO));
            if seed < 4 {
                for _ in 0..75 {
                    idle.push(pair.echo(0, id));
                    pair.run_for(Duration::from_millis(300));
                }
                pair.download(0, 100 * MB);
                pair.run_for(Duration::from_secs(3));
                for _ in 0..75 {
                    busy.push(pair.echo(0, id));
                    pair.run_for(Duration::from_millis(300));
                }
            }
        }
        println!(
            "up {up}: echo p50/p99 idle {:?}/{:?}, in a download {:?}/{:?}; handshake and first echo \
             p50/p99/max {:?}/{:?}/{:?}",
            quantile(&mut idle, 0.5),
            quantile(&mut idle, 0.99),
            quantile(&mut busy, 0.5),
            quantile(&mut busy, 0.99),
            quantile(&mut first, 0.5),
            quantile(&mut first, 0.99),
            quantile(&mut first, 1.0)
        );
        assert!(quantile(&mut idle, 0.5) < Duration::from_millis(200));
        assert!(quantile(&mut busy, 0.5) < Duration::from_millis(300));
        assert!(quantile(&mut first, 1.0) < Duration::from_secs(2));
    }
}

#[test]
fn a_handshake_survives_loss() {
    let took = |seed, loss| {
        let mut pair = Pair::new(seed);
        pair.loss = loss;
        pair.add(WEB, service_key(&SECRET), &TunnelSettings::default());
        pair.run_until(Time::from_secs(20), |p| p.clients[0].tunnel.is_connected());
        let took = pair.now.since(Time::ZERO);
        // What stands carries data, both ways, and stands at the service, too.
        let id = pair.request(0, b"e", false);
        pair.echo(0, id);
        assert_eq!(pair.clients[0].inbox[&id], [b'x'; 64], "seed {seed}");
        assert!(pair.service.is_connected(pair.clients[0].pseudonym), "seed {seed}");
        assert_eq!(pair.closed(0), None, "seed {seed}");
        took
    };
    let whole: Vec<Duration> = (0..20).map(|seed| took(seed, 0.0)).collect();
    let mut lossy: Vec<Duration> = (0..20).map(|seed| took(seed, 0.1)).collect();
    // The same delays: what took longer had lost something, and it is repeated soon.
    let struck = whole.iter().zip(&lossy).filter(|(whole, lossy)| lossy > whole).count();
    assert!(struck >= 5, "{struck} of 20 lost anything");
    assert!(quantile(&mut lossy, 0.9) < Duration::from_secs(2), "{lossy:?}");
}

#[test]
fn a_download_fills_the_slots() {
    for (class, loss, share) in [
        (WEB, 0.0, 0.9),
        (WEB, 0.01, 0.8),
        (WEB, 0.05, 0.7),
        (FAST, 0.0, 0.9),
        (FAST, 0.01, 0.8),
        (FAST, 0.05, 0.7),
    ] {
        let rate = download_rate(1, class, loss, 2 * MB);
        println!(
            "download of 2 MB, up {} down {}, loss {loss}: {:.1} kB/s, {:.1} % of {:.1} kB/s",
            class.up,
            class.down,
            rate / 1e3,
            rate / class.capacity() * 100.0,
            class.capacity() / 1e3
        );
        assert!(rate >= share * class.capacity(), "{class:?} {loss}: {rate}");
    }
    let long = download_rate(2, FAST, 0.0, 10 * MB);
    println!("download of 10 MB, up 150 down 300: {:.1} kB/s", long / 1e3);
    assert!(long >= 420_000.0, "{long}");
}

#[test]
fn an_upload_arrives_whole() {
    for loss in [0.0, 0.02] {
        let mut pair = Pair::connected(3, FAST, loss);
        let data: Vec<u8> = (0..600_000).map(pattern).collect();
        let sum =
            data.iter().fold(0_u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
        let mut request = vec![b'u'];
        request.extend_from_slice(&data);
        let start = pair.now;
        let id = pair.request(0, &request, true);
        let replies = pair.service_trace.len();
        pair.run_until(Time::from_secs(60), |p| p.clients[0].ended.contains_key(&id));
        assert_eq!(pair.clients[0].inbox[&id], sum.to_be_bytes());
        let seconds = pair.now.since(start).as_secs_f64();
        println!(
            "upload of 600 kB at 150 slots/s, loss {loss}: {:.1} kB/s of {:.1}, {:.1} SURBs/s",
            600.0 / seconds,
            150.0 * f64::from(CLIENT_MTU) / 1e3,
            (pair.service_trace.len() - replies) as f64 / seconds
        );
        assert!(600_000.0 / seconds > 0.75 * 150.0 * f64::from(CLIENT_MTU));
    }
}

#[test]
fn a_half_closed_stream_still_answers() {
    let mut pair = Pair::connected(4, WEB, 0.0);
    let id = pair.request(0, b"u123", true);
    pair.run_until(Time::from_secs(10), |p| p.clients[0].ended.contains_key(&id));
    assert_eq!(pair.got(0, id), 8);
    assert_eq!(pair.clients[0].ended[&id], Read::Finished);
    assert_eq!(pair.clients[0].tunnel.write(id, b"more"), Write::Stopped(GONE));
    assert_eq!(pair.clients[0].tunnel.read(id, &mut [0; 8]), Read::Finished);
}

#[test]
fn resets_and_stops_reach_the_peer() {
    let mut pair = Pair::connected(5, WEB, 0.0);
    let who = pair.clients[0].pseudonym;
    let reset = pair.request(0, b"r", false);
    let stopped = pair.request(0, b"s", false);
    pair.run_until(Time::from_secs(10), |p| p.clients[0].ended.len() == 2);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.clients[0].ended[&reset], Read::Reset(7));
    assert_eq!(pair.clients[0].ended[&stopped], Read::Finished);
    let told = |pair: &Pair, event| pair.clients[0].events.iter().any(|(_, e)| *e == event);
    assert!(told(&pair, TunnelEvent::Stopped(stopped, 9)));
    assert_eq!(pair.clients[0].tunnel.write(stopped, b"more"), Write::Stopped(GONE));

    let id = pair.request(0, b"e", false);
    pair.echo(0, id);
    pair.clients[0].tunnel.reset(id, 11);
    pair.clients[0].tunnel.stop(id, 12);
    pair.run_for(Duration::from_secs(2));
    assert!(pair.service_events.contains(&(who, TunnelEvent::Stopped(id, 12))));
    assert_eq!(pair.service.write(who, id, b"more"), Write::Stopped(GONE));
}

#[test]
fn a_word_that_stops_comes_before_the_end_that_follows_it_and_loses_no_data() {
    // What the relay does when a connection breaks that had sent something: stop, wait until all is quiet, end.
    for seed in 0..20 {
        let mut pair = Pair::connected(300 + seed, WEB, 0.0);
        let who = pair.clients[0].pseudonym;
        let id = pair.request(0, b"e", false);
        pair.echo(0, id);
        pair.loss = 0.2;
        let before = pair.got(0, id);
        let sent = pair.service.write(who, id, &[1; 3_000]);
        assert_eq!(sent, Write::Written(3_000));
        assert!(pair.service.stop(who, id, CONNECTION_RESET));
        let limit = pair.now + Duration::from_secs(60);
        while !pair.service.is_quiet(who) && pair.now < limit {
            pair.run_for(Duration::from_millis(50));
        }
        pair.service.finish(who, id);
        pair.run_until(limit, |p| p.clients[0].ended.contains_key(&id));
        assert_eq!(pair.clients[0].ended[&id], Read::Finished);
        assert_eq!(pair.got(0, id) - before, 3_000);
        let stopped = TunnelEvent::Stopped(id, CONNECTION_RESET);
        assert!(pair.clients[0].events.iter().any(|(_, event)| *event == stopped), "seed {seed}");
    }
}

#[test]
fn ended_streams_make_room_for_others() {
    let mut pair = Pair::connected(6, FAST, 0.0);
    let mut open = 0;
    while pair.clients[0].tunnel.open(pair.now).is_some() {
        open += 1;
    }
    assert_eq!(open, 256);
    for id in 0..256 {
        pair.clients[0].tunnel.reset(StreamId(id), 0);
        pair.clients[0].tunnel.stop(StreamId(id), 0);
    }
    pair.run_until(Time::from_secs(60), |p| {
        p.clients[0].events.iter().any(|(_, e)| *e == TunnelEvent::Available)
    });
    assert!(pair.clients[0].tunnel.open(pair.now).is_some());
}

#[test]
fn a_slow_reader_does_not_stop_the_others() {
    let mut pair = Pair::connected(7, FAST, 0.0);
    let slow = pair.download(0, 3 * MB);
    pair.clients[0].unread.insert(slow);
    pair.run_for(Duration::from_secs(15));
    let other = pair.download(0, MB);
    let limit = pair.now + Duration::from_secs(6);
    pair.run_until(limit, |p| p.clients[0].ended.contains_key(&other));
    assert_eq!(pair.got(0, slow), 0);
    // And the slow one goes on as soon as someone reads.
    pair.clients[0].unread.clear();
    let now = pair.now;
    pair.clients[0].drain(slow, now);
    let limit = pair.now + Duration::from_secs(20);
    pair.run_until(limit, |p| p.clients[0].ended.contains_key(&slow));
    assert_eq!(pair.got(0, slow), 3_000_000);
}

#[test]
fn a_service_cannot_fill_a_client_that_does_not_read() {
    let mut pair = Pair::connected(17, FAST, 0.0);
    let ids: Vec<_> = (0..8).map(|_| pair.download(0, 3 * MB)).collect();
    pair.clients[0].unread.extend(&ids);
    // Time for three times as much as all windows together.
    pair.run_for(Duration::from_secs(40));
    let now = pair.now;
    let mut held = 0;
    for id in ids {
        pair.clients[0].drain(id, now);
        let stream = pair.got(0, id);
        assert!(stream <= 1 << 20, "a stream holds {stream} bytes");
        held += stream;
    }
    assert!((3 << 20..=4 << 20).contains(&held), "the tunnel holds {held} bytes");
}

#[test]
fn another_key_than_the_pinned_one_ends_the_tunnel() {
    let mut pair = Pair::new(8);
    pair.add(WEB, service_key(&[9; 32]), &TunnelSettings::default());
    pair.run_until(Time::from_secs(3), |p| p.closed(0).is_some());
    assert_eq!(pair.closed(0), Some(CloseReason::WrongService));
    assert!(pair.clients[0].tunnel.is_closed() && !pair.clients[0].tunnel.is_connected());
    assert!(!pair.clients[0].events.iter().any(|(_, e)| *e == TunnelEvent::Connected));
    pair.run_for(Duration::from_secs(3));
    let who = pair.clients[0].pseudonym;
    assert_eq!(
        pair.service_events,
        [(who, TunnelEvent::Closed(CloseReason::Protocol))],
        "the service was told"
    );
    assert!(pair.service.is_empty());
}

#[test]
fn a_close_reaches_the_peer_with_its_code() {
    let mut pair = Pair::connected(9, WEB, 0.0);
    let who = pair.clients[0].pseudonym;
    let id = pair.request(0, b"e", false);
    pair.echo(0, id);
    let now = pair.now;
    pair.clients[0].tunnel.close(now, 42);
    assert!(pair.clients[0].tunnel.is_closed());
    assert_eq!(pair.clients[0].tunnel.write(id, b"x"), Write::Stopped(GONE));
    assert_eq!(pair.clients[0].tunnel.read(id, &mut [0; 8]), Read::Reset(GONE));
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.closed(0), Some(CloseReason::Local));
    assert_eq!(
        pair.service_events.last(),
        Some(&(who, TunnelEvent::Closed(CloseReason::Peer(42))))
    );
    assert!(pair.service.is_empty() && pair.service.next_timeout().is_none());
    assert_eq!(pair.clients[0].tunnel.next_timeout(), None);

    let mut pair = Pair::connected(9, WEB, 0.0);
    pair.run_for(Duration::from_secs(1));
    pair.service.close(who, pair.now, 43);
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.closed(0), Some(CloseReason::Peer(43)));
    assert_eq!(pair.service_events.last(), Some(&(who, TunnelEvent::Closed(CloseReason::Local))));
    assert!(pair.service.is_empty());
}

#[test]
fn a_download_resumes_soon_after_an_outage() {
    let mut resumptions = Vec::new();
    for seed in 100..130 {
        let (class, out) =
            [(WEB, 30), (FAST, 30), (WEB, 5), (FAST, 70), (WEB, 1)][seed as usize % 5];
        let mut pair = Pair::connected(seed, class, 0.0);
        let id = pair.download(0, 4 * MB);
        pair.run_for(Duration::from_secs(3));
        let from = pair.now;
        let to = from + Duration::from_secs(out);
        pair.outage = Some((from, to));
        pair.run_for(Duration::from_secs(out));
        let before = pair.got(0, id);
        let trace = pair
            .service_trace
            .iter()
            .filter(|(at, _)| *at >= from + Duration::from_secs(2))
            .count();
        assert!(trace < 140, "{trace} datagrams into an outage");
        pair.run_until(to + Duration::from_secs(60), |p| p.got(0, id) > before);
        let resumed = pair.now.since(to);
        resumptions.push(resumed);
        // After half a minute of silence the ends ask every 5 s only.
        let limit = if out > 30 { 6 } else { 2 };
        assert!(resumed < Duration::from_secs(limit), "{out} s: {resumed:?}");
        pair.run_until(to + Duration::from_secs(60), |p| p.clients[0].ended.contains_key(&id));
        assert_eq!(pair.got(0, id) as u64, 4 * MB);
    }
    println!(
        "resumed after outages of 1 to 70 s: p50 {:?}, max {:?}",
        quantile(&mut resumptions, 0.5),
        quantile(&mut resumptions, 1.0)
    );
}

/// One of two mixes of a layer is dead: a path works once in two.
#[test]
fn a_message_gets_through_where_every_other_packet_is_lost() {
    let mut took = Vec::new();
    for seed in 200..220 {
        let mut pair = Pair::connected(seed, WEB, 0.0);
        let id = pair.request(0, b"e", false);
        pair.echo(0, id);
        pair.loss = 0.5;
        for _ in 0..10 {
            took.push(pair.echo(0, id));
        }
    }
    let (p50, p99) = (quantile(&mut took, 0.5), quantile(&mut took, 0.99));
    let max = quantile(&mut took, 1.0);
    println!("echo at 50 % loss: p50 {p50:?}, p99 {p99:?}, max {max:?}");
    assert!(p50 < Duration::from_secs(2) && p99 < Duration::from_secs(8), "{p50:?}, {p99:?}");
    assert!(max < Duration::from_secs(15), "{max:?}");
}

#[test]
fn a_close_is_not_kept_back_by_a_question_of_the_watchdog() {
    let mut pair = Pair::connected(31, WEB, 0.0);
    let who = pair.clients[0].pseudonym;
    let id = pair.request(0, b"e", false);
    pair.echo(0, id);
    pair.outage = Some((pair.now, Time::NEVER));
    pair.clients[0].tunnel.write(id, b"into the void");
    pair.run_for(Duration::from_secs(3));
    // Time for the next question, and before anything of it leaves the user gives up.
    let due = pair.clients[0].tunnel.next_timeout().unwrap();
    let client = &mut pair.clients[0];
    client.tunnel.handle_timeout(due);
    client.tunnel.close(due, 5);
    let mut last = Vec::new();
    assert!(client.tunnel.poll_transmit(due, &mut last));
    pair.service.handle_datagram(who, due, &last);
    let events: Vec<_> = std::iter::from_fn(|| pair.service.poll_event()).collect();
    assert!(events.contains(&(who, TunnelEvent::Closed(CloseReason::Peer(5)))), "{events:?}");
}

#[test]
fn a_vanished_peer_times_out_without_a_flood() {
    let mut pair = Pair::connected(14, WEB, 0.0);
    pair.download(0, 4 * MB);
    pair.run_for(Duration::from_secs(3));
    let from = pair.now;
    pair.outage = Some((from, Time::NEVER));
    pair.run_for(Duration::from_secs(150));
    let timed_out = |e: &(_, TunnelEvent)| e.1 == TunnelEvent::Closed(CloseReason::TimedOut);
    assert!(pair.service_events.iter().any(timed_out));
    assert_eq!(pair.closed(0), Some(CloseReason::TimedOut));
    assert!(pair.service.is_empty());
    let later = from + Duration::from_secs(2);
    let sent = pair.service_trace.iter().filter(|(at, _)| *at > later).count();
    assert!(sent < 200, "{sent}");
}

#[test]
fn datagrams_pass() {
    let mut pair = Pair::connected(15, WEB, 0.0);
    pair.run_for(Duration::from_secs(1));
    let longest = pair.clients[0].tunnel.max_datagram_len();
    assert!(longest > 1100 && longest < usize::from(CLIENT_MTU));
    assert!(pair.service.max_datagram_len(pair.clients[0].pseudonym) > 1500);
    assert!(!pair.clients[0].tunnel.send_datagram(vec![0; longest + 1]));
    let mut sent = Vec::new();
    for n in 0..20_u8 {
        let data = vec![n; longest - usize::from(n)];
        assert!(pair.clients[0].tunnel.send_datagram(data.clone()));
        sent.push(data);
    }
    pair.run_for(Duration::from_secs(3));
    let mut got: Vec<_> = pair.clients[0]
        .events
        .iter()
        .filter_map(|(_, e)| if let TunnelEvent::Datagram(d) = e { Some(d.clone()) } else { None })
        .collect();
    got.sort();
    assert!(got == sent, "{} of {}", got.len(), sent.len());
    // The buffer is bounded: the oldest go, and nothing fails.
    for _ in 0..1000 {
        assert!(pair.clients[0].tunnel.send_datagram(vec![1; 1000]));
    }
}

#[test]
fn an_idle_tunnel_has_no_busy_timers() {
    let mut pair = Pair::connected(16, WEB, 0.0);
    pair.run_for(Duration::from_secs(5));
    let before = (pair.clients[0].timeouts, pair.service_timeouts, pair.service_trace.len());
    pair.run_for(Duration::from_secs(300));
    let client = pair.clients[0].timeouts - before.0;
    let service = pair.service_timeouts - before.1;
    let replies = pair.service_trace.len() - before.2;
    println!(
        "300 idle seconds: {client} timeouts at the client, {service} at the service, {replies} replies"
    );
    assert!(client < 60 && service < 60, "{client} {service}");
    assert!(pair.clients[0].tunnel.is_connected());
    assert_eq!(pair.closed(0), None);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let mut pair = Pair::connected(seed, WEB, 0.01);
        let id = pair.download(0, 300_000);
        pair.request(0, &[b'e'; 5000], true);
        pair.run_until(Time::from_secs(60), |p| p.clients[0].ended.contains_key(&id));
        (std::mem::take(&mut pair.clients[0].trace), std::mem::take(&mut pair.service_trace))
    };
    assert_eq!(run(17), run(17));
    assert_ne!(run(17).0, run(18).0);
}

#[test]
fn pseudonyms_do_not_mix() {
    let mut pair = Pair::new(19);
    for _ in 0..3 {
        pair.add(WEB, service_key(&SECRET), &TunnelSettings::default());
    }
    pair.run_until(Time::from_secs(5), |p| p.clients.iter().all(|c| c.tunnel.is_connected()));
    let ids: Vec<_> = (0..3).map(|at| pair.download(at, 100_000 * (at as u64 + 1))).collect();
    assert_eq!(ids, [StreamId(0); 3]);
    pair.run_until(Time::from_secs(60), |p| p.clients.iter().all(|c| !c.ended.is_empty()));
    for (at, id) in ids.into_iter().enumerate() {
        assert_eq!(pair.got(at, id), 100_000 * (at + 1));
    }
    // A datagram of one under the pseudonym of another does nothing.
    let mut out = Vec::new();
    pair.clients[0].tunnel.send_datagram(vec![5; 100]);
    assert!(pair.clients[0].tunnel.poll_transmit(pair.now, &mut out));
    let (other, ignored) = (pair.clients[1].pseudonym, pair.service.ignored());
    pair.service_events.clear();
    pair.service.handle_datagram(other, pair.now, &out);
    assert_eq!(pair.service.ignored(), ignored + 1);
    assert_eq!(pair.service.poll_event(), None);
}

#[test]
fn connections_are_limited_and_the_silent_make_room() {
    let settings = TunnelSettings { max_connections: 3, ..TunnelSettings::default() };
    let mut pair = Pair::with(20, &settings);
    for _ in 0..3 {
        pair.add(WEB, service_key(&SECRET), &settings);
    }
    pair.run_until(Time::from_secs(5), |p| p.clients.iter().all(|c| c.tunnel.is_connected()));
    let late = pair.add(WEB, service_key(&SECRET), &settings);
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.closed(late), Some(CloseReason::Refused));
    assert_eq!((pair.service.len(), pair.service.refused() > 0), (3, true));

    // One goes away without a word: after a minute its place is free.
    let gone = pair.clients[1].pseudonym;
    pair.clients[1].class.up = 1e-6;
    pair.run_for(Duration::from_secs(85));
    let later = pair.add(WEB, service_key(&SECRET), &settings);
    pair.run_for(Duration::from_secs(5));
    assert!(pair.clients[later].tunnel.is_connected());
    assert!(pair.service_events.contains(&(gone, TunnelEvent::Closed(CloseReason::Displaced))));
    assert_eq!(pair.service.len(), 3);
    assert!(pair.clients[0].tunnel.is_connected() && pair.clients[2].tunnel.is_connected());
}

#[test]
fn a_tunnel_that_carries_nothing_makes_room_for_a_newcomer_and_one_in_use_does_not() {
    let settings = TunnelSettings { max_connections: 3, ..TunnelSettings::default() };
    let mut pair = Pair::with(22, &settings);
    for _ in 0..3 {
        pair.add(WEB, service_key(&SECRET), &settings);
    }
    pair.run_until(Time::from_secs(5), |p| p.clients.iter().all(|c| c.tunnel.is_connected()));
    // All are heard, and over one something comes.
    pair.download(1, 10_000_000);
    pair.run_for(Duration::from_secs(25));
    for newcomer in 3..5 {
        let late = pair.add(WEB, service_key(&SECRET), &settings);
        assert_eq!(late, newcomer);
        pair.run_for(Duration::from_secs(5));
        assert!(pair.clients[late].tunnel.is_connected());
    }
    let used = pair.clients[1].pseudonym;
    assert!(!pair.service_events.contains(&(used, TunnelEvent::Closed(CloseReason::Displaced))));
    assert_eq!(pair.service.len(), 3);
    // Who came within the last ten seconds stays.
    let refused = pair.add(WEB, service_key(&SECRET), &settings);
    pair.run_for(Duration::from_secs(3));
    assert_eq!(pair.closed(refused), Some(CloseReason::Refused));
}

#[test]
fn a_quiet_session_stays_while_there_are_tunnels_without_streams() {
    let settings = TunnelSettings { max_connections: 3, ..TunnelSettings::default() };
    let mut pair = Pair::with(23, &settings);
    for _ in 0..3 {
        pair.add(WEB, service_key(&SECRET), &settings);
    }
    pair.run_until(Time::from_secs(5), |p| p.clients.iter().all(|c| c.tunnel.is_connected()));
    // The first one that anybody uses is a session, which then is quiet; the others ask for something that ends.
    let session = pair.request(0, b"e", false);
    pair.echo(0, session);
    pair.run_for(Duration::from_secs(2));
    for n in [1, 2] {
        let id = pair.request(n, b"u12", true);
        let limit = pair.now + Duration::from_secs(10);
        pair.run_until(limit, |p| p.clients[n].ended.contains_key(&id));
    }
    pair.run_for(Duration::from_secs(15));
    let late = pair.add(WEB, service_key(&SECRET), &settings);
    pair.run_for(Duration::from_secs(5));
    assert!(pair.clients[late].tunnel.is_connected());
    let quiet = pair.clients[0].pseudonym;
    assert!(!pair.service_events.contains(&(quiet, TunnelEvent::Closed(CloseReason::Displaced))));
    pair.echo(0, session);
}

#[test]
fn a_restarted_service_tells_its_clients() {
    let mut pair = Pair::connected(21, WEB, 0.0);
    let seed = Seed::from_u64(99);
    pair.service =
        Tunnels::new(pair.base, pair.now, &seed, &SECRET, &TunnelSettings::default()).unwrap();
    pair.request(0, &[b'e'; 500], false);
    let limit = pair.now + Duration::from_secs(3);
    pair.run_until(limit, |p| p.closed(0).is_some());
    assert_eq!(pair.closed(0), Some(CloseReason::Forgotten));
}

#[test]
fn a_class_of_few_slots_works() {
    let settings =
        TunnelSettings { initial_rtt: Duration::from_secs(3), ..TunnelSettings::default() };
    let mut pair = Pair::with(22, &settings);
    pair.add(TEXT, service_key(&SECRET), &settings);
    pair.run_until(Time::from_secs(60), |p| p.clients[0].tunnel.is_connected());
    println!("text: connected after {:?}", pair.now);
    let id = pair.request(0, b"e", false);
    for _ in 0..5 {
        assert!(pair.echo(0, id) < Duration::from_secs(20));
    }
    let id = pair.download(0, 20_000);
    pair.run_until(pair.now + Duration::from_secs(60), |p| p.clients[0].ended.contains_key(&id));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let good = TunnelSettings::default();
    let bad = [
        TunnelSettings { initial_rtt: Duration::ZERO, ..good.clone() },
        TunnelSettings { idle_timeout: Duration::MAX, ..good.clone() },
        TunnelSettings {
            client: Windows { stream: 1 << 20, connection: 1 << 20, send: 1 << 20 },
            ..good.clone()
        },
        TunnelSettings { max_connections: 0, ..good },
    ];
    for settings in bad {
        let made = Tunnel::connect(base(), Time::ZERO, &Seed::from_u64(0), [1; 32], &settings);
        assert!(matches!(made, Err(TunnelError::Setting(_))));
    }
}

/// What a datagram may have become on its way.
fn damaged(original: &[u8], kind: u8, at: usize, seed: u64) -> Vec<u8> {
    let mut data = original.to_vec();
    match kind % 4 {
        0 => data.truncate(at % (data.len() + 1)),
        1 => {
            let at = at % data.len();
            data[at] ^= 1 << (seed % 8);
        }
        2 => data = noise(seed, at % 2100),
        _ => data.extend(noise(seed, at % 300)),
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn garbage_does_no_harm(hits in prop::collection::vec((any::<u8>(), 0_usize..4000, any::<u64>()), 1..60)) {
        let mut pair = Pair::connected(23, FAST, 0.0);
        let who = pair.clients[0].pseudonym;
        let id = pair.request(0, b"e", false);
        pair.echo(0, id);
        pair.clients[0].tunnel.send_datagram(vec![3; 700]);
        pair.service.send_datagram(who, vec![4; 700]);
        let (mut up, mut down) = (Vec::new(), Vec::new());
        prop_assert!(pair.clients[0].tunnel.poll_transmit(pair.now, &mut up));
        prop_assert!(pair.service.poll_transmit(who, pair.now, &mut down));
        for (kind, at, seed) in hits {
            let now = pair.now;
            pair.service.handle_datagram(who, now, &damaged(&up, kind, at, seed));
            pair.service.handle_datagram([seed as u8; 16], now, &damaged(&up, kind, at, seed));
            pair.clients[0].tunnel.handle_datagram(now, &damaged(&down, kind, at, seed));
            pair.run_for(Duration::from_millis(5));
        }
        pair.echo(0, id);
        prop_assert!(pair.service.len() == 1 && pair.closed(0).is_none());
    }

    #[test]
    fn garbage_in_the_handshake_does_not_panic(hits in prop::collection::vec((any::<u8>(), 0_usize..2000, any::<u64>()), 1..30)) {
        let settings = TunnelSettings { max_connections: 4, ..TunnelSettings::default() };
        let seed = Seed::from_u64(24);
        let base = base();
        let mut now = Time::from_millis(5);
        let mut service = Tunnels::new(base, now, &seed, &SECRET, &settings).unwrap();
        let mut client = Tunnel::connect(base, now, &seed, service_key(&SECRET), &settings).unwrap();
        let mut out = Vec::new();
        for (kind, at, n) in hits {
            now += Duration::from_millis(50);
            client.handle_timeout(now);
            service.handle_timeout(now);
            let who = [(n % 8) as u8; 16];
            while client.poll_transmit(now, &mut out) {
                service.handle_datagram(who, now, &damaged(&out, kind, at, n));
                service.handle_datagram([1; 16], now, &out);
            }
            let ready: Vec<_> = service.ready().collect();
            for who in ready {
                while service.poll_transmit(who, now, &mut out) {
                    client.handle_datagram(now, &damaged(&out, kind, at, n));
                    client.handle_datagram(now, &out);
                }
            }
            while service.poll_event().is_some() {}
            while client.poll_event().is_some() {}
            prop_assert!(service.len() <= 4);
        }
    }
}

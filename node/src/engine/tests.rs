//! Nodes in virtual time, on a network that is a queue.

mod changes;
mod joining;
mod network;
mod properties;
mod reachable;
mod reports;

use std::time::Duration;

use proptest::prelude::*;
use shoal_sphinx::backend::Backend;
use shoal_sphinx::{CLIENT_CONTROL, FRAME_LEN, Hop, MESSAGE_LEN, NullCodec, SecretKey, Sphinx};
use shoal_topology::random::exponential;
use shoal_topology::wire::client_gateway::{Away, ControlMessage as _, Hello, Mode, Renew, kind};

use super::*;
use crate::{Opener, Room};
use gateway::{Admission, InboxId, Keeping, ServiceAccess, Token};
use network::{EPOCH, Net, Options};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn loops_are_sent_at_their_rate_and_come_back() {
    let mut net = Net::new(Arc::new(NullCodec), Options { loops_per_s: 5.0, ..Options::default() });
    net.run(ms(100_000));
    for engine in net.engines() {
        let counters = engine.counters();
        // 500 expected; five standard deviations are 112.
        assert!((388..=612).contains(&counters.loops_sent), "{counters:?}");
        let under_way = counters.loops_sent - counters.loops_returned;
        assert!(under_way < 20, "{counters:?}");
        assert_eq!(counters.loops_lost, 0);
        assert_eq!(counters.dropped_in_all(), 0, "{counters:?}");
    }
}

#[test]
fn a_loop_that_a_mix_swallows_is_counted_as_lost() {
    let mut net = Net::new(Arc::new(NullCodec), Options { loops_per_s: 5.0, ..Options::default() });
    net.dead = Some(net.mix(2, 0));
    net.run(ms(60_000));
    let gateway = net.engine(net.gateway(0)).counters().clone();
    assert!(gateway.loops_lost > 50 && gateway.loops_returned > 50, "{gateway:?}");
    assert!(gateway.loops_sent >= gateway.loops_lost + gateway.loops_returned);
}

/// As a worker does with what a link brought.
fn open_bytes(opener: &Opener, now: Time, bytes: &[u8; FRAME_LEN]) -> Result<Arrived, DropReason> {
    let frame = Frame::decode(bytes).map_err(|_| DropReason::Version)?;
    opener.open_frame(now, frame)
}

#[test]
fn the_same_seed_gives_the_same_trace_with_either_codec() {
    let options = || Options { loops_per_s: 3.0, ..Options::default() };
    let trace = |codec: Arc<dyn Codec>| {
        let mut net = Net::new(codec, options());
        let (client, peer) =
            (net.join(0, 1, Mode::Class("web".into())), net.join(1, 2, Mode::Service));
        let mut rng = Seed::from_u64(5).stream("client");
        for _ in 0..10 {
            net.run(ms(50));
            net.send_through(&mut rng, client, 0, net.address(peer), &[kind::TUNNEL, 1]);
        }
        net.run(ms(2_000));
        assert_eq!(net.packets_for(peer).len(), 10);
        net.trace
    };
    let real = trace(Arc::new(Sphinx::SCALAR));
    assert!(real.len() > 100);
    assert!(real == trace(Arc::new(NullCodec)));
    assert!(real == trace(Arc::new(Sphinx::SCALAR)));
}

#[test]
fn a_delay_is_kept_to_the_nanosecond() {
    let mut net = Net::new(Arc::new(Sphinx::SCALAR), Options::default());
    let (mix, next) = (net.mix(1, 0), net.mix(2, 0));
    let start = net.now;
    // Opened late: the delay counts from the packet's arrival.
    for delay in [2_000_123, 1, 2_000_122, 1_000_000] {
        let path = [(mix, Duration::from_nanos(delay)), (next, Duration::ZERO)];
        let frame = net.seal(&path, &[kind::DROP]);
        let arrived = net.open(mix, start, &frame);
        net.handle_at(mix, start, Input::Arrived(arrived));
    }
    let mut sent = Vec::new();
    while let Some(at) = net.engine(mix).next_wake() {
        net.handle_at(mix, at, Input::Wake);
        sent.extend(net.sent.drain(..).map(|_| at.since(start).as_nanos()));
    }
    assert_eq!(sent, [1, 1_000_000, 2_000_122, 2_000_123]);
}

/// A frame for `mix`, and why it must be dropped.
fn dropped(net: &mut Net, node: usize, frame: Frame) -> DropReason {
    let before = net.engine(node).counters().clone();
    let opened = net.open(node, net.now, &frame);
    net.handle_at(node, net.now, Input::Arrived(opened));
    let after = net.engine(node).counters();
    let changed = |reason: &&DropReason| after.dropped(**reason) != before.dropped(**reason);
    let reasons: Vec<_> = DropReason::ALL.iter().filter(changed).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    *reasons[0]
}

#[test]
fn each_bad_packet_is_dropped_for_its_reason() {
    let mut net = Net::new(Arc::new(Sphinx::SCALAR), Options::default());
    let (mix, next, gateway) = (net.mix(1, 0), net.mix(2, 0), net.gateway(0));
    let path = |delay| [(mix, delay), (next, Duration::ZERO)];

    let good = net.seal(&path(ms(1)), &[kind::DROP]);
    let opened = net.open(mix, net.now, &good);
    net.handle_at(mix, net.now, Input::Arrived(opened));
    assert_eq!(net.engine(mix).counters().dropped_in_all(), 0);
    assert_eq!(dropped(&mut net, mix, good.clone()), DropReason::Replay);

    let mut flipped = net.seal(&path(ms(1)), &[kind::DROP]);
    flipped.packet.as_mut_bytes()[100] ^= 1;
    // Where clients' packets come first, such a one may be filler.
    assert_eq!(dropped(&mut net, mix, flipped), DropReason::Filler);
    let mut flipped = net.seal(&[(next, ms(1)), (gateway, ms(1))], &[kind::DROP]);
    flipped.packet.as_mut_bytes()[100] ^= 1;
    assert_eq!(dropped(&mut net, next, flipped), DropReason::Mac);

    let mut low = good.clone();
    low.packet.as_mut_bytes()[..32].fill(0);
    assert_eq!(dropped(&mut net, mix, low), DropReason::LowOrder);

    let other_epoch = Frame { epoch: good.epoch.wrapping_add(100), ..good.clone() };
    assert_eq!(dropped(&mut net, mix, other_epoch), DropReason::UnknownEpoch);

    let long = net.seal(&path(ms(5_001)), &[kind::DROP]);
    assert_eq!(dropped(&mut net, mix, long), DropReason::DelayTooLong);

    for wrong in [net.mix(1, 1), net.mix(3, 0), gateway] {
        let astray = net.seal(&[(mix, ms(1)), (wrong, Duration::ZERO)], &[kind::DROP]);
        assert_eq!(dropped(&mut net, mix, astray), DropReason::NoRoute);
    }
    let astray = net.seal(&[(gateway, ms(0)), (net.mix(3, 0), Duration::ZERO)], &[kind::DROP]);
    assert_eq!(dropped(&mut net, gateway, astray), DropReason::NoRoute);
    let stranger =
        Hop { address: [7; 32], key: SecretKey::from_bytes([7; 32]).public(), delay: ms(0) };
    let nobody = net.seal_to(&[(gateway, ms(0))], stranger, &[kind::TUNNEL]);
    assert_eq!(dropped(&mut net, gateway, nobody), DropReason::UnknownClient);

    let senseless = net.seal(&[(mix, ms(0))], &[kind::TUNNEL]);
    assert_eq!(dropped(&mut net, mix, senseless), DropReason::Malformed);
    for message in [&[][..], &[kind::QUERY, 1], &[kind::LOOP], &[200; MESSAGE_LEN]] {
        let senseless = net.seal(&[(gateway, ms(0))], message);
        assert_eq!(dropped(&mut net, gateway, senseless), DropReason::Malformed);
    }

    let mut version = good.encode();
    version[0] = 9;
    let opened = open_bytes(net.opener(mix), net.now, &version);
    assert!(matches!(opened, Err(DropReason::Version)));
}

#[test]
fn in_a_batch_each_frame_has_its_own_verdict() {
    let mut net = Net::new(Backend::best_codec(), Options::default());
    let (mix, next) = (net.mix(1, 0), net.mix(2, 0));
    let path = |delay| [(mix, delay), (next, Duration::ZERO)];
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..3 {
        let good = net.seal(&path(ms(1)), &[kind::DROP]);
        let mut flipped = net.seal(&path(ms(1)), &[kind::DROP]);
        flipped.packet.as_mut_bytes()[100] ^= 1;
        let stranger = Frame { epoch: good.epoch.wrapping_add(100), ..good.clone() };
        // The next epoch has the same key here, and so the same replay table.
        let later = net.seal(&path(ms(1)), &[kind::DROP]);
        let later = Frame { epoch: later.epoch.wrapping_add(1), ..later };
        let long = net.seal(&path(ms(5_001)), &[kind::DROP]);
        for (frame, verdict) in [
            (good.clone(), None),
            (flipped, Some(DropReason::Mac)),
            (good, Some(DropReason::Replay)),
            (stranger, Some(DropReason::UnknownEpoch)),
            (later.clone(), None),
            (later, Some(DropReason::Replay)),
            (long, Some(DropReason::DelayTooLong)),
        ] {
            frames.push(frame);
            expected.push(verdict);
        }
    }
    let at = |n: usize| net.now + ms(n as u64);
    let mut batch: Vec<_> = frames.iter().cloned().enumerate().map(|(n, f)| (at(n), f)).collect();
    // What is there already stays in front.
    let (mut room, mut results) = (Room::default(), vec![Err(DropReason::Version)]);
    net.opener(mix).open_batch(&mut batch, &mut room, &mut results);
    assert!(batch.is_empty() && results.len() == 1 + frames.len());
    for (n, (result, expected)) in results.iter().skip(1).zip(&expected).enumerate() {
        assert_eq!(result.as_ref().err(), expected.as_ref(), "frame {n}");
        if let Ok(arrived) = result {
            assert_eq!((arrived.received, arrived.epoch), (at(n), frames[n].epoch), "frame {n}");
        }
    }
}

#[test]
fn more_packets_than_the_declared_rate_are_refused() {
    // Room for one tag in each shard.
    let mut net = Net::new(Arc::new(NullCodec), Options { replay: 64, ..Options::default() });
    let (mix, next) = (net.mix(1, 0), net.mix(2, 0));
    let path = |delay| [(mix, delay), (next, Duration::ZERO)];
    let full = (0..500).any(|_| {
        let frame = net.seal(&path(ms(1)), &[kind::DROP]);
        matches!(net.open(mix, net.now, &frame), Err(DropReason::ReplayTableFull))
    });
    assert!(full);
}

#[test]
fn a_full_pool_drops_the_newest() {
    let mut net = Net::new(Arc::new(NullCodec), Options { pool: 10, ..Options::default() });
    let (mix, next) = (net.mix(1, 0), net.mix(2, 0));
    for _ in 0..25 {
        let frame = net.seal(&[(mix, ms(50)), (next, ms(0))], &[kind::DROP]);
        let opened = net.open(mix, net.now, &frame);
        net.handle_at(mix, net.now, Input::Arrived(opened));
    }
    let counters = net.engine(mix).counters();
    assert_eq!((counters.forwarded, counters.dropped(DropReason::PoolFull)), (10, 15));
    assert_eq!(net.engine(mix).pooled(), 10);
    net.run(ms(100));
    assert_eq!(net.engine(mix).pooled(), 0);
}

/// Instants, kinds aside, of all frames that went down.
fn instants(net: &Net, client: usize) -> Vec<Time> {
    net.down(client).iter().map(|(at, _)| *at).collect()
}

#[test]
fn what_goes_down_and_when_does_not_depend_on_what_comes() {
    let run = |packets: usize| {
        let mut net =
            Net::new(Arc::new(NullCodec), Options { loops_per_s: 1.0, ..Options::default() });
        let client = net.join(0, 1, Mode::Class("web".into()));
        let mut rng = Seed::from_u64(5).stream("client");
        for n in 0..1_000 {
            net.run(ms(3));
            for _ in 0..usize::from(n % 10 == 0) * packets {
                net.deliver(&mut rng, client, &[kind::TUNNEL]);
            }
        }
        (instants(&net, client), net.packets_for(client).len())
    };
    let ((idle, none), (busy, many)) = (run(0), run(5));
    assert_eq!(none, 0);
    assert!(many > 250, "{many}");
    assert!(idle == busy);
    // 110 a second, without drift.
    let schedule = &idle[idle.len() - 300..];
    for pair in schedule.windows(2) {
        let gap = pair[1].since(pair[0]).as_nanos();
        assert!((9_090_909..=9_090_910).contains(&gap), "{gap}");
    }
}

#[test]
fn what_travels_in_an_epoch_that_is_over_is_dropped_for_clients_when_nothing_is_under_way_any_more()
{
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let client = net.join(0, 1, Mode::Class("web".into()));
    let mut rng = Seed::from_u64(5).stream("client");
    let gateway = net.gateway(0);
    let over = |net: &Net| net.engine(gateway).counters().dropped(DropReason::EpochOver);
    // Packets of the first epoch. An eighth of 60 s after the next one begins they are late.
    net.deliver(&mut rng, client, &[kind::TUNNEL]);
    net.change(|_| {});
    net.run(ms(7_400));
    net.deliver(&mut rng, client, &[kind::TUNNEL]);
    net.run(ms(50));
    assert_eq!((over(&net), net.packets_for(client).len()), (0, 2));
    net.run(ms(100));
    net.deliver(&mut rng, client, &[kind::TUNNEL]);
    net.run(ms(50));
    assert_eq!((over(&net), net.packets_for(client).len()), (1, 2));
}

#[test]
fn a_full_client_queue_drops_the_newest() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let client = net.join(0, 1, Mode::Class("text".into()));
    let mut rng = Seed::from_u64(5).stream("client");
    for _ in 0..40 {
        net.deliver(&mut rng, client, &[kind::TUNNEL]);
    }
    let gateway = net.gateway(0);
    // 2 a second: 16 wait.
    assert_eq!(net.engine(gateway).counters().dropped(DropReason::ClientQueueFull), 24);
    net.run(ms(20_000));
    assert_eq!(net.packets_for(client).len(), 16);
}

#[test]
fn what_waited_in_the_inbox_takes_only_the_instants_of_dummies() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let mut rng = Seed::from_u64(5).stream("client");
    let client = net.join(0, 1, Mode::Class("web".into()));
    net.run(ms(100));
    net.leave(client);
    for n in 0..50 {
        net.deliver(&mut rng, client, &[kind::TUNNEL, 1, n]);
    }
    let gateway = net.gateway(0);
    assert_eq!(net.stored(gateway), 50);
    net.rejoin(client);
    // One live packet for every second instant.
    for n in 0..40 {
        net.deliver(&mut rng, client, &[kind::TUNNEL, 0, n]);
        net.run(Duration::from_nanos(2 * 9_090_909));
    }
    net.run(ms(1_000));
    let messages = net.messages_for(client);
    let live: Vec<_> = messages.iter().enumerate().filter(|(_, m)| m[1] == 0).collect();
    let waited: Vec<u8> = messages.iter().filter(|m| m[1] == 1).map(|m| m[2]).collect();
    assert_eq!(live.len(), 40);
    assert!(waited == (0..50).collect::<Vec<u8>>(), "in order, each once: {waited:?}");
    // A live packet is never behind more than the one frame of its pair.
    assert!(live.iter().all(|(at, message)| *at <= 2 * usize::from(message[2]) + 1));
    assert_eq!(net.stored(gateway), 0);
}

#[test]
fn an_inbox_has_a_quota_and_can_be_off() {
    for (inbox, expected) in [(Keeping::On, 20), (Keeping::Off, 0)] {
        let mut net = Net::new(
            Arc::new(NullCodec),
            Options { inbox, inbox_packets: 20, ..Options::default() },
        );
        let mut rng = Seed::from_u64(5).stream("client");
        let client = net.join(0, 1, Mode::Class("web".into()));
        net.leave(client);
        for _ in 0..30 {
            net.deliver(&mut rng, client, &[kind::TUNNEL]);
        }
        let gateway = net.gateway(0);
        assert_eq!(net.stored(gateway), expected);
        let full = net.engine(gateway).counters().dropped(DropReason::InboxFull);
        assert_eq!(full, 30 - expected as u64);
    }
}

#[test]
fn one_inbox_too_many_takes_the_place_of_an_empty_one_of_an_absent_client() {
    use shoal_topology::wire::client_gateway::Refusal;
    assert_eq!(GatewaySettings::default().max_inboxes, 100_000);
    let mut net = Net::new(Arc::new(NullCodec), Options { max_inboxes: 2, ..Options::default() });
    let mut rng = Seed::from_u64(5).stream("client");
    let gateway = net.gateway(0);
    let web = || Mode::Class("web".into());
    let asker = net.join(1, 9, web());
    let (idle, stays) = (net.join_listed(0, 1), net.join(0, 2, web()));
    assert_eq!(net.try_join(0, 3, web(), b"", |_| {}).1, Some(Refusal::Full));

    net.leave(idle);
    assert_eq!(net.query(asker, 0, net.client_identity(idle))[..2], [kind::ANSWER, 1]);
    let new = net.join(0, 3, web());
    assert_eq!(net.query(asker, 0, net.client_identity(idle)), [kind::ANSWER, 0]);
    net.deliver(&mut rng, idle, &[kind::TUNNEL]);
    assert_eq!(net.engine(gateway).counters().dropped(DropReason::UnknownClient), 1);
    assert_eq!(net.engine(gateway).clients(), 2);

    // Both absent, and something waits for one: the empty one goes first, and then even that.
    net.leave(stays);
    net.deliver(&mut rng, stays, &[kind::TUNNEL]);
    net.leave(new);
    net.join(0, 4, web());
    assert_eq!(net.stored(gateway), 1);
    net.join(0, 5, web());
    assert_eq!(net.stored(gateway), 0);
    assert_eq!(net.try_join(0, 6, web(), b"", |_| {}).1, Some(Refusal::Full));
    assert_eq!(net.engine(gateway).counters().clients_refused, 2);
}

#[test]
fn an_open_gateway_lets_in_people_and_no_service_without_a_token() {
    use shoal_topology::wire::client_gateway::Refusal;
    let token = Token { secret: b"exit".to_vec(), connections: 1, service: ServiceAccess::Allowed };
    let admission = Admission::Open(vec![token]);
    assert_eq!(GatewaySettings::default().admission, Admission::Open(Vec::new()));
    let mut net = Net::new(Arc::new(NullCodec), Options { admission, ..Options::default() });
    assert_eq!(net.try_join(0, 1, Mode::Service, b"", |_| {}).1, Some(Refusal::NoToken));
    assert_eq!(net.try_join(0, 1, Mode::Service, b"other", |_| {}).1, Some(Refusal::Token));
    assert_eq!(net.try_join(0, 1, Mode::Service, b"exit", |_| {}).1, None);
    let web = Mode::Class("web".into());
    let (client, refused) = net.try_join(0, 2, web, b"", |_| {});
    assert_eq!(refused, None);
    // And no more than its class comes through.
    let gateway = net.gateway(0);
    let before = net.engine(gateway).counters().from_clients;
    for _ in 0..2_000 {
        net.upward(client, EPOCH, net.mix(1, 0));
        net.run(Duration::from_micros(500));
    }
    let passed = net.engine(gateway).counters().from_clients - before;
    assert!(passed < 200, "{passed}");
}

#[test]
fn clients_of_one_network_leave_room_for_those_of_others() {
    use shoal_topology::wire::client_gateway::Refusal;
    let admission = Admission::Open(Vec::new());
    let options = Options { admission, max_clients_of_one: 20, ..Options::default() };
    let mut net = Net::new(Arc::new(NullCodec), options);
    let web = || Mode::Class("web".into());
    let clients: Vec<_> = (1..21).map(|n| net.join(0, n, web())).collect();
    for n in 21..70 {
        assert_eq!(net.try_join(0, n, web(), b"", |_| {}).1, Some(Refusal::Full));
    }
    // One that was here before takes its own place.
    assert_eq!(net.try_join(0, 1, web(), b"", |_| {}).1, None);
    net.origin = Origin(2);
    net.join(0, 70, web());
    net.origin = Origin(1);
    net.leave(clients[5]);
    net.run(ms(1_000));
    net.join(0, 71, web());
    assert_eq!(net.try_join(0, 72, web(), b"", |_| {}).1, Some(Refusal::Full));
    assert_eq!(net.engine(net.gateway(0)).clients(), 21);
}

#[test]
fn an_open_gateway_that_is_full_has_places_for_bearers_of_tokens() {
    use shoal_topology::wire::client_gateway::Refusal;
    let token = Token { secret: b"exit".to_vec(), connections: 3, service: ServiceAccess::Allowed };
    let admission = Admission::Open(vec![token]);
    let mut net =
        Net::new(Arc::new(NullCodec), Options { admission, max_clients: 10, ..Options::default() });
    let web = || Mode::Class("web".into());
    let join = |net: &mut Net, inbox, token: &[u8]| net.try_join(0, inbox, web(), token, |_| {});
    let mut strangers = Vec::new();
    for n in 1..50 {
        match join(&mut net, n, b"") {
            (client, None) => strangers.push(client),
            (_, refused) => assert_eq!(refused, Some(Refusal::Full)),
        }
    }
    assert_eq!(strangers.len(), 7);
    let bearer = join(&mut net, 50, b"exit");
    assert_eq!((bearer.1, join(&mut net, 51, b"exit").1), (None, None));
    assert_eq!(join(&mut net, 52, b"").1, Some(Refusal::Full));
    assert_eq!(join(&mut net, 53, b"exit").1, None);
    assert_eq!(net.engine(net.gateway(0)).clients(), 10);
    // A place of a bearer who leaves stays free for one, and so does that of nobody else.
    net.leave(bearer.0);
    assert_eq!(join(&mut net, 52, b"").1, Some(Refusal::Full));
    assert_eq!(join(&mut net, 54, b"exit").1, None);
    net.leave(strangers[0]);
    assert_eq!(join(&mut net, 52, b"").1, None);
}

#[test]
fn nothing_is_kept_for_who_says_so_and_its_inbox_goes_with_its_link() {
    let mut net = Net::new(Arc::new(NullCodec), Options { max_inboxes: 2, ..Options::default() });
    let mut rng = Seed::from_u64(5).stream("client");
    let gateway = net.gateway(0);
    let text = || Mode::Class("text".into());
    let drops = |hello: &mut Hello| hello.away = Away::Drop;
    let unknown = |net: &Net| net.engine(gateway).counters().dropped(DropReason::UnknownClient);
    let kept = net.join(0, 1, text());
    net.leave(kept);
    net.deliver(&mut rng, kept, &[kind::TUNNEL]);
    assert_eq!(net.stored(gateway), 1);
    // One after the other they have the other inbox, and the first one stays.
    for n in 2..20 {
        let (client, refused) = net.try_join(0, n, text(), b"", drops);
        assert_eq!(refused, None);
        net.deliver(&mut rng, client, &[kind::TUNNEL]);
        net.leave(client);
        let before = unknown(&net);
        net.deliver(&mut rng, client, &[kind::TUNNEL]);
        assert_eq!((net.stored(gateway), unknown(&net)), (1, before + 1));
    }
    // Whoever replaces its older link goes on.
    net.try_join(0, 30, text(), b"", drops);
    let (again, refused) = net.try_join(0, 30, text(), b"", drops);
    assert_eq!(refused, None);
    net.deliver(&mut rng, again, &[kind::TUNNEL]);
    net.run(ms(2_000));
    assert_eq!(net.packets_for(again).len(), 1);
    assert_eq!(net.engine(gateway).clients(), 1);
}

#[test]
fn who_has_the_document_is_not_given_it_again_and_nobody_is_given_it_without_end() {
    use shoal_topology::wire::client_gateway::{DocumentPart, Refusal};
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let web = || Mode::Class("web".into());
    let client = net.join(0, 1, web());
    let tag = DocumentPart::tag_of(&net.signed());
    assert_eq!(net.documents(client).len(), 1);
    for _ in 0..20 {
        let (again, refused) = net.try_join(0, 1, web(), b"", |hello| hello.documents = vec![tag]);
        assert_eq!((refused, net.documents(again).len()), (None, 0));
        net.run(ms(2_000));
    }
    let mut given = 0;
    for _ in 0..8 {
        let (_, refused) = net.try_join(0, 1, web(), b"", |hello| hello.documents = vec![[9; 8]]);
        given += usize::from(refused.is_none());
        assert!(refused.is_none_or(|why| why == Refusal::Full));
    }
    assert_eq!(given, 4);
    net.run(ms(20_000));
    assert_eq!(net.try_join(0, 1, web(), b"", |_| {}).1, None);
    // The next one comes at its instant to whoever is here.
    let here = net.try_join(0, 1, web(), b"", |hello| hello.documents = vec![tag]).0;
    net.new_document(EPOCH + 1, net.now, |_| {});
    net.run(ms(4_000));
    let epochs: Vec<u64> = net.documents(here).iter().map(|document| document.epoch.0).collect();
    assert_eq!(epochs, [EPOCH + 1]);
}

#[test]
fn an_inbox_that_connects_without_end_is_refused_and_let_in_again_later() {
    use shoal_topology::wire::client_gateway::{DocumentPart, Refusal};
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let gateway = net.gateway(0);
    let tag = DocumentPart::tag_of(&net.signed());
    let join = |net: &mut Net, inbox| {
        net.try_join(0, inbox, Mode::Service, b"", |hello| hello.documents = vec![tag]).1
    };
    let outcomes: Vec<_> = (0..100).map(|_| join(&mut net, 1)).collect();
    // The first, by which the inbox was not known, and eight more.
    let let_in = outcomes.iter().filter(|refused| refused.is_none()).count();
    assert_eq!((let_in, outcomes[9]), (9, Some(Refusal::TooOften)));
    // The older links were closed, and the last one stays.
    assert_eq!((net.engine(gateway).clients(), net.closed.len()), (1, 8 + 91));
    // Others are not kept out by it, nor whoever says this inbox and does not prove it counted.
    assert_eq!(join(&mut net, 2), None);
    net.run(ms(2_000));
    let forge = |hello: &mut Hello| hello.inbox = Identity([1; 32]);
    assert_eq!(net.try_join(0, 1, Mode::Service, b"", forge).1, Some(Refusal::Proof));
    assert_eq!(join(&mut net, 1), None);
    assert_eq!(join(&mut net, 1), Some(Refusal::TooOften));
}

#[test]
fn a_client_that_sends_more_than_its_class_is_limited() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let client = net.join(0, 1, Mode::Class("web".into()));
    let mut rng = Seed::from_u64(5).stream("slots");
    let gateway = net.gateway(0);
    let mut frames = |net: &mut Net, per_s: f64, seconds: u64| {
        let end = net.now + Duration::from_secs(seconds);
        let before = net.engine(gateway).counters().clone();
        while net.now < end {
            net.run(exponential(&mut rng, Duration::from_secs_f64(1.0 / per_s)));
            net.upward(client, EPOCH, net.mix(1, 0));
        }
        let after = net.engine(gateway).counters();
        let limited = |c: &Counters| c.dropped(DropReason::RateLimited);
        (after.from_clients - before.from_clients, limited(after) - limited(&before))
    };
    // Its own rate, Poisson, for ten minutes: never.
    assert_eq!(frames(&mut net, 55.0, 600).1, 0);
    let (passed, limited) = frames(&mut net, 200.0, 60);
    assert!((3_500..4_000).contains(&passed) && limited > 8_000, "{passed} {limited}");
    // No mix of the first layer: not forwarded.
    for field in [net.mix(2, 0) as u16, gateway as u16, 500] {
        net.run(ms(1_000));
        let before = net.engine(gateway).counters().dropped(DropReason::NoRoute);
        net.upward(client, EPOCH, field.into());
        assert_eq!(net.engine(gateway).counters().dropped(DropReason::NoRoute), before + 1);
    }
}

#[test]
fn a_service_gets_its_packets_at_once_within_its_rate() {
    let mut net =
        Net::new(Arc::new(NullCodec), Options { service_per_s: 200.0, ..Options::default() });
    let service = net.join(0, 1, Mode::Service);
    let mut rng = Seed::from_u64(5).stream("client");
    let before = net.down(service).len();
    net.deliver(&mut rng, service, &[kind::TUNNEL]);
    assert_eq!(net.down(service).len(), before + 1);
    for _ in 0..100 {
        net.deliver(&mut rng, service, &[kind::TUNNEL]);
    }
    let burst = net.down(service).len() - before;
    assert!((10..=12).contains(&burst), "{burst}");
    net.run(ms(1_000));
    assert_eq!(net.packets_for(service).len(), 101);
}

#[test]
fn who_does_not_prove_its_inbox_is_refused() {
    use shoal_topology::wire::client_gateway::Refusal;
    let tokens = Admission::Tokens(vec![
        Token { secret: b"person".to_vec(), connections: 1, service: ServiceAccess::Refused },
        Token { secret: b"exit".to_vec(), connections: 2, service: ServiceAccess::Allowed },
    ]);
    let mut net =
        Net::new(Arc::new(NullCodec), Options { admission: tokens, ..Options::default() });
    let web = || Mode::Class("web".into());
    assert_eq!(net.try_join(0, 1, web(), b"person", |_| {}).1, None);
    assert_eq!(net.try_join(0, 2, web(), b"person", |_| {}).1, Some(Refusal::Connections));
    // The same client again: its older connection makes room.
    assert_eq!(net.try_join(0, 1, web(), b"person", |_| {}).1, None);
    assert_eq!(net.engine(net.gateway(0)).clients(), 1);
    assert_eq!(net.try_join(0, 3, web(), b"nobody", |_| {}).1, Some(Refusal::Token));
    assert_eq!(net.try_join(1, 3, Mode::Service, b"person", |_| {}).1, Some(Refusal::NoService));
    assert_eq!(net.try_join(0, 3, Mode::Service, b"exit", |_| {}).1, None);
    let none = Mode::Class("none".into());
    assert_eq!(net.try_join(0, 4, none, b"exit", |_| {}).1, Some(Refusal::Class));
    let forge = |hello: &mut Hello| hello.inbox = Identity([1; 32]);
    assert_eq!(net.try_join(0, 4, web(), b"exit", forge).1, Some(Refusal::Proof));
    let nonsense = |hello: &mut Hello| hello.descriptor = Some(vec![1, 2, 3]);
    assert_eq!(net.try_join(0, 4, web(), b"exit", nonsense).1, Some(Refusal::Descriptor));
    let gateway = net.gateway(0);
    net.handle(gateway, Input::Stale);
    assert_eq!(net.try_join(0, 4, web(), b"exit", |_| {}).1, Some(Refusal::NotReady));
}

#[test]
fn a_client_that_says_nothing_is_closed_after_five_seconds() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let gateway = net.gateway(0);
    let session = SessionId(77);
    let (peer, origin) = (Identity([3; 32]), Origin(1));
    net.handle(gateway, Input::Joined { session, peer, origin });
    net.run(ms(4_999));
    assert!(net.closed.is_empty());
    net.run(ms(2));
    assert_eq!(net.closed, [session]);
}

#[test]
fn the_file_knows_an_inbox_by_a_hash_under_its_key() {
    let names = |inbox_key| {
        let mut net = Net::new(Arc::new(NullCodec), Options { inbox_key, ..Options::default() });
        let client = net.join(0, 1, Mode::Class("web".into()));
        net.leave(client);
        net.deliver(&mut Seed::from_u64(5).stream("client"), client, b"hello");
        let gateway = net.gateway(0);
        assert_eq!(net.stored(gateway), 1);
        (net.inbox_identity(client), net.inboxes(gateway))
    };
    let ((inbox, before), (same, after)) = (names([3; 32]), names([4; 32]));
    assert_eq!(inbox, same);
    assert!(before == [InboxId::new(&[3; 32], &inbox)] && after != before);
    for name in [before[0], after[0]] {
        assert_ne!(name.0, inbox.0[..16]);
        assert_ne!(name.0, blake3::hash(&inbox.0).as_bytes()[..16]);
    }
}

#[test]
fn a_descriptor_is_answered_by_reply_block() {
    for codec in [Arc::new(NullCodec) as Arc<dyn Codec>, Arc::new(Sphinx::SCALAR)] {
        let mut net = Net::new(codec, Options::default());
        let asked = net.join_listed(0, 1);
        let asker = net.join(1, 2, Mode::Class("web".into()));
        let found = net.query(asker, 0, net.client_identity(asked));
        assert_eq!(found[..2], [kind::ANSWER, 1]);
        assert!(found.len() > 100);
        let found = net.query(asker, 0, Identity([9; 32]));
        assert_eq!(found, [kind::ANSWER, 0]);
    }
}

#[test]
fn an_answer_about_a_descriptor_leaves_after_a_drawn_delay_whether_one_is_there_or_not() {
    const ASKED: usize = 400;
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let asked = net.join_listed(0, 1);
    let asker = net.join(1, 2, Mode::Class("web".into()));
    let gateway = net.gateway(0) as u64;
    let names = [net.client_identity(asked), Identity([9; 32])];
    let mut delays = Vec::new();
    for n in 0..ASKED {
        let (begin, before) = (net.now, net.trace.len());
        net.query(asker, 0, names[n % 2]);
        let sent: Vec<_> = net.trace[before..]
            .iter()
            .filter(|(_, from, to)| *from == gateway && *to < net.len() as u64)
            .map(|(at, ..)| at.since(begin).as_secs_f64())
            .collect();
        assert_eq!(sent.len(), 1, "question {n}");
        delays.push(sent[0]);
    }
    // Each is an exponential delay of a class, which is drawn by its weight.
    let classes = &net.document().parameters.classes;
    let all: f64 = classes.iter().map(|class| class.weight).sum();
    let law = |delay: f64| -> f64 {
        let share = |class: &shoal_topology::Class| {
            let mean = class.delay.exponential_us as f64 / 1e6;
            class.weight / all * (1.0 - (-delay / mean).exp())
        };
        classes.iter().map(share).sum()
    };
    let parts = [0, 1].map(|part| delays.iter().copied().skip(part).step_by(2).collect());
    for mut part in parts as [Vec<f64>; 2] {
        part.sort_by(f64::total_cmp);
        let number = part.len() as f64;
        let apart = part.iter().enumerate().map(|(n, delay)| {
            let (below, law) = (n as f64 / number, law(*delay));
            (law - below).abs().max((law - below - 1.0 / number).abs())
        });
        // Kolmogorov and Smirnov, one in a thousand.
        let apart = apart.fold(0.0, f64::max);
        assert!(apart < 1.95 / number.sqrt(), "{apart}: {:?}", &part[..10]);
    }
}

#[test]
fn whoever_can_be_reached_renews_its_descriptor_within_its_session() {
    for mode in [Mode::Service, Mode::Class("web".into())] {
        let mut net = Net::new(Arc::new(NullCodec), Options::default());
        let client = net.join(0, 1, mode);
        let asker = net.join(1, 2, Mode::Class("web".into()));
        let own = net.client_identity(client);
        assert_eq!(net.query(asker, 0, own), [kind::ANSWER, 0]);
        let descriptor = net.descriptor(client, 0, 7);
        let renew = |descriptor| Frame {
            epoch: 0,
            field: CLIENT_CONTROL,
            packet: Renew { descriptor }.pack().unwrap(),
        };
        net.up(client, renew(vec![1, 2, 3]));
        net.up(client, renew(descriptor.clone()));
        let found = net.query(asker, 0, own);
        assert_eq!((found[1], &found[2..]), (1, &descriptor[..]));
        // Two at once, and then one in half a minute.
        net.up(client, renew(net.descriptor(client, 0, 8)));
        assert_eq!(net.query(asker, 0, own)[2..], descriptor);
        net.run(ms(30_000));
        let later = net.descriptor(client, 0, 9);
        net.up(client, renew(later.clone()));
        assert_eq!(net.query(asker, 0, own)[2..], later);
    }
}

#[test]
fn queries_are_limited() {
    let mut net =
        Net::new(Arc::new(NullCodec), Options { queries_per_s: 2.0, ..Options::default() });
    let asker = net.join(1, 2, Mode::Class("web".into()));
    let gateway = net.gateway(0);
    for _ in 0..10 {
        let frame = net.query_frame(asker, 0, Identity([9; 32])).0;
        let opened = net.open(gateway, net.now, &frame);
        net.handle(gateway, Input::Arrived(opened));
    }
    assert_eq!(net.engine(gateway).counters().queries, 3);
    assert_eq!(net.engine(gateway).counters().dropped(DropReason::RateLimited), 7);
}

#[test]
fn a_new_document_goes_to_all_clients_at_the_same_instants_whatever_they_do() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let busy = net.join(0, 1, Mode::Class("web".into()));
    let idle = net.join(0, 2, Mode::Class("web".into()));
    net.run(ms(100));
    let begin = net.now;
    let before = [busy, idle].map(|client| net.down(client).len());
    net.new_document(EPOCH + 1, begin + ms(700), |document| {
        document.draw.commitments = (0..200).map(|n| (Identity([n; 32]), [n; 32])).collect();
    });
    let mut rng = Seed::from_u64(5).stream("packets");
    for _ in 0..200 {
        net.deliver(&mut rng, busy, b"hello");
        net.run(ms(5));
    }
    net.run(ms(4_000));
    let parts = |net: &Net, client, before| -> Vec<Time> {
        let down = &net.down(client)[before..];
        down.iter().filter(|(_, frame)| frame.field == 2).map(|(at, _)| *at).collect()
    };
    let at = parts(&net, busy, before[0]);
    assert!(at.len() >= 5, "{at:?}");
    assert_eq!(at, parts(&net, idle, before[1]));
    // From the instant that was given on, within a twentieth of the epoch.
    assert_eq!(at[0], begin + ms(700));
    assert!(at.last().unwrap().since(at[0]) < ms(3_000));
    // The instants of packets and dummies are what they are without.
    let others = net.down(idle)[before[1]..].iter().filter(|(_, frame)| frame.field != 2).count();
    let expected = 110.0 * net.now.since(begin).as_secs_f64();
    assert!((others as f64 - expected).abs() < 2.0, "{others} {expected}");
    // Whoever comes now gets both documents at once.
    let late = net.join(0, 3, Mode::Class("web".into()));
    let epochs: Vec<u64> = net.documents(late).iter().map(|document| document.epoch.0).collect();
    assert_eq!(epochs, [EPOCH, EPOCH + 1]);
}

#[test]
fn of_documents_that_wait_to_go_out_the_one_under_way_and_the_newest_go() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let client = net.join(0, 1, Mode::Class("web".into()));
    net.run(ms(100));
    let begin = net.now;
    for amendment in 0..10 {
        net.new_document(EPOCH + 1, begin + ms(500), |document| document.amendment = amendment);
    }
    net.run(ms(60_000));
    let of_next = net.documents(client).into_iter().filter(|document| document.epoch.0 > EPOCH);
    let amendments: Vec<u16> = of_next.map(|document| document.amendment).collect();
    assert_eq!(amendments, [0, 7, 8, 9]);
}

#[test]
fn a_frame_names_its_first_hop_in_the_list_of_its_own_epoch() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let client = net.join(0, 1, Mode::Class("web".into()));
    let first = net.mix(1, 1);
    let identity = net.identity(first);
    // The next document lists one node less: the index of another moves.
    let others = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1)].map(|(layer, n)| net.mix(layer, n));
    let removed = others.into_iter().find(|other| *other < first).unwrap();
    let next = net.new_document(EPOCH + 1, net.now, |document| {
        document.nodes.remove(removed);
        document.parameters.min_mixes_per_layer = 1;
    });
    net.run(ms(4_000));
    let moved = next.index_of(&identity).unwrap();
    assert_ne!(moved, first);
    for (epoch, index) in [(EPOCH, first), (EPOCH + 1, moved)] {
        net.sent.clear();
        net.upward(client, epoch, index);
        assert_eq!(net.sent, [identity], "{epoch}");
    }
    net.sent.clear();
    let before = net.engine(net.gateway(0)).counters().dropped(DropReason::UnknownEpoch);
    for epoch in [EPOCH - 2, EPOCH + 2, EPOCH + 3] {
        net.upward(client, epoch, moved);
    }
    assert!(net.sent.is_empty(), "nobody sends so early or so late");
    let dropped = net.engine(net.gateway(0)).counters().dropped(DropReason::UnknownEpoch);
    assert_eq!(dropped - before, 3);
}

#[test]
fn a_standstill_is_not_made_up_for() {
    let mut net =
        Net::new(Arc::new(NullCodec), Options { loops_per_s: 10.0, ..Options::default() });
    let client = net.join(0, 1, Mode::Class("web".into()));
    let gateway = net.gateway(0);
    let before = net.down(client).len();
    net.handle_at(gateway, net.now + ms(3_600_000), Input::Wake);
    assert!(net.down(client).len() - before < 130);
    assert!(net.engine(gateway).counters().loops_sent < 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_from_a_network_panic(
        bytes in proptest::collection::vec(any::<u8>(), FRAME_LEN),
        sphinx in any::<bool>(), versioned in any::<bool>(),
    ) {
        let codec: Arc<dyn Codec> = if sphinx { Arc::new(Sphinx::SCALAR) } else { Arc::new(NullCodec) };
        let mut net = Net::new(codec, Options::default());
        let client = net.join(0, 1, Mode::Class("web".into()));
        let mut frame = Box::new([0; FRAME_LEN]);
        frame.copy_from_slice(&bytes);
        if versioned {
            frame[..2].copy_from_slice(&[1, 10]);
        }
        for node in 0..net.len() {
            let opened = open_bytes(net.opener(node), net.now, &frame);
            net.handle(node, Input::Arrived(opened));
        }
        let gateway = net.gateway(0);
        let decoded = || Frame::decode(&frame).map_err(|_| DropReason::Version);
        let session = SessionId(1_000);
        let (peer, origin) = (Identity([1; 32]), Origin(1));
        net.handle(gateway, Input::Joined { session, peer, origin });
        net.handle(gateway, Input::Client { session, frame: decoded() });
        net.handle(gateway, Input::Client { session: net.session(client), frame: decoded() });
        net.run(ms(100));
    }
}

//! What loops show of the links, and what authorities make of it.

use shoal_topology::Standing;
use shoal_topology::reputation::Reputation;
use shoal_topology::reputation::report::{Report, SignedReport, pool_of};

use super::*;

fn net() -> Net {
    Net::new(Arc::new(NullCodec), Options { loops_per_s: 5.0, ..Options::default() })
}

/// Loops into each node that others counted, and those lost.
fn seen(net: &Net, reports: &[Report]) -> Vec<(u32, u32)> {
    let mut seen = vec![(0, 0); net.len()];
    for report in reports {
        let own = net.document().index_of(&report.node).unwrap();
        for link in report.links.iter().filter(|link| usize::from(link.to) != own) {
            let (sent, lost) = &mut seen[usize::from(link.to)];
            *sent += link.sent;
            *lost += link.lost;
        }
    }
    seen
}

fn share((sent, lost): (u32, u32)) -> f64 {
    f64::from(lost) / f64::from(sent)
}

#[test]
fn where_all_are_honest_reports_show_no_loss() {
    let mut net = net();
    net.run(ms(60_000));
    let reports = net.report(3);
    assert_eq!(reports.len(), net.len());
    for report in &reports {
        assert_eq!((report.epoch, report.part), (net.document().epoch, 3));
        // A loop crosses four links; 300 were sent.
        let sent: u32 = report.links.iter().map(|link| link.sent).sum();
        assert!((880..1_600).contains(&sent) && sent.is_multiple_of(4), "{sent}");
        assert!(report.links.iter().all(|link| link.lost == 0));
        assert!(pool_of(report.pool) < 10.0);
        // As it goes to the authorities.
        let signed = SignedReport::new(report.clone(), &net.secret(&report.node));
        assert_eq!(SignedReport::decode(&signed.encode()).unwrap().body(), report);
    }
    // Each loop is in one report.
    let again = net.report(4);
    assert!(again.iter().all(|report| report.links.is_empty()));
}

#[test]
fn a_mix_that_drops_a_fifth_shows_in_the_reports_of_the_others() {
    let mut net = net();
    let (bad, good) = (net.mix(2, 0), net.mix(2, 1));
    net.lossy = Some((bad, 0.2));
    net.run(ms(120_000));
    let reports = net.report(0);
    let seen = seen(&net, &reports);
    assert!((0.15..0.25).contains(&share(seen[bad])), "{seen:?}");
    assert_eq!(seen[good].1, 0);
    // What it takes it takes from all of another layer alike.
    for layer in [1, 3] {
        for mix in [net.mix(layer, 0), net.mix(layer, 1)] {
            assert!((0.05..0.15).contains(&share(seen[mix])), "{seen:?}");
        }
    }
    let bad = net.document().node(bad).unwrap().identity();
    assert_eq!(judged(&net, &reports).demote, [bad]);
}

fn judged(net: &Net, reports: &[Report]) -> shoal_topology::reputation::Judgement {
    let mut reputation = Reputation::new();
    reports.iter().for_each(|report| reputation.report(net.document(), report));
    reputation.judge(net.document())
}

#[test]
fn a_mix_that_delays_by_half_a_second_loses_its_loops() {
    for layer in 1..=3 {
        let mut net = net();
        // Honest at first, so that loops have a usual time.
        net.run(ms(10_000));
        net.report(0);
        let (bad, good) = (net.mix(layer, 0), net.mix(layer, 1));
        net.slow = Some((bad, ms(500)));
        net.run(ms(20_000));
        let reports = net.report(1);
        let seen = seen(&net, &reports);
        assert!(share(seen[bad]) > 0.9 && share(seen[good]) < 0.05, "{seen:?}");
        let bad = net.document().node(bad).unwrap().identity();
        assert_eq!(judged(&net, &reports).demote, [bad]);
        // They do come back, and none counts twice.
        net.slow = None;
        net.run(ms(10_000));
        net.report(2);
        net.run(ms(10_000));
        let later = net.report(3);
        assert!(later.iter().all(|report| report.links.iter().all(|link| link.lost == 0)));
        assert!(net.engines().all(|engine| engine.counters().loops_lost == 0));
    }
}

#[test]
fn a_mix_that_has_always_been_slow_is_found_too() {
    let mut net = net();
    let bad = net.mix(1, 0);
    net.slow = Some((bad, ms(500)));
    net.run(ms(40_000));
    let reports = net.report(0);
    let bad = net.document().node(bad).unwrap().identity();
    assert_eq!(judged(&net, &reports).demote, [bad]);
}

#[test]
fn loops_test_a_demoted_node_and_count_for_it_alone() {
    let mut net = net();
    let (bad, good) = (net.mix(2, 0), net.mix(2, 1));
    net.dead = Some(bad);
    net.change(|document| document.nodes[bad].standing = Standing::Demoted);
    net.run(ms(30_000));
    let mut reports = net.report(0);
    // Dead, it gets none of its own loops back.
    let identity = net.document().node(bad).unwrap().identity();
    reports.retain(|report| report.node != identity);
    let seen = seen(&net, &reports);
    assert!(share(seen[bad]) > 0.99 && seen[bad].0 > 100, "{seen:?}");
    for (node, seen) in seen.iter().enumerate().filter(|(node, _)| *node != bad) {
        assert_eq!(seen.1, 0, "{node}");
    }
    assert!(seen[good].0 > 100);
    assert_eq!(judged(&net, &reports).demote, []);
}

#[test]
fn what_was_counted_under_the_document_before_goes_on_unless_layers_were_drawn_anew() {
    let mut net = net();
    net.run(ms(20_000));
    // Another node is listed no more: indices move.
    net.change(|document| {
        document.nodes.remove(0);
    });
    let links = |reports: &[Report]| -> usize { reports.iter().map(|r| r.links.len()).sum() };
    (0..net.len()).for_each(|node| net.handle(node, Input::Report { part: 0 }));
    let reports = std::mem::take(&mut net.reports);
    assert_eq!(reports.len(), net.len() - 1, "one is listed no more");
    assert!(links(&reports) > 40);
    let mut reputation = Reputation::new();
    reports.iter().for_each(|report| reputation.report(net.document(), report));
    assert_ne!(reputation, Reputation::new());
    for report in &reports {
        assert!(report.links.is_sorted_by(|a, b| (a.from, a.to) < (b.from, b.to)));
    }

    let mut net = self::net();
    net.run(ms(20_000));
    let (one, other) = (net.mix(1, 0), net.mix(2, 0));
    net.change(|document| {
        document.nodes[one].layers = [2; 3];
        document.nodes[other].layers = [1; 3];
    });
    assert_eq!(links(&net.report(0)), 0);
    net.run(ms(20_000));
    assert!(links(&net.report(1)) > 40);
}

#[test]
fn the_reported_pool_is_what_the_node_holds_on_average() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let (mix, next) = (net.mix(1, 0), net.mix(2, 0));
    net.report(0);
    // 400 packets that stay for two seconds of four.
    for _ in 0..400 {
        let frame = net.seal(&[(mix, ms(2_000)), (next, ms(0))], &[kind::DROP]);
        let opened = net.open(mix, net.now, &frame);
        net.handle_at(mix, net.now, Input::Arrived(opened));
    }
    net.run(ms(4_000));
    let own = net.document().node(mix).unwrap().identity();
    let reports = net.report(1);
    for report in reports {
        let pool = pool_of(report.pool);
        if report.node == own {
            assert!((165.0..240.0).contains(&pool), "{pool}");
        } else {
            assert!(pool < 10.0, "{pool}");
        }
    }
}

#[test]
fn without_a_document_in_use_nothing_is_reported() {
    let mut net = net();
    net.run(ms(5_000));
    (0..net.len()).for_each(|node| net.handle(node, Input::Stale));
    assert!(net.report(0).is_empty());
}

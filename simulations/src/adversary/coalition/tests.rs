//! A coalition that has enough of a network finds who calls whom; one that has none of it finds nothing.

use super::*;

fn last(found: &CoalitionFinding) -> f64 {
    found.decision.found.last().map_or(f64::NAN, |(_, share)| share.value)
}

#[test]
fn a_mix_of_three_in_each_layer_and_both_gateways_find_calls_over_fresh_paths_within_a_minute() {
    let whole = Whole::run(3, (6, 36.0, 1)).unwrap();
    let found = whole.found((1.0 / 3.0, Gateways::Both), FlowReading::Tracks);
    assert!(last(&found) > 0.9, "{found:?}");
    // Without any mix nothing of a path is known, with whatever gateways.
    let none = whole.found((0.0, Gateways::Both), FlowReading::Tracks);
    assert!(last(&none) < 0.2, "{none:?}");
}

#[test]
fn changes_of_counts_show_a_coalition_calls_over_kept_paths_and_not_over_fresh_ones() {
    let found = |kept| {
        let made = Whole::made_up(&Calls { kept, ..Calls::default() });
        let found = made.found((0.5, Gateways::Both), FlowReading::Changes);
        assert_eq!(made.calls.len(), 20);
        (last(&found), found.decision.p)
    };
    let (kept, fresh) = (found(true), found(false));
    // In one of four calls each side shows at one end, in half of these at both.
    assert!(kept.0 > 0.2 && kept.1 < 0.01, "{kept:?}");
    assert!(fresh.0 < 0.1 && fresh.1 > 0.01, "{fresh:?}");
}

#[test]
fn a_gateway_that_is_not_of_the_coalition_keeps_its_people_apart_from_nobody() {
    let made = Whole::made_up(&Calls { seconds: 60, ..Calls::default() });
    let members = made.members(0.3, Gateways::None);
    let known = fragments::of(&made.view, &made.network, &members);
    // Three gateways: person 0 and person 3 are at one.
    assert_eq!(known.entity(0), known.entity(3));
    assert_ne!(known.entity(0), known.entity(1));
    assert!(known.fragments.len() > 1_000);
    let all = made.members(1.0, Gateways::Both);
    let known = fragments::of(&made.view, &made.network, &all);
    assert_ne!(known.entity(0), known.entity(3));
    // Where all nodes are of the coalition, so is every way from one end to the other.
    let whole = |fragment: &fragments::Fragment| {
        [fragment.from, fragment.to]
            .into_iter()
            .all(|end| matches!(end, fragments::FragmentEnd::Entity(_)))
    };
    assert!(known.fragments.iter().all(whole));
}

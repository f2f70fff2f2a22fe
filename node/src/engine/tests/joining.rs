//! A node that is listed from the next epoch on, or was until the last one.

use super::*;

/// What becomes of a packet that a mix of layer 1 opens for one of layer 2, when documents of these epochs list it.
fn passed_on(listed: [bool; 2], epoch: u64) -> (u64, u64) {
    let codec: Arc<dyn Codec> = Arc::new(NullCodec);
    let net = Net::new(codec.clone(), Options::default());
    let (own, next) = (net.identity(net.mix(1, 1)), net.identity(net.mix(2, 1)));
    let settings = NodeSettings {
        identity: own,
        role: Role::Mix,
        pool_packets: 10,
        seed: Seed::from_u64(1),
        gateway: Default::default(),
    };
    let mut engine = NodeEngine::new(settings, codec);
    for (n, listed) in (0..).zip(listed) {
        let mut document = net.document().clone();
        (document.epoch, document.begins) = (Epoch(EPOCH + n), 60 * n);
        document.parameters.min_mixes_per_layer = 1;
        document.nodes.retain(|node| listed || node.identity() != own);
        document.check().unwrap();
        let (document, signed) = (Arc::new(document), Arc::from([]));
        let (epoch, announce) = (Epoch(EPOCH), net.now);
        engine.handle(net.now, Input::Document { document, signed, epoch, announce });
    }
    engine.handle(net.now, Input::Epoch(Epoch(epoch)));
    let peeled = Peeled::Forward { next: next.0, delay: ms(1), packet: Default::default() };
    let arrived = Arrived { received: net.now, epoch: Epoch(epoch).low_byte(), peeled };
    engine.handle(net.now, Input::Arrived(Ok(arrived)));
    let counters = engine.counters();
    (counters.forwarded, counters.dropped(DropReason::NoRoute))
}

#[test]
fn a_node_that_is_listed_from_the_next_epoch_on_passes_on_what_comes_early() {
    assert_eq!(passed_on([false, true], EPOCH), (1, 0));
    assert_eq!(passed_on([false, true], EPOCH + 1), (1, 0));
}

#[test]
fn a_node_that_is_not_listed_any_more_passes_on_what_is_still_under_way() {
    assert_eq!(passed_on([true, false], EPOCH + 1), (1, 0));
    assert_eq!(passed_on([false, false], EPOCH + 1), (0, 1));
}

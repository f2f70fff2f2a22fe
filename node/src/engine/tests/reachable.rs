//! People who can be reached while they are away, and whose gateway starts again meanwhile.

use super::*;

#[test]
fn who_is_away_is_found_and_reached_after_the_gateway_has_started_again() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let mut rng = Seed::from_u64(5).stream("client");
    let gateway = net.gateway(0);
    let web = || Mode::Class("web".into());
    let (listed, nameless) = (net.join_listed(0, 1), net.join(0, 2, web()));
    net.leave(listed);
    net.leave(nameless);
    net.deliver(&mut rng, listed, &[kind::MESSAGE, 1]);
    net.restart(gateway);

    let asker = net.join(0, 9, web());
    let found = net.query(asker, 0, net.client_identity(listed));
    assert_eq!(found[..2], [kind::ANSWER, 1]);
    net.deliver(&mut rng, listed, &[kind::MESSAGE, 2]);
    // Of the other nothing was on the disk, and it can be reached by nobody.
    net.deliver(&mut rng, nameless, &[kind::MESSAGE, 3]);
    assert_eq!(net.engine(gateway).counters().dropped(DropReason::UnknownClient), 1);
    let back = net.join_listed(0, 1);
    net.run(ms(2_000));
    assert_eq!(net.messages_for(back), [[kind::MESSAGE, 1], [kind::MESSAGE, 2]]);
    assert_eq!(net.stored(gateway), 0);
}

#[test]
fn an_inbox_that_gives_way_takes_its_descriptor_from_the_disk() {
    let mut net = Net::new(Arc::new(NullCodec), Options { max_inboxes: 2, ..Options::default() });
    let gateway = net.gateway(0);
    let web = || Mode::Class("web".into());
    let listed = net.join_listed(0, 1);
    net.leave(listed);
    assert_eq!(net.descriptors(gateway), 1);
    net.join(0, 2, web());
    net.join(0, 3, web());
    assert_eq!(net.descriptors(gateway), 0);
    net.restart(gateway);
    let asker = net.join(0, 9, web());
    assert_eq!(net.query(asker, 0, net.client_identity(listed)), [kind::ANSWER, 0]);
}

#[test]
fn the_same_descriptor_is_written_once_and_a_later_one_in_its_place() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let gateway = net.gateway(0);
    let client = net.join_listed(0, 1);
    let before = net.written;
    net.leave(client);
    let client = net.join_listed(0, 1);
    assert_eq!((net.descriptors(gateway), net.written), (1, before));
    let later = net.descriptor(client, 0, 60);
    let packet = Renew { descriptor: later.clone() }.pack().unwrap();
    net.up(client, Frame { epoch: 0, field: CLIENT_CONTROL, packet });
    assert_eq!((net.descriptors(gateway), net.written), (1, before + 1));
    net.restart(gateway);
    let asker = net.join(0, 9, Mode::Class("web".into()));
    assert_eq!(net.query(asker, 0, net.client_identity(client))[2..], later);
}

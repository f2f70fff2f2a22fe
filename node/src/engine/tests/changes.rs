//! What an operator changes at a gateway that runs.

use shoal_topology::wire::client_gateway::Refusal;

use super::*;

fn token(secret: &str, connections: usize, service: ServiceAccess) -> Token {
    Token { secret: secret.into(), connections, service }
}

fn configure(net: &mut Net, admission: Admission) {
    let settings = GatewaySettings { admission, ..GatewaySettings::default() };
    net.handle(net.gateway(0), Input::Configure(Box::new(settings)));
}

#[test]
fn tokens_come_and_go_while_the_gateway_runs() {
    let admission = Admission::Tokens(vec![
        token("a", 5, ServiceAccess::Allowed),
        token("b", 5, ServiceAccess::Allowed),
        token("c", 5, ServiceAccess::Allowed),
    ]);
    let mut net = Net::new(Arc::new(NullCodec), Options { admission, ..Options::default() });
    let gateway = net.gateway(0);
    let web = || Mode::Class("web".into());
    let join =
        |net: &mut Net, inbox, mode, token: &[u8]| net.try_join(0, inbox, mode, token, |_| {});
    let session = |net: &Net, client| net.session(client);
    let (a, refused) = join(&mut net, 1, Mode::Service, b"a");
    assert_eq!(refused, None);
    let (b, b_person) =
        (join(&mut net, 2, Mode::Service, b"b").0, join(&mut net, 3, web(), b"b").0);
    let c = join(&mut net, 4, web(), b"c").0;
    net.closed.clear();

    // The first is withdrawn, the second is for people alone, the third has moved and has one place, another is new.
    configure(
        &mut net,
        Admission::Tokens(vec![
            token("c", 1, ServiceAccess::Allowed),
            token("d", 1, ServiceAccess::Allowed),
            token("b", 5, ServiceAccess::Refused),
        ]),
    );
    assert_eq!(net.closed, [session(&net, a), session(&net, b)]);
    assert_eq!(net.engine(gateway).clients(), 2);
    for (inbox, mode, token, refused) in [
        (5, web(), &b"a"[..], Some(Refusal::Token)),
        (6, Mode::Service, b"b", Some(Refusal::NoService)),
        (7, web(), b"b", None),
        (8, web(), b"c", Some(Refusal::Connections)),
        (9, Mode::Service, b"d", None),
        (10, web(), b"", Some(Refusal::NoToken)),
    ] {
        assert_eq!(join(&mut net, inbox, mode, token).1, refused, "{inbox}");
    }
    // Connections count for the tokens that they came by.
    net.leave(c);
    net.leave(b_person);
    assert_eq!(join(&mut net, 8, web(), b"c").1, None);

    // One that comes back lets in again, and a gateway may be opened to everyone.
    configure(&mut net, Admission::Open(vec![token("a", 1, ServiceAccess::Allowed)]));
    assert_eq!(join(&mut net, 1, Mode::Service, b"a").1, None);
    assert_eq!(join(&mut net, 10, web(), b"").1, None);
}

#[test]
fn fewer_places_send_nobody_away() {
    let mut net = Net::new(Arc::new(NullCodec), Options::default());
    let web = || Mode::Class("web".into());
    (1..6).for_each(|n| _ = net.join(0, n, web()));
    net.closed.clear();
    let settings = GatewaySettings {
        admission: Admission::anyone(),
        max_clients: 3,
        ..GatewaySettings::default()
    };
    net.handle(net.gateway(0), Input::Configure(Box::new(settings)));
    assert_eq!(net.closed, []);
    assert_eq!(net.try_join(0, 6, web(), b"", |_| {}).1, Some(Refusal::Full));
}

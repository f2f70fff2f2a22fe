use proptest::prelude::*;

use super::*;

fn policy(rules: &[&str]) -> ExitPolicy {
    ExitPolicy::parse(rules).unwrap()
}

fn check(policy: &ExitPolicy, target: &str) -> Result<(), Refused> {
    policy.check(&OwnHost::default(), target.parse().unwrap())
}

const SPECIAL_TARGETS: [&str; 40] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fdff::1",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "2002:0a00:0001::1",
    "64:ff9b::7f00:1",
    "2001:0:1:2:3:4:80ff:fffe",
    "::ffff:0:10.0.0.1",
    "::ffff:0:9.9.9.9",
    "100::1",
    "100:0:0:1::1",
    "2001:1::1",
    "2001:4:112::1",
    "3fff::1",
    "5f00::1",
];

#[test]
fn the_default_is_the_internet_without_mail_between_servers() {
    let policy = ExitPolicy::default();
    assert_eq!(ExitPolicy::parse(&ExitPolicy::DEFAULT_RULES), Ok(policy.clone()));
    for target in [
        "9.9.9.9:443",
        "[2620:fe::fe]:53",
        "172.32.0.1:80",
        "[::ffff:9.9.9.9]:80",
        "[64:ff9b::909:909]:1",
    ] {
        assert_eq!(check(&policy, target), Ok(()), "{target}");
    }
    assert_eq!(check(&policy, "9.9.9.9:25"), Err(Refused::Denied));
    assert_eq!(check(&policy, "9.9.9.9:0"), Err(Refused::NotAllowed));
}

#[test]
fn no_wide_rule_opens_a_special_range() {
    for rules in
        [&["allow *:*"][..], &["allow 0.0.0.0/0:*", "allow [::]/0:*"], &ExitPolicy::DEFAULT_RULES]
    {
        for ip in SPECIAL_TARGETS {
            let target = SocketAddr::new(ip.parse().unwrap(), 80);
            assert_eq!(
                policy(rules).check(&OwnHost::default(), target),
                Err(Refused::Special),
                "{ip}"
            );
            assert_eq!(
                policy(rules).check_any_port(&OwnHost::default(), target.ip()),
                Err(Refused::Special),
                "{ip}"
            );
        }
    }
}

#[test]
fn a_rule_within_a_special_range_opens_it() {
    let policy = policy(&["allow 127.0.0.0/8:8000-9000", "allow [::1]/128:*", "allow *:443"]);
    assert_eq!(check(&policy, "127.0.0.1:8000"), Ok(()));
    assert_eq!(check(&policy, "[::ffff:127.0.0.1]:9000"), Ok(()));
    assert_eq!(check(&policy, "[::1]:1"), Ok(()));
    assert_eq!(check(&policy, "127.0.0.1:443"), Err(Refused::Special));
    assert_eq!(check(&policy, "10.0.0.1:443"), Err(Refused::Special));
    assert_eq!(check(&policy, "9.9.9.9:80"), Err(Refused::NotAllowed));
    assert_eq!(policy.check_any_port(&OwnHost::default(), "127.0.0.1".parse().unwrap()), Ok(()));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(&["deny 9.9.9.0/24:*", "allow 9.9.9.9:*", "allow 9.0.0.0/8:1-100"]);
    assert_eq!(check(&policy, "9.9.9.9:80"), Err(Refused::Denied));
    assert_eq!(check(&policy, "[64:ff9b::909:909]:80"), Err(Refused::NotAllowed));
    assert_eq!(check(&policy, "9.1.1.1:100"), Ok(()));
    assert_eq!(check(&policy, "9.1.1.1:101"), Err(Refused::NotAllowed));
    assert_eq!(
        policy.check_any_port(&OwnHost::default(), "9.9.9.9".parse().unwrap()),
        Err(Refused::Denied)
    );
}

#[test]
fn an_address_in_disguise_passes_both_as_itself_and_as_what_it_carries() {
    assert_eq!(
        check(&policy(&["deny [2002::]/16:*", "allow *:*"]), "[2002:909:909::1]:80"),
        Err(Refused::Denied)
    );
    assert_eq!(
        check(&policy(&["deny 9.9.9.9:*", "allow *:*"]), "[2002:909:909::1]:80"),
        Err(Refused::Denied)
    );
    assert_eq!(check(&policy(&["allow *:*"]), "[2002:909:909::1]:80"), Ok(()));
}

#[test]
fn errors_name_the_rule_and_what_is_allowed() {
    let problem = |rule: &str| ExitPolicy::parse(&["allow *:80", rule]).unwrap_err().problem;
    assert_eq!(problem("permit *:80"), RuleProblem::Verb);
    assert_eq!(problem("allow"), RuleProblem::Verb);
    assert_eq!(problem("[::1]/128:80"), RuleProblem::Verb);
    assert_eq!(problem("allow *"), RuleProblem::NoPorts);
    assert_eq!(problem("allow [::1]"), RuleProblem::NoPorts);
    for ports in ["0", "65536", "9-8", "http", "", "1-2-3"] {
        assert_eq!(problem(&format!("allow *:{ports}")), RuleProblem::Ports(ports.into()));
    }
    assert_eq!(problem("allow 10.0.0/8:*"), RuleProblem::Address("10.0.0/8".into()));
    assert_eq!(problem("allow example.com:*"), RuleProblem::Address("example.com".into()));
    assert_eq!(problem("allow ::1:80"), RuleProblem::Address("::1".into()));
    assert_eq!(
        problem("allow 10.0.0.0/33:*"),
        RuleProblem::Prefix { prefix: "33".into(), longest: 32 }
    );
    assert_eq!(problem("allow 10.0.0.1/8:*"), RuleProblem::Bits("10.0.0.0/8".into()));
    assert_eq!(problem("allow [::ffff:10.0.0.0]/104:*"), RuleProblem::Mapped);
    let error = ExitPolicy::parse(&["allow *:80", "allow *:http"]).unwrap_err().to_string();
    assert!(
        error.contains("rule 2") && error.contains("allow *:http") && error.contains("FROM-TO"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn a_range_contains_what_shares_its_prefix(base: u128, other: u128, prefix in 0u8..=128, flip in 0u32..128) {
        let range = Range { base: masked(Ipv6Addr::from(base).into(), prefix), prefix };
        let near = Ipv6Addr::from(base ^ (1 << (127 - flip)));
        prop_assert_eq!(range.contains(near.into()), flip >= u32::from(prefix));
        let shared = (base ^ other).leading_zeros() >= u32::from(prefix);
        prop_assert_eq!(range.contains(Ipv6Addr::from(other).into()), shared);
    }

    #[test]
    fn mapped_addresses_fare_like_their_own(ip: u32, port in 1u16.., named: u32, prefix in 0u8..=32) {
        let named = Range { base: masked(Ipv4Addr::from(named).into(), prefix), prefix };
        let policy = policy(&[&format!("deny {named}:*"), "allow 127.0.0.0/8:*", "allow *:*"]);
        let ip = Ipv4Addr::from(ip);
        let plain = policy.check(&OwnHost::default(), SocketAddr::new(ip.into(), port));
        prop_assert_eq!(policy.check(&OwnHost::default(), SocketAddr::new(ip.to_ipv6_mapped().into(), port)), plain);
        prop_assert_eq!(plain == Err(Refused::Denied), named.contains(ip.into()));
    }

    #[test]
    fn any_port_means_that_there_is_one(from in 1u16..400, to in 1u16..400, low in 1u16..400, high in 1u16..400) {
        let (from, to) = (from.min(to), from.max(to));
        let (low, high) = (low.min(high), low.max(high));
        let policy = policy(&[&format!("deny *:{low}-{high}"), &format!("allow *:{from}-{to}")]);
        let ip: IpAddr = "9.9.9.9".parse().unwrap();
        let one = (1..=400).any(|port| policy.check(&OwnHost::default(), SocketAddr::new(ip, port)).is_ok());
        prop_assert_eq!(policy.check_any_port(&OwnHost::default(), ip).is_ok(), one);
    }

    #[test]
    fn rules_of_random_text_do_no_harm(text in "\\PC{0,40}", tail in "[0-9a-f:.*/\\[\\]-]{0,40}") {
        let _ = ExitPolicy::parse(&[text, format!("allow {tail}"), format!("deny {tail}:*")]);
    }
}

//! What the file may say, and what is said of it.

use super::*;

fn parse(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
    shoal_host::config::parse(text, "config.toml", &[])
}

#[test]
fn what_init_writes_explains_every_key() {
    let text = Config::default().to_toml();
    // Field names of the configuration, as `Debug` writes them.
    let debug = format!("{:?}", Config::default());
    let names = debug.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':'));
    let names: Vec<&str> = names.filter(|name| name.starts_with(char::is_lowercase)).collect();
    assert!(names.contains(&"replay_mib") && names.contains(&"queries_per_s"), "{names:?}");
    for name in names {
        let has = |line: &str| {
            let line = line.trim_start_matches("# ").trim_start_matches('[');
            let line = line.trim_start_matches("gateway.").trim_start_matches("authority.");
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(" =") || rest.starts_with(']'))
        };
        assert!(text.lines().any(has), "{name} is not explained");
    }
}

#[test]
fn what_init_writes_is_the_default() {
    let (config, warnings) = parse(&Config::default().to_toml()).unwrap();
    assert_eq!(config, Config::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(parse("").unwrap().0, Config::default());
}

#[test]
fn what_is_written_is_read_back() {
    let token = TokenConfig { secret: "a\"b\n".into(), connections: 3, service: true };
    let config = Config {
        role: RoleName::Gateway,
        advertise: vec!["192.0.2.1:9".parse().unwrap(), "[2001:db8::1]:9".parse().unwrap()],
        operator: "Müller & \"Söhne\"".into(),
        admin: None,
        gateway: GatewayConfig {
            admission: AdmissionName::Tokens,
            service_per_s: 1.5,
            token: vec![token],
            ..GatewayConfig::default()
        },
        authority: AuthorityConfig {
            organisation: vec![OrganisationConfig {
                name: "Ä\"cme".into(),
                key: Identity([7; 32]),
            }],
            ..AuthorityConfig::default()
        },
        ..Config::default()
    };
    assert_eq!(parse(&config.to_toml()).unwrap().0, config);
}

#[test]
fn a_wrong_value_says_where_and_what_is_allowed() {
    for (text, wanted) in [
        ("\npool_packets = 0", "config.toml:2:"),
        ("role = \"router\"", "authority"),
        ("[gateway]\nservice_per_s = -1.0", "0.01"),
        ("log = \"loud\"", "debug"),
        ("[gateway]\ntoken_share = 1.0", "0.9"),
        ("admin = \"here\"", "127.0.0.1:9101"),
        ("listen = \"mix.example.org\"", "host.example:9001"),
        ("advertise = [\"192.0.2.1\"]", "with a port"),
        ("workers = 9999999", "up to 1024"),
        ("[[gateway.token]]\nsecret = \"x\"\nconnections = 0", "from 1"),
        ("operator = \"x\\nready: yes\"", "that all show"),
        ("[[gateway.token]]\nsecret = \" \"", "wants a secret"),
        ("worker = 2", "config.toml:1:1: `worker`: unknown key; did you mean `workers`?"),
        (
            "[gateway]\nmax_client = 2",
            "`gateway.max_client`: unknown key; did you mean `max_clients`?",
        ),
        ("nonsense = 2", "known here are role, listen"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn names_stand_for_the_addresses_that_they_have() {
    let config = parse("listen = \"localhost:9001\"\nadvertise = [\"localhost:9002\"]").unwrap().0;
    let listen = config.listen_address().unwrap();
    assert!(listen.ip().is_loopback() && listen.port() == 9001, "{listen}");
    let advertised = config.advertised().unwrap();
    assert!(!advertised.is_empty());
    assert!(advertised.iter().all(|a| a.ip().is_loopback() && a.port() == 9002), "{advertised:?}");
    assert_eq!(parse(&config.to_toml()).unwrap().0, config);
}

//! Addresses of names: both families are asked for at once, and neither waits for long for the other (RFC 8305).

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::{NetError, runtime::TokioRuntimeProvider};
use hickory_resolver::proto::rr::{Name, RData};
use tokio::time::{sleep, timeout};

use super::{Resolver, rank};
use crate::socks::{HostName, ReplyCode};

/// How long IPv6 addresses are waited for when IPv4 ones are there (RFC 8305, section 3).
pub(super) const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// Addresses, and the seconds for which they hold; or why there are none.
pub(super) type Found = Result<(Vec<IpAddr>, u32), ReplyCode>;

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// Asks for names.
pub(super) struct Names {
    v4: TokioResolver,
    v6: TokioResolver,
    within: Duration,
}

impl Names {
    pub(super) fn new(resolver: Resolver, within: Duration) -> Result<Self, NetError> {
        let of = |strategy| build(resolver, strategy, within);
        let (v4, v6) = (of(LookupIpStrategy::Ipv4Only)?, of(LookupIpStrategy::Ipv6Only)?);
        Ok(Self { v4, v6, within })
    }

    /// The addresses of one family, asked for once.
    pub(super) async fn of(&self, name: &HostName, family: Family) -> Found {
        let resolver = if family == Family::V4 { &self.v4 } else { &self.v6 };
        // Complete, so that no search domain is tried; and what it is: in the DNS "_" may stand anywhere, and "-" at the
        // beginning, as the names of some networks have it.
        let complete = Name::from_labels(name.as_str().split('.').map(str::as_bytes));
        let complete = complete.map_err(|_| ReplyCode::HostUnreachable)?;
        let answer = timeout(self.within, resolver.lookup_ip(complete))
            .await
            .map_err(|_| ReplyCode::TtlExpired)?
            .map_err(|error| code(&error))?;
        let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() { Err(ReplyCode::HostUnreachable) } else { Ok((addresses, ttl)) }
    }

    /// The addresses of a name, those of IPv4 first, which any program can use.
    pub(super) async fn all(&self, name: &HostName) -> Found {
        let mut v4 = std::pin::pin!(self.of(name, Family::V4));
        let mut v6 = std::pin::pin!(self.of(name, Family::V6));
        let (mut four, mut six): (Option<Found>, Option<Found>) = (None, None);
        while four.is_none() || six.is_none() {
            let is_enough = four.as_ref().is_some_and(Result::is_ok);
            tokio::select! {
                found = &mut v4, if four.is_none() => four = Some(found),
                found = &mut v6, if six.is_none() => six = Some(found),
                () = sleep(RESOLUTION_DELAY), if is_enough => break,
            }
        }
        let late = || Err(ReplyCode::TtlExpired);
        match (four.unwrap_or_else(late), six.unwrap_or_else(late)) {
            (Ok((mut v4, ttl)), Ok((v6, other))) => {
                v4.extend(v6);
                Ok((v4, ttl.min(other)))
            }
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(one), Err(other)) => Err(if rank(one) >= rank(other) { one } else { other }),
        }
    }

    /// The name of an address and the seconds for which it holds.
    pub(super) async fn reverse(&self, ip: IpAddr) -> Result<(HostName, u32), ReplyCode> {
        let answer = timeout(self.within, self.v4.reverse_lookup(ip))
            .await
            .map_err(|_| ReplyCode::TtlExpired)?
            .map_err(|error| code(&error))?;
        let name = answer.answers().iter().find_map(|record| match &record.data {
            RData::PTR(name) => Some((HostName::parse(&name.0.to_ascii()).ok()?, record.ttl)),
            _ => None,
        });
        name.ok_or(ReplyCode::HostUnreachable)
    }
}

fn code(error: &NetError) -> ReplyCode {
    match error {
        NetError::Timeout => ReplyCode::TtlExpired,
        NetError::Busy => ReplyCode::GeneralFailure,
        _ => ReplyCode::HostUnreachable,
    }
}

fn build(
    resolver: Resolver,
    strategy: LookupIpStrategy,
    within: Duration,
) -> Result<TokioResolver, NetError> {
    let mut builder = match resolver {
        Resolver::System => TokioResolver::builder_tokio()?,
        Resolver::Server(server) => {
            let connections =
                [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.ip_strategy = strategy;
    // A cache shared by all clients would tell each of them, by its speed, where the others have been.
    options.cache_size = 0;
    options.attempts = 1;
    options.timeout = within * 2 / 5;
    options.use_hosts_file = match resolver {
        Resolver::System => ResolveHosts::Always,
        Resolver::Server(_) => ResolveHosts::Never,
    };
    builder.build()
}

//! Addresses that stand for services of the network, for programs that can connect to addresses alone: RESOLVE of a `.shoal`
//! name gives one, and CONNECT to it reaches the service. Tor does the same for onion services (`AutomapHostsOnResolve`),
//! and programs under torsocks cannot do without.
//!
//! They are of 198.18.0.0/15, which is kept for benchmarks (RFC 2544): no host of the Internet has such an address, exits
//! refuse them, and torsocks, which refuses those of the own machine, lets them pass.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use shoal_topology::directory::address::ServiceAddress;

/// Most services that are remembered. One more, and the one that came first is forgotten.
const MOST: usize = 4_096;
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Addresses after the first, without the last.
const COUNT: u32 = (1 << 17) - 2;

/// What stands for what. It begins anew when the program does.
#[derive(Default)]
pub(super) struct VirtualAddresses {
    /// The one that came first, first.
    services: VecDeque<ServiceAddress>,
    /// How many were forgotten.
    forgotten: u32,
}

impl VirtualAddresses {
    /// True if such an address stands for a service, if for anything.
    pub(super) fn has(ip: Ipv4Addr) -> bool {
        matches!(ip.octets(), [198, 18 | 19, ..])
    }

    /// The address that stands for a service; the same as long as it is remembered.
    pub(super) fn give(&mut self, service: ServiceAddress) -> Ipv4Addr {
        let known = self.services.iter().position(|known| *known == service);
        let index = known.unwrap_or_else(|| {
            if self.services.len() == MOST {
                self.services.pop_front();
                self.forgotten = (self.forgotten + 1) % COUNT;
            }
            self.services.push_back(service);
            self.services.len() - 1
        });
        // Less than `MOST`.
        Ipv4Addr::from(FIRST + (self.forgotten + index as u32) % COUNT)
    }

    /// The service for which an address stands.
    pub(super) fn find(&self, ip: Ipv4Addr) -> Option<ServiceAddress> {
        let number = u32::from(ip).checked_sub(FIRST).filter(|number| *number < COUNT)?;
        let index = (number + COUNT - self.forgotten) % COUNT;
        self.services.get(usize::try_from(index).ok()?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(n: u32) -> ServiceAddress {
        let mut identity = [0; 32];
        identity[..4].copy_from_slice(&n.to_le_bytes());
        ServiceAddress { identity, gateway: [1; 32] }
    }

    #[test]
    fn an_address_stands_for_one_service_until_many_others_came() {
        let mut virtual_addresses = VirtualAddresses::default();
        let first = virtual_addresses.give(service(0));
        assert_eq!(first, Ipv4Addr::new(198, 18, 0, 1));
        assert_eq!(virtual_addresses.give(service(0)), first);
        let mut last = first;
        for n in 1..=MOST as u32 {
            last = virtual_addresses.give(service(n));
            assert!(
                VirtualAddresses::has(last) && virtual_addresses.find(last) == Some(service(n))
            );
        }
        // The first was forgotten, and what it stood for is unknown rather than another.
        assert_eq!(virtual_addresses.find(first), None);
        assert_eq!(virtual_addresses.find(Ipv4Addr::new(198, 18, 0, 2)), Some(service(1)));
        let anew = virtual_addresses.give(service(0));
        assert!(anew != last && virtual_addresses.find(anew) == Some(service(0)));
        assert_eq!(virtual_addresses.services.len(), MOST);
    }

    #[test]
    fn addresses_begin_again_after_the_last() {
        let mut virtual_addresses =
            VirtualAddresses { forgotten: COUNT - 1, ..VirtualAddresses::default() };
        let last = virtual_addresses.give(service(1));
        let again = virtual_addresses.give(service(2));
        assert_eq!((last, again), (Ipv4Addr::new(198, 19, 255, 254), Ipv4Addr::new(198, 18, 0, 1)));
        assert_eq!(virtual_addresses.find(last), Some(service(1)));
        assert_eq!(virtual_addresses.find(again), Some(service(2)));
        for other in [[198, 18, 0, 0], [198, 19, 255, 255], [198, 18, 0, 2]] {
            let other = Ipv4Addr::from(other);
            assert!(VirtualAddresses::has(other) && virtual_addresses.find(other).is_none());
        }
        assert!(!VirtualAddresses::has(Ipv4Addr::new(198, 20, 0, 1)));
    }
}

//! Addresses of services: `<identity>.<gateway>.shoal`, each label the base32 of a 32-byte key.
//!
//! A label is 35 bytes (version, key, two bytes of checksum), which base32 writes as 56 characters without a
//! rest, well below the 63 that a DNS label may have. The checksum is for people who copy by hand; it proves
//! nothing.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;

/// Characters in one label.
pub const LABEL_CHARS: usize = 56;
const VERSION: u8 = 1;
const SUFFIX: &str = "shoal";

/// Where a service is reached: its Ed25519 identity, and the Ed25519 identity of its gateway.
///
/// `Display` writes it in full, in lower case. `Debug` does not: whom someone talks to is no matter for a
/// log. That the bytes are points on the curve is for those to check who use them as keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAddress {
    /// The service's identity key.
    pub identity: [u8; 32],
    /// The identity key of the gateway that holds its inbox.
    pub gateway: [u8; 32],
}

/// Why a text is no service address. The text itself is not repeated, so that an error can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It does not end in `.shoal`.
    #[error("a service address ends in \".shoal\"")]
    NotShoal,
    /// It has another number of labels.
    #[error(
        "a service address is <identity>.<gateway>.shoal; this one has {found} labels before \".shoal\", not 2"
    )]
    Labels {
        /// How many there are.
        found: usize,
    },
    /// A label is too short or too long.
    #[error(
        "the {part} in the address has {found} characters, not {LABEL_CHARS}: something is missing or too much"
    )]
    Length {
        /// The label of the address that is wrong.
        part: Part,
        /// Its length, in bytes of UTF-8.
        found: usize,
    },
    /// A label has a character that base32 does not use.
    #[error("character {position} of the {part} in the address is none of a-z and 2-7")]
    Character {
        /// The label of the address that is wrong.
        part: Part,
        /// Its position, counted from 1.
        position: usize,
    },
    /// The checksum does not fit.
    #[error("the {part} in the address is mistyped: its checksum does not fit")]
    Mistyped {
        /// The label of the address that is wrong.
        part: Part,
    },
    /// A version that this program does not know.
    #[error(
        "the {part} in the address has version {found}; this program knows version {VERSION} only"
    )]
    Version {
        /// The label of the address that is wrong.
        part: Part,
        /// The version it has.
        found: u8,
    },
}

/// A label of an address, in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first label.
    Identity,
    /// The second label.
    Gateway,
}

/// True if a host name belongs to the overlay, well-formed or not. Such a name must never be asked of a
/// resolver.
pub fn is_shoal_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(SUFFIX))
}

impl FromStr for ServiceAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let labels = text.strip_suffix(SUFFIX).ok_or(AddressError::NotShoal)?;
        let labels = match labels.strip_suffix('.') {
            Some(labels) => labels,
            // `shoal` alone is in our domain, and `notshoal` is not.
            None if labels.is_empty() => return Err(AddressError::Labels { found: 0 }),
            None => return Err(AddressError::NotShoal),
        };
        match labels.split('.').collect::<Vec<_>>().as_slice() {
            [identity, gateway] => Ok(Self {
                identity: parse_label(Part::Identity, identity)?,
                gateway: parse_label(Part::Gateway, gateway)?,
            }),
            others => Err(AddressError::Labels { found: others.len() }),
        }
    }
}

impl fmt::Display for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{SUFFIX}", label(&self.identity), label(&self.gateway))
    }
}

impl fmt::Debug for ServiceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAddress(..)")
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Gateway => "gateway",
        })
    }
}

fn label(key: &[u8; 32]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&checksum(&bytes));
    BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

fn parse_label(part: Part, text: &str) -> Result<[u8; 32], AddressError> {
    if text.len() != LABEL_CHARS {
        return Err(AddressError::Length { part, found: text.len() });
    }
    let bytes = BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .map_err(|e| AddressError::Character { part, position: e.position + 1 })?;
    let Some((signed, sum)) = bytes.split_last_chunk::<2>() else {
        return Err(AddressError::Mistyped { part });
    };
    // The checksum covers the version and comes first: a slip in the first characters is a slip, not the
    // future.
    if checksum(signed) != *sum {
        return Err(AddressError::Mistyped { part });
    }
    match signed.split_first() {
        Some((&VERSION, key)) => key.try_into().map_err(|_| AddressError::Mistyped { part }),
        Some((&found, _)) => Err(AddressError::Version { part, found }),
        None => Err(AddressError::Mistyped { part }),
    }
}

/// Of the version and the key. A later version keeps this rule, so that a mistyped one is still told as such.
fn checksum(version_and_key: &[u8]) -> [u8; 2] {
    let [a, b, ..] = blake3::derive_key("shoal 2026 .shoal address checksum", version_and_key);
    [a, b]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> ServiceAddress {
        ServiceAddress { identity: [7; 32], gateway: std::array::from_fn(|i| i as u8) }
    }

    #[test]
    fn an_address_has_two_labels_that_dns_can_carry() {
        let text = example().to_string();
        let labels: Vec<&str> = text.split('.').collect();
        assert_eq!(labels.iter().map(|l| l.len()).collect::<Vec<_>>(), [56, 56, 5]);
        assert!(
            text.chars().all(|c| c == '.' || c.is_ascii_lowercase() || ('2'..='7').contains(&c))
        );
    }

    #[test]
    fn the_text_of_an_address_never_changes() {
        // Addresses are printed and passed on: a change of the rule would break every one of them.
        let text = ServiceAddress { identity: [0; 32], gateway: [255; 32] }.to_string();
        assert_eq!(text, FIXED);
    }

    const FIXED: &str = "aeaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaawci.\
        ah777777777777777777777777777777777777777777777777777oyo.shoal";

    #[test]
    fn any_single_mistyped_character_is_noticed() {
        let address = example();
        let text = address.to_string();
        let alphabet = "abcdefghijklmnopqrstuvwxyz234567";
        for (i, old) in text.char_indices().filter(|(i, c)| *c != '.' && *i < 113) {
            for new in alphabet.chars().filter(|c| *c != old) {
                let mut wrong = text.clone();
                wrong.replace_range(i..i + 1, new.encode_utf8(&mut [0; 4]));
                let part = if i < 56 { Part::Identity } else { Part::Gateway };
                assert_eq!(wrong.parse::<ServiceAddress>(), Err(AddressError::Mistyped { part }));
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = example().to_string();
        let error = |t: &str| t.parse::<ServiceAddress>().unwrap_err();
        assert_eq!(error("example.com"), AddressError::NotShoal);
        assert_eq!(error("notshoal"), AddressError::NotShoal);
        assert_eq!(error(".shoal"), AddressError::Labels { found: 1 });
        assert_eq!(error("shoal"), AddressError::Labels { found: 0 });
        assert_eq!(error(&format!("www.{text}")), AddressError::Labels { found: 3 });
        assert_eq!(error(&text[1..]), AddressError::Length { part: Part::Identity, found: 55 });
        assert_eq!(
            error(&text.replacen(&text[..1], "1", 1)),
            AddressError::Character { part: Part::Identity, position: 1 }
        );
        let mut bytes = vec![2];
        bytes.extend_from_slice(&[7; 32]);
        bytes.extend_from_slice(&checksum(&bytes));
        let newer = BASE32_NOPAD.encode(&bytes) + &text[56..];
        assert_eq!(error(&newer), AddressError::Version { part: Part::Identity, found: 2 });
    }

    #[test]
    fn every_name_under_shoal_is_one_of_ours() {
        for ours in ["shoal", "x.shoal", "a.b.c.SHOAL", "x.Shoal.", &example().to_string()] {
            assert!(is_shoal_host(ours), "{ours}");
        }
        for other in ["", ".", "example.com", "notshoal", "shoal.example.com"] {
            assert!(!is_shoal_host(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn addresses_survive_text_in_any_case(identity: [u8; 32], gateway: [u8; 32], upper: u128) {
            let address = ServiceAddress { identity, gateway };
            let text: String = address.to_string().char_indices()
                .map(|(i, c)| if upper >> (i % 128) & 1 == 1 { c.to_ascii_uppercase() } else { c })
                .collect();
            prop_assert!(text.parse() == Ok(address));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,150}", tail in "(\\.shoal)?") {
            let _ = (text.clone() + &tail).parse::<ServiceAddress>();
            is_shoal_host(&text);
        }
    }
}

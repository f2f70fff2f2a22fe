//! Patterns of links, as scenario files name them.

use crate::trace::{Link, Party};

/// A pattern of parties: a kind and, unless it is any, a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pattern {
    Person(Option<u32>),
    Service(Option<u32>),
    Node(Option<u32>),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let (kind, number) = text.trim().split_once(' ')?;
        let number = match number.trim() {
            "*" => None,
            number => Some(number.parse().ok()?),
        };
        match kind {
            "person" => Some(Self::Person(number)),
            "service" => Some(Self::Service(number)),
            "node" => Some(Self::Node(number)),
            _ => None,
        }
    }

    fn fits(self, party: Party) -> bool {
        let same = |wanted: Option<u32>, number: u32| wanted.is_none_or(|n| n == number);
        match (self, party) {
            (Self::Person(wanted), Party::Person(number))
            | (Self::Service(wanted), Party::Service(number))
            | (Self::Node(wanted), Party::Node(number)) => same(wanted, number),
            _ => false,
        }
    }
}

/// A pattern of links, as scenario files have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    from: Pattern,
    to: Pattern,
}

impl Ends {
    /// Of "person 3 > node *".
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('>').and_then(|(from, to)| {
            Some(Self { from: Pattern::parse(from)?, to: Pattern::parse(to)? })
        });
        parsed.ok_or_else(|| {
            format!(
                "\"{text}\" must be like \"person 3 > node *\": person, node or service, and a number or *"
            )
        })
    }

    pub(super) fn fits(&self, link: &Link) -> bool {
        self.from.fits(link.from) && self.to.fits(link.to)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_links() {
        let ends = Ends::parse("person 3 > node *").unwrap();
        let link = |person, node| Link { from: Party::Person(person), to: Party::Node(node) };
        assert!(ends.fits(&link(3, 0)) && ends.fits(&link(3, 9)) && !ends.fits(&link(2, 0)));
        let back = Link { from: Party::Node(1), to: Party::Person(3) };
        assert!(!ends.fits(&back) && Ends::parse("node * > person 3").unwrap().fits(&back));
        for wrong in ["", "person 3", "person > node 1", "person x > node 1", "mix 1 > node 1"] {
            assert!(Ends::parse(wrong).is_err(), "{wrong}");
        }
    }
}

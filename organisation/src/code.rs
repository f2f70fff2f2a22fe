//! The code of an invitation: twenty characters that people read to each other.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use rand::Rng;
use shoal_topology::{Identity, SecretIdentity};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that are drawn: 88 bits.
const SECRET: usize = 11;
/// Characters, without hyphens: 100 bits, of which twelve catch mistakes.
const CHARS: usize = 20;
/// Characters of a group.
const GROUP: usize = 5;

/// Why a text is no code. The text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Too short or too long.
    #[error("a code has 20 letters and digits, and this has {0}: something is missing or too much")]
    Length(usize),
    /// A character that no code has.
    #[error("character {0} is none that a code has: letters, and the digits 2 to 7")]
    Character(usize),
    /// It does not fit its last characters.
    #[error("the code is mistyped: compare it letter by letter")]
    Mistyped,
}

/// The code of an invitation. Whoever has it can ask to be let in, once. It has no `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Code([u8; SECRET]);

impl Code {
    /// A new one.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let mut secret = [0; SECRET];
        rng.fill_bytes(&mut secret);
        Self(secret)
    }

    /// The key that follows from it: what is signed with it comes from somebody who has the code. Its public half says
    /// nothing of the code to whoever tries fewer than 2^88.
    pub(crate) fn secret(&self) -> SecretIdentity {
        let mut seed = blake3::derive_key("shoal 2026 key of an invitation", &self.0);
        let secret = SecretIdentity::from_bytes(&seed);
        seed.zeroize();
        secret
    }

    /// The public half of its key, by which the organisation knows the invitation.
    pub fn public(&self) -> Identity {
        self.secret().identity()
    }

    /// Twelve bits that follow from the others.
    fn checksum(&self) -> u16 {
        let hash = blake3::derive_key("shoal 2026 checksum of an invitation", &self.0);
        let [first, second, ..] = hash;
        u16::from_be_bytes([first, second]) >> 4
    }
}

/// Four groups of five capital letters and digits.
impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 88 bits, 12 of the checksum, and four zeros that make up 13 bytes.
        let mut bytes = [0; SECRET + 2];
        for (to, from) in
            bytes.iter_mut().zip(self.0.iter().copied().chain((self.checksum() << 4).to_be_bytes()))
        {
            *to = from;
        }
        let mut text = BASE32_NOPAD.encode(&bytes);
        text.truncate(CHARS);
        bytes.zeroize();
        for (at, part) in text.as_bytes().chunks(GROUP).enumerate() {
            let hyphen = if at == 0 { "" } else { "-" };
            write!(f, "{hyphen}{}", str::from_utf8(part).unwrap_or_default())?;
        }
        text.zeroize();
        Ok(())
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let mut letters = String::with_capacity(CHARS + 1);
        for (at, c) in text.trim().chars().enumerate() {
            let c = match c.to_ascii_uppercase() {
                '-' | ' ' => continue,
                // What hands and eyes take for each other.
                '0' => 'O',
                '1' => 'I',
                '8' => 'B',
                c if c.is_ascii_uppercase() || ('2'..='7').contains(&c) => c,
                _ => return Err(CodeError::Character(at + 1)),
            };
            letters.push(c);
        }
        if letters.len() != CHARS {
            return Err(CodeError::Length(letters.len()));
        }
        letters.push('A');
        let mut bytes = BASE32_NOPAD.decode(letters.as_bytes()).map_err(|_| CodeError::Mistyped)?;
        letters.zeroize();
        let code = bytes.first_chunk().map(|secret| Self(*secret)).ok_or(CodeError::Mistyped)?;
        let checksum = (code.checksum() << 4).to_be_bytes();
        let fits = bytes.get(SECRET..) == Some(&checksum);
        bytes.zeroize();
        if fits { Ok(code) } else { Err(CodeError::Mistyped) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_topology::Seed;

    #[test]
    fn a_code_reads_back_however_it_is_written_and_a_mistake_is_seen() {
        let mut rng = Seed::from_u64(7).stream("codes");
        for _ in 0..200 {
            let code = Code::draw(&mut rng);
            let text = code.to_string();
            assert_eq!(text.len(), 23);
            for written in
                [text.clone(), text.to_lowercase(), text.replace('-', " "), text.replace('-', "")]
            {
                assert!(written.parse::<Code>() == Ok(code.clone()), "{written}");
            }
        }
        let text = Code::draw(&mut rng).to_string();
        let mut seen = 0;
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            for letter in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" {
                let mut wrong = text.clone().into_bytes();
                wrong[at] = *letter;
                let wrong = String::from_utf8(wrong).unwrap();
                if wrong != text && wrong.parse::<Code>().is_err() {
                    seen += 1;
                }
            }
        }
        assert!(seen >= 20 * 31 - 2, "{seen} of {} mistakes were seen", 20 * 31);
        assert!(matches!("ABCDE".parse::<Code>(), Err(CodeError::Length(5))));
        assert!(matches!("ABCDE-É".parse::<Code>(), Err(CodeError::Character(7))));
    }
}

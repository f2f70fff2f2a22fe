//! The code that opens a page once, and the tokens of pages that are open. Both are 256 bits from the system. What is kept of them
//! are hashes, which `blake3` compares in constant time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blake3::Hash;
use data_encoding::BASE64URL_NOPAD;
use shoal_host::secret;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// Tokens at a time; one more takes the place of the oldest.
const TOKENS: usize = 8;

/// What a page may show to get in. It lives as long as the daemon.
#[derive(Default)]
pub(super) struct Tokens(Mutex<IssuedTokens>);

#[derive(Default)]
struct IssuedTokens {
    /// The code that was drawn last, until it is used, and when it ends.
    code: Option<(Hash, Instant)>,
    tokens: VecDeque<Hash>,
}

/// A fresh secret as text.
fn fresh() -> Result<Zeroizing<String>, String> {
    let secret = secret::fresh().map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(BASE64URL_NOPAD.encode(&*secret)))
}

impl Tokens {
    fn kept(&self) -> MutexGuard<'_, IssuedTokens> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws a code that is good until `ends` and takes the place of the one before, if `hands_over` succeeds with it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn draw<T>(
        &self,
        ends: Instant,
        hands_over: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut kept = self.kept();
        let code = fresh()?;
        let handed = hands_over(&code)?;
        kept.code = Some((blake3::hash(code.as_bytes()), ends));
        Ok(handed)
    }

    /// A token for the code, which is worth nothing from then on. None for what is no code, or one no longer.
    pub(super) fn exchange(&self, code: &str, now: Instant) -> Option<Zeroizing<String>> {
        let mut kept = self.kept();
        let (hash, ends) = kept.code?;
        if hash != blake3::hash(code.as_bytes()) || now >= ends {
            return None;
        }
        kept.code = None;
        let token = fresh().ok()?;
        if kept.tokens.len() >= TOKENS {
            kept.tokens.pop_front();
        }
        kept.tokens.push_back(blake3::hash(token.as_bytes()));
        Some(token)
    }

    /// True if this is a token.
    pub(super) fn knows(&self, token: &str) -> bool {
        let hash = blake3::hash(token.as_bytes());
        // All are looked at, whichever it is.
        self.kept().tokens.iter().fold(false, |known, token| known | (*token == hash))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn code(tokens: &Tokens, ends: Instant) -> String {
        tokens.draw(ends, |code| Ok(code.to_owned())).unwrap()
    }

    #[test]
    fn a_code_gives_one_token_once_and_within_its_time() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let ends = now + Duration::from_secs(60);
        let first = code(&tokens, ends);
        assert_eq!(first.len(), 43, "256 bits");
        assert!(tokens.exchange("", now).is_none() && tokens.exchange(&first[1..], now).is_none());
        let token = tokens.exchange(&first, now).unwrap();
        assert!(tokens.exchange(&first, now).is_none(), "used twice");
        assert!(tokens.knows(&token) && !tokens.knows(&first) && !tokens.knows(""));
        let late = code(&tokens, ends);
        assert!(tokens.exchange(&late, ends).is_none(), "used after its time");
    }

    #[test]
    fn a_newer_code_takes_the_place_of_the_one_before() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let ends = now + Duration::from_secs(60);
        let (first, second) = (code(&tokens, ends), code(&tokens, ends));
        assert_ne!(first, second);
        assert!(tokens.exchange(&first, now).is_none());
        let refused = tokens.draw::<()>(ends, |_| Err("no file".into()));
        assert_eq!(refused.unwrap_err(), "no file");
        assert!(tokens.exchange(&second, now).is_some(), "what was not handed over replaced it");
    }

    #[test]
    fn the_oldest_token_makes_room() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let ends = now + Duration::from_secs(60);
        let given: Vec<_> =
            (0..=TOKENS).map(|_| tokens.exchange(&code(&tokens, ends), now).unwrap()).collect();
        let known: Vec<bool> = given.iter().map(|token| tokens.knows(token)).collect();
        assert_eq!(known.iter().filter(|known| **known).count(), TOKENS);
        assert!(!known[0]);
    }
}

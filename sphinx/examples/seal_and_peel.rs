//! A message over three hops, and a reply that finds its way back without an address.

#![allow(clippy::print_stdout)] // An example shows what it does.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng as _;
use shoal_sphinx::{Codec as _, Error, Hop, Packet, Payload, Peeled, SecretKey, Sphinx};

fn main() -> Result<(), Error> {
    // Of a program: the system's generator.
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let codec = Sphinx::SCALAR;
    let secrets: Vec<SecretKey> = (0..3).map(|_| SecretKey::generate(&mut rng)).collect();
    let hop = |(secret, n): (&SecretKey, u8)| Hop {
        address: [n; 32],
        key: secret.public(),
        delay: Duration::from_millis(20),
    };
    let path: Vec<Hop> = secrets.iter().zip(1..).map(hop).collect();

    let packet = codec.seal(&mut rng, &path, [0; 16], b"a question")?;
    let payload = travel(&codec, packet, &secrets)?;
    println!("the last hop reads {:?}", String::from_utf8_lossy(payload.message()?));

    // Whoever gets the SURB can answer once, and learns nothing of the path but its first hop.
    let (surb, keys) = codec.surb(&mut rng, &path, [7; 16])?;
    let (reply, first) = codec.reply(surb, b"an answer")?;
    println!("the reply goes to the hop {} first", first[0]);
    let payload = travel(&codec, reply, &secrets)?;
    println!("its maker reads {:?}", String::from_utf8_lossy(&codec.unseal(&keys, payload)?));
    Ok(())
}

/// What each hop does: it opens the packet, looks whether it has seen the tag (left out here), and peels a layer.
fn travel(codec: &Sphinx, packet: Packet, secrets: &[SecretKey]) -> Result<Payload, Error> {
    let mut packet = packet;
    for secret in secrets {
        match codec.peel(codec.open(secret, packet)?)? {
            Peeled::Forward { next, delay, packet: after } => {
                println!("after {delay:?} on to the hop {}", next[0]);
                packet = after;
            }
            Peeled::Final { payload, .. } => return Ok(payload),
        }
    }
    Err(Error::Path)
}

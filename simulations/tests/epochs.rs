//! Epochs that follow each other where everything runs that is deployed: four authorities, mixes and gateways with a key
//! for every epoch, an exit and its users. Epochs of ten seconds, in virtual time.

#[path = "world/rotating.rs"]
mod rotating;
#[path = "world/mod.rs"]
mod world;

use std::sync::Arc;
use std::time::Duration;

use rotating::{EPOCH_MS, JOINED_MS, Rotating, parameters};
use shoal_sphinx::{Codec, Sphinx, StandIn};
use world::User;

const NODES: [&str; 8] =
    ["mix-1", "mix-2", "mix-3", "mix-4", "mix-5", "mix-6", "gateway-1", "gateway-2"];
const ASKS: User = User::Asks { every: Duration::from_secs(3), question: 2_000, answer: 8_000 };

#[test]
fn twelve_epochs_pass() {
    let codec = Arc::new(Sphinx::SCALAR) as Arc<dyn Codec>;
    let _ = (Arc::new(StandIn), JOINED_MS);
    let began = std::time::Instant::now();
    let mut world = Rotating::new(1, codec, &NODES, &[ASKS, User::Idle], parameters());
    world.run(14 * EPOCH_MS);
    println!("{:?}", began.elapsed());
    let person = &world.world.people[0];
    println!("{:?} {} {} {}", person.waits, person.failed, person.ended, person.left);
    println!("{:?} {:?}", world.dropped(), world.world.links);
    println!("{:?}", world.seats[0].events);
    println!("{:#?}", world.sizes);
    world.check_documents(&[0, 1, 2, 3], 1..14);
}

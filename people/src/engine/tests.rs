mod attacks;
mod changes;
mod conversations;
mod world;

mod attacks;
mod conversations;
mod world;

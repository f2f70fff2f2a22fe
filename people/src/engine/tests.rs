mod attacks;
mod changes;
mod conversations;
mod groups;
mod world;

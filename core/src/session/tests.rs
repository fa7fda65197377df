//! The session machine against decoders that are a pure function of what they are fed, with faults in between.

mod attach;
mod faults;
mod standby;
mod table;
mod world;

//! The session machine against a decoder that is a pure function of what it is fed, with faults in between.

mod faults;
mod table;
mod world;

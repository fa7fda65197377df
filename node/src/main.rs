//! The program `starling`.

fn main() {}

//! Exports the program's own symbols, so that libraries which look `getrandom` up at run time find the simulation's.

fn main() {
    println!("cargo:rustc-link-arg-bins=-rdynamic");
    println!("cargo:rerun-if-changed=build.rs");
}

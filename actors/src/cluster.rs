//! A node's shells put together: who is where, how they are asked, what is told of the node, and what follows when somebody
//! is gone.
//!
//! Owns: the reading of the cluster's view for whoever needs a peer, and the ways that membership, the control plane and the
//! data plane tell each other of peers. Must never: decide who gets which session, or own a socket.

mod copies;
mod directory;
mod load;
mod planes;
mod reservations;

pub use self::copies::ClusterCopies;
pub use self::directory::Directory;
pub use self::load::{Facts, load_report};
pub use self::planes::{drop_gone, follow_members, peers_over};
pub use self::reservations::ControlReservations;

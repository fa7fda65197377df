//! Native messages.

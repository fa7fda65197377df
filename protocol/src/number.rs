//! Whole numbers in other dialects' texts.
//!
//! Owns: the check of a range and its error. Must never: know what is counted.

use std::fmt::Display;
use std::str::FromStr;

use crate::native::ErrorBody;

/// A field's number, if it lies within its range.
pub(crate) fn whole<N: Copy + PartialOrd + FromStr + Display>(
    field: &str,
    value: &str,
    least: N,
    most: N,
) -> Result<N, ErrorBody> {
    let number = value.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        ErrorBody::field(field, format!("{value:?}"), format!("a whole number from {least} to {most}"))
    })
}

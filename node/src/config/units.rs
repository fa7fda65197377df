//! Values with their unit: `"60s"`, `"4MiB"`, `"127.0.0.1:8080"`. A bare number is refused, since nobody can tell what it
//! counts.

/// Durations such as `"250ms"`, `"60s"` or `"1h 30m"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Sizes such as `"4MiB"` or `"512kB"`.
pub(super) mod bytes {
    use bytesize::ByteSize;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        // Exact, so that what `check-config` prints can be read back.
        for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if *value >= unit && value.is_multiple_of(unit) {
                return serializer.collect_str(&format_args!("{}{name}", value / unit));
            }
        }
        serializer.collect_str(&format_args!("{value}B"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(D::Error::custom("a size needs a unit"));
        }
        text.parse::<ByteSize>().map(|size| size.as_u64()).map_err(D::Error::custom)
    }
}

/// An address and a port, or `"off"`.
pub(super) mod address {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str("off"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "off" => Ok(None),
            address => address.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// An address and a port, or `""` for none.
pub(super) mod optional_address {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" => Ok(None),
            address => address.parse().map(Some).map_err(D::Error::custom),
        }
    }
}

/// A list of words; on the command line and in the environment also one text with commas.
pub(super) mod list {
    use serde::de::value::StrDeserializer;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        List(Vec<String>),
    }

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
    where
        T: for<'word> Deserialize<'word>,
        D: Deserializer<'de>,
    {
        let words: Vec<String> = match Written::deserialize(deserializer)? {
            Written::Text(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
            Written::List(words) => words,
        };
        let words = words.iter().filter(|word| !word.is_empty());
        words.map(|word| T::deserialize(StrDeserializer::new(word))).collect()
    }
}

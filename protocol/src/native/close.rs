//! How a connection ends: one table for every transport, as `docs/protocol.md` prints it.

use super::ErrorCode;

/// Why a server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Close {
    /// Everything was said.
    Done,
    /// After an error, of which the client was told in a message if it could be.
    Error(ErrorCode),
    /// A message was over [`MAX_CLIENT_MESSAGE_BYTES`](crate::limits::MAX_CLIENT_MESSAGE_BYTES).
    TooLong,
    /// A text message was not UTF-8. Only WebSocket has these.
    NotText,
    /// The bytes are none of the transport's messages.
    Framing,
}

/// Every way, for tables.
pub const CLOSES: [Close; 19] = [
    Close::Done,
    Close::Error(ErrorCode::BadRequest),
    Close::Error(ErrorCode::UnknownModel),
    Close::Error(ErrorCode::Busy),
    Close::Error(ErrorCode::UnknownSession),
    Close::Error(ErrorCode::BadToken),
    Close::Error(ErrorCode::Superseded),
    Close::Error(ErrorCode::Gap),
    Close::Error(ErrorCode::SlowReader),
    Close::Error(ErrorCode::IdleTimeout),
    Close::Error(ErrorCode::ShuttingDown),
    Close::Error(ErrorCode::Internal),
    Close::Error(ErrorCode::Unauthorized),
    Close::Error(ErrorCode::Forbidden),
    Close::Error(ErrorCode::OverQuota),
    Close::Error(ErrorCode::SessionTooLong),
    Close::TooLong,
    Close::NotText,
    Close::Framing,
];

impl Close {
    /// The code of a WebSocket's close frame (RFC 6455, 7.4.1, and IANA's registry).
    #[must_use]
    pub const fn websocket(self) -> u16 {
        match self {
            Self::Done => 1000,
            Self::Framing => 1002,
            Self::NotText => 1007,
            Self::TooLong => 1009,
            Self::Error(ErrorCode::Internal) => 1011,
            Self::Error(ErrorCode::ShuttingDown) => 1012,
            Self::Error(ErrorCode::Busy | ErrorCode::OverQuota) => 1013,
            Self::Error(_) => 1008,
        }
    }

    /// The application's error code of a QUIC stream or connection. They are never given another meaning.
    #[must_use]
    pub const fn stream(self) -> u32 {
        match self {
            Self::Done => 0x00,
            Self::Error(ErrorCode::BadMessage | ErrorCode::BadRequest) => 0x01,
            Self::Error(ErrorCode::UnknownModel) => 0x02,
            Self::Error(ErrorCode::Busy) => 0x03,
            Self::Error(ErrorCode::UnknownSession) => 0x04,
            Self::Error(ErrorCode::BadToken) => 0x05,
            Self::Error(ErrorCode::Superseded) => 0x06,
            Self::Error(ErrorCode::Gap) => 0x07,
            Self::Error(ErrorCode::SlowReader) => 0x08,
            Self::Error(ErrorCode::IdleTimeout) => 0x09,
            Self::Error(ErrorCode::ShuttingDown) => 0x0a,
            Self::Error(ErrorCode::Internal) => 0x0b,
            Self::Error(ErrorCode::Unauthorized) => 0x0c,
            Self::Error(ErrorCode::Forbidden) => 0x0d,
            Self::Error(ErrorCode::OverQuota) => 0x0e,
            Self::Error(ErrorCode::SessionTooLong) => 0x0f,
            Self::TooLong => 0x10,
            Self::Framing | Self::NotText => 0x11,
        }
    }

    /// In a word or two, for whoever looks at packets.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Done => "",
            Self::Error(ErrorCode::ShuttingDown) => "the node is stopping",
            Self::Error(ErrorCode::IdleTimeout) => "nothing came for too long",
            Self::Error(_) => "an error was told",
            Self::TooLong => "a message may have 1 MiB at most",
            Self::NotText => "a text message is not UTF-8",
            Self::Framing => "the bytes are none of this protocol",
        }
    }
}

/// First of the codes of HTTP/3 that stand for a WebTransport application's own (draft-ietf-webtrans-http3, "Resetting Data
/// Streams").
const WEBTRANSPORT_FIRST: u64 = 0x52e4_a40f_a8db;

/// A stream's code as WebTransport has it on the wire: HTTP/3 keeps every 31st number for other things.
#[must_use]
pub const fn webtransport_code(code: u32) -> u64 {
    WEBTRANSPORT_FIRST + code as u64 + code as u64 / 0x1e
}

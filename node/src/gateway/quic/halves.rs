//! A stream's two halves, whichever way it came.

use quinn::{RecvStream, SendStream, VarInt};
use starling_protocol::native::Close;

/// What is written to.
pub(in crate::gateway) enum SendingHalf {
    Quic(SendStream),
    #[cfg(feature = "webtransport")]
    WebTransport(wtransport::SendStream),
}

/// What is read from.
pub(in crate::gateway) enum ReceivingHalf {
    Quic(RecvStream),
    #[cfg(feature = "webtransport")]
    WebTransport(wtransport::RecvStream),
}

impl SendingHalf {
    pub(in crate::gateway) fn quic(&mut self) -> &mut SendStream {
        match self {
            Self::Quic(stream) => stream,
            #[cfg(feature = "webtransport")]
            Self::WebTransport(stream) => stream.quic_stream_mut(),
        }
    }

    /// Nothing more is written. What was written arrives all the same.
    pub(in crate::gateway) fn finish(&mut self) {
        // One that is closed already needs no closing.
        let _ = self.quic().finish();
    }

    /// Nothing more is written, and what has not arrived need not.
    pub(in crate::gateway) fn reset(&mut self, why: Close) {
        let code = match self {
            Self::Quic(_) => VarInt::from_u32(why.stream()),
            #[cfg(feature = "webtransport")]
            Self::WebTransport(_) => within_http3(why),
        };
        let _ = self.quic().reset(code);
    }
}

impl ReceivingHalf {
    /// What the stream came over.
    pub(in crate::gateway) const fn protocol(&self) -> &'static str {
        match self {
            Self::Quic(_) => "quic",
            #[cfg(feature = "webtransport")]
            Self::WebTransport(_) => "webtransport",
        }
    }

    pub(in crate::gateway) fn quic(&mut self) -> &mut RecvStream {
        match self {
            Self::Quic(stream) => stream,
            #[cfg(feature = "webtransport")]
            Self::WebTransport(stream) => stream.quic_stream_mut(),
        }
    }

    /// Nothing more is read; what comes is thrown away.
    pub(in crate::gateway) fn stop(&mut self, why: Close) {
        let code = match self {
            Self::Quic(_) => VarInt::from_u32(why.stream()),
            #[cfg(feature = "webtransport")]
            Self::WebTransport(_) => within_http3(why),
        };
        let _ = self.quic().stop(code);
    }
}

#[cfg(feature = "webtransport")]
fn within_http3(why: Close) -> VarInt {
    let code = starling_protocol::native::webtransport_code(why.stream());
    // All of them lie below 2^47, and a QUIC number has 62 bits.
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}
